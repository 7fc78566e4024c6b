"""Recipes: the presets, what may be changed in them, and a recipe as a TOML file."""

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from cfnsr.errors import InputError

ONE_CYCLE_WARM_UP = 0.2  # of the steps, in which the learning rate of one_cycle rises
COLD_START = 0.04  # of the learning rate, where a warm-up begins
NONE = "none"  # stands for None in TOML, which has no null
# Multiples of a recipe's epochs and learning rates that --tune tries; the first of equal ones is chosen.
TUNED = tuple((epochs, rate) for epochs in (1, 2) for rate in (1.0, 3.0))
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: f'"{NONE}"'}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights: its path, and the SHA-256 by which a run knows it wherever it lies."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """The settings of a training; numbers with their limits.

    Args:
        preset: name of the preset these settings come from.
        frames, size: pictures a clip, evenly spaced among the prepared ones, and their side in pixels.
        width: scale of the large encoders' channels.
        epochs: passes over the training clips.
        fused_epochs: the same, of a model that starts from trained encoders.
        batch_size: clips a step, over all processes.
        learning_rate: of Adam.
        precision: "no" for float32, "bf16" for bfloat16 mixed precision.
        pretrain: start a two-stream model from encoders trained alone on the fold's training actors.
        modality_dropout: probability that the pictures or the sound of a training clip of a two-stream model
            are dropped in an epoch, so that the model learns to do without.
        openface_steps, speech_steps: steps in time of an OpenFace track, where 1 is its mean, and of a
            speech encoder's states.
        schedule: of the learning rate: "constant"; "cosine", down to nothing (Loshchilov and Hutter 2017);
            "one_cycle", the same after a rise in the first fifth (Smith and Topin 2019); or "step", which
            multiplies it by `step_factor` at the end of each of `step_parts` equal parts.
        weight_decay: decoupled from the gradient, as in AdamW (Loshchilov and Hutter 2019).
        label_smoothing: part of a label that is spread over all classes (Szegedy et al. 2016).
        class_balance: weight clips by the rarity of their class among those that train.
        balanced_sampling: repeat training clips until every class of every corpus has as many.
        corpora_apart: standardise the training clips of each corpus by their own statistics, in models that
            are solved; the clips of others, by the mean over all, or by theirs (`cfnsr predict --adapt`).
        degraded: train on the degraded versions of takes too, where the corpus was prepared with some.
        mixup: alpha of the Beta distribution by which clips are mixed (Zhang et al. 2018); 0 for none.
        refit: once the inner validation actors have chosen the epoch, train anew on them too, for as many
            epochs. Needs a protocol with inner validation actors.
        frozen_encoders: leave the trained encoders a model starts from as they are: they know the training
            clips by heart, so what they still learnt from those would be to trust themselves.
        fused_learning_rate: of the classifiers that such a model is initialised from; None for the same.
        calibrated_start: divide these by the temperatures that the inner validation actors gave them, so that
            each modality counts as much as it knows.
        openface_epochs: of a model of OpenFace tracks alone, whose few weights need more; None for the same.
        clip_gradient: norm to which a longer gradient is cut.
        keep: the "best" epoch by the selecting clips, or the "last", where the schedule comes to rest; then
            they are asked after that one alone.
        select_by: the figure that makes an epoch the best: "accuracy", or "uar", the unweighted average
            recall of the classes; of equal ones the lower loss.
        accumulate: batches whose gradients are added up before an optimizer step, as if they were one batch;
            batch normalisation still works on each batch alone.
        warm_up: part of the training in which the learning rate rises; one_cycle has its own.
        step_parts, step_factor: see `schedule`.
        average_weights: decay of an exponential moving average of weights and batch statistics, which then
            chooses the epoch and is kept (Polyak and Juditsky 1992). It grows towards that decay from 0.1, so
            that the start is soon forgotten; 0 for no average.
        residual_start: weight with which a residual block of the video encoder begins beside its shortcut.
        crop: smallest side of the random crop of pictures, as a fraction of theirs; 1 for no crop.
        flip: mirror the pictures of half of the clips.
        colour_jitter: brightness, contrast and saturation of pictures are multiplied by 1 plus or minus up
            to this; 0 for none.
        time_mask, frequency_mask: largest fractions of the steps and of the coefficients or bands of MFCCs or
            of a spectrogram that are masked in one piece (Park et al. 2019, SpecAugment); 0 for none.
        video_weights: file that a 3D ResNeXt that starts from nothing is initialised from; None for random
            weights.
        tune: choose epochs and learning rate of a model that starts from trained encoders on each fold's
            inner validation actors, among the same multiples for all (`TUNED`). Needs such actors.
        deterministic: take the kernels that give the same sum each time, which on CUDA are slower; on a CPU
            all do. Where CUDA has none, as for the gradient of max pooling, PyTorch warns.
        compile: compile the network for the device (`torch.compile`), which takes minutes at the start. It
            needs a C++ compiler, and Triton for a GPU.
    """

    preset: str
    frames: Annotated[int, (8, 64)]
    size: Annotated[int, (64, 288)]
    width: Annotated[float, (0.01, 8)]
    epochs: Annotated[int, (1, 10_000)]
    fused_epochs: Annotated[int, (1, 10_000)]
    batch_size: Annotated[int, (2, 4096)] = 16
    learning_rate: float = 1e-3
    precision: Literal["no", "bf16"] = "no"
    pretrain: bool = True
    modality_dropout: Annotated[float, (0, 0.9)] = 0.0
    openface_steps: Annotated[int, (1, 1000)] = 16
    speech_steps: Annotated[int, (1, 1000)] = 24
    schedule: Literal["constant", "one_cycle", "cosine", "step"] = "constant"
    weight_decay: Annotated[float, (0, 10)] = 0.0
    label_smoothing: Annotated[float, (0, 0.9)] = 0.0
    class_balance: bool = False
    balanced_sampling: bool = False
    corpora_apart: bool = False
    degraded: bool = False
    mixup: Annotated[float, (0, 10)] = 0.0
    refit: bool = False
    frozen_encoders: bool = False
    fused_learning_rate: float | None = None
    calibrated_start: bool = False
    openface_epochs: Annotated[int | None, (1, 10_000)] = None
    clip_gradient: Annotated[float | None, (1e-6, 1e6)] = None
    keep: Literal["best", "last"] = "best"
    select_by: Literal["accuracy", "uar"] = "accuracy"
    accumulate: Annotated[int, (1, 1024)] = 1
    warm_up: Annotated[float, (0, 0.9)] = 0.0
    step_parts: Annotated[int, (1, 1000)] = 3
    step_factor: Annotated[float, (1e-6, 1)] = 0.1
    average_weights: Annotated[float, (0, 0.99999)] = 0.0
    residual_start: Annotated[float, (0, 1)] = 0.2
    crop: Annotated[float, (0.1, 1)] = 0.85
    flip: bool = True
    colour_jitter: Annotated[float, (0, 0.9)] = 0.0
    time_mask: Annotated[float, (0, 0.9)] = 0.0
    frequency_mask: Annotated[float, (0, 0.9)] = 0.0
    video_weights: WeightsFile | None = None
    tune: bool = False
    deterministic: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Recipe, include_extras=True).items():
            value = getattr(self, name)
            if get_origin(hint) is Literal and value not in get_args(hint):
                *others, last = get_args(hint)
                raise InputError(f"{name} is {value!r}: expected {', '.join(others)} or {last}")
            if get_origin(hint) is Annotated and value is not None:
                low, high = hint.__metadata__[0]
                if not low <= value <= high:
                    raise InputError(f"{name} is {value}: expected {low} to {high}")
        for name in ("learning_rate", "fused_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"{name.replace('_', ' ')} is {value}: expected a value between 0 and 1")
        if self.schedule == "one_cycle" and self.warm_up:
            raise InputError(
                f"warm_up is {self.warm_up}: one_cycle has its own of {ONE_CYCLE_WARM_UP}; leave it out, or "
                "take schedule cosine"
            )

    @property
    def plain_loss(self) -> bool:
        """Trained by the negative log-likelihood of the labels, as in the paper."""
        return not (self.label_smoothing or self.class_balance or self.mixup)

    @property
    def needs_validation(self) -> bool:
        """Given inner validation actors a part beside the choice of an epoch."""
        return self.refit or self.calibrated_start or self.tune

    def rate(self, progress: float) -> float:
        """Learning rate after a part of the training.

        >>> recipe = PRESETS["features"]
        >>> [round(recipe.rate(progress) / recipe.learning_rate, 3) for progress in (0, 0.2, 0.6, 1)]
        [0.04, 1.0, 0.5, 0.0]
        """
        warm_up = ONE_CYCLE_WARM_UP if self.schedule == "one_cycle" else self.warm_up
        if progress < warm_up:
            return self.learning_rate * (COLD_START + (1 - COLD_START) * progress / warm_up)
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "step":
            behind = math.floor(progress * self.step_parts + 1e-9)  # 29 / 30 * 30 is less than 29
            return self.learning_rate * self.step_factor ** min(behind, self.step_parts - 1)
        return self.learning_rate * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up))) / 2

    def as_json(self) -> dict[str, Any]:
        """Return the settings as `run.json` keeps them; a file is its SHA-256."""
        return {**asdict(self), "video_weights": self.video_weights and self.video_weights.sha256}

    def as_toml(self) -> str:
        """Write the settings as a file that `load_recipe` reads."""
        return "".join(f"{name} = {_as_toml(value)}\n" for name, value in vars(self).items())

    def scaled(self, epochs: int, rate: float) -> "Recipe":
        """Scale the epochs and the learning rates."""
        passes = dict.fromkeys(("epochs", "fused_epochs", "openface_epochs"), epochs)
        times = {**passes, "learning_rate": rate, "fused_learning_rate": rate}
        own = {name: getattr(self, name) for name in times}
        return replace(self, **{name: value and times[name] * value for name, value in own.items()})

    def changed(self, **changes: Any) -> "Recipe":
        """Change the settings that are not None; `epochs` are those of all models."""
        return self._replaced({name: value for name, value in changes.items() if value is not None})

    def with_settings(self, settings: Mapping[str, object], source: str) -> "Recipe":
        """Change the settings that a person wrote; `epochs` are those of all models.

        Args:
            settings: values by name, as TOML gives them; "none" stands for None where there may be none.
            source: where they were written, for what is refused.

        Raises:
            InputError: for an unknown name, and for a value of another type or beyond its limits.
        """
        changes = {name: _checked(name, value, source) for name, value in settings.items()}
        try:
            return self._replaced(changes)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None

    def _replaced(self, changes: dict[str, Any]) -> "Recipe":
        if "epochs" in changes:
            own = {"openface_epochs": changes["epochs"]} if self.openface_epochs is not None else {}
            changes = {"fused_epochs": changes["epochs"], **own, **changes}
        return replace(self, **changes)


def _as_toml(value: object) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, WeightsFile):
        value = str(value.path)
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)


def _checked(name: str, value: object, source: str) -> object:
    """Convert and check a setting for its field."""
    hints = get_type_hints(Recipe)
    if name not in hints:
        raise InputError(f"{source}: {name} is unknown: expected some of {', '.join(hints)}")
    types = (str,) if get_origin(hints[name]) is Literal else get_args(hints[name]) or (hints[name],)
    if value == NONE and NoneType in types:
        return None
    if type(value) is str and WeightsFile in types:
        from cfnsr.training.weights import find_weights

        return find_weights(Path(value))
    if type(value) is int and float in types:
        return float(value)
    if type(value) not in types:  # exactly: true is no whole number
        expected = " or ".join(WORDS.get(each, "the name of a file") for each in types)
        raise InputError(f"{source}: {name} is {value!r}: expected {expected}")
    return value


# Sections 3.1-3.2 of the paper; batch, epochs and the start of residual blocks from its released code.
PAPER = Recipe("paper", frames=30, size=224, width=1.0, epochs=70, fused_epochs=70, residual_start=1.0)
# What we would change in that, see docs/differences.md: residual blocks that begin near their shortcut, a
# rate that rises and falls, no single batch that throws the weights, and neutral counted like the rest.
RECOMMENDED = replace(
    PAPER, preset="recommended", residual_start=0.2, schedule="one_cycle", clip_gradient=1.0, select_by="uar"
)
# For a CPU: about a thousandth of the arithmetic.
SMALL = Recipe("small", frames=8, size=64, width=1 / 8, epochs=16, fused_epochs=10)
# For OpenFace tracks and pretrained speech features, on a CPU; chosen on inner validation actors.
FEATURES = replace(
    SMALL,
    preset="features",
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
)
# For people, microphones and rooms that did not train: every corpus and emotion alike.
ROBUST = replace(FEATURES, preset="robust", balanced_sampling=True, corpora_apart=True)
PRESETS = {recipe.preset: recipe for recipe in (PAPER, RECOMMENDED, SMALL, FEATURES, ROBUST)}


def find_recipe(preset: str) -> Recipe:
    """Return the settings of a preset."""
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown: expected one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def load_recipe(path: Path, preset: str | None = None) -> Recipe:
    """Read a recipe from a TOML file: some settings, or all, by the names of the fields of `Recipe`.

    Args:
        path: of the file; its `preset` is what the others change, "paper" if it names none.
        preset: another one instead.

    Raises:
        InputError: when the file is missing or no TOML, or for what `Recipe.with_settings` refuses.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"recipe {path} cannot be read ({error.strerror}): expected a TOML file such as `cfnsr train "
            "--show-config` prints"
        ) from None
    except ValueError as error:  # of tomllib, and of other than UTF-8
        raise InputError(f"recipe {path} is no TOML ({error}): expected lines such as epochs = 10") from None
    written = str(_checked("preset", settings.pop("preset", "paper"), str(path)))
    if preset is None and written not in PRESETS:
        raise InputError(f"{path}: preset {written!r} is unknown: expected one of {', '.join(PRESETS)}")
    return find_recipe(preset or written).with_settings(settings, str(path))


def parse_settings(texts: Iterable[str]) -> dict[str, object]:
    """Parse settings as a person types them; a value that is not TOML is text.

    Raises:
        InputError: for one that is not written name=value, and for a preset, which is no setting.

    >>> parse_settings(["schedule=cosine", "warm_up=0.1", "flip=false"])
    {'schedule': 'cosine', 'warm_up': 0.1, 'flip': False}
    """
    settings: dict[str, object] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not name:
            raise InputError(f"--set {text}: expected name=value, such as schedule=cosine")
        if name == "preset":
            raise InputError(f"--set {text}: expected a setting; give --preset {value}")
        try:
            settings[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            settings[name] = value
    return settings


def mix(*numbers: int) -> int:
    """Derive a seed from numbers such as (seed, epoch, purpose); near numbers give unrelated seeds.

    >>> mix(0, 1) != mix(1, 0)
    True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
