"""Small models to export, with batches of their own behind them, so that each part answers at its scale."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from cfnsr.data.dataset import Batch
from cfnsr.emotions import LabelSet
from cfnsr.export.graph import Graph
from cfnsr.export.onnx import trace
from cfnsr.features import FEATURES
from cfnsr.features.mel import Mel
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.models import zoo
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.encoders.openface import TemporalConvolution
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.entries import Model
from cfnsr.models.names import encoders_of
from cfnsr.models.streams import OneStream, TwoStream
from cfnsr.training.checkpoint import config_of
from cfnsr.training.inputs import answer, to_input

LABELS = LabelSet("three", ("calm", "happy", "angry"))
TENSORS = {"pixels": "video", "mfcc": "audio"}  # of the other encoders by their own names
Clip = dict[str, np.ndarray]
Make = Callable[..., Model]


def config_for(name: str) -> ModelSpec:
    """Few and small pictures, and less than a second of sound."""
    modalities = tuple(TENSORS.get(encoder, encoder) for encoder in encoders_of(name).values())
    preparation = Preparation(
        modalities=modalities,
        frames=10,
        size=80,
        keep=0.7,
        speech_sha256="0" * 64 if "speech" in modalities else "",
        speech_speeds=(0.9,),
    )
    sizes = {"speech_layers": 2, "speech_width": 16} if "speech" in modalities else {}
    return ModelSpec(
        name,
        {"classes": len(LABELS), "mfcc_steps": preparation.mfcc_steps, "width": 1 / 8, **sizes},
        LABELS,
        frames=8,
        size=64,
        openface_steps=5,
        speech_steps=6,
        preparation=preparation,
        temperature=1.7,
    )


def clip(number: int, config: ModelSpec) -> Clip:
    """A prepared clip, and more than any model reads of it: a face of noise, a chirp, features."""
    rng = np.random.default_rng(number)
    settings = config.preparation
    time = np.arange(settings.samples) / 44_100
    sound = 0.2 * np.sin(2 * np.pi * (200 + 90 * number + 300 * time) * time) * np.exp(-3 * time)
    sound += 0.003 * rng.standard_normal(settings.samples)
    tint = rng.integers(0, 100, 3)
    size = settings.size
    return {
        "video": (rng.integers(0, 150, (settings.frames, size, size, 3)) + tint).astype(np.uint8),
        "waveform": np.round(32_767 * sound).astype(np.int16),
        "openface": rng.gamma(1.0, 0.7, (7, 41)).astype(np.float32),
        "speech": rng.standard_normal((2, 9, 16)).astype(np.float16),
        "speech_0.9": rng.standard_normal((2, 10, 16)).astype(np.float16),
    }


def batch_of(model: Model, config: ModelSpec, clips: list[Clip]) -> Batch:
    """The clips as training shows them to a model."""
    read = {}
    for modality, name in model.reads.items():
        each = []
        for one in clips:
            feature = FEATURES[name]
            arrays = {key: one[key] for key in feature.arrays(config.preparation) if key in one}
            if isinstance(feature, Mel):
                arrays = {name: feature.compute(one["waveform"] / np.float32(32_767))}
            each.append(torch.from_numpy(feature.to_model(arrays, config.look)))
        read[modality] = torch.stack(each)
    nothing = torch.empty(0)
    return Batch(read.get("video", nothing), read.get("audio", nothing), nothing, nothing)


def by_torch(model: Model, clips: list[Clip]) -> np.ndarray:
    """Calibrated log-probabilities, all clips at once."""
    config = config_of(model)
    with torch.no_grad():
        scores = answer(model, to_input(batch_of(model, config, clips), torch.device("cpu")))
        tempered: np.ndarray = (scores / config.temperature).log_softmax(dim=1).numpy()
    return tempered


@pytest.fixture(scope="session")
def make() -> Make:
    """A model of the zoo whose 3D network is as shallow as can be, and which has seen some clips."""

    def make(name: str, *, shallow: bool = True, met: list[Clip] | None = None) -> Model:
        torch.manual_seed(0)
        config = config_for(name)
        model = zoo.create_model(name, **config.settings)
        if shallow and isinstance(model, TwoStream) and isinstance(model.video, ResNeXt3D):
            model.video = ResNeXt3D(width=1 / 8, depths=(1, 1, 1, 1))
        if shallow and isinstance(model, OneStream) and isinstance(model.encoder, ResNeXt3D):
            model.encoder = ResNeXt3D(width=1 / 8, depths=(1, 1, 1, 1))
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = None  # the statistics of these clips, at once
            elif isinstance(module, Discriminant):
                torch.nn.init.normal_(module.weight, std=0.1)  # so that it has scores
            elif isinstance(module, TemporalConvolution):
                torch.nn.init.normal_(module.weight)  # time is to matter
        model.config = config  # type: ignore[assignment]
        by_torch(model.train(), met or [clip(number, config) for number in range(0, 60, 8)])
        return model.eval()

    return make


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """Tracing takes longest, and many tests export the same model."""
    traced: dict[Any, bytes] = {}

    def once(graph: Graph, spec: ModelSpec) -> Any:
        import onnx

        weights = tuple(float(value.double().sum()) for value in graph.state_dict().values())
        key = spec.model, spec.temperature, str(spec.shapes), weights
        if key not in traced:
            traced[key] = trace(graph, spec).SerializeToString()
        return onnx.load_model_from_string(traced[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cfnsr.export.onnx.trace", once)
        patch.setattr("cfnsr.export.openvino.trace", once)
        yield


@pytest.fixture(scope="module")
def model(make: Make) -> Model:
    """The one that most tests export."""
    return make("cfn_sr")
