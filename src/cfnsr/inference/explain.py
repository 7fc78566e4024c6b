"""The basis of an answer: attention maps of the cross-modal block, and the effect of each modality."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.data.dataset import Batch
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES
from cfnsr.features.mel import Mel
from cfnsr.inference.recogniser import TorchRecogniser, evaluated
from cfnsr.models.streams import Encoder, TwoStream
from cfnsr.models.zoo import Model
from cfnsr.training.checkpoint import config_of
from cfnsr.training.inputs import answer, to_input

Floats = NDArray[np.float64]

LEAST_EFFECT = 0.01  # nats by which an attention map must move the answer to count as one that did


@dataclass(frozen=True, eq=False)
class Block:
    """Attention maps of one cross-modal block; each sums to 1.

    The block's self-attention makes one vector of one modality. The softmax of how well each place of the
    other's map agrees with it weights that map.

    A weight says what the block attends to, not that the answer follows from it: a value may be large and
    lead nowhere, and each place also covers its surroundings. `moved` says how much the weights matter.

    Args:
        stage: after which of the encoders' stages it stands, from 1.
        weighs: the modality under the softmax, "video" or "audio"; self-attention selects in the other.
        places: (T, H, W) over the video map: its softmax, or under "audio" the weights of its places
            in the vector (attention rollout, see `Selection.token_weights`). Of OpenFace tracks
            (T, features, 1).
        steps: (S,) over the audio map: the weights of its steps in the vector, or its softmax.
        centres: middle of each place's receptive field, along each axis of `places`, from 0 to 1 of what the
            model was shown; in the order of time, height and width.
        moved: the log-probability of the answer less what it is under uniform weights.
    """

    stage: int
    weighs: str
    places: Floats
    steps: Floats
    centres: tuple[Floats, Floats, Floats]
    moved: float

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
        change: probability of the answered emotion with both, less that without this modality: positive
            where the modality supports the answer.
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
        tolerant: whether it was trained on clips with dropped modalities. One that was not has never met the
            input that the contributions come from.
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
        return {
            "emotion": self.emotion,
            "probabilities": self._named(self.probabilities),
            "blocks": [
                {
                    "stage": block.stage,
                    "weighs": block.weighs,
                    "places": block.places.tolist(),
                    "steps": block.steps.tolist(),
                    "centres": [axis.tolist() for axis in block.centres],
                    "moved": block.moved,
                    "effective": block.effective,
                }
                for block in self.blocks
            ],
            "contributions": [
                {
                    "modality": each.modality,
                    "instead": each.instead,
                    "probabilities": self._named(each.probabilities),
                    "change": each.change,
                    "log_change": each.log_change,
                }
                for each in self.contributions
            ],
            "features": list(self.features),
            "tolerant": self.tolerant,
        }

    def _named(self, probabilities: Floats) -> dict[str, float]:
        return dict(zip(self.emotions, probabilities.tolist(), strict=True))


def explain(model: Model, clip: Mapping[str, np.ndarray] | Batch) -> Explanation:
    """Explain a model's answer to one clip.

    The contributions compare the answer with the one that the model gives without a modality: see `without`.
    They measure what this clip's pictures or sound add to what the model knows by the other alone. They do
    not add up to the answer (what both say is counted in neither, what only both together say in both), and
    they are the model's, not the person's. A model that was not trained with modality dropout may answer
    input that it never met with high probabilities: then a contribution says as much of that as of the clip.

    Nothing stays on the model, and several threads may explain by one model that is in evaluation. The cost
    is three passes of a model of two modalities, one of a model of one.

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
    with torch.inference_mode(), evaluated(model):
        given = _input(model, clip)
        both, noted = _watched(model, given) if isinstance(model, TwoStream) else (answer(model, given), [])
        told = _calibrated(both, config.temperature)
        chosen = int(told.argmax())
        blocks = tuple(_block(each, told, chosen, config.temperature) for each in reversed(noted))
        contributions = []
        for modality, reads in model.reads.items() if len(model.reads) > 1 else ():
            lacking = _calibrated(without(model, given, modality), config.temperature)
            change = float(np.exp(told[chosen]) - np.exp(lacking[chosen]))
            log_change = float(told[chosen] - lacking[chosen])
            contributions.append(
                Contribution(modality, FEATURES[reads].nothing, np.exp(lacking), change, log_change)
            )
    known = config.labels.emotions
    emotions = known if len(known) == len(told) else tuple(f"class {place}" for place in range(len(told)))
    return Explanation(
        emotions[chosen],
        emotions,
        np.exp(told),
        blocks,
        tuple(contributions),
        _features(model),
        config.tolerant,
    )


def without(model: Model, batch: Batch, modality: str) -> Float[Tensor, "B classes"]:
    """Log-probabilities of a model whose one modality is missing.

    Pictures become one plain colour, zero once normalised, and sound silence: as in training with modality
    dropout, and as under a covered camera or a dead microphone.

    Features measured by other models have no such value. Silence is a sound like any other to a pretrained
    speech encoder: models trained on speech were measured to call it fearful with a probability of 0.96 or
    more, and a face with no action unit at all with 0.56 to 0.83. So these encoders read the mean of the
    training clips, and the vector that they pool is zeros. Either encoder's own answer was then measured to
    be uniform, within 0.02 of each probability.

    Args:
        model: of two modalities, in evaluation.
        batch: as the model takes it, see `to_input`.
        modality: "video" or "audio", the missing one.
    """
    changed = _taken_away(model, batch, modality)
    computed = FEATURES[model.reads[modality]].computed
    return answer(model if computed else _Walk(model, muted=modality), changed)


def _taken_away(model: Model, batch: Batch, modality: str) -> Batch:
    """Replace the pictures or the sound of a batch by their missing value."""
    given: Tensor = getattr(batch, modality)
    feature, encoder = FEATURES[model.reads[modality]], getattr(model, modality)
    nothing = torch.zeros_like(given)
    if isinstance(feature, Mel):
        silence = torch.from_numpy(feature.silence((given.shape[-1] - 1) * feature.hop))
        nothing = silence.to(given).expand_as(given)
    elif hasattr(encoder, "average"):
        nothing = encoder.average().expand_as(given)
    return batch._replace(**{modality: nothing})


class _Noted(NamedTuple):
    """A block's maps of every clip, and the answers under uniform weights."""

    stage: int
    weighs: str
    places: Float[Tensor, "B T H W"]
    steps: Float[Tensor, "B S"]
    even: Float[Tensor, "B classes"]
    centres: tuple[Floats, Floats, Floats]


class _Walk(nn.Module):
    """One pass through a model of two streams that notes the attention of its blocks; made for one answer.

    Args:
        model: it is left as it is.
        muted: a modality whose pooled vector is zeros.
        noting: whether the blocks are asked.
    """

    def __init__(self, model: Model, *, muted: str = "", noting: bool = False) -> None:
        super().__init__()
        self.model = cast(TwoStream, model)
        self.muted = muted
        self.noting = noting
        self.noted: list[_Noted] = []

    def forward(self, video: Tensor, audio: Tensor) -> Float[Tensor, "B classes"]:
        """Return the model's own log-probabilities."""
        encoder = self.model.video
        shown = video.shape[2:]
        video, audio = encoder.check(video), self.model.audio.check(audio)
        for stage, exchange in enumerate(cast(Iterable[Any], self.model.exchanges)):
            video, audio = self._stage(stage, video, audio)
            if self.noting and hasattr(exchange, "weighted"):
                places, steps = exchange.attention(video, audio)
                even = self._rest(stage + 1, *exchange.uniform(video, audio))
                centres = _centres(encoder, tuple(places.shape[1:]), tuple(shown))
                self.noted.append(_Noted(stage + 1, exchange.weighted, places, steps, even, centres))
            video, audio = exchange(video, audio)
        return self._judged(video, audio)

    def _stage(self, stage: int, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.video.stages[stage](video), self.model.audio.stages[stage](audio)

    def _rest(self, stage: int, video: Tensor, audio: Tensor) -> Tensor:
        """Run from the maps before a stage to the answer."""
        for later in range(stage, len(self.model.exchanges)):
            video, audio = self.model.exchanges[later](*self._stage(later, video, audio))
        return self._judged(video, audio)

    def _judged(self, video: Tensor, audio: Tensor) -> Tensor:
        pooled = {
            "video": self.model.video.pool(video),
            "audio": self.model.audio.pool(audio),
        }
        if self.muted:
            pooled[self.muted] = torch.zeros_like(pooled[self.muted])
        log_probabilities: Tensor = self.model.head(pooled["video"], pooled["audio"])
        return log_probabilities


def _watched(model: TwoStream, given: Batch) -> tuple[Tensor, list[_Noted]]:
    """Return the answer and its blocks; speech at several speeds is averaged."""
    walk = _Walk(model, noting=True)
    both = answer(walk, given)
    return both, walk.noted


def _block(noted: _Noted, told: Floats, chosen: int, temperature: float) -> Block:
    even = functional.log_softmax(noted.even.float().mean(dim=0, keepdim=True), dim=1)  # as `answer` does
    return Block(
        noted.stage,
        noted.weighs,
        _array(noted.places.mean(dim=0)),
        _array(noted.steps.mean(dim=0)),
        noted.centres,
        float(told[chosen] - _calibrated(even, temperature)[chosen]),
    )


def _centres(
    encoder: Encoder, places: tuple[int, ...], shown: tuple[int, ...]
) -> tuple[Floats, Floats, Floats]:
    """Middle of each place's receptive field, along each axis.

    Each strided layer of the network of pictures has the middle of its first place on the first of what it is
    given, so the places lie towards the beginning: of 30 frames the second of two is centred around the 17th,
    and the last of 7 across 224 pixels around the 193rd, not in the middle of its seventh. Gradients of
    random networks were measured to lie there. A place stands for a stride around that, as far as it is in
    the picture; its receptive field is wider, a quarter of the picture each way in a small trained network.
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
    encoder = getattr(model, "video", None) or getattr(model, "encoder", None)
    columns = FEATURES[model.reads["video"]].columns if "video" in model.reads else ()
    count = getattr(encoder, "features", 0)
    return columns[:count] if count <= len(columns) else ()


def _input(model: Model, clip: Mapping[str, np.ndarray] | Batch) -> Batch:
    """Prepare one clip as the model takes it, on its device."""
    if not isinstance(clip, Batch):
        return TorchRecogniser(model).batch([clip])
    count = len(clip.video if "video" in model.reads else clip.audio)
    if count != 1:
        raise InputError(f"{count} clips: expected one at a time to explain")
    device = next(model.parameters()).device
    if clip.video.dtype == torch.uint8:
        return to_input(clip, device)
    return clip._replace(video=clip.video.to(device), audio=clip.audio.to(device).float())


def _calibrated(log_probabilities: Tensor, temperature: float) -> Floats:
    """Calibrate log-probabilities (1, classes) -> probabilities (classes,) that sum to 1."""
    return _array(functional.log_softmax(log_probabilities[0].double() / temperature, dim=0))


def _array(values: Tensor) -> Floats:
    array: Floats = values.double().cpu().numpy()
    return array
