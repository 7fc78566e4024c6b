"""The video encoder: a 3D ResNeXt-50 (section 2.2, eq. 4)."""

from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfnsr.errors import InputError
from cfnsr.models.streams import Encoder

EXPANSION = 2
STEM_CHANNELS = 64
PLANES = (128, 256, 512, 1024)
CARDINALITY = 32
RESIDUAL_START = 0.2  # takes the small encoder of the synthetic corpus to 70 % in 20 epochs, 1 to 38 %


def _norm_act(convolution: nn.Conv3d, *, relu: bool = True) -> nn.Sequential:
    layers = [convolution, nn.BatchNorm3d(convolution.out_channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class GroupedConv3d(nn.Conv3d):
    """A grouped 3 x 3 x 3 convolution that trains in float32 on a CPU even under bfloat16.

    In bfloat16 the weight gradients of grouped 3D convolutions come out of oneDNN as NaN or nonsense on
    some runs (seen with torch 2.13.0 on a CPU with AVX-512 BF16; float32 and ungrouped ones are right).
    """

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        if self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions beside a shortcut (Xie et al. 2017, fig. 3c, in 3D)."""

    def __init__(self, channels: int, out: int, *, stride: int, groups: int) -> None:
        super().__init__()
        planes = out // EXPANSION
        self.convolutions = nn.Sequential(
            _norm_act(nn.Conv3d(channels, planes, 1, bias=False)),
            _norm_act(GroupedConv3d(planes, planes, 3, stride, padding=1, groups=groups, bias=False)),
            _norm_act(nn.Conv3d(planes, out, 1, bias=False), relu=False),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels == out
            else _norm_act(nn.Conv3d(channels, out, 1, stride, bias=False), relu=False)
        )

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


def _layer(channels: int, out: int, depth: int, *, stride: int, groups: int) -> nn.Sequential:
    """Build bottlenecks in a row; the first one changes the shape."""
    first = Bottleneck(channels, out, stride=stride, groups=groups)
    others = (Bottleneck(out, out, stride=1, groups=groups) for _ in range(depth - 1))
    return nn.Sequential(first, *others)


def start_residuals(model: nn.Module, weight: float) -> None:
    """Give the residual blocks of a model a weight beside their shortcut, before training.

    A block of little weight is almost its shortcut, so that a deep stack learns from the start. The idea is
    of Goyal et al. 2017 (section 5.1), who begin at 0; the paper does not say how it begins, its released
    code at 1.

    >>> encoder = ResNeXt3D(width=1 / 8)
    >>> start_residuals(encoder, 1.0)
    >>> encoder.stages[2][0].convolutions[-1][-1].weight.unique()
    tensor([1.], grad_fn=<Unique2Backward0>)
    """
    for module in model.modules():
        if isinstance(module, Bottleneck):
            last_norm = cast(nn.Sequential, module.convolutions[-1])[-1]
            nn.init.constant_(cast(Tensor, last_norm.weight), weight)


class ResNeXt3D(Encoder):
    """3D ResNeXt-50 with cardinality 32, cut into the three stages between which modalities may talk.

    Strides are (1, 2, 2) in the stem, 2 in the pooling and 1, 2, 2, 2 in the four layers, in all three axes:
    30 frames of 224 x 224 become a map of 2 x 7 x 7 places.

    Args:
        width: scales every channel count and the number of groups alike, so that a group keeps its width;
            1 is the paper's network, 1/8 one for a CPU.
        depths: bottlenecks in each of the four layers.

    Source: Hara et al. 2018 (ResNeXt in 3D), Xie et al. 2017 (grouped bottlenecks).

    >>> encoder = ResNeXt3D(width=1 / 8)
    >>> video = torch.rand(1, 3, 8, 64, 64)
    >>> for stage in encoder.stages:
    ...     video = stage(video)
    >>> video.shape, encoder.pool(video).shape
    (torch.Size([1, 256, 1, 2, 2]), torch.Size([1, 256]))
    """

    reads = "video"
    shape = (3, None, None, None)
    expected = "pictures of shape (B, 3, frames, height, width)"
    strided = True  # its places lie on a grid of strides

    def __init__(self, width: float = 1.0, depths: tuple[int, int, int, int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        groups = round(CARDINALITY * width)
        if groups < 1 or groups != CARDINALITY * width:
            raise InputError(
                f"width is {width}: expected a multiple of 1/{CARDINALITY}, such as 1, 0.25 or 0.125"
            )
        stem = round(STEM_CHANNELS * width)
        widths = (stem, *(round(plane * width) * EXPANSION for plane in PLANES))
        layers = [
            _layer(*ends, depth, stride=stride, groups=groups)
            for ends, depth, stride in zip(pairwise(widths), depths, (1, 2, 2, 2), strict=True)
        ]
        self.channels = widths[2:]
        self.dim = widths[-1]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(
                    _norm_act(nn.Conv3d(3, stem, 7, stride=(1, 2, 2), padding=3, bias=False)),
                    nn.MaxPool3d(3, stride=2, padding=1),
                    *layers[:2],
                ),
                layers[2],
                layers[3],
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        start_residuals(self, RESIDUAL_START)

    def drop_stem_relu(self) -> None:
        """Leave out the stem's ReLU, as the released code does where it cuts the network into stages."""
        stem = cast(nn.Sequential, cast(nn.Sequential, self.stages[0])[0])
        stem[-1] = nn.Identity()

    def check(self, given: Tensor | None) -> Float[Tensor, "B 3 T H W"]:
        """Return the pictures as they came; raise `InputError` for another shape or raw bytes."""
        video = super().check(given)
        if not video.is_floating_point():
            raise InputError(
                f"video is {video.dtype}: expected normalised pictures, see cfnsr.data.augment.normalise"
            )
        return video

    def pool(self, video: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C"]:
        """Mean over all places of the map (the average pool of section 2.2)."""
        return video.mean(dim=(2, 3, 4))
