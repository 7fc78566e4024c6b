"""An audit of what the modalities of a model do to each other: its answers when their exchange is disturbed.

Accuracy does not tell whether a fused model joins its modalities or merely adds up two opinions. So the test
clips are answered again under disturbances.

`without_exchange`: each exchange under uniform weights, or passed by where it has none; and an early head
replaced by the nearest sum of a score of the video and a score of the audio (Hessel and Lee 2020, "Does my
multimodal model learn cross-modal interactions?", section 3), taken over the clips of a batch.

`other_audio`, `other_video`: the exchange alone given another clip's audio, or video.

Where answers stay the same, the exchange had no part in them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.data.dataset import Batch, Clips
from cfnsr.models.exchanges.silent import Silent
from cfnsr.models.streams import TwoStream

WITHOUT, OTHER_AUDIO, OTHER_VIDEO = "without_exchange", "other_audio", "other_video"

Hook = Callable[[nn.Module, tuple[Tensor, Tensor], Any], Any]


def disturbances(model: nn.Module) -> tuple[str, ...]:
    """The disturbances that concern a model; none where its modalities meet in a sum alone."""
    if not isinstance(model, TwoStream):
        return ()
    exchanges = (WITHOUT, OTHER_AUDIO, OTHER_VIDEO) if _exchanges(model) else ()
    return exchanges or ((WITHOUT,) if getattr(model.head, "early", False) else ())


@contextmanager
def disturbed(model: TwoStream, how: str) -> Iterator[None]:
    """A context in which a model in evaluation is disturbed.

    With `other_audio` and `other_video` it must be given twice as many clips: the second half are the others,
    and the answers to the first half are those of the disturbed model.
    """
    if how == WITHOUT:
        hooks: list[tuple[nn.Module, Hook]] = [(each, _without) for each in _exchanges(model)]
        if getattr(model.head, "early", False):
            hooks.append((model.head, _additive))
    else:
        hooks = [(each, _other_audio if how == OTHER_AUDIO else _other_video) for each in _exchanges(model)]
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def beside(clips: Clips, which: Sequence[int]) -> Callable[[Batch], Batch]:
    """A change of batches that puts another clip behind each one: that half the list further on."""
    other = {place: which[(at + len(which) // 2) % len(which)] for at, place in enumerate(which)}

    def double(batch: Batch) -> Batch:
        others = [clips[other[place]] for place in batch.place.tolist()]
        video, audio = (
            torch.cat([ours, torch.stack(theirs).to(ours)])
            for ours, theirs in (
                (batch.video, [each.video for each in others]),
                (batch.audio, [each.audio for each in others]),
            )
        )
        return batch._replace(video=video, audio=audio)

    return double


@contextmanager
def entropies(model: TwoStream) -> Iterator[list[Tensor]]:
    """A context that lists the entropies of the attention weights of all clips: 1 where they are uniform."""
    found: list[Tensor] = []

    def note(exchange: nn.Module, maps: tuple[Tensor, Tensor], output: object) -> None:
        places, steps = cast(Any, exchange).attention(*maps)
        weights = (places if cast(Any, exchange).weighs == "video" else steps).flatten(1).double()
        if weights.shape[1] > 1:
            found.append(torch.special.entr(weights).sum(dim=1) / math.log(weights.shape[1]))

    handles = [each.register_forward_hook(note) for each in _exchanges(model) if hasattr(each, "weighs")]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _exchanges(model: TwoStream) -> list[nn.Module]:
    return [exchange for exchange in model.exchanges if not isinstance(exchange, Silent)]


def _without(exchange: nn.Module, maps: tuple[Tensor, Tensor], output: object) -> tuple[Tensor, Tensor]:
    uniform = getattr(exchange, "uniform", None)
    return maps if uniform is None else uniform(*maps)


def _other_audio(
    exchange: nn.Module, maps: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The video as another clip's audio makes it; the audio stays as the clip's own video makes it."""
    (video, audio), own = maps, len(maps[0]) // 2
    changed, _ = exchange.forward(video[:own], audio[own:])
    return torch.cat([changed, output[0][own:]]), output[1]


def _other_video(
    exchange: nn.Module, maps: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The audio as another clip's video makes it; the video stays as the clip's own audio makes it."""
    (video, audio), own = maps, len(maps[0]) // 2
    _, changed = exchange.forward(video[own:], audio[:own])
    return output[0], torch.cat([changed, output[1][own:]])


def _additive(head: nn.Module, pooled: tuple[Tensor, Tensor], output: object) -> Float[Tensor, "B classes"]:
    """The nearest sum of a score of each modality, over all pairs of a video and an audio of the batch."""
    video, audio = pooled
    # Pair by pair of rows: all pairs at once would not fit into memory with a sketch of 16,000 values.
    scores = torch.stack([head.forward(one.expand(len(audio), -1), audio) for one in video])
    by_video, by_audio = scores.mean(dim=1), scores.mean(dim=0)
    return (by_video + by_audio - by_video.mean(dim=0)).log_softmax(dim=1)
