"""Late rules against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.heads.late import Averaging, Multiplicative, StreamHeads


def answering(head: Averaging | Multiplicative, video: list[float], audio: list[float]) -> Tensor:
    """The head's probabilities when its streams say these: the inputs are 0, the biases speak."""
    for linear, probabilities in ((head.streams.video, video), (head.streams.audio, audio)):
        with torch.no_grad():
            linear.bias.copy_(torch.tensor(probabilities).log())
    log_probabilities: Tensor = head(torch.zeros(1, 1), torch.zeros(1, 1))
    return log_probabilities.exp()[0]


def test_averaging_by_hand() -> None:
    # (0.7 + 0.1) / 2, (0.2 + 0.3) / 2, (0.1 + 0.6) / 2
    probabilities = answering(Averaging(1, 1, 3), [0.7, 0.2, 0.1], [0.1, 0.3, 0.6])
    torch.testing.assert_close(probabilities, torch.tensor([0.4, 0.25, 0.35]))


def test_multiplication_by_hand() -> None:
    # products 0.07, 0.06, 0.06, which sum to 0.19
    head = Multiplicative(1, 1, 3, beta=0)
    probabilities = answering(head, [0.7, 0.2, 0.1], [0.1, 0.3, 0.6])
    torch.testing.assert_close(probabilities, torch.tensor([7 / 19, 6 / 19, 6 / 19]))


def test_multiplicative_by_hand() -> None:
    # beta 1, so that a class scores v (1 - p_a) + a (1 - p_v); probabilities 0.5, 0.5 and 0.8, 0.2:
    #   class 1: ln 0.5 * 0.2 + ln 0.8 * 0.5 = ln(0.5^0.2 * 0.8^0.5)
    #   class 2: ln 0.5 * 0.8 + ln 0.2 * 0.5 = ln(0.5^0.8 * 0.2^0.5)
    # their odds are 0.5^-0.6 * 4^0.5 = 2^0.6 * 2 = 2^1.6
    odds = 2**1.6
    probabilities = answering(Multiplicative(1, 1, 2, beta=1), [0.5, 0.5], [0.8, 0.2])
    torch.testing.assert_close(probabilities, torch.tensor([odds / (odds + 1), 1 / (odds + 1)]))


def test_multiplicative_of_the_paper_by_hand() -> None:
    # beta 0.3, probabilities 0.5, 0.5 and 0.75, 0.25. Powers: 0.25^0.3 = 2^-0.6 = 0.659754,
    # 0.5^0.3 = 2^-0.3 = 0.812252, 0.75^0.3 = 0.917315.
    #   class 1: -0.693147 * 0.659754 - 0.287682 * 0.812252 = -0.457307 - 0.233670 = -0.690977
    #   class 2: -0.693147 * 0.917315 - 1.386294 * 0.812252 = -0.635834 - 1.126020 = -1.761854
    # difference 1.070877; e^-1.070877 = 0.342708; 1 / 1.342708 = 0.744764
    probabilities = answering(Multiplicative(1, 1, 2, beta=0.3), [0.5, 0.5], [0.75, 0.25])
    torch.testing.assert_close(probabilities, torch.tensor([0.744764, 0.255236]), atol=2e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sure", [0.0, 5.0, 40.0, 400.0])
def test_certainty_keeps_gradients_finite(beta: float, sure: float) -> None:
    """Where one stream gives a class all probability, and where both do, for the same class or another."""
    for audio_class in (0, 1):
        head = Multiplicative(1, 1, 8, beta=beta)
        with torch.no_grad():
            for linear in (head.streams.video, head.streams.audio):
                linear.weight.zero_()
                linear.bias.zero_()
            head.streams.video.bias[0] = sure
            head.streams.audio.bias[audio_class] = sure
        log_probabilities = head(torch.ones(1, 1), torch.ones(1, 1))
        assert log_probabilities.isfinite().all()
        torch.testing.assert_close(log_probabilities.exp().sum(), torch.tensor(1.0))
        for label in range(8):
            gradients = torch.autograd.grad(
                -log_probabilities[0, label], list(head.parameters()), retain_graph=True
            )
            assert all(gradient.isfinite().all() and gradient.abs().max() < 1e3 for gradient in gradients)


def test_both_streams_start_from_models_trained_alone() -> None:
    head, video, audio = StreamHeads(4, 3, 5), nn.Linear(4, 5), nn.Linear(3, 5)
    head.start_from(video, audio)
    inputs = torch.randn(2, 4), torch.randn(2, 3)
    by_video, by_audio = head(*inputs)
    torch.testing.assert_close(by_video, video(inputs[0]).log_softmax(1))
    torch.testing.assert_close(by_audio, audio(inputs[1]).log_softmax(1))
    with torch.no_grad():
        video.weight.add_(1)
    torch.testing.assert_close(head(*inputs)[0], by_video)  # copied, not shared


def test_a_missing_vector_leaves_the_other_alone_but_divergence_is_seen() -> None:
    heads = StreamHeads(2, 3, 8).eval()
    video, missing = torch.rand(4, 2), torch.full((4, 3), math.nan)
    by_video, by_audio = heads(video, missing)
    torch.testing.assert_close(by_audio, torch.full((4, 8), -math.log(8)))
    assert by_video.isfinite().all()
    assert heads.train()(video, missing)[1].isnan().all(), "in training NaN is a network that diverged"
