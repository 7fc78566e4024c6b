"""Losses of a training's steps, read without waiting for the device: one that is not finite stops the run."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfnsr.console import say
from cfnsr.data.dataset import Batch, Clips
from cfnsr.errors import InputError, listed
from cfnsr.files import write_json
from cfnsr.training.config import Recipe

BEHIND = 8  # steps on the way from the device at most
EXPLODED = 10.0  # times the loss of a guess
NOT_FINITE = "not_finite.json"


class Progress(NamedTuple):
    """Means over an epoch's clips so far."""

    step: int
    loss: float
    accuracy: float


class Watch:
    """The losses of one epoch's steps.

    On CUDA a step's figures are copied while the next steps are computed, so that nothing waits for them.

    Args:
        folder: of the training, where a batch whose loss is not finite is named.
    """

    def __init__(self, folder: Path, clips: Clips, epoch: int, recipe: Recipe) -> None:
        self.folder, self.clips, self.epoch, self.recipe = folder, clips, epoch, recipe
        self.loss = self.correct = self.counted = 0.0
        self.exploded = False
        self._waiting: deque[tuple[int, Tensor, Int[Tensor, " B"], Any]] = deque()

    def add(self, step: int, figures: Float[Tensor, "3"], places: Int[Tensor, " B"]) -> None:
        """Send a step's summed loss, right answers and clips on their way."""
        event = None
        if figures.is_cuda:
            there = torch.empty(3, pin_memory=True).copy_(figures, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            figures = there
        self._waiting.append((step, figures, places, event))

    def arrived(self, *, last: bool = False) -> Iterator[Progress]:
        """Yield the means after each step whose figures are there; of the last step, after all.

        Raises:
            InputError: a loss is not finite.
        """
        while self._waiting:
            step, figures, places, event = self._waiting[0]
            if event is not None and not event.query():
                if not last and len(self._waiting) <= BEHIND:
                    return
                event.synchronize()
            self._waiting.popleft()
            loss, correct, count = figures.tolist()
            if not math.isfinite(loss):
                when = f"at step {step} of epoch {self.epoch}"
                refuse(self.folder, self.clips, places.tolist(), loss, when, self.recipe)
            if not count:  # of a smaller last batch other processes have all clips
                continue
            self._report(step, loss / count)
            self.loss += loss
            self.correct += correct
            self.counted += count
            yield Progress(step, self.loss / self.counted, self.correct / self.counted)

    def _report(self, step: int, loss: float) -> None:
        guess = math.log(self.clips.classes)
        if loss > EXPLODED * guess and not self.exploded:
            self.exploded = True
            say(
                f"{self.folder}: the loss is {loss:.3g} at step {step} of epoch {self.epoch}, where a guess "
                f"has {guess:.2f}: lower the learning rate, now {self.recipe.learning_rate:g}, if it goes on"
            )


def refuse(
    folder: Path, clips: Clips, places: Sequence[int], loss: float, when: str, recipe: Recipe
) -> NoReturn:
    """Stop a training whose loss is not finite, and write down the clips that it is of."""
    column = next(iter(clips.columns.values()))
    names = [column.headers[place].name for place in places]
    faulty = [name for name, place in zip(names, places, strict=True) if not _is_finite(clips[place])]
    # The loss as text: JSON knows no NaN.
    content = {"when": when, "loss": str(loss), "learning_rate": recipe.learning_rate}
    write_json(folder / NOT_FINITE, {**content, "clips": names, "clips_not_finite": faulty})
    if faulty:
        why = f"not all values of {listed(faulty)} are finite; delete their prepared files and prepare again"
    else:
        why = f"its clips are {listed(names)}; lower the learning rate, now {recipe.learning_rate:g}"
    raise InputError(
        f"{folder}: the loss is {loss} {when}: expected a finite one; {why} ({NOT_FINITE} there names all)"
    )


def _is_finite(clip: Batch) -> bool:
    return bool(clip.video.isfinite().all() and clip.audio.isfinite().all())
