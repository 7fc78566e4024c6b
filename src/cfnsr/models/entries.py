"""The models by name: one entry a row of the paper's tables, and the variants beside them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from cfnsr.models.baselines import AS_BEGUN, SOLVERS, Solver, StatisticsSettings
from cfnsr.models.encoders.erann import ERANN
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.exchanges.cross_modal import CrossModal, CrossModalMap, CrossModalMaps, CrossModalReleased
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.exchanges.msaf import MSAF
from cfnsr.models.exchanges.video_to_audio import VideoToAudio
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.models.heads.concat import Concat, FreshConcat
from cfnsr.models.heads.concat_fc import ConcatFC, ConcatFCHeads
from cfnsr.models.heads.late import Averaging, Multiplicative
from cfnsr.models.settings import PAPER, MakeExchange, MakeHead, Settings
from cfnsr.models.streams import OneStream, TwoStream

Model = OneStream | TwoStream
Build = Callable[[Settings], Model]
VIDEO, AUDIO = ({modality: encoder} for modality, encoder in PAPER.items())


@dataclass(frozen=True)
class Entry:
    """A named model: how it is built, the paper's name for its fusion, and the paper's figures for it.

    Args:
        build: makes the model of settings that name `encoders`; `zoo.build` sees to that.
        fusion: "none", "late", "early" or "model", where the two modalities meet.
        paper_accuracy: accuracy as a fraction (Tables 1 and 2), None for a model that is not the paper's.
        paper_params: parameters in millions, likewise.
        encoders: name of the encoder of each modality that it reads, video's first.
        fixed: it has these encoders alone, so that a name cannot choose others.
        source: SHA-256 of the file that an entry of a user's own stood in when it was registered, so that a
            run is not resumed with other code under its name; empty for the package's own.
        solver: of a model that is solved and not trained by gradient.
        alone: of a model of two modalities, the models of one that it starts from, by their names without
            encoders.
        name: with the encoders that it chooses, of one that `find` gives.
    """

    build: Build
    fusion: str
    paper_accuracy: float | None = None
    paper_params: float | None = None
    encoders: dict[str, str] = field(default_factory=PAPER.copy)
    fixed: bool = False
    source: str = ""
    solver: Solver | None = None
    alone: tuple[str, str] = ("video", "audio")
    name: str = ""

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Callable[[str], "Entry"], tuple[str]]:
        """Be pickled by name: another process has the entry too, and a plugin's function cannot be sent."""
        from cfnsr.models.names import find

        return find, (self.name,)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Inputs of the model: "video", "audio" or both."""
        return tuple(self.encoders)

    @property
    def starts_from(self) -> tuple[str, ...]:
        """Models of one modality whose encoders this one may be initialised from; a model of one has none.

        >>> Entry(fused(), "model", encoders={"video": "pixels", "audio": "speech"}).starts_from
        ('video', 'audio+speech')
        """
        if len(self.encoders) == 1:
            return ()
        return tuple(
            full_name(name, [encoder])
            for name, encoder in zip(self.alone, self.encoders.values(), strict=True)
        )


def full_name(base: str, encoders: Iterable[str]) -> str:
    """Name of a model with its encoders: the paper's are not named.

    >>> full_name("cfn_sr", ["pixels", "speech"])
    'cfn_sr+speech'
    """
    return "+".join([base, *(encoder for encoder in encoders if encoder not in PAPER.values())])


def alone(modality: str) -> Build:
    """One encoder under a linear classifier."""
    return lambda settings: OneStream(settings.encoder(modality), modality, settings.classes)


def fused(*exchanges: MakeExchange, head: MakeHead = Concat) -> Build:
    """Two encoders with exchanges after their last stages, under a head."""
    return lambda settings: settings.fuse(*exchanges, head=head)


def on_statistics(build: Build) -> Build:
    """The same with statistics in the place of encoders."""
    return lambda settings: build(StatisticsSettings(**vars(settings)))


def erann(settings: Settings) -> Model:
    """ERANN under a linear classifier; no exchange can take its maps."""
    encoder = ERANN() if settings.width == 1 else ERANN.light(settings.width)
    return OneStream(encoder, "audio", settings.classes)


def released(settings: Settings) -> Model:
    """CFN-SR as its released code computes it, a clip at a time: no ReLU in the stem, a fresh classifier."""
    model = settings.fuse(CrossModalReleased, head=FreshConcat)
    if isinstance(model.video, ResNeXt3D):
        model.video.drop_stem_relu()
    return model


FEATURES = {"video": "openface", "audio": "speech"}
MSAFS = partial(MSAF, block=16), partial(MSAF, block=32)
Multiplication = partial(Multiplicative, beta=0)

# Builder, where the modalities meet, and the paper's accuracy and millions of parameters.
ENTRIES: dict[str, Entry] = {
    # Table 1.
    "video": Entry(alone("video"), "none", 0.6299, 25.88, VIDEO),
    "audio": Entry(alone("audio"), "none", 0.5653, 0.03, AUDIO),
    "averaging": Entry(fused(head=Averaging), "late", 0.6882, 25.92),
    "multiplicative": Entry(fused(head=partial(Multiplicative, beta=0.3)), "late", 0.7035, 25.92),
    "multiplication": Entry(fused(head=Multiplication), "late", 0.7056, 25.92),
    "concat_fc": Entry(fused(head=ConcatFC), "early", 0.7104, 26.87),
    "mcbp": Entry(fused(head=CompactBilinear), "early", 0.7132, 51.03),
    "mmtm": Entry(fused(MMTM, MMTM, MMTM, head=Multiplication), "model", 0.7312, 31.97),
    "msaf": Entry(fused(*MSAFS, head=Multiplication), "model", 0.7486, 25.94),
    "eranns": Entry(erann, "none", 0.7480, None, {"audio": "log_mel"}, fixed=True),
    "cfn_sr": Entry(fused(CrossModal), "model", 0.7576, 26.30),
    # Table 2: each states only what differs from CFN-SR.
    "cfn_sr_no_cross_modal": Entry(fused(), "model", 0.7350, 25.92),
    "cfn_sr_video_to_audio": Entry(fused(VideoToAudio), "model", 0.7415, 25.67),
    "cfn_sr_no_self_attention": Entry(fused(partial(CrossModal, depth=0)), "model", 0.7386, 26.05),
    "cfn_sr_no_residual": Entry(fused(partial(CrossModal, residual=False)), "model", 0.7533, 26.30),
    # Other readings of the paper's rows, for comparison.
    "cfn_sr_map": Entry(fused(CrossModalMap), "model"),  # weights multiply: eq. 8 without its sentence
    "cfn_sr_k_maps": Entry(fused(CrossModalMaps), "model"),  # the k channels of eq. 7 are k maps
    "cfn_sr_released": Entry(released, "model"),
    "concat_fc_heads": Entry(fused(head=ConcatFCHeads), "early"),  # as large as the paper reports
    # CFN-SR's block on OpenFace tracks and the states of a pretrained speech encoder.
    "cfn_sr_features": Entry(fused(CrossModal, head=Multiplication), "model", encoders=FEATURES, fixed=True),
}
# Statistics of video and audio under a linear classifier, alone and fused.
for _name, _solver in SOLVERS.items():
    _parts = f"{_name}_video", f"{_name}_audio"
    ENTRIES |= {
        _parts[0]: Entry(on_statistics(alone("video")), "none", encoders=VIDEO, solver=_solver),
        _parts[1]: Entry(on_statistics(alone("audio")), "none", encoders=AUDIO, solver=_solver),
        _name: Entry(on_statistics(fused()), "early", solver=_solver, alone=_parts),
        f"{_name}_late": Entry(
            on_statistics(fused(head=Multiplication)), "late", solver=AS_BEGUN, alone=_parts
        ),
    }

# Why the number of parameters is not the paper's.
NOTES = {
    "concat_fc": "One hidden layer of 256; the paper's count has room for the two streams' own classifiers "
    "besides, as concat_fc_heads has them.",
    "mcbp": "The source's sketch of 16,000, one linear classifier of it and one a stream add 0.16 M to the "
    "two encoders; the paper does not say what its further 25 M are.",
    "mmtm": "After each of the three stages, ratio 4, a classifier a stream; the paper names neither places "
    "nor ratio.",
    "eranns": "From nothing; the 74.80 of its own paper (Verbitskiy et al. 2021) is from a pretrained "
    "network, as far as we can tell, on other folds.",
    "cfn_sr_video_to_audio": "The same block with the roles swapped; the paper's count is less than that of "
    "its two encoders.",
}

# The paper's two tables: what each row is called there, and its model here.
TABLES: dict[int, tuple[tuple[str, str], ...]] = {
    1: (
        ("3D ResNeXt-50", "video"),
        ("1D CNN", "audio"),
        ("Averaging", "averaging"),
        ("Multiplicative (β = 0.3)", "multiplicative"),
        ("Multiplication", "multiplication"),
        ("Concat + FC", "concat_fc"),
        ("MCBP", "mcbp"),
        ("MMTM", "mmtm"),
        ("MSAF", "msaf"),
        ("ERANNs", "eranns"),
        ("CFN-SR", "cfn_sr"),
    ),
    2: (
        ("w/o cross-modal blocks", "cfn_sr_no_cross_modal"),
        ("V→A cross-modal blocks", "cfn_sr_video_to_audio"),
        ("A→V cross-modal blocks", "cfn_sr"),
        ("w/o self-attention", "cfn_sr_no_self_attention"),
        ("w/o residual", "cfn_sr_no_residual"),
        ("CFN-SR", "cfn_sr"),
    ),
}
