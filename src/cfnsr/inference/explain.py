"""The basis of an answer: attention maps of the cross-modal block, and the effect of each modality."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cfnsr.data.dataset import Batch
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.features.mel import Mel
from cfnsr.inference.recogniser import TorchRecogniser, evaluated
from cfnsr.models.entries import Model
from cfnsr.models.streams import Encoder, TwoStream
from cfnsr.training.checkpoint import config_of
from cfnsr.training.inputs import answer, to_input

Floats = NDArray[np.float64]

LEAST_EFFECT = 0.01  # nats by which an attention map must move the answer to count as one that did


@dataclass(frozen=True, eq=False)
class Block:
    """Attention maps of one cross-modal block; each sums to 1.

    A weight says what the block attends to, not that the answer follows from it; `moved` says how much the
    weights matter.

    Args:
        stage: after which of the encoders' stages it stands, from 1.
        weighted: the modality under the softmax, "video" or "audio"; self-attention selects in the other.
        places: (T, H, W) over the video map, of OpenFace tracks (T, features, 1): its softmax, or under
            "audio" the weights of its places in the vector (rollout, see `Selection.token_weights`).
        steps: (S,) over the audio map: the weights of its steps in the vector, or its softmax.
        centres: middle of each place's receptive field along each axis of `places`, from 0 to 1 of the input.
        moved: the log-probability of the answer less what it is under uniform weights.
    """

    stage: int
    weighted: str
    places: Floats
    steps: Floats
    centres: tuple[Floats, Floats, Floats]
    moved: float

    @property
    def over_video(self) -> bool:
        """True if the softmax is over the video map."""
        return self.weighted == "video"

    @property
    def effective(self) -> bool:
        """True if the map mattered: by more than 1 % of the answer's probability."""
        return abs(self.moved) >= LEAST_EFFECT


@dataclass(frozen=True, eq=False)
class Contribution:
    """Effect of one modality on the answer.

    Args:
        modality: "video" or "audio".
        instead: what the model was given in its place, in words.
        probabilities: (classes,) of each emotion then.
        change: probability of the answered emotion with both, less that without this modality.
        log_change: the same of its log-probability, in nats.
    """

    modality: str
    instead: str
    probabilities: Floats
    change: float
    log_change: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The basis of a model's answer to one clip, as far as the model has such parts.

    Args:
        emotions: all of them in class order.
        probabilities: (classes,) calibrated, as `predict` gives them.
        blocks: its cross-modal blocks, the last one first; none where it has none.
        contributions: of each modality; none where it has only one, because nothing would be left.
        features: of a model of OpenFace tracks, the name of each row of `Block.places`, such as "AU12_r".
        tolerant: whether it was trained on clips with dropped modalities.
    """

    emotion: str
    emotions: tuple[str, ...]
    probabilities: Floats
    blocks: tuple[Block, ...] = ()
    contributions: tuple[Contribution, ...] = ()
    features: tuple[str, ...] = ()
    tolerant: bool = False

    @property
    def places(self) -> Floats | None:
        """(T, H, W) of the last cross-modal block; None where there is none."""
        return self.blocks[0].places if self.blocks else None

    @property
    def steps(self) -> Floats | None:
        """(S,) of the last cross-modal block; None where there is none."""
        return self.blocks[0].steps if self.blocks else None

    def as_json(self) -> dict[str, Any]:
        """Return all of it for JSON."""

        def named(probabilities: Floats) -> dict[str, float]:
            return dict(zip(self.emotions, probabilities.tolist(), strict=True))

        return {
            "emotion": self.emotion,
            "probabilities": named(self.probabilities),
            "blocks": [
                {
                    "stage": block.stage,
                    "weighs": block.weighted,
                    "places": block.places.tolist(),
                    "steps": block.steps.tolist(),
                    "centres": [axis.tolist() for axis in block.centres],
                    "moved": block.moved,
                    "effective": block.effective,
                }
                for block in self.blocks
            ],
            "contributions": [
                {**vars(each), "probabilities": named(each.probabilities)} for each in self.contributions
            ],
            "features": list(self.features),
            "tolerant": self.tolerant,
        }


def explain(model: Model, clip: Mapping[str, np.ndarray] | Batch) -> Explanation:
    """Explain a model's answer to one clip.

    The contributions compare the answer with the one that the model gives without a modality: see `without`.
    They do not add up to the answer (what both say is counted in neither, what only both together say in
    both), and one of a model that never met such input says as much of that as of the clip.

    Several threads may explain by one model that is in evaluation. The cost is three passes of a model of two
    modalities, one of a model of one.

    Args:
        model: from `load_model` or `create_model`.
        clip: its tensors, as `prepare_clip` makes them, or a batch of one clip, with pictures as uint8 or
            normalised.

    Raises:
        InputError: more than one clip, or one of another shape than the model takes.

    >>> from cfnsr import create_model
    >>> model = create_model("cfn_sr", width=1 / 8)
    >>> video, audio = torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8), torch.zeros(1, 13, 212)
    >>> explanation = explain(model, Batch(video, audio, torch.empty(0), torch.empty(0)))
    >>> explanation.places.shape, explanation.steps.shape
    ((1, 2, 2), (26,))
    """
    config = config_of(model)
    noted: list[_Noted] = []
    with torch.inference_mode(), evaluated(model):
        given = _input(model, clip)
        watched = partial(_forward, model, noted=noted) if isinstance(model, TwoStream) else model
        both = _calibrated(answer(watched, given), config.temperature)
        chosen = int(both.argmax())
        blocks = []
        for each in reversed(noted):
            uniform = each.uniform.float().mean(dim=0, keepdim=True).log_softmax(dim=1)  # as `answer` does
            moved = float(both[chosen] - _calibrated(uniform, config.temperature)[chosen])
            places, steps = _array(each.places.mean(dim=0)), _array(each.steps.mean(dim=0))
            centres = _centres(cast(Encoder, model.video), places.shape, tuple(given.video.shape[2:]))
            blocks.append(Block(each.stage, each.weighted, places, steps, centres, moved))
        contributions = []
        for modality, reads in model.reads.items() if len(model.reads) > 1 else ():
            lacking = _calibrated(without(model, given, modality), config.temperature)
            change = float(np.exp(both[chosen]) - np.exp(lacking[chosen]))
            log_change = float(both[chosen] - lacking[chosen])
            contributions.append(
                Contribution(modality, FEATURES[reads].nothing, np.exp(lacking), change, log_change)
            )
    known = config.labels.emotions
    emotions = known if len(known) == len(both) else tuple(f"class {place}" for place in range(len(both)))
    return Explanation(
        emotions[chosen],
        emotions,
        np.exp(both),
        tuple(blocks),
        tuple(contributions),
        _features(model),
        config.tolerant,
    )


def without(model: Model, batch: Batch, modality: str) -> Float[Tensor, "B classes"]:
    """Log-probabilities of a model whose one modality is missing.

    Pictures become one plain colour, zero once normalised, and sound silence, as in training with modality
    dropout. Features measured by other models have no such value: models trained on speech were measured to
    call silence fearful with a probability of 0.96 or more, and a face with no action unit at all with 0.56
    to 0.83. So these encoders read the mean of the training clips, and the vector that they pool is zeros.
    Either encoder's own answer was then measured to be uniform, within 0.02 of each probability.

    Args:
        model: of two modalities, in evaluation.
        batch: as the model takes it, see `to_input`.
        modality: "video" or "audio", the missing one.
    """
    given: Tensor = getattr(batch, modality)
    feature, encoder = FEATURES[model.reads[modality]], getattr(model, modality)
    nothing = torch.zeros_like(given)
    if isinstance(feature, Mel):
        silence = torch.from_numpy(feature.silence((given.shape[-1] - 1) * feature.hop))
        nothing = silence.to(given).expand_as(given)
    elif hasattr(encoder, "average"):
        nothing = encoder.average().expand_as(given)
    changed = batch._replace(**{modality: nothing})
    return answer(model if feature.computed else partial(_forward, model, muted=modality), changed)


class _Noted(NamedTuple):
    """A block's maps of every clip, and the answers under uniform weights."""

    stage: int
    weighted: str
    places: Float[Tensor, "B T H W"]
    steps: Float[Tensor, "B S"]
    uniform: Float[Tensor, "B classes"]


def _forward(
    model: Model, video: Tensor, audio: Tensor, *, muted: str = "", noted: list[_Noted] | None = None
) -> Float[Tensor, "B classes"]:
    """Run a model of two streams as it does itself; hooks would also meet what other threads predict.

    The pooled vector of the modality `muted` is zeros, and `noted` takes the attention of the blocks.
    """
    two = cast(TwoStream, model)

    def run(video: Tensor, audio: Tensor, first: int, noted: list[_Noted] | None = None) -> Tensor:
        """Run from the maps before a stage to the answer."""
        stages = zip(two.video.stages, two.audio.stages, cast(Iterable[Any], two.exchanges), strict=True)
        for stage, (video_stage, audio_stage, exchange) in enumerate(stages):
            if stage < first:
                continue
            video, audio = video_stage(video), audio_stage(audio)
            if noted is not None and hasattr(exchange, "weighted"):
                places, steps = exchange.attention(video, audio)
                even = exchange.uniform(video, audio)
                uniform = run(even[0], even[1], stage + 1)
                noted.append(_Noted(stage + 1, exchange.weighted, places, steps, uniform))
            video, audio = exchange(video, audio)
        pooled = {"video": two.video.pool(video), "audio": two.audio.pool(audio)}
        if muted:
            pooled[muted] = torch.zeros_like(pooled[muted])
        log_probabilities: Tensor = two.head(pooled["video"], pooled["audio"])
        return log_probabilities

    return run(two.video.check(video), two.audio.check(audio), 0, noted)


def _centres(
    encoder: Encoder, places: tuple[int, ...], shown: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Middle of each place's receptive field, along each axis.

    Each strided layer of the network of pictures has the middle of its first place on the first of what it is
    given, so the places lie towards the beginning: of 30 frames the second of two is centred around the 17th.
    Gradients of random networks were measured to lie there. A place stands for a stride around that, as far
    as it is in the picture; its receptive field is wider.
    """
    if not getattr(encoder, "strided", False):
        shown = places
    axes = []
    for count, size in zip(places, shown, strict=True):
        stride = next(1 << halvings for halvings in range(32) if ceil(size / (1 << halvings)) == count)
        middles = np.arange(count) * stride + 0.5
        ends = (middles - stride / 2).clip(min=0), (middles + stride / 2).clip(max=size)
        axes.append((ends[0] + ends[1]) / 2 / size if count > 1 else np.array([0.5]))
    return axes[0], axes[1], axes[2]


def _features(model: Model) -> tuple[str, ...]:
    """Names of the features that are places of the video map, as far as they are known."""
    encoder = model.video if isinstance(model, TwoStream) else model.encoder
    names = FEATURES[encoder.reads].columns
    return names[: encoder.shape[0]] if names and len(names) >= (encoder.shape[0] or 0) else ()


def _input(model: Model, clip: Mapping[str, np.ndarray] | Batch) -> Batch:
    """Prepare one clip as the model takes it, on its device."""
    if not isinstance(clip, Batch):
        return TorchRecogniser(model).batch([clip])
    count = max(len(clip.video), len(clip.audio))
    if count != 1:
        raise InputError(f"{count} clips: expected one at a time to explain")
    device = next(model.parameters()).device
    if clip.video.dtype == torch.uint8:
        return to_input(clip, device)
    return clip._replace(video=clip.video.to(device), audio=clip.audio.to(device).float())


def _calibrated(log_probabilities: Tensor, temperature: float) -> Floats:
    """Calibrate log-probabilities (1, classes) -> (classes,)."""
    return _array(functional.log_softmax(log_probabilities[0].double() / temperature, dim=0))


def _array(values: Tensor) -> Floats:
    return cast(Floats, values.double().cpu().numpy())
