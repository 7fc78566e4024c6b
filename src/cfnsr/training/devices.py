"""The devices of a training: mixed precision and processes."""

import os
from functools import cache

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration

from cfnsr.console import say
from cfnsr.errors import InputError
from cfnsr.models.fast import has_bfloat16
from cfnsr.training.config import Recipe


def accelerator(recipe: Recipe) -> Accelerator:
    """Set up device, mixed precision and processes, as `accelerate launch` or the machine says."""
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS is first used
    torch.use_deterministic_algorithms(recipe.deterministic, warn_only=True)
    made = Accelerator(
        mixed_precision=recipe.precision, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    if recipe.batch_size % made.num_processes:
        raise InputError(
            f"a batch of {recipe.batch_size} clips over {made.num_processes} processes: expected a multiple; "
            "give another --batch-size"
        )
    if recipe.precision == "bf16" and made.device.type == "cpu" and not has_bfloat16():
        _say_emulated()
    return made


@cache
def _say_emulated() -> None:
    """Warn once, and not with every model of a grid."""
    say("--precision bf16: this CPU emulates bfloat16, so a step takes minutes; leave it out, or take a GPU")
