"""What a model knows in closed form: fitted once, before it is trained by gradient."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from cfnsr.data.dataset import Batch, Clips
from cfnsr.models.encoders.speech import Heard
from cfnsr.models.streams import OneStream

BATCH = 64


@torch.no_grad()
def fit_discriminants(model: nn.Module, clips: Clips, train: Sequence[int]) -> None:
    """Fit the discriminants of a model of one stream to the training clips, at every speed they have.

    A model of two streams has those of the encoders it starts from; trained from nothing, it does without.
    """
    if not isinstance(model, OneStream):
        return
    for heard in (module for module in model.modules() if isinstance(module, Heard)):
        values, labels = [], []
        for batch in map(Batch._make, DataLoader(Subset(clips, train), BATCH)):
            speeds = batch.audio.flatten(0, 1) if batch.audio.dim() == 5 else batch.audio
            values.append(heard.statistics(speeds.to(heard.discriminant.mean)))
            labels.append(batch.label.repeat_interleave(len(speeds) // len(batch.label)))
        heard.discriminant.fit(torch.cat(values), torch.cat(labels).to(values[0].device))
