"""The stage that appends a discriminant's scores: alike in the encoders of faces and of speech."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.encoders.discriminant import Discriminant, ScoredStage
from cfnsr.models.encoders.openface import OpenFaceEncoder
from cfnsr.models.encoders.speech import SpeechMixture
from cfnsr.models.streams import OneStream

Encoder = OpenFaceEncoder | SpeechMixture
Walk = Callable[[nn.Module, Tensor], Tensor]


class Doubling(ScoredStage):
    """Its map is twice the input; all of its values are scored."""

    def embed(self, given: Tensor) -> Tensor:
        return 2 * given

    def measure(self, given: Tensor) -> Tensor:
        return given.flatten(1)


def fitted(stage: nn.Module, given: Tensor, classes: int) -> Tensor:
    """Fit the stage's discriminant to a batch, and what it then says of it."""
    assert isinstance(stage, ScoredStage)
    values = stage.measure(given)
    stage.discriminant.fit(values, torch.arange(len(values)) % classes)
    return stage.discriminant(values)


@pytest.mark.parametrize("places", [(), (5,), (4, 3), (4, 3, 1)])
@pytest.mark.parametrize(("classes", "added"), [(1, 8), (3, 8), (8, 8), (9, 16), (16, 16)])
def test_scores_are_the_same_at_all_places(places: tuple[int, ...], classes: int, added: int) -> None:
    """Behind a map of any number of dimensions, as it is; a multiple of 8, and what is left over is 0."""
    torch.manual_seed(0)
    stage = Doubling(Discriminant(6 * math.prod(places), classes), classes).eval()
    given = torch.randn(20, 6, *places)
    scores = fitted(stage, given, classes)
    assert stage.score_channels == added
    found = stage(given)
    assert found.shape == (20, 6 + added, *places)
    assert torch.equal(found[:, :6], 2 * given)
    for clip in range(20):
        for channel in range(added):
            score = scores[clip, channel] if channel < classes else torch.tensor(0.0)
            assert (found[clip, 6 + channel] == score).all()
    assert classes == 1 or scores.std() > 1


def faces(classes: int) -> tuple[Encoder, Tensor, int, int]:
    """An encoder, what it reads, its own channels and the width of its hidden layer."""
    return OpenFaceEncoder(5, classes), 2 * torch.randn(24, 5, 7), 128, 128


def voices(classes: int) -> tuple[Encoder, Tensor, int, int]:
    return SpeechMixture(4, 6, classes), 2 * torch.randn(24, 4, 7, 6), 192, 128


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize(("classes", "added"), [(1, 8), (3, 8), (8, 8), (9, 16)])
def test_scores_travel_as_channels_through_an_encoder(
    through: Walk, pooled: Walk, modality: str, classes: int, added: int
) -> None:
    """Zeros until the discriminant is fitted; a classifier begins with them as they are."""
    torch.manual_seed(0)
    encoder, given, channels, hidden = (faces if modality == "video" else voices)(classes)
    encoder.eval()
    assert encoder.score_channels == added
    assert encoder.channels == (channels + added,) * 3 and encoder.dim == hidden + added
    before = through(encoder, given)
    assert before.shape[1] == channels + added and not before[:, channels:].any()
    first = encoder.stages[0]
    scores = fitted(first, given, classes)
    assert scores.shape == (24, classes) and (classes == 1 or scores.std() > 1)
    assert isinstance(first, ScoredStage)
    assert torch.equal(first(given)[:, :channels], first.embed(given))
    mapped = given
    for stage in encoder.stages:
        mapped = stage(mapped)
        assert (mapped[:, channels : channels + classes].flatten(2) == scores[:, :, None]).all()
        assert not mapped[:, channels + classes :].any()
    assert torch.equal(mapped[:, :channels], before[:, :channels]), "its own channels do not hear them"
    vectors = pooled(encoder, given)
    torch.testing.assert_close(vectors[:, hidden : hidden + classes], scores, atol=1e-5, rtol=1e-5)
    assert not vectors[:, hidden + classes :].any()
    model = OneStream(encoder, modality, classes).eval()
    with torch.no_grad():
        model.classify.weight[:, :hidden] = 0
        model.classify.bias.zero_()
        answers = model(given, given)
    torch.testing.assert_close(answers, scores.log_softmax(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_in_training_the_scores_are_zeros(through: Walk, modality: str) -> None:
    """Unless they are enabled, as in a fusion."""
    torch.manual_seed(0)
    encoder, given, channels, _ = (faces if modality == "video" else voices)(3)
    first = encoder.eval().stages[0]
    scores = fitted(first, given, 3)
    assert isinstance(first, ScoredStage)
    assert not through(encoder.train(), given)[:, channels:].any()
    first.discriminant.in_training = True
    found = through(encoder, given)[:, channels : channels + 3]
    assert (found.flatten(2) == scores[:, :, None]).all()
