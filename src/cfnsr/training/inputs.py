"""Batches as a model takes them, in training and in prediction, and its answers."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cfnsr.data import augment
from cfnsr.data.dataset import Batch


def to_input(
    batch: Batch,
    device: torch.device,
    maps: Float[Tensor, "B 2 3"] | None = None,
    colours: Float[Tensor, "B 3"] | None = None,
) -> Batch:
    """Move a batch to the device (pictures as uint8, speech as float16) and make it the network's input.

    Args:
        maps, colours: of each clip, the crop and the factors of its colours, for pictures.
    """
    video, audio = batch.video.to(device, non_blocking=True), batch.audio.to(device, non_blocking=True)
    if video.dim() == 5:
        if colours is not None:
            video = augment.jitter(video, colours)
        video = augment.normalise(video)
        if maps is not None:
            video = augment.apply(video, maps)
        # Convolutions run about twice as fast on a CPU with the channels innermost.
        video = video.contiguous(memory_format=torch.channels_last_3d)
    return batch._replace(video=video, audio=audio.float())


def at_one_speed(batch: Batch, chance: Float[Tensor, " B"]) -> Batch:
    """Choose one of the speeds of speech, by a number from 0 to 1 for each clip."""
    if batch.audio.dim() != 5:
        return batch
    speeds = batch.audio.shape[1]
    which = (chance * speeds).long().clamp(max=speeds - 1).to(batch.audio.device)
    return batch._replace(audio=batch.audio[torch.arange(len(which), device=which.device), which])


def drop_modality(batch: Batch, dropped: Int[Tensor, " B"], silence: Tensor) -> Batch:
    """Drop the pictures of some clips, which become zero once normalised, and the sound of others."""
    unseen = (dropped == 1).view(-1, *[1] * (batch.video.dim() - 1))
    audio = torch.where((dropped == 2).view(-1, 1, 1), silence, batch.audio)
    return batch._replace(video=batch.video.masked_fill(unseen, 0), audio=audio)


def mixed(
    batch: Batch, targets: Float[Tensor, "B classes"], share: Float[Tensor, " B"]
) -> tuple[Batch, Float[Tensor, "B classes"]]:
    """Mix a part of the next clip into each one, and into its label likewise (Zhang et al. 2018, mixup)."""

    def mix(values: Tensor) -> Tensor:
        if len(values) != len(share) or values.dim() < 2:  # a modality that is not there
            return values
        part = share.view(-1, *[1] * (values.dim() - 1)).to(values)
        return (1 - part) * values + part * values.roll(1, 0)

    return batch._replace(video=mix(batch.video), audio=mix(batch.audio)), mix(targets)


def at_every_speed(batch: Batch) -> tuple[Batch, int]:
    """Make speech at every speed a clip of its own, beside the same pictures; also return their number."""
    if batch.audio.dim() != 5:
        return batch, 1
    clips, speeds = batch.audio.shape[:2]
    video = batch.video
    if len(video) == clips and video.dim() > 1:
        video = video.repeat_interleave(speeds, dim=0)
    return batch._replace(video=video, audio=batch.audio.flatten(0, 1)), speeds


def answer(model: Callable[..., Tensor], batch: Batch) -> Float[Tensor, "B classes"]:
    """Log-probabilities of a model; of speech at several speeds their mean, which sums to 1 again."""
    spread, speeds = at_every_speed(batch)
    each = model(spread.video, spread.audio)
    if batch.audio.dim() != 5:
        return each
    return functional.log_softmax(each.float().view(-1, speeds, each.shape[1]).mean(dim=1), dim=1)
