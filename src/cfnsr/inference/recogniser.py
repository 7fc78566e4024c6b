"""Recognisers turn prepared clips into probabilities: a PyTorch model here, an exported one in `exported`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from cfnsr.data.dataset import Batch
from cfnsr.emotions import LabelSet
from cfnsr.features.base import FEATURES
from cfnsr.features.preparation import Preparation
from cfnsr.models.zoo import Model
from cfnsr.training.checkpoint import config_of
from cfnsr.training.inputs import answer, to_input


class Recogniser(Protocol):
    """The interface of a model that `predict` needs.

    `reads` names what the model reads for "video" and "audio"; `preparation` says how to make just that.
    `normalised` is whether it was trained on standardised speakers, `tolerant` whether on clips with dropped
    pictures or sound.
    """

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> LabelSet: ...
    @property
    def reads(self) -> Mapping[str, str]: ...
    @property
    def preparation(self) -> Preparation: ...
    @property
    def normalised(self) -> bool: ...
    @property
    def tolerant(self) -> bool: ...

    def probabilities(self, clips: Sequence[Mapping[str, np.ndarray]]) -> Float[np.ndarray, "B classes"]:
        """Calibrated probabilities of the emotions; a clip is its tensors as `prepare_clip` makes them."""
        ...


class TorchRecogniser:
    """A PyTorch model as `predict` needs it, from `load_model` or the zoo."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.config = config_of(model)
        self.name, self.labels = self.config.model, self.config.labels
        self.reads: Mapping[str, str] = model.reads
        self.preparation = replace(self.config.preparation, modalities=tuple(model.reads.values()))
        self.normalised = self.config.normalised
        self.tolerant = self.config.tolerant

    def batch(self, clips: Sequence[Mapping[str, np.ndarray]]) -> Batch:
        """Arrange clips side by side on the model's device, as it takes them."""
        nothing = torch.empty(0)
        inputs = dict.fromkeys(("video", "audio"), nothing)
        for modality, name in self.reads.items():
            names = FEATURES[name].arrays(self.preparation)
            read = [{each: clip[each] for each in names} for clip in clips]
            each = [FEATURES[name].to_model(arrays, self.config.look) for arrays in read]
            inputs[modality] = torch.from_numpy(np.stack(each))
        batch = Batch(inputs["video"], inputs["audio"], nothing, nothing)
        return to_input(batch, next(self.model.parameters()).device)

    def probabilities(self, clips: Sequence[Mapping[str, np.ndarray]]) -> Float[np.ndarray, "B classes"]:
        """See `Recogniser`."""
        with torch.inference_mode(), evaluated(self.model):
            log_probabilities = answer(self.model, self.batch(clips))
            values = (log_probabilities / self.config.temperature).softmax(dim=1)
        probabilities: np.ndarray = values.double().cpu().numpy()
        return probabilities


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation while this lasts, and afterwards each part of it back as it was."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
