"""The graph in PyTorch: bytes and a waveform in, what training and prediction say out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cfnsr.export.graph import ByProducts, Graph, describe
from cfnsr.models.entries import Model
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.training.checkpoint import config_of

from .conftest import by_torch, clip


@pytest.mark.parametrize("name", ["mcbp", "eranns", "cfn_sr+speech", "audio+speech"])
def test_the_graph_says_what_the_model_says(make: Callable[..., Model], name: str) -> None:
    model, spec = describe(make(name))
    clips = [clip(number, spec) for number in range(3)]
    given, expected = spec.batch(clips), by_torch(model, clips)
    with torch.no_grad():
        found = Graph(model, spec)(*(torch.from_numpy(given[name]) for name in spec.inputs))[0].numpy()
    assert np.exp(expected).max() < 0.999 and expected.std(axis=0).max() > 1e-3, "a constant proves nothing"
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, atol=1e-6)


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
