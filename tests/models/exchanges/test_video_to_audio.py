"""The cross-modal block from video to audio: its scores step by step, and what it leaves alone."""

import pytest
import torch
from torch import Tensor

from cfnsr.models.exchanges.video_to_audio import VideoToAudio


@pytest.fixture
def maps() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 12, 2, 3, 3), torch.randn(2, 20, 5)


def derive(block: VideoToAudio, video: Tensor, audio: Tensor) -> Tensor:
    """Eqs. 7-8 step by step for each clip; `Selection` is checked beside the block from audio to video."""
    agreement = block.agreement
    out = torch.zeros_like(audio)
    for clip in range(len(audio)):
        places = [video[clip, :, t, h, w] for t in range(2) for h in range(3) for w in range(3)]
        tokens = torch.stack([block.tokens.weight @ place + block.tokens.bias for place in places])
        vector = agreement.selected.weight @ block.selection(tokens[None])[0]
        scores = []
        for step in range(audio.shape[2]):
            projected = agreement.places.weight @ audio[clip, :, step] + agreement.places.bias
            scores.append((agreement.score.weight[0] @ torch.tanh(projected + vector)).exp())
        attended = sum(audio[clip, :, step] * score / sum(scores) for step, score in enumerate(scores))
        for step in range(audio.shape[2]):
            out[clip, :, step] = attended
    return out + audio if block.attended.residual else out


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_against_the_equations(maps: tuple[Tensor, Tensor], depth: int, residual: bool) -> None:
    torch.manual_seed(2)
    block = VideoToAudio(12, 20, depth=depth, residual=residual).eval()
    video, audio = block(*maps)
    torch.testing.assert_close(audio, derive(block, *maps), atol=1e-5, rtol=1e-5)
    assert torch.equal(video, maps[0]), "the video passes on unchanged"


def test_weights_of_a_clip_sum_to_one_and_follow_the_video(maps: tuple[Tensor, Tensor]) -> None:
    block = VideoToAudio(12, 20).eval()
    video, audio = maps
    weights = block.weights(video, audio)
    assert weights.shape == (2, 1, 5)
    torch.testing.assert_close(weights.sum(dim=(1, 2)), torch.ones(2))
    assert (block.weights(-video, audio) - weights).abs().max() > 1e-4


def test_positions_tell_places_apart(maps: tuple[Tensor, Tensor]) -> None:
    """The same places in another order are another film; without self-attention they are only averaged."""
    video, audio = maps
    for depth, moves in ((2, True), (0, False)):
        torch.manual_seed(3)
        block = VideoToAudio(12, 20, depth=depth).eval()
        difference = (block.weights(video.flip(2), audio) - block.weights(video, audio)).abs().max()
        assert (difference > 1e-5) == moves


def test_one_clip_moves_no_other(maps: tuple[Tensor, Tensor]) -> None:
    block = VideoToAudio(12, 20).eval()
    video, audio = maps
    before = block(video, audio)[1][0]
    after = block(torch.cat([video[:1], 9 * video[1:]]), torch.cat([audio[:1], -audio[1:]]))[1][0]
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_size_and_gradients() -> None:
    """Tokens 131,136; self-attention 250,048; selected vector 4,096, audio steps 4,160, score 65."""
    block = VideoToAudio(2048, 64)
    assert sum(p.numel() for p in block.parameters()) == 131_136 + 250_048 + 4_096 + 4_160 + 65
    torch.manual_seed(4)
    block(torch.randn(2, 2048, 1, 2, 2), torch.randn(2, 64, 6))[1].square().sum().backward()
    silent = {"agreement.score.bias"}  # the same for all steps: the softmax does not see it
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert name in silent or parameter.grad.abs().sum() > 0, name
