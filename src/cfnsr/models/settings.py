"""The encoders of a model and their sizes, and how two encoders are fused."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from cfnsr.errors import InputError
from cfnsr.models.encoders.cnn import AudioCNN
from cfnsr.models.encoders.expression import ExpressionEncoder
from cfnsr.models.encoders.openface import OpenFaceEncoder
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.encoders.speech import SpeechMixture
from cfnsr.models.exchanges.none import NoExchange
from cfnsr.models.heads.concat import Concat
from cfnsr.models.streams import Encoder, TwoStream

STAGES = 3
PARTS = ("reads", "shape", "expected", "stages", "channels", "dim")  # of an encoder
PAPER = {"video": "pixels", "audio": "mfcc"}  # the encoders of the paper
MakeExchange = Callable[[int, int], nn.Module]  # (video channels, audio channels) of a stage -> exchange
MakeHead = Callable[[int, int, int], nn.Module]  # (video dim, audio dim, classes) -> head


@dataclass(frozen=True)
class Settings:
    """The inputs and sizes of a model's encoders; the defaults are the paper's.

    Args:
        mfcc_steps: MFCC columns of a clip.
        width: scale of the large encoders' channels (ResNeXt, ERANN); 1/8 in the small preset.
        openface_features: values of an OpenFace track at each step; 35 are the action units alone.
        speech_layers: hidden states that the speech encoder gives, its embedding's included.
        speech_width: values of each of them at each step.
        expression_features: values of an expression network for each picture; 263 of the small one.
        video, audio: names of the encoders, one of `ENCODERS` each.
    """

    classes: int = 8
    mfcc_steps: int = 212
    width: float = 1.0
    openface_features: int = 35
    speech_layers: int = 5
    speech_width: int = 384
    expression_features: int = 263
    video: str = PAPER["video"]
    audio: str = PAPER["audio"]

    def encoder(self, modality: str) -> Encoder:
        """Build the encoder of a modality, with weights of its own at each call."""
        name, known = getattr(self, modality), ENCODERS[modality]
        if name not in known:
            raise InputError(f"{modality} encoder {name!r} is unknown: expected one of {', '.join(known)}")
        encoder = known[name](self)
        if missing := [part for part in PARTS if not hasattr(encoder, part)]:
            raise InputError(
                f"{modality} encoder {name!r} has no {', '.join(missing)}: expected what "
                "`cfnsr.models.streams.Encoder` lists"
            )
        if not len(encoder.stages) == len(encoder.channels) == STAGES:
            given = f"{len(encoder.stages)} stages and channels of {len(encoder.channels)}"
            raise InputError(f"{modality} encoder {name!r} has {given}: expected {STAGES} of each")
        return encoder

    def fuse(self, *exchanges: MakeExchange, head: MakeHead = Concat) -> TwoStream:
        """Build a two-stream model of these encoders.

        Args:
            exchanges: made after the last stages, one each; at earlier stages the modalities do not talk.
            head: made over the pooled pair.
        """
        if len(exchanges) > STAGES:
            raise InputError(f"{len(exchanges)} exchanges: expected at most {STAGES}, one after each stage")
        video, audio = self.encoder("video"), self.encoder("audio")
        makers = [NoExchange] * (STAGES - len(exchanges)) + [*exchanges]
        pairs = zip(video.channels, audio.channels, strict=True)
        between = [make(*channels) for make, channels in zip(makers, pairs, strict=True)]
        return TwoStream(video, audio, between, head(video.dim, audio.dim, self.classes))


# Encoders that a model's name may choose, by modality; all but the paper's are named after the clip tensor
# that they read.
ENCODERS: dict[str, dict[str, Callable[[Settings], Encoder]]] = {
    "video": {
        "pixels": lambda settings: ResNeXt3D(width=settings.width),
        "openface": lambda settings: OpenFaceEncoder(settings.openface_features, settings.classes),
        "expression": lambda settings: ExpressionEncoder(settings.expression_features, settings.classes),
    },
    "audio": {
        "mfcc": lambda settings: AudioCNN(steps=settings.mfcc_steps),
        "speech": lambda settings: SpeechMixture(
            settings.speech_layers, settings.speech_width, settings.classes
        ),
    },
}
