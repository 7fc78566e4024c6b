"""How a model is trained: the presets and what may be changed in them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cfnsr.errors import InputError

WARM_UP = 0.2  # of the steps, in which the learning rate rises
COLD_START = 0.04  # of it, where it begins


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: where it lies, and the SHA-256 by which a run knows it wherever it lies."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """The settings of a training.

    Args:
        preset: name of the preset these settings come from.
        frames: pictures a clip, evenly spaced among the prepared ones.
        size: side of a picture in pixels.
        width: scale of the large encoders' channels.
        epochs: passes over the training clips.
        fused_epochs: the same, of a model that starts from trained encoders.
        batch_size: clips a step, over all processes.
        learning_rate: of Adam.
        precision: "no" for float32, "bf16" for bfloat16 mixed precision.
        pretrain: start a two-stream model from encoders trained alone on the fold's training actors.
        modality_dropout: probability that a training clip of a two-stream model loses its pictures or its
            sound in an epoch, so that the model learns to do without.
        openface_steps: steps in time of an OpenFace track; 1 is its mean.
        speech_steps: steps in time of a speech encoder's states.
        schedule: "constant" learning rate, or "one_cycle": up in the first fifth, then down to nothing
            (Smith and Topin 2019).
        weight_decay: decoupled from the gradient, as in AdamW (Loshchilov and Hutter 2019).
        label_smoothing: share of a label that is dealt to all classes (Szegedy et al. 2016).
        class_balance: weigh clips by the rarity of their class among those that train.
        mixup: alpha of the Beta distribution by which clips are mixed (Zhang et al. 2018); 0 for none.
        refit: once the inner validation actors have chosen the epoch, train anew on them too, for as many
            epochs and with nothing else changed. Needs a protocol with inner validation actors.
        frozen_encoders: a model that starts from trained encoders leaves them as they are: they know the
            training clips by heart, so what they still learnt from those would be to trust themselves.
        fused_learning_rate: of what else such a model takes over, its classifiers; None for the same as of
            what is new in it.
        calibrated_start: such a model takes over classifiers that are divided by the temperatures that the
            inner validation actors gave them, so that each modality counts as much as it knows.
        openface_epochs: of a model that sees OpenFace tracks alone, whose few weights need more of them; None
            for the same.
        clip_gradient: norm to which a longer gradient is cut.
        video_weights: what a 3D ResNeXt that starts from nothing begins with; None for random weights.
        keep: the "best" epoch by the selecting clips, or the "last", where the schedule comes to rest.
    """

    preset: str
    frames: int
    size: int
    width: float
    epochs: int
    fused_epochs: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    precision: str = "no"
    pretrain: bool = True
    modality_dropout: float = 0.0
    openface_steps: int = 16
    speech_steps: int = 24
    schedule: str = "constant"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    class_balance: bool = False
    mixup: float = 0.0
    refit: bool = False
    frozen_encoders: bool = False
    fused_learning_rate: float | None = None
    calibrated_start: bool = False
    openface_epochs: int | None = None
    clip_gradient: float | None = None
    keep: str = "best"
    video_weights: WeightsFile | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("frames", 8, 64),
            ("size", 64, 288),
            ("epochs", 1, 10_000),
            ("fused_epochs", 1, 10_000),
            ("modality_dropout", 0, 0.9),
            ("openface_steps", 1, 1000),
            ("speech_steps", 1, 1000),
            ("weight_decay", 0, 10),
            ("label_smoothing", 0, 0.9),
            ("mixup", 0, 10),
            ("batch_size", 2, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}: expected {low} to {high}")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning rate is {self.learning_rate}: expected a value between 0 and 1")
        if self.fused_learning_rate is not None and not 0 < self.fused_learning_rate < 1:
            raise InputError(
                f"fused learning rate is {self.fused_learning_rate}: expected a value between 0 and 1"
            )
        if self.schedule not in ("constant", "one_cycle"):
            raise InputError(f"schedule is {self.schedule!r}: expected constant or one_cycle")
        if self.keep not in ("best", "last"):
            raise InputError(f"keep is {self.keep!r}: expected best or last")
        if self.precision not in ("no", "bf16"):
            raise InputError(f"precision is {self.precision!r}: expected no or bf16")

    @property
    def plain_loss(self) -> bool:
        """Whether the loss is the negative log-likelihood of the labels, as in the paper."""
        return not (self.label_smoothing or self.class_balance or self.mixup)

    @property
    def needs_validation(self) -> bool:
        """Whether inner validation actors have a part in it beside the choice of an epoch."""
        return self.refit or self.calibrated_start

    def rate(self, progress: float) -> float:
        """The learning rate after a share of the training.

        >>> recipe = PRESETS["features"]
        >>> [round(recipe.rate(progress) / recipe.learning_rate, 3) for progress in (0, 0.2, 0.6, 1)]
        [0.04, 1.0, 0.5, 0.0]
        """
        if self.schedule == "constant":
            return self.learning_rate
        if progress < WARM_UP:
            return self.learning_rate * (COLD_START + (1 - COLD_START) * progress / WARM_UP)
        return self.learning_rate * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2

    def as_json(self) -> dict[str, Any]:
        """The settings as `run.json` keeps them; a file is its SHA-256."""
        return {**asdict(self), "video_weights": self.video_weights and self.video_weights.sha256}

    def changed(self, **changes: Any) -> "Recipe":
        """The same settings with those changed that are not None; `epochs` are those of all models."""
        if changes.get("epochs") is not None:
            own = {"openface_epochs": changes["epochs"]} if self.openface_epochs is not None else {}
            changes = {"fused_epochs": changes["epochs"], **own, **changes}
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


PRESETS: Mapping[str, Recipe] = {
    # Sections 3.1-3.2 of the paper; batch and epochs from its released code.
    "paper": Recipe("paper", frames=30, size=224, width=1.0, epochs=70, fused_epochs=70),
    # For a CPU: about a thousandth of the arithmetic.
    "small": Recipe("small", frames=8, size=64, width=1 / 8, epochs=16, fused_epochs=5),
    # For OpenFace tracks and pretrained speech features, on a CPU; chosen on inner validation actors.
    "features": Recipe(
        "features",
        frames=8,
        size=64,
        width=1 / 8,
        epochs=4,
        openface_epochs=40,
        fused_epochs=2,
        batch_size=32,
        schedule="one_cycle",
        weight_decay=0.01,
        label_smoothing=0.1,
        clip_gradient=1.0,
        mixup=0.4,
        refit=True,
        keep="last",
        frozen_encoders=True,
        fused_learning_rate=3e-5,
        calibrated_start=True,
    ),
}


def find_recipe(preset: str) -> Recipe:
    """The settings of a preset."""
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown: expected one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def mix(*numbers: int) -> int:
    """One seed from several numbers, such as (seed, epoch, what for); near numbers give unrelated seeds.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
