"""What a model knows in closed form: fitted once, before it is trained by gradient."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from cfnsr.data.dataset import Batch, Clips
from cfnsr.models.encoders.discriminant import Judging
from cfnsr.models.streams import OneStream

BATCH = 64
EVERY_SPEED = 5  # dimensions of speech, whose takes come at several speeds (B, speeds, layers, S, width)


@torch.no_grad()
def fit_discriminants(model: nn.Module, clips: Clips, train: Sequence[int]) -> None:
    """Fit the discriminants of a model of one stream to the training clips, at every speed they have.

    A model of two streams has those of the encoders it starts from; trained from nothing, it does without.
    """
    if not isinstance(model, OneStream):
        return
    (modality,) = model.reads
    for stage in (module for module in model.modules() if isinstance(module, Judging)):
        values, labels = [], []
        for batch in map(Batch._make, DataLoader(Subset(clips, train), BATCH)):
            given = batch._asdict()[modality]
            if given.dim() == EVERY_SPEED:
                given = given.flatten(0, 1)
            values.append(stage.statistics(given.to(stage.discriminant.mean)))
            labels.append(batch.label.repeat_interleave(len(given) // len(batch.label)))
        stage.discriminant.fit(torch.cat(values), torch.cat(labels).to(values[0].device))
