"""Batches as a model takes them, in training and in prediction, and what it makes of them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cfnsr.data import augment
from cfnsr.data.dataset import Batch


def to_input(
    batch: Batch,
    device: torch.device,
    maps: Float[Tensor, "B 2 3"] | None = None,
    colours: Float[Tensor, "B 3"] | None = None,
) -> Batch:
    """Pictures travel as uint8, states of speech as float16, and become the network's input on its device.

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
    """Speech that was heard at several speeds at one of them, by a number from 0 to 1 for each clip."""
    if batch.audio.dim() != 5:
        return batch
    speeds = batch.audio.shape[1]
    which = (chance * speeds).long().clamp(max=speeds - 1).to(batch.audio.device)
    return batch._replace(audio=batch.audio[torch.arange(len(which), device=which.device), which])


def lose(batch: Batch, lost: Int[Tensor, " B"], silence: Tensor) -> Batch:
    """Take the pictures of some clips away, which are zero once normalised, and the sound of others."""
    unseen = (lost == 1).view(-1, *[1] * (batch.video.dim() - 1))
    audio = torch.where((lost == 2).view(-1, 1, 1), silence, batch.audio)
    return batch._replace(video=batch.video.masked_fill(unseen, 0), audio=audio)


def mixed(
    batch: Batch, targets: Float[Tensor, "B classes"], share: Float[Tensor, " B"]
) -> tuple[Batch, Float[Tensor, "B classes"]]:
    """Each clip with a share of the one beside it mixed in, its label likewise (Zhang et al. 2018, mixup)."""

    def mix(values: Tensor) -> Tensor:
        if len(values) != len(share) or values.dim() < 2:  # a modality that is not there
            return values
        part = share.view(-1, *[1] * (values.dim() - 1)).to(values)
        return (1 - part) * values + part * values.roll(1, 0)

    return batch._replace(video=mix(batch.video), audio=mix(batch.audio)), mix(targets)


def answer(model: nn.Module, batch: Batch) -> Float[Tensor, "B classes"]:
    """A model's log-probabilities; of speech at several speeds their mean, which sums to 1 again."""
    if batch.audio.dim() != 5:
        log_probabilities: Tensor = model(batch.video, batch.audio)
        return log_probabilities
    clips, speeds = batch.audio.shape[:2]
    video = batch.video
    if len(video) == clips and video.dim() > 1:
        video = video.repeat_interleave(speeds, dim=0)
    each: Tensor = model(video, batch.audio.flatten(0, 1))
    return functional.log_softmax(each.float().view(clips, speeds, -1).mean(dim=1), dim=1)
