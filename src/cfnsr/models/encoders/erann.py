"""ERANNs, residual networks on log-mel spectrograms (Verbitskiy, Berikov & Vyshegorodtsev 2021)."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.streams import Encoder

MEL_BANDS = 128
CHANNELS = (8, 16, 32, 64, 128)  # of the five stages, times the widening factor W
WIDENING = 4  # W of the variant for RAVDESS
SLOPE = 0.01  # of the leaky ReLU


class AudioResidualBlock(nn.Module):
    """An ARB: twice normalisation, leaky ReLU and convolution, beside a shortcut; nothing after the sum.

    Args:
        channels: of the map that comes in.
        out: of the map that goes out.
        strides: over the frequencies, 1 or 2, and over the time, 1, 2 or 4; at 4 the two kernels are
            6 and 5 steps long, else 3. A 1 x 1 convolution makes the shortcut where the shape changes.
    """

    def __init__(self, channels: int, out: int, strides: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        if strides[1] == 4:
            # One step before and four behind, so that any number of steps gives its quarter, rounded up.
            first: list[nn.Module] = [
                nn.ZeroPad2d((1, 4, 1, 1)),
                nn.Conv2d(channels, out, (3, 6), strides, bias=False),
            ]
            second = nn.Conv2d(out, out, (3, 5), padding=(1, 2), bias=False)
        else:
            first = [nn.Conv2d(channels, out, 3, strides, padding=1, bias=False)]
            second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.convolutions = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(SLOPE),
            *first,
            nn.BatchNorm2d(out),
            nn.LeakyReLU(SLOPE),
            second,
        )
        self.shortcut = (
            nn.Identity()
            if strides == (1, 1) and channels == out
            else nn.Conv2d(channels, out, 1, strides, bias=False)
        )

    def forward(self, x: Float[Tensor, "B C F S"]) -> Float[Tensor, "B C2 F2 S2"]:
        summed: Tensor = self.convolutions(x) + self.shortcut(x)
        return summed


class ERANN(Encoder):
    """ERANN-s-W: five stages of audio residual blocks, cut here into three (0-2, 3 and 4).

    The frequencies are halved four times, from 128 bands to 8; so is the time, but by 4 at a time in the
    first `step` of the stages 1 to 3. Mean and maximum over all places are added and pass one dense layer.
    A network for sound alone: its maps keep both axes, `(B, C, F, S)`, so no exchange can stand between
    its stages. Any number of steps will do.

    Args:
        width: scales every channel count; 1 is the widening factor W = 4 of the variant for RAVDESS.
        step: the paper's s_m, how many of the stages 1 to 3 take every fourth step, not every second: 0 to 3.
        blocks: residual blocks in each of the five stages.

    Source: Verbitskiy, Berikov & Vyshegorodtsev 2021, arXiv 2106.01621. Their code is not public. The sizes
    that the abstract gives for AudioSet, ESC-50 and RAVDESS (as ratios to known networks) fit W = 6, 5 and 4
    of this arrangement; s_m = 0 for RAVDESS is our reading, and hardly changes the size.

    >>> import torch
    >>> encoder = ERANN.light(width=1 / 8)
    >>> sound = torch.rand(2, 128, 314)
    >>> for stage in encoder.stages:
    ...     sound = stage(sound)
    >>> sound.shape, encoder.pool(sound).shape
    (torch.Size([2, 64, 8, 5]), torch.Size([2, 64]))
    """

    reads = "log_mel"
    shape = (MEL_BANDS, None)
    expected = f"log-mel spectrograms of shape (B, {MEL_BANDS}, steps), see cfnsr.media.log_mel"

    def __init__(
        self, width: float = 1.0, *, step: int = 0, blocks: tuple[int, int, int, int, int] = (4, 4, 4, 4, 4)
    ) -> None:
        super().__init__()
        widths = [round(channels * WIDENING * width) for channels in CHANNELS]
        if widths[0] < 1 or widths[0] != CHANNELS[0] * WIDENING * width:
            raise InputError(
                f"width is {width}: expected a multiple of 1/{CHANNELS[0] * WIDENING}, "
                "such as 1, 0.25 or 0.125"
            )
        if step not in range(4):
            raise InputError(f"step is {step}: expected 0 to 3, the stages that take every fourth step")
        if min(blocks) < 0 or min(blocks[1:]) < 1:
            raise InputError(f"blocks is {blocks}: expected at least one in each stage after the first")
        if not blocks[0]:
            widths[0] = 1  # the spectrogram itself goes on to the second stage
        strides = [(1, 1), *((2, 4 if stage <= step else 2) for stage in (1, 2, 3)), (2, 2)]
        layers = [
            _layer(*ends, depth, shape)
            for ends, depth, shape in zip(pairwise([1, *widths]), blocks, strides, strict=True)
        ]
        self.channels = tuple(widths[2:])
        self.dim = widths[-1]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.BatchNorm1d(MEL_BANDS), nn.Unflatten(1, (1, MEL_BANDS)), *layers[:3]),
                layers[3],
                layers[4],
            ]
        )
        self.dense = nn.Sequential(nn.Linear(self.dim, self.dim), nn.LeakyReLU(SLOPE))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE)

    @classmethod
    def light(cls, width: float) -> "ERANN":
        """A light one for a CPU: no blocks at full resolution, one in each later stage, and a step of 2."""
        return cls(width, step=2, blocks=(0, 1, 1, 1, 1))

    def pool(self, sound: Float[Tensor, "B C F S"]) -> Float[Tensor, "B C"]:
        """Mean plus maximum over all places of the map, through the dense layer."""
        dense: Tensor = self.dense(sound.mean(dim=(2, 3)) + sound.amax(dim=(2, 3)))
        return dense


def _layer(channels: int, out: int, depth: int, strides: tuple[int, int]) -> nn.Sequential:
    """Build the blocks of a stage; its first one changes the shape."""
    blocks = [AudioResidualBlock(channels, out, strides)] if depth else []
    return nn.Sequential(*blocks, *(AudioResidualBlock(out, out) for _ in range(depth - 1)))
