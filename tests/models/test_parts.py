"""One battery that every exchange and every head passes: sizes, gradients, clips apart, mixed precision."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.exchanges.cross_modal import CrossModal, CrossModalMap, CrossModalMaps, CrossModalReleased
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.exchanges.msaf import MSAF
from cfnsr.models.exchanges.video_to_audio import VideoToAudio
from cfnsr.models.heads.compact_bilinear import CompactBilinear
from cfnsr.models.heads.concat import Concat
from cfnsr.models.heads.concat_fc import ConcatFC, ConcatFCHeads
from cfnsr.models.heads.late import Averaging, Multiplicative

Make = Callable[..., nn.Module]
EXCHANGES: dict[str, Make] = {
    "cfn_sr": CrossModal,
    "no_residual": partial(CrossModal, residual=False),
    "map": CrossModalMap,
    "k_maps": CrossModalMaps,
    "released": CrossModalReleased,
    "video_to_audio": VideoToAudio,
    "mmtm": MMTM,
    "msaf": partial(MSAF, block=16),
}
HEADS: dict[str, Make] = {
    "concat": Concat,
    "concat_fc": ConcatFC,
    "concat_fc_heads": ConcatFCHeads,
    "mcbp": CompactBilinear,
    "averaging": Averaging,
    "multiplicative": partial(Multiplicative, beta=0.3),
}
# A softmax does not see what moves all scores alike, nor a batch norm what moves all clips alike.
CANCELLED = {"agreement.score.bias", "joint.0.bias"}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def maps(clips: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(clips)
    return torch.randn(clips, 100, 2, 3, 3), torch.randn(clips, 24, 5)


@pytest.mark.parametrize("kind", EXCHANGES)
def test_an_exchange_keeps_shapes_and_clips_apart(kind: str) -> None:
    module = EXCHANGES[kind](100, 24)
    module(*maps(4))  # moves running statistics away from where they begin
    video, audio = maps(3)
    together = module.eval()(video, audio)
    assert [each.shape for each in together] == [video.shape, audio.shape]
    alone = [module(video[i : i + 1], audio[i : i + 1]) for i in range(3)]
    for ours, each in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.cat(each), atol=1e-5, rtol=1e-5)
    others = module(torch.cat([video[:1], 9 * video[1:]]), torch.cat([audio[:1], -audio[1:]]))
    for ours, other in zip(together, others, strict=True):
        torch.testing.assert_close(other[0], ours[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", EXCHANGES)
def test_every_parameter_of_an_exchange_gets_a_gradient(kind: str) -> None:
    torch.manual_seed(0)
    module = EXCHANGES[kind](100, 24)
    video, audio = module(*maps(6))
    (video.square().sum() + audio.square().sum()).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert name in CANCELLED or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_answers_in_float32_clip_by_clip(kind: str) -> None:
    """Also under mixed precision, where its input is in 16 bits."""
    torch.manual_seed(0)
    head = HEADS[kind](256, 64, 8)
    video, audio = torch.randn(3, 256), torch.randn(3, 64)
    answers = head(video, audio)
    alone = torch.cat([head(video[i : i + 1], audio[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(answers, alone, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(video.bfloat16(), audio.bfloat16())
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.exp().sum(1), torch.ones(3))
    torch.testing.assert_close(rough, answers, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (partial(CrossModal, 2048, 64, depth=0), 135_297),
        (partial(CrossModal, 2048, 64), 135_297 + 250_048),
        # Tokens, self-attention, selected vector, audio steps and score.
        (partial(VideoToAudio, 2048, 64), 131_136 + 250_048 + 4_096 + 4_160 + 65),
        (partial(MMTM, 512, 32), 296_752),
        (partial(MSAF, 1024, 32, block=16), 5_356),
        (partial(MSAF, 2048, 64, block=32), 19_288),
        (partial(Averaging, 2048, 1664, 8), 29_712),
        (partial(Multiplicative, 2048, 1664, 8, beta=0.3), 29_712),
        (partial(ConcatFC, 2048, 1664, 8), 950_528 + 2_056),
        (partial(ConcatFCHeads, 2048, 1664, 8), 950_528 + 2_056 + 29_712),
        (partial(CompactBilinear, 2048, 1664, 8), 128_008 + 29_712),
    ],
    ids=str,
)
def test_published_sizes(module: Make, size: int) -> None:
    with torch.device("meta"):
        assert parameters(module()) == size


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (partial(CrossModal, 12, 20), "20 channels: expected a multiple of 8"),
        (partial(MMTM, 8, 8, ratio=0), "ratio is 0: expected more than 0 and at most 32"),
        (partial(MMTM, 8, 8, ratio=40), "ratio is 40: expected more than 0 and at most 32"),
        (partial(MSAF, 16, 8, block=2), "block 2 and reduction 4: expected 1 <= reduction <= block"),
        (partial(MSAF, 16, 8, block=8, block_dropout=1.0), "block_dropout is 1.0"),
        (partial(Multiplicative, 2, 2, 2, beta=-0.1), "beta is -0.1: expected 0 or more"),
        (partial(Multiplicative, 2, 2, 2, beta=float("nan")), "beta is nan: expected 0 or more"),
        (partial(CompactBilinear, 2, 2, 2, sketch_dim=0), "sketch_dim is 0: expected 1 or more"),
    ],
    ids=str,
)
def test_impossible_options(module: Make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        module()
