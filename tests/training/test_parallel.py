"""Several folds at a time: the same runs as one after the other, and an end when one fails."""

from pathlib import Path

import pytest
from accelerate import Accelerator

from cfnsr.errors import InputError
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.job import Job
from cfnsr.training.loop import Step
from cfnsr.training.parallel import crossval_in_processes
from cfnsr.training.prepared import PreparedCorpus

RECIPE = find_recipe("small").changed(epochs=1, batch_size=8)


@pytest.mark.long
def test_two_processes_train_what_one_trains(pictures: PreparedCorpus, tmp_path: Path) -> None:
    jobs = plan(["cfn_sr"], pictures, protocol="nested", recipe=RECIPE, folds=[1, 2])
    seen: dict[Job, Step] = {}
    store, progress = pictures.store, lambda job, step: seen.update({job: step})
    folders = crossval_in_processes(jobs, store, tmp_path / "two", workers=2, progress=progress)
    crossval(jobs, pictures, tmp_path / "one", accelerator=Accelerator())
    assert folders == [job.folder(tmp_path / "two") for job in jobs]
    assert {job: step.epoch for job, step in seen.items()} == dict.fromkeys(jobs, 1)
    for job in jobs:
        for file in ("model.safetensors", "history.jsonl", "predictions.csv", "conditions.csv"):
            one, two = (job.folder(tmp_path / name) / file for name in ("one", "two"))
            assert one.read_bytes() == two.read_bytes(), (job.model, file)


def test_a_process_that_fails_ends_the_others(pictures: PreparedCorpus, tmp_path: Path) -> None:
    jobs = plan(["audio"], pictures, protocol="nested", recipe=RECIPE, folds=[1, 2])
    broken = jobs[1].folder(tmp_path) / "training"
    broken.mkdir(parents=True)
    (broken / "state.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"state\.pt is damaged: delete it"):
        crossval_in_processes(jobs, pictures.store, tmp_path, workers=2, resume=True)
