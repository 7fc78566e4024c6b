"""How a model is trained: the presets and what may be changed in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cfnsr.errors import InputError


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

    def __post_init__(self) -> None:
        for name, low, high in (
            ("frames", 8, 64),
            ("size", 64, 288),
            ("epochs", 1, 10_000),
            ("fused_epochs", 1, 10_000),
            ("modality_dropout", 0, 0.9),
            ("batch_size", 2, 4096),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}: expected {low} to {high}")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning rate is {self.learning_rate}: expected a value between 0 and 1")
        if self.precision not in ("no", "bf16"):
            raise InputError(f"precision is {self.precision!r}: expected no or bf16")

    def as_json(self) -> dict[str, Any]:
        """The settings as `run.json` keeps them."""
        return asdict(self)

    def changed(self, **changes: Any) -> "Recipe":
        """The same settings with those changed that are not None; `epochs` are those of fused models too."""
        if changes.get("epochs") is not None:
            changes = {"fused_epochs": changes["epochs"], **changes}
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


PRESETS: Mapping[str, Recipe] = {
    # Sections 3.1-3.2 of the paper; batch and epochs from its released code.
    "paper": Recipe("paper", frames=30, size=224, width=1.0, epochs=70, fused_epochs=70),
    # For a CPU: about a thousandth of the arithmetic.
    "small": Recipe("small", frames=8, size=64, width=1 / 8, epochs=16, fused_epochs=5),
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
