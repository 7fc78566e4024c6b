"""An audit of the interaction of a model's modalities: its answers when their exchange is disturbed.

Accuracy does not show whether a fused model joins its modalities or merely adds up two answers. So the test
clips are answered again under disturbances.

`without_exchange`: each exchange under uniform weights, or passed by where it has none; and an early head
replaced by the nearest sum of a score of the video and a score of the audio (Hessel and Lee 2020, "Does my
multimodal model learn cross-modal interactions?", section 3), over pairs with `PAIRED` of the test clips.

`other_audio`, `other_video`: the exchange alone given the audio, or video, of a clip of another emotion.

Where answers stay the same, the exchange had no part in them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.data.dataset import Batch, Clips
from cfnsr.models.exchanges.none import NoExchange
from cfnsr.models.streams import TwoStream

PAIRED = 64  # pooled vectors of each modality that every clip's are paired with
WITHOUT, OTHER_AUDIO, OTHER_VIDEO = "without_exchange", "other_audio", "other_video"
DISTURBANCES = {  # and their labels, in the order of the report
    WITHOUT: "without the exchange",
    OTHER_AUDIO: "another clip's sound in it",
    OTHER_VIDEO: "another clip's picture in it",
}

Pair = tuple[Tensor, Tensor]  # of video and audio
Hook = Callable[[nn.Module, Pair, Any], Any]


def disturbances(model: nn.Module) -> tuple[str, ...]:
    """Disturbances that concern a model; none where its modalities meet in a sum alone."""
    if not isinstance(model, TwoStream):
        return ()
    exchanges = tuple(DISTURBANCES) if _exchanges(model) else ()
    return exchanges or ((WITHOUT,) if joins_early(model) else ())


def joins_early(model: TwoStream) -> bool:
    """Tell if the head itself joins the modalities, beyond a sum of their scores."""
    return bool(getattr(model.head, "early", False))


@contextmanager
def pooled(model: TwoStream) -> Iterator[list[Pair]]:
    """Collect the pooled vectors of both modalities inside, batch by batch."""
    found: list[Pair] = []
    with model.head.register_forward_pre_hook(lambda head, vectors: found.append(vectors)):
        yield found


@contextmanager
def disturbed(model: TwoStream, how: str, vectors: Sequence[Pair] = ()) -> Iterator[None]:
    """Disturb a model in evaluation inside.

    With `other_audio` and `other_video` it must be given twice as many clips: the second half are the others,
    and the answers to the first half are those of the disturbed model.

    Args:
        how: one of `disturbances`.
        vectors: `pooled` of all test clips, for `without_exchange` of a head that joins early.
    """
    hook: Hook = _without if how == WITHOUT else partial(_other, changes=int(how == OTHER_VIDEO))
    hooks = [(exchange, hook) for exchange in _exchanges(model)]
    if how == WITHOUT and joins_early(model):
        hooks.append((model.head, _nearest_sum(model.head, vectors)))
    with ExitStack() as stack:
        for module, each in hooks:
            stack.enter_context(module.register_forward_hook(each))
        yield


def beside(clips: Clips, which: Sequence[int]) -> Callable[[Batch], Batch]:
    """Return a change of batches that puts a clip of another emotion behind each one, drawn by a fixed seed.

    Where all have one emotion it may be any of them.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([clips.labels[place] for place in which])
    drawn = torch.empty(len(which), dtype=torch.long)
    for label in set(labels.tolist()):
        members = labels == label
        others = (~members if not members.all() else members).nonzero().squeeze(1)
        drawn[members] = others[torch.randint(len(others), (int(members.sum()),), generator=generator)]
    other = {place: which[at] for place, at in zip(which, drawn.tolist(), strict=True)}

    def double(batch: Batch) -> Batch:
        others = [clips[other[place]] for place in batch.place.tolist()]
        video = torch.stack([each.video for each in others]).to(batch.video)
        audio = torch.stack([each.audio for each in others]).to(batch.audio)
        return batch._replace(video=torch.cat([batch.video, video]), audio=torch.cat([batch.audio, audio]))

    return double


@contextmanager
def entropies(model: TwoStream) -> Iterator[list[Tensor]]:
    """Collect the entropies of the attention weights of all clips inside: 1 where they are uniform."""
    found: list[Tensor] = []

    def note(exchange: nn.Module, maps: Pair, output: object) -> None:
        attention = dict(zip(("video", "audio"), cast(Any, exchange).attention(*maps), strict=True))
        weights = attention[cast(Any, exchange).weighted].flatten(1).double()
        if weights.shape[1] > 1:
            found.append(torch.special.entr(weights).sum(dim=1) / math.log(weights.shape[1]))

    with ExitStack() as stack:
        for exchange in _exchanges(model):
            if hasattr(exchange, "weighted"):
                stack.enter_context(exchange.register_forward_hook(note))
        yield found


def _exchanges(model: TwoStream) -> list[nn.Module]:
    return [exchange for exchange in model.exchanges if not isinstance(exchange, NoExchange)]


def _without(exchange: nn.Module, maps: Pair, output: object) -> tuple[Tensor, Tensor]:
    uniform = getattr(exchange, "uniform", None)
    return maps if uniform is None else uniform(*maps)


def _other(exchange: nn.Module, maps: Pair, output: Pair, changes: int) -> list[Tensor]:
    """One modality (0 video, 1 audio) by another clip's other; that one stays as the clip's own makes it."""
    own, given, result = len(maps[0]) // 2, list(maps), list(output)
    given[changes], given[1 - changes] = maps[changes][:own], maps[1 - changes][own:]
    result[changes] = torch.cat([exchange.forward(*given)[changes], output[changes][own:]])
    return result


def _nearest_sum(head: nn.Module, vectors: Sequence[Pair]) -> Hook:
    """Return a hook that answers by the nearest sum of a score of each modality, over some vectors."""
    every = [torch.cat(each) for each in zip(*vectors, strict=True)]
    lot = torch.randperm(len(every[0]), generator=torch.Generator().manual_seed(0))[:PAIRED]
    videos, audios = (each[lot.to(each.device)] for each in every)

    def among(videos: Tensor, audios: Tensor) -> Float[Tensor, "V classes"]:
        """Mean score of each video over all audios; one by one, as a sketch of 16,000 values takes memory."""
        return torch.stack([head.forward(one.expand(len(audios), -1), audios).mean(dim=0) for one in videos])

    middle = among(videos, audios).mean(dim=0)

    def answer(head: nn.Module, pair: Pair, output: object) -> Float[Tensor, "B classes"]:
        by_video = among(pair[0], audios)
        by_audio = torch.stack(
            [head.forward(videos, one.expand(len(videos), -1)).mean(dim=0) for one in pair[1]]
        )
        return (by_video + by_audio - middle).log_softmax(dim=1)

    return answer
