"""One training over two processes, as `accelerate launch` starts them: that of one, also after a kill."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cfnsr.data.store import Store
from cfnsr.training.run import HISTORY, read_history

pytestmark = pytest.mark.long

Launch = Callable[..., subprocess.CompletedProcess[str]]

NEAR = 1e-4
# The audio row without what each process has of its own, batch statistics and dropped units. Rank 1 may be
# killed, once both have their gradients.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim.optimizer import register_optimizer_step_pre_hook
from cfnsr.data.store import Store
from cfnsr.training import fold
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.devices import accelerator
from cfnsr.training.prepared import PreparedCorpus

store, out, killed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])  # after so many steps

def bare(module):
    for name, part in module.named_children():
        setattr(module, name, nn.Identity() if isinstance(part, (_BatchNorm, _DropoutNd)) else bare(part))
    return module

def initialise(*arguments, inner=fold.initialise):
    model, spec = inner(*arguments)
    return bare(model), spec

def keep(optimizer, *arguments):
    if len(steps) == killed and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    steps.append([each.grad.clone() for group in optimizer.param_groups for each in group["params"]])

steps = []
fold.initialise = initialise
register_optimizer_step_pre_hook(keep)
recipe = find_recipe("small").changed(epochs=3, batch_size=10)  # the last of an epoch is smaller
corpus = PreparedCorpus(Store(store))
jobs = plan(["audio"], corpus, protocol="nested", recipe=recipe, folds=[1])
made = accelerator(recipe)
assert (made.num_processes, made.device.type) == (int(os.environ["WORLD_SIZE"]), "cpu")
crossval(jobs, corpus, out, accelerator=made, resume=out.exists())
if made.is_main_process:
    torch.save(steps, out / "gradients.pt")
"""


@pytest.fixture
def launch(store: Store, tmp_path: Path) -> Launch:
    """Starts the training on so many processes, of which one may die in an epoch."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def started(processes: int, out: Path, killed: int = -1) -> subprocess.CompletedProcess[str]:
        # What `accelerate launch` starts on GPUs; on CPUs it would need MPI.
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        command += [str(processes), str(script), str(store.folder), str(out), str(killed)]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)

    return started


def log_probabilities(folder: Path) -> np.ndarray:
    with next(folder.rglob("predictions.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in ("calm", "happy", "angry")] for row in rows])


def test_two_processes_are_one_with_the_joint_batch_and_survive_a_kill(
    launch: Launch, tmp_path: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    done = launch(1, one)
    assert done.returncode == 0, done.stderr
    gradients = torch.load(one / "gradients.pt", weights_only=True)
    steps = len(gradients) // 3  # an epoch
    assert launch(2, two, killed=2 * steps).returncode != 0
    state = torch.load(next(two.rglob("state.pt")), weights_only=True)
    assert state["state"]["epoch"] == 2
    done = launch(2, two)
    assert done.returncode == 0, done.stderr

    its = torch.load(two / "gradients.pt", weights_only=True)
    assert len(its) == steps > 1  # of the epoch that was cut off alone
    for step, other in zip(gradients[-steps:], its, strict=True):
        torch.testing.assert_close(other, step, atol=NEAR, rtol=NEAR)
    for record, other in zip(*(read_history(next(out.rglob(HISTORY))) for out in (one, two)), strict=True):
        assert other == pytest.approx(record, abs=NEAR)
    np.testing.assert_allclose(log_probabilities(two), log_probabilities(one), atol=NEAR)

    again = tmp_path / "again"  # the same seed, the same weights
    assert launch(2, again).returncode == 0
    weights = [next(out.rglob("model.safetensors")).read_bytes() for out in (two, again)]
    assert weights[0] == weights[1]
