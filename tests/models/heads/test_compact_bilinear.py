"""Compact bilinear pooling against the sketch of the outer product by its definition."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cfnsr.models.heads.compact_bilinear import CompactBilinear, CountSketch


def test_count_sketch_by_hand() -> None:
    # places 2, 0, 2, 1 and signs +, -, -, + of the vector 1, 2, 3, 4 into width 4:
    #   place 0: -2; place 1: +4; place 2: +1 - 3 = -2; place 3: nothing
    sketch = CountSketch(4, 4, torch.Generator().manual_seed(0))
    sketch.places, sketch.signs = torch.tensor([2, 0, 2, 1]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    torch.testing.assert_close(sketch(torch.tensor([[1.0, 2, 3, 4]])), torch.tensor([[-2.0, 4, -2, 0]]))


def sketch_of_outer_product(head: CompactBilinear, video: Tensor, audio: Tensor) -> Tensor:
    """Each product of a pair goes to the sum of the pair's places, with the product of their signs."""
    out = torch.zeros(head.sketch_dim)
    for i, x in enumerate(video.tolist()):
        for j, y in enumerate(audio.tolist()):
            place = int(head.video_sketch.places[i] + head.audio_sketch.places[j]) % head.sketch_dim
            out[place] += float(head.video_sketch.signs[i] * head.audio_sketch.signs[j]) * x * y
    return out


@pytest.mark.parametrize("sketch_dim", [50, 51, 7, 1])
def test_fourier_way_equals_the_definition(sketch_dim: int) -> None:
    torch.manual_seed(1)
    head = CompactBilinear(9, 11, 8, sketch_dim=sketch_dim)
    video, audio = torch.randn(3, 9), torch.randn(3, 11)
    for clip, sketch in enumerate(head.pool(video, audio)):
        expected = sketch_of_outer_product(head, video[clip], audio[clip])
        torch.testing.assert_close(sketch, expected, atol=1e-5, rtol=1e-5)


def test_signed_root_and_norm_by_hand() -> None:
    # products 9, -16, 0 have the roots 3, -4, 0 and the norm 5
    head = CompactBilinear(1, 3, 3, sketch_dim=3)
    head.video_sketch.places, head.video_sketch.signs = torch.tensor([0]), torch.ones(1)
    head.audio_sketch.places, head.audio_sketch.signs = torch.tensor([0, 1, 2]), torch.tensor([1.0, -1, 1])
    with torch.no_grad():
        head.classify.weight.copy_(torch.eye(3))
        head.classify.bias.zero_()
    video, audio = torch.ones(1, 1), torch.tensor([[9.0, 16, 0]])
    by_video, by_audio = head.streams(video, audio)
    expected = (torch.tensor([[0.6, -0.8, 0]]) + by_video + by_audio).log_softmax(1)
    ours = head(video, audio)
    torch.testing.assert_close(ours, expected, atol=3e-4, rtol=0)  # the root of the rounding near 0


def test_sketch_keeps_inner_products_on_average() -> None:
    """<sketch(v, a), sketch(w, b)> is near <v, w> <a, b>: what makes the sketch a sketch of the product."""
    torch.manual_seed(2)
    head = CompactBilinear(256, 1664, 8)
    video, audio = torch.randn(1, 256).abs().expand(2, -1), torch.randn(1, 1664).abs().expand(2, -1)
    first, second = head.pool(video * torch.tensor([[1.0], [0.5]]), audio)
    expected = 0.5 * video[0].square().sum() * audio[0].square().sum()
    assert (first @ second / expected).item() == pytest.approx(1, abs=0.1)


def test_places_and_signs_are_the_same_in_every_model_and_saved_with_it() -> None:
    before = torch.get_rng_state()
    CountSketch(10, 10, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before), "the global random state stays as it was"
    torch.manual_seed(1)
    one = CompactBilinear(20, 30, 8, sketch_dim=64)
    torch.manual_seed(2)
    other = CompactBilinear(20, 30, 8, sketch_dim=64)
    saved = one.state_dict()
    for name in ("video_sketch.places", "video_sketch.signs", "audio_sketch.places", "audio_sketch.signs"):
        assert torch.equal(saved[name], other.state_dict()[name])
    assert not torch.equal(one.video_sketch.places, one.audio_sketch.places[:20])
    assert set(one.video_sketch.signs.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(("video", "audio"), [(0.0, 0.0), (0.0, 1.0), (1e-6, 1e-6), (1e4, 1e4)])
def test_gradients_are_finite_at_the_edges(video: float, audio: float) -> None:
    torch.manual_seed(3)
    head = CompactBilinear(256, 64, 8)
    inputs = video * torch.rand(2, 256), audio * torch.rand(2, 64)
    for tensor in inputs:
        tensor.requires_grad_()
    log_probabilities = head(*inputs)
    log_probabilities[:, 1].sum().backward()
    assert log_probabilities.isfinite().all()
    for tensor in (*inputs, *head.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().max() < 1e6


def test_it_learns_what_takes_both_vectors() -> None:
    """Equal signs are one class, unequal ones the other: no sum of scores of each alone can tell them."""
    torch.manual_seed(4)
    head = CompactBilinear(4, 4, 2, sketch_dim=500)
    signs = torch.randint(2, (64, 2)) * 2.0 - 1
    video, audio = signs[:, :1] * torch.ones(4), signs[:, 1:] * torch.ones(4)
    labels = (signs[:, 0] == signs[:, 1]).long()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        functional.nll_loss(head(video, audio), labels).backward()
        optimizer.step()
    assert (head(video, audio).argmax(1) == labels).all()
