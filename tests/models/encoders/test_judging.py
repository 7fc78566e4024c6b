"""The stage that appends a discriminant's scores: alike in the encoders of faces and of speech."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.encoders.discriminant import Discriminant, Judging
from cfnsr.models.encoders.openface import OpenFaceEncoder
from cfnsr.models.encoders.speech import SpeechMixture
from cfnsr.models.streams import OneStream

Encoder = OpenFaceEncoder | SpeechMixture
Walk = Callable[[nn.Module, Tensor], Tensor]


class Doubling(Judging):
    """Its map is twice the input; it judges by all of its values."""

    def mapped(self, given: Tensor) -> Tensor:
        return 2 * given

    def statistics(self, given: Tensor) -> Tensor:
        return given.flatten(1)


def fitted(stage: nn.Module, given: Tensor, classes: int) -> Tensor:
    """Fit the stage's discriminant to a batch, and what it then says of it."""
    assert isinstance(stage, Judging)
    values = stage.statistics(given)
    stage.discriminant.fit(values, torch.arange(len(values)) % classes)
    return stage.discriminant(values)


@pytest.mark.parametrize("places", [(), (5,), (4, 3), (4, 3, 1)])
@pytest.mark.parametrize(("classes", "judged"), [(1, 8), (3, 8), (8, 8), (9, 16), (16, 16)])
def test_scores_are_the_same_at_all_places(places: tuple[int, ...], classes: int, judged: int) -> None:
    """Behind a map of any number of dimensions, as it is; a multiple of 8, and what is left over is 0."""
    torch.manual_seed(0)
    stage = Doubling(Discriminant(6 * math.prod(places), classes), classes).eval()
    given = torch.randn(20, 6, *places)
    scores = fitted(stage, given, classes)
    assert stage.judged == judged
    found = stage(given)
    assert found.shape == (20, 6 + judged, *places)
    assert torch.equal(found[:, :6], 2 * given)
    for clip in range(20):
        for channel in range(judged):
            score = scores[clip, channel] if channel < classes else torch.tensor(0.0)
            assert (found[clip, 6 + channel] == score).all()
    assert classes == 1 or scores.std() > 1


def faces(classes: int) -> tuple[Encoder, Tensor, int, int]:
    """An encoder, what it reads, its own channels and the width of its hidden layer."""
    return OpenFaceEncoder(5, classes), 2 * torch.randn(24, 5, 7), 128, 128


def voices(classes: int) -> tuple[Encoder, Tensor, int, int]:
    return SpeechMixture(4, 6, classes), 2 * torch.randn(24, 4, 7, 6), 192, 128


@pytest.mark.parametrize("modality", ["video", "audio"])
@pytest.mark.parametrize(("classes", "judged"), [(1, 8), (3, 8), (8, 8), (9, 16)])
def test_scores_travel_as_channels_through_an_encoder(
    through: Walk, pooled: Walk, modality: str, classes: int, judged: int
) -> None:
    """Zeros until the discriminant is fitted; a classifier begins with them as they are."""
    torch.manual_seed(0)
    encoder, given, channels, hidden = (faces if modality == "video" else voices)(classes)
    encoder.eval()
    assert encoder.judged == judged
    assert encoder.channels == (channels + judged,) * 3 and encoder.dim == hidden + judged
    before = through(encoder, given)
    assert before.shape[1] == channels + judged and not before[:, channels:].any()
    first = encoder.stages[0]
    scores = fitted(first, given, classes)
    assert scores.shape == (24, classes) and (classes == 1 or scores.std() > 1)
    assert isinstance(first, Judging)
    assert torch.equal(first(given)[:, :channels], first.mapped(given))
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
        told = model(given, given)
    torch.testing.assert_close(told, scores.log_softmax(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_while_an_encoder_trains_its_discriminant_is_silent(through: Walk, modality: str) -> None:
    """Unless it is to speak, as in a fusion; no gradient changes it."""
    torch.manual_seed(0)
    encoder, given, channels, _ = (faces if modality == "video" else voices)(3)
    first = encoder.eval().stages[0]
    scores = fitted(first, given, 3)
    assert isinstance(first, Judging)
    assert not through(encoder.train(), given)[:, channels:].any()
    first.discriminant.speaks = True
    told = through(encoder, given)[:, channels : channels + 3]
    assert (told.flatten(2) == scores[:, :, None]).all()
    assert not list(first.discriminant.parameters())
