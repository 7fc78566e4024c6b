"""A model as it answers fastest: `predict`, `serve`, `live` and the evaluation of a training use it."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cfnsr.models.encoders.resnext import Bottleneck, ResNeXt3D
from cfnsr.models.shapes import Scores

VARIABLE = "CFNSR_FLOAT32"  # set to 1: a model answers as it is, in float32 and without what is done here
LARGE = 1024  # channels from which on bfloat16 pays: small networks answer the same on every machine


def has_bfloat16() -> bool:
    """True if the CPU multiplies bfloat16; others emulate it and need minutes for a clip."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def fast(model: nn.Module) -> Callable[..., Scores]:
    """Copy a model for answers, its 3D ResNeXt as a CPU runs it best; it is the same on a GPU.

    In evaluation a norm is an affine map of each channel, which goes into the weights of the convolution
    before it; what follows, a sum or a ReLU, is done where the convolution's numbers still are. Channels are
    innermost, and numbers bfloat16 where the CPU has that. A model without that network is returned as it is,
    and each where PyTorch has no oneDNN, or where `VARIABLE` says so.

    >>> from cfnsr import create_model
    >>> audio = create_model("audio")
    >>> fast(audio) is audio
    True
    """
    encoders = [module for module in model.modules() if isinstance(module, ResNeXt3D)]
    wanted = encoders and os.environ.get(VARIABLE) != "1" and next(model.parameters()).device.type == "cpu"
    if not wanted or not mkldnn.is_available():  # type: ignore[no-untyped-call]
        return model
    bfloat16 = has_bfloat16() and any(encoder.dim >= LARGE for encoder in encoders)
    copied = deepcopy(model).eval()
    for module in copied.modules():
        if isinstance(module, ResNeXt3D):
            _fuse(module)
            module.to(torch.bfloat16 if bfloat16 else torch.float32)
    copied = copied.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def answer(video: Tensor, audio: Tensor) -> Scores:
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            return cast(Scores, copied(video, audio))

    return answer


def _fuse(encoder: ResNeXt3D) -> None:
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, Bottleneck):
                setattr(module, name, _Block(child))
            elif isinstance(child, nn.Sequential) and isinstance(child[0], nn.Conv3d):  # the stem
                setattr(module, name, _Convolution(child))


class _Convolution(nn.Module):
    """A convolution with the norm behind it, and a ReLU and a sum before that."""

    def __init__(self, layers: nn.Sequential, *, relu: bool | None = None) -> None:
        super().__init__()
        convolution, norm, *behind = layers
        self.convolution = fuse_conv_bn_eval(cast(nn.Conv3d, convolution), cast(nn.BatchNorm3d, norm))
        self.relu = isinstance(behind[-1] if behind else None, nn.ReLU) if relu is None else relu

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """Convolve, and add another map of that shape."""
        each, operators = self.convolution, torch.ops.mkldnn  # those that torch.compile takes
        x, weights = x.to(each.weight.dtype), (each.weight, each.bias)
        how = each.padding, each.stride, each.dilation, each.groups
        relu: tuple[str, list[float], str] = ("relu" if self.relu else "none", [], "")
        if other is None:
            return cast(Tensor, operators._convolution_pointwise(x, *weights, *how, *relu))
        return cast(
            Tensor, operators._convolution_pointwise.binary(x, other, *weights, *how, "add", 1.0, *relu)
        )


class _Block(nn.Module):
    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.first, self.second, _ = (_Convolution(each) for each in block.convolutions)  # type: ignore[arg-type]
        self.third = _Convolution(cast(nn.Sequential, block.convolutions[2]), relu=True)
        self.shortcut = (
            block.shortcut if isinstance(block.shortcut, nn.Identity) else _Convolution(block.shortcut)
        )

    def forward(self, x: Tensor) -> Tensor:
        """As `Bottleneck.forward`."""
        return cast(Tensor, self.third(self.second(self.first(x)), self.shortcut(x)))
