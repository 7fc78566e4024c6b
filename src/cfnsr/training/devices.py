"""The devices of a training: mixed precision and processes."""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration

from cfnsr.errors import InputError
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
    return made
