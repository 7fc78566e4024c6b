"""Recognisers turn prepared windows into answers: a PyTorch model here, an exported one in `exported`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from cfnsr.data.preparer import PreparedWindow
from cfnsr.data.windows import Windows
from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Arrays
from cfnsr.features.expression_net import find_net
from cfnsr.features.preparation import Preparation
from cfnsr.features.speech_encoder import choose_encoder, find_encoder
from cfnsr.inference.timeline import Window

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cfnsr.data.dataset import Batch
    from cfnsr.models.entries import Model

BATCH = 4  # windows that are recognised at once
Reader = Callable[..., Windows]  # makes what reads a recording: `Windows`, or its like in another process


class Recogniser(ABC):
    """A model that `predict` can use.

    Attributes:
        name: of the model in the zoo, its encoders included.
        labels: the emotions in class order.
        reads: its inputs for "video", "audio" or both.
        preparation: of a file into a clip with just what it reads.
        normalised: it was trained on features that were standardised over all takes of a speaker.
        tolerant: it can do without pictures or without sound.
        settings: of what it reads, see `Feature.sizes`.
        corpora: names of those that trained it, where that is known.
    """

    name: str
    labels: LabelSet
    reads: Mapping[str, str]
    preparation: Preparation
    normalised: bool
    tolerant: bool
    settings: Mapping[str, Any] = MappingProxyType({})
    corpora: Sequence[str] = ()

    @abstractmethod
    def probabilities(self, clips: Sequence[Arrays]) -> Float[np.ndarray, "B classes"]:
        """Calibrated probabilities of the emotions; a clip is its tensors as `prepare_clip` makes them."""

    @property
    def handles_missing(self) -> bool:
        """True if it can answer by one modality where the other is missing."""
        both = len(self.reads) > 1
        return self.tolerant and both and all(FEATURES[name].replaceable for name in self.reads.values())

    def windows(self, file: Path, reader: Reader = Windows, **settings: Any) -> Windows:
        """Windows of a file as the model reads them; `settings` are those of `Windows`."""
        return reader(file, self.preparation, tolerant=self.handles_missing, **settings)

    def recognise(self, windows: Iterable[PreparedWindow]) -> Iterator[tuple[PreparedWindow, Window]]:
        """Answer about windows, several at once."""
        waiting = iter(windows)
        while group := list(islice(waiting, BATCH)):
            clips = [self.clip(window) for window in group]
            there = [clip for clip in clips if clip is not None]
            answers = iter(self.probabilities(there).tolist() if there else ())
            for window, clip in zip(group, clips, strict=True):
                answer = None if clip is None else dict(zip(self.labels.emotions, next(answers), strict=True))
                uses = self.available(window)
                yield window, Window(*window.span, answer, window.face, window.speech, uses)

    def available(self, window: PreparedWindow) -> tuple[str, ...]:
        """Modalities that an answer rests on; none where the model has to abstain."""
        there = {"video": window.face, "audio": window.speech}
        modalities = tuple(modality for modality in self.reads if there[modality])
        return modalities if len(modalities) == len(self.reads) or self.handles_missing else ()

    def clip(self, window: PreparedWindow) -> Arrays | None:
        """Tensors of a window, what is missing filled with no face or no sound; None where it abstains."""
        available = self.available(window)
        if not available:
            return None
        tensors = dict(window.tensors)
        for modality, name in self.reads.items():
            if modality not in available:
                tensors |= FEATURES[name].absent(self.preparation, self.settings)
        return tensors

    def check(self, file: str, openface: object) -> None:
        """Refuse to predict a file that lacks what the model needs beside it.

        Raises:
            InputError: it needs an OpenFace file, or speakers standardised over more than one recording.
        """
        if self.normalised:
            raise InputError(
                f"model {self.name} was trained on speakers standardised over all their takes, and a file "
                "alone cannot be: expected a model trained without --speaker-normalisation"
            )
        if openface is None and self.preparation.of_openface:
            raise InputError(
                f"model {self.name} sees OpenFace tracks: expected --openface with the CSV of {file}, "
                "a folder of such files, or a table of clip means"
            )

    def find_networks(self, speech_encoder: str | None = None) -> None:
        """Find the pretrained networks that the model was trained with, before any file needs them.

        Args:
            speech_encoder: a folder or a hub name; None leaves what `CFNSR_SPEECH_ENCODER` names, or the
                hub's.

        Raises:
            InputError: when one is not there or is another, or no speech encoder is needed.
        """
        if self.preparation.pretrained:
            if speech_encoder is not None:
                choose_encoder(speech_encoder)
            find_encoder(self.preparation.speech_encoder, self.preparation.speech_sha256)
        elif speech_encoder is not None:
            raise InputError(
                f"--speech-encoder {speech_encoder}: model {self.name} reads no speech; leave it out"
            )
        if self.preparation.expression_sha256:
            find_net(self.preparation.expression_sha256)


class TorchRecogniser(Recogniser):
    """A PyTorch model as `predict` needs it, from `load_model` or the zoo."""

    def __init__(self, model: Model) -> None:
        from cfnsr.models.settings import Settings
        from cfnsr.training.checkpoint import config_of

        self.model = model
        self.config = config_of(model)
        self.look = self.config.look
        self.name, self.labels, self.reads = self.config.model, self.config.labels, model.reads
        self.preparation = replace(self.config.preparation, modalities=tuple(model.reads.values()))
        self.normalised, self.tolerant = self.config.normalised, self.config.tolerant
        # A configuration need not name what is as `create_model` has it.
        self.settings = {**asdict(Settings()), **self.config.settings}
        self.corpora = self.config.corpora

    def batch(self, clips: Sequence[Arrays]) -> Batch:
        """Arrange clips side by side on the model's device, as it takes them."""
        import torch

        from cfnsr.data.dataset import Batch
        from cfnsr.training.inputs import to_input

        nothing = torch.empty(0)
        inputs = dict.fromkeys(("video", "audio"), nothing)
        for modality, name in self.reads.items():
            feature = FEATURES[name]
            names = feature.arrays(self.preparation)
            each = [feature.to_model({array: clip[array] for array in names}, self.look) for clip in clips]
            inputs[modality] = torch.from_numpy(np.stack(each))
        batch = Batch(inputs["video"], inputs["audio"], nothing, nothing)
        return to_input(batch, next(self.model.parameters()).device)

    @cached_property
    def fast(self) -> Callable[..., Tensor]:
        """The model as it answers fastest, with the weights that it has when first asked."""
        from cfnsr.models.fast import fast

        return fast(self.model)

    def probabilities(self, clips: Sequence[Arrays]) -> Float[np.ndarray, "B classes"]:
        import torch

        from cfnsr.training.inputs import answer

        with torch.inference_mode(), evaluated(self.model):
            log_probabilities = answer(self.fast, self.batch(clips))
            values = (log_probabilities / self.config.temperature).softmax(dim=1)
        probabilities: np.ndarray = values.double().cpu().numpy()
        return probabilities


def as_recogniser(model: Model | Recogniser) -> Recogniser:
    """Wrap a model as `predict` needs it; raise `InputError` for the name of one."""
    if isinstance(model, str | Path):
        raise InputError(f"{model} is the name of a model: expected the model, cfnsr.load({str(model)!r})")
    return model if isinstance(model, Recogniser) else TorchRecogniser(model)


class Among(Recogniser):
    """A model whose answers are among some of its emotions, which share the others' probabilities."""

    def __init__(self, model: Recogniser, emotions: Sequence[str]) -> None:
        self.whole = model
        places = {model.labels.index(emotion) for emotion in emotions}
        if len(places) < 2:
            known = ", ".join(model.labels.emotions)
            raise InputError(f"--only {','.join(emotions)}: expected two or more of {known}")
        self.kept = sorted(places)
        self.labels = LabelSet(model.labels.name, tuple(model.labels.emotions[place] for place in self.kept))
        self.name, self.reads, self.preparation = model.name, model.reads, model.preparation
        self.normalised, self.tolerant, self.settings = model.normalised, model.tolerant, model.settings
        self.corpora = model.corpora

    def probabilities(self, clips: Sequence[Arrays]) -> Float[np.ndarray, "B classes"]:
        kept = np.maximum(self.whole.probabilities(clips)[:, self.kept], np.finfo(np.float64).tiny)
        shared: np.ndarray = kept / kept.sum(axis=1, keepdims=True)
        return shared


def among(model: Recogniser, emotions: Sequence[str]) -> Recogniser:
    """Let a model answer among some emotions alone.

    Raises:
        InputError: it does not know one, or there are not two.
    """
    return Among(model, emotions)


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation inside, and each part of it back as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
