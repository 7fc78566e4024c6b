"""Losses that are not finite, or explode: noticed at their step, and the clips of the batch named."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cfnsr.data.dataset import Clips
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features.base import Look
from cfnsr.training.config import find_recipe
from cfnsr.training.job import Job
from cfnsr.training.loop import EpochOrder, Step, Trainer
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.watch import NOT_FINITE, Watch

RECIPE = replace(find_recipe("small"), epochs=2, batch_size=8, learning_rate=0.01)
TRAIN = list(range(24))
SELECT = list(range(24, 36))


class Scaled(nn.Module):
    """Log-probabilities of a layer, times `factors` step by step; counts the steps."""

    def __init__(self, factors: dict[int, float]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.factors, self.steps = nn.Linear(13, 3), factors, 0

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        log_probabilities: Tensor = self.layer(audio.mean(dim=2) / 8).log_softmax(dim=1)
        if self.training:
            self.steps += 1
            log_probabilities = log_probabilities * self.factors.get(self.steps, 1.0)
        return log_probabilities


Fit = Callable[..., Trainer]


@pytest.fixture
def trainer(job_of: Callable[..., Job], tmp_path: Path) -> Fit:
    def make(corpus: PreparedCorpus, model: nn.Module, steps: list[Step] | None = None) -> Trainer:
        return Trainer(
            model,
            replace(job_of(corpus, "audio", RECIPE), recipe=RECIPE),
            corpus.clips({"audio": "audio"}, Look(8, 64)),
            TRAIN,
            SELECT,
            folder=tmp_path,
            accelerator=Accelerator(),
            progress=lambda step: None if steps is None else steps.append(step),
        )

    return make


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step(
    trainer: Fit, pictures: PreparedCorpus, tmp_path: Path, factor: float
) -> None:
    model, steps = Scaled({5: factor}), []  # type: ignore[var-annotated]
    with pytest.raises(InputError, match=f"the loss is {factor} at step 2 of epoch 2: .* lower the learning"):
        trainer(pictures, model, steps).fit()
    assert model.steps == 5, "no step follows"
    assert len(steps) == 4
    order = EpochOrder(len(TRAIN), 0)
    order.set_epoch(2)
    said = json.loads((tmp_path / NOT_FINITE).read_text())
    assert said["clips"] == [pictures.headers[TRAIN[place]].name for place in list(order)[8:16]]
    assert said["clips_not_finite"] == [] and said["loss"] == str(factor)
    assert said["when"] == "at step 2 of epoch 2"


def test_a_clip_that_is_not_finite_is_named(trainer: Fit, fill: Callable[..., Store], tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    corpus = PreparedCorpus(store)
    for place, when in ((3, r"at step \d of epoch 1"), (30, "in prediction")):
        header = corpus.headers[place]
        whole = store.load(header.name)
        audio = whole["audio"].copy()
        audio[2, 5] = np.nan
        store.write(header, {**whole, "audio": audio})
        said = f"the loss is nan {when}: .* not all values of {header.name} are finite"
        with pytest.raises(InputError, match=said):
            trainer(PreparedCorpus(store), Scaled({})).fit()
        assert json.loads((tmp_path / NOT_FINITE).read_text())["clips_not_finite"] == [header.name]
        store.write(header, whole)
    mended = trainer(PreparedCorpus(store), Scaled({}))
    mended.fit()
    mended.close()
    assert not (tmp_path / NOT_FINITE).exists()


def test_an_exploding_loss_is_reported_once_an_epoch(
    trainer: Fit, pictures: PreparedCorpus, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(pictures, Scaled({2: 50.0, 3: 50.0, 6: 50.0})).fit()
    said = [line for line in capsys.readouterr().err.splitlines() if "the loss is" in line]
    assert ["at step 2 of epoch 1" in said[0], "at step 3 of epoch 2" in said[1], len(said)] == [
        True,
        True,
        2,
    ]
    assert "where a guess has 1.10: lower the learning rate, now 0.01" in said[0]


class Late:
    """A figure on its way from a device: there after some questions, or when it is waited for."""

    def __init__(self, questions: int) -> None:
        self.questions, self.waited = questions, False

    def query(self) -> bool:
        self.questions -= 1
        return self.questions < 0

    def synchronize(self) -> None:
        self.waited = True


def test_figures_that_come_late_are_not_waited_for(pictures: PreparedCorpus, tmp_path: Path) -> None:
    clips: Clips = pictures.clips({"audio": "audio"}, Look(8, 64))
    watch, late = Watch(tmp_path, clips, 1, RECIPE), [Late(2), Late(0), Late(9)]
    for step, event in enumerate(late, start=1):
        watch._waiting.append((step, torch.tensor([2.0 * step, 1.0, 2.0]), torch.tensor([0, 1]), event))
    assert [*watch.arrived()] == [] and [*watch.arrived()] == []
    assert [tuple(each) for each in watch.arrived()] == [(1, 1.0, 0.5), (2, 1.5, 0.5)]
    assert not any(event.waited for event in late)
    assert [each.step for each in watch.arrived(last=True)] == [3] and late[2].waited
