"""The graph in PyTorch: bytes and a waveform in, what training and prediction say out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cfnsr.export.graph import ByProducts, Graph, exported_spec
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.models.zoo import Model
from cfnsr.training.checkpoint import config_of
from cfnsr.training.inputs import answer, to_input

from .conftest import batch_of, clip

NAMES = ["cfn_sr", "mcbp", "video", "eranns", "cfn_sr_features", "cfn_sr+speech", "audio+speech"]


@pytest.mark.every_row
@pytest.mark.parametrize("name", NAMES)
def test_the_graph_says_what_the_model_says(make: Callable[..., Model], name: str) -> None:
    model = make(name)
    config = config_of(model)
    clips = [clip(number, config) for number in range(3)]
    spec = exported_spec(model, config)
    given = spec.batch(clips)
    with torch.no_grad():
        found = Graph(model, config)(*(torch.from_numpy(given[name]) for name in spec.inputs))
        scores = answer(model, to_input(batch_of(model, config, clips), torch.device("cpu")))
        expected = (scores / config.temperature).log_softmax(dim=1)
    assert expected.exp().max() < 0.999 and expected.std(dim=0).max() > 1e-3, "a constant proves nothing"
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.exp().sum(dim=1), 1, atol=1e-6)


def test_the_graph_leaves_the_model_as_it_was(make: Callable[..., Model]) -> None:
    model = make("mcbp").train()
    Graph(model, config_of(model))
    assert model.training and type(model.head) is CompactBilinear


def test_compact_bilinear_pooling_by_products() -> None:
    torch.manual_seed(0)
    head = CompactBilinear(20, 30, 4, sketch_dim=600)
    video, audio = torch.randn(5, 20), torch.randn(5, 30)
    torch.testing.assert_close(ByProducts(head).pool(video, audio), head.pool(video, audio))
    torch.testing.assert_close(ByProducts(head)(video, audio), head(video, audio))
