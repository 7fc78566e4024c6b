"""Settings of preparation, which prepared clips, checkpoints and exported files carry."""

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Feature
from cfnsr.media import face, mfcc
from cfnsr.media.container import Streams

RECIPE = 5  # of a clip: raise it when the same file and settings give other tensors
LIMITS = {"frames": (1, 1000), "size": (16, 1024), "margin": (0, 2), "skip": (0, 60), "keep": (0.5, 60)}
SPEEDS = (0.5, 2.0)  # a take may be played at
MOST_SPEEDS = 4
LISTS = ("modalities", "speech_speeds")  # in JSON
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Preparation:
    """Settings by which clips are made; the defaults are the paper's (section 3.2).

    Args:
        modalities: which of "video", "audio" (MFCCs), "log_mel", "speech", "openface" and "expression"
            are made.
        frames: pictures a clip.
        sampling: "even" spreads them over the take, "consecutive" takes its middle run.
        size: side of the face crop in pixels.
        margin: room around the face, as a part of its height.
        skip: seconds of sound left out at the start.
        keep: seconds of sound kept after that; shorter takes are padded with silence.
        speech_encoder: name of the pretrained speech encoder: on the hub, or its folder's own.
        speech_sha256: of its files, `SpeechEncoder.sha256`; "speech" cannot be made without.
        speech_speeds: further speeds at which the take is read: training draws one for each clip and
            epoch, a prediction is the mean over all.
        expression_sha256: of the expression network's files, `ExpressionNet.sha256`; "expression" cannot be
            made without.
        video_stream, audio_stream: of files that have several, see `Streams`; a prediction has its own.
        lenient: keep takes that are silent where a model listens, and those with a face in
            fewer than half of the pictures that are searched, as long as there is one.
    """

    modalities: tuple[str, ...] = ("video", "audio")
    frames: int = 30
    sampling: Literal["even", "consecutive"] = "even"
    size: int = 224
    margin: float = face.MARGIN
    skip: float = mfcc.SKIP
    keep: float = mfcc.KEEP
    speech_encoder: str = ""
    speech_sha256: str = ""
    speech_speeds: tuple[float, ...] = (0.9, 1.1)
    expression_sha256: str = ""
    video_stream: int | None = None
    audio_stream: int | None = None
    lenient: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.modalities) - set(FEATURES))
        if unknown or not self.modalities:
            given = ", ".join(unknown) or "none"
            raise InputError(
                f"modalities {given}: expected some of {', '.join(FEATURES)}; one of your own needs "
                "`cfnsr --plugin FILE.py`"
            )
        if self.sampling not in ("even", "consecutive"):
            raise InputError(f"sampling is {self.sampling!r}: expected even or consecutive")
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}: expected {low} to {high}")
        _ = self.streams  # raises for a number that is none
        slowest, fastest = SPEEDS
        speeds = self.speech_speeds
        if len(speeds) > MOST_SPEEDS or not all(slowest <= speed <= fastest for speed in speeds):
            raise InputError(
                f"speech_speeds is {', '.join(map(str, speeds))}: expected at most {MOST_SPEEDS} from "
                f"{slowest:g} to {fastest:g}"
            )
        for each in self.features:
            if each.weights and not SHA256.fullmatch(getattr(self, each.weights)):
                raise InputError(
                    f"{each.weights} is {getattr(self, each.weights)!r}: expected the 64 hexadecimal digits "
                    f"of its network's files, because {each.name} is among the modalities"
                )

    @property
    def features(self) -> tuple[Feature, ...]:
        """The inputs that are made."""
        return tuple(FEATURES[name] for name in self.modalities)

    @property
    def of_pictures(self) -> tuple[Feature, ...]:
        """Those of them that are made of a video's pictures."""
        return tuple(each for each in self.features if each.of_pictures)

    @property
    def of_sound(self) -> tuple[Feature, ...]:
        """Those of them that are made of sound."""
        return tuple(each for each in self.features if each.file == "audio")

    @property
    def of_openface(self) -> tuple[Feature, ...]:
        """Those of them that are made of OpenFace's tables."""
        return tuple(each for each in self.features if each.file == "openface")

    @property
    def pretrained(self) -> bool:
        """A pretrained speech encoder is needed."""
        return any(each.pretrained for each in self.features)

    @property
    def streams(self) -> Streams:
        """Streams of a take's files that are read."""
        return Streams(self.video_stream, self.audio_stream)

    @property
    def samples(self) -> int:
        """Samples of a clip's waveform."""
        return round(self.keep * mfcc.SAMPLE_RATE)

    @property
    def mfcc_steps(self) -> int:
        """MFCC columns a clip has."""
        return 1 + self.samples // mfcc.HOP

    def sound_span(self, start: float, end: float) -> tuple[float, float]:
        """Seconds in which a clip of a recording from `start` to `end` listens.

        >>> Preparation().sound_span(3.0, 9.0)
        (3.5, 5.95)
        """
        if any(each.whole_take for each in self.features):
            return start, end
        return start + self.skip, start + self.skip + self.keep

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON keeps them, and the number of the recipe."""
        lists = {name: list(getattr(self, name)) for name in LISTS}
        value = {**asdict(self), **lists, "recipe": RECIPE}
        if not self.expression_sha256:  # as all that was prepared before there were such networks
            del value["expression_sha256"]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preparation":
        """Read what `as_json` gave; raises `InputError` for another recipe."""
        if value["recipe"] != RECIPE:
            raise InputError(
                f"clips were prepared by recipe {value['recipe']}: this version prepares by recipe {RECIPE}; "
                "prepare and train again, or install the version they were made with"
            )
        value = {"expression_sha256": "", **value}
        settings = {field.name: value[field.name] for field in fields(cls)}
        return cls(**{**settings, **{name: tuple(value[name]) for name in LISTS}})
