"""Parts of a model in closed form: fitted once, before training by gradient or instead of it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from cfnsr.data.dataset import Batch, Clips
from cfnsr.models.baselines import Solver, Statistics
from cfnsr.models.encoders.discriminant import ScoredStage
from cfnsr.models.streams import OneStream
from cfnsr.training.inputs import at_every_speed, to_input

BATCH = 64
PICTURED = 16  # clips at once where there may be pictures, which are large once normalised
EVERY_SPEED = 5  # dimensions of speech, whose takes come at several speeds (B, speeds, layers, S, width)


@torch.no_grad()
def fit_discriminants(model: nn.Module, clips: Clips, train: Sequence[int]) -> None:
    """Fit the discriminants of a model of one stream to the training clips, at every speed they have.

    A model of two streams has those of the encoders it starts from; trained from nothing, it does without.
    """
    if not isinstance(model, OneStream):
        return
    (modality,) = model.reads
    for stage in (module for module in model.modules() if isinstance(module, ScoredStage)):
        values, labels = [], []
        for batch in map(Batch._make, DataLoader(Subset(clips, train), BATCH)):
            given = batch._asdict()[modality]
            if given.dim() == EVERY_SPEED:
                given = given.flatten(0, 1)
            values.append(stage.measure(given.to(stage.discriminant.mean)))
            labels.append(batch.label.repeat_interleave(len(given) // len(batch.label)))
        stage.discriminant.fit(torch.cat(values), torch.cat(labels).to(values[0].device))


@torch.no_grad()
def prepare(
    model: nn.Module, solver: Solver, clips: Clips, train: Sequence[int], *, apart: bool = False
) -> Callable[[float], None]:
    """Measure the training clips, at every speed they have; returns what solves the model at a strength.

    Args:
        apart: standardise the clips of each corpus by their own statistics.
    """
    if solver.prepare is None:
        return lambda strength: None
    streams = [module for module in model.modules() if isinstance(module, Statistics)]
    (linear,) = (module for module in model.modules() if isinstance(module, nn.Linear))
    measured: list[list[Tensor]] = [[] for _ in streams]
    labels, corpora = [], list[str]()
    for batch in map(Batch._make, DataLoader(Subset(clips, train), PICTURED)):
        spread, speeds = at_every_speed(to_input(batch, linear.weight.device))
        labels.append(batch.label.repeat_interleave(speeds))
        corpora += [clips.corpora[place] for place in batch.place for _ in range(speeds)]
        inputs = spread._asdict()
        for modality, stream, values in zip(clips.columns, streams, measured, strict=True):
            values.append(stream.measure(stream.check(inputs[modality])))
    pooled = []
    for stream, values in zip(streams, measured, strict=True):
        every = torch.cat(values)
        groups = np.array(corpora if apart else [""] * len(every))
        standardised = torch.empty(every.shape, dtype=torch.float64)
        for corpus in dict.fromkeys(groups.tolist()):
            rows = torch.from_numpy(groups == corpus)
            stream.fit(every[rows])
            standardised[rows] = stream.standardise(every[rows]).double().cpu()
        stream.fit(every)
        pooled.append(standardised.to(every.device))
    together = torch.cat(labels).to(linear.weight.device)
    solve = solver.prepare(torch.cat(pooled, dim=1), together, linear.out_features)

    @torch.no_grad()
    def solve_model(strength: float) -> None:
        weight, bias = solve(strength)
        linear.weight.copy_(weight.T)
        linear.bias.copy_(bias)

    return solve_model
