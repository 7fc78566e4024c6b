"""The video encoder: a 3D ResNeXt-50 (section 2.2, eq. 4)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cfnsr.errors import InputError
from cfnsr.models.streams import Encoder

EXPANSION = 2
STEM_CHANNELS = 64
PLANES = (128, 256, 512, 1024)
CARDINALITY = 32
Triple = tuple[int, int, int]
RESIDUAL_START = 0.2  # takes the small encoder of the synthetic corpus to 70 % in 20 epochs, 1 to 38 %


def _norm_act(convolution: nn.Conv3d, *, relu: bool = True) -> nn.Sequential:
    layers = [convolution, nn.BatchNorm3d(convolution.out_channels)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class GroupedConv3d(nn.Conv3d):
    """A grouped 3 x 3 x 3 convolution that learns rightly in bfloat16 on a CPU too."""

    def forward(self, x: Float[Tensor, "B C T H W"]) -> Float[Tensor, "B C2 T2 H2 W2"]:
        if self.training and _mixed_on_cpu(x):
            settings = self.stride, self.padding, self.groups
            found: Tensor = _Grouped.apply(x, self.weight, *settings)  # type: ignore[no-untyped-call]
            return found
        return super().forward(x)


class _Grouped(torch.autograd.Function):
    """A grouped 3D convolution in bfloat16, of whose weights the gradient is computed in float32.

    In bfloat16 oneDNN makes NaN or nonsense of that gradient on some runs (seen with torch 2.13.0 on a CPU
    with AVX-512 BF16); the answer and the gradient of its input are right, and so is all of it in float32.
    Between the passes the input is kept in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Triple, padding: Triple, groups: int) -> Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.settings = None, stride, padding, (1, 1, 1), False, (0, 0, 0), groups
        return functional.conv3d(x, weight, None, stride, padding, 1, groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given = gradient, *ctx.saved_tensors
        exact = (each.float() for each in given)
        backward = torch.ops.aten.convolution_backward
        of_input, _, _ = backward(*given, *ctx.settings, (ctx.needs_input_grad[0], False, False))
        _, of_weight, _ = backward(*exact, *ctx.settings, (False, True, False))
        return of_input, of_weight, None, None, None


def _mixed_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions beside a shortcut (Xie et al. 2017, fig. 3c, in 3D).

    Args:
        large: its maps are the largest of the network, so where a CPU learns in bfloat16 to save memory, they
            are not kept for the backward pass but computed again (gradient checkpointing).
    """

    def __init__(self, channels: int, out: int, *, stride: int, groups: int, large: bool = False) -> None:
        super().__init__()
        self.large = large
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
        if self.large and self.training and _mixed_on_cpu(x):
            again: Tensor = checkpoint(self._add, x, use_reentrant=False, context_fn=self._computations)
            return again
        return self._add(x)

    def _add(self, x: Tensor) -> Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))

    def _computations(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._unlearned()

    @contextmanager
    def _unlearned(self) -> Iterator[None]:
        """Leave the norms' running statistics as they are: the second time is the same batch."""
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm3d)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        try:
            yield
        finally:
            for norm, (momentum, batches) in zip(norms, before, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, batches


def _layer(channels: int, out: int, depth: int, *, stride: int, groups: int) -> nn.Sequential:
    """Build bottlenecks in a row; the first one changes the shape, and those without a stride are large."""
    large = stride == 1
    first = Bottleneck(channels, out, stride=stride, groups=groups, large=large)
    others = (Bottleneck(out, out, stride=1, groups=groups, large=large) for _ in range(depth - 1))
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
