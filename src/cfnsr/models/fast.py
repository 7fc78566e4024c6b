"""A model as it answers fastest: `predict`, `serve`, `live` and the evaluation of a training use it."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.shapes import Scores

VARIABLE = "CFNSR_FLOAT32"  # set to 1: answers are computed in float32 on every machine
LARGE = 1024  # channels from which on bfloat16 pays: small networks answer the same on every machine


def has_bfloat16() -> bool:
    """True if the CPU multiplies bfloat16; others emulate it and need minutes for a clip."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def fast(model: nn.Module) -> Callable[..., Scores]:
    """Copy a model for answers: its 3D ResNeXt without norms, channels innermost, bfloat16 if a CPU has it.

    In evaluation a norm is an affine map of each channel, which goes into the weights of the convolution
    before it. A model without that network is returned as it is.

    >>> from cfnsr import create_model
    >>> audio = create_model("audio")
    >>> fast(audio) is audio
    True
    """
    encoders = [module for module in model.modules() if isinstance(module, ResNeXt3D)]
    if not encoders:
        return model
    on_cpu = next(model.parameters()).device.type == "cpu"
    large = any(encoder.dim >= LARGE for encoder in encoders)
    bfloat16 = large and on_cpu and has_bfloat16() and os.environ.get(VARIABLE) != "1"
    copied = deepcopy(model).eval()
    for module in copied.modules():
        if isinstance(module, ResNeXt3D):
            _fold(module)
            module.to(torch.bfloat16 if bfloat16 else torch.float32)
    copied = copied.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def answer(video: Tensor, audio: Tensor) -> Scores:
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            return cast(Scores, copied(video, audio))

    return answer


def _fold(encoder: ResNeXt3D) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Sequential) and isinstance(module[0], nn.Conv3d):
            module[0] = fuse_conv_bn_eval(module[0], cast(nn.BatchNorm3d, module[1]))
            module[1] = nn.Identity()
