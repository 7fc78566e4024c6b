"""The video encoder against its description in the paper and a re-derivation."""

import torch
from torch import nn

from cfnsr.models.encoders.resnext import Bottleneck, GroupedConv3d, ResNeXt3D
from cfnsr.models.zoo import create_model


def test_shapes_of_the_paper() -> None:
    with torch.device("meta"):
        encoder = ResNeXt3D()
        video = torch.empty(1, 3, 30, 224, 224)
        shapes = []
        for stage in encoder.stages:
            video = stage(video)
            shapes.append(tuple(video.shape[1:]))
    assert shapes == [(512, 8, 28, 28), (1024, 4, 14, 14), (2048, 2, 7, 7)]
    assert encoder.channels == (512, 1024, 2048)
    assert [len(layer) for layer in (encoder.stages[0][2], encoder.stages[0][3])] == [3, 4]  # type: ignore[index,arg-type]
    assert [len(layer) for layer in (encoder.stages[1], encoder.stages[2])] == [6, 3]  # type: ignore[arg-type]


def test_the_relu_after_the_stem_is_there() -> None:
    torch.manual_seed(0)
    stem = ResNeXt3D(width=1 / 8).stages[0][0]  # type: ignore[index]
    out = stem(torch.randn(2, 3, 8, 32, 32))
    assert out.min() == 0
    assert (out == 0).float().mean() > 0.3


def test_bottleneck_against_its_formula() -> None:
    """y = relu(BN(W3 relu(BN(W2 * relu(BN(W1 x)))) ) + BN(Ws x)), the groups convolved one by one."""
    torch.manual_seed(0)
    block = Bottleneck(6, 16, stride=2, groups=4).eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_()  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr,operator]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)

    def norm(x: torch.Tensor, bn: nn.BatchNorm3d) -> torch.Tensor:
        def shaped(vector: torch.Tensor) -> torch.Tensor:
            return vector.view(1, -1, 1, 1, 1)

        scale = (shaped(bn.running_var) + bn.eps).sqrt()  # type: ignore[arg-type]
        return (x - shaped(bn.running_mean)) / scale * shaped(bn.weight) + shaped(bn.bias)  # type: ignore[arg-type]

    x = torch.randn(2, 6, 5, 7, 7)
    (conv1, bn1, _), (conv2, bn2, _), (conv3, bn3) = block.convolutions  # type: ignore[misc]
    narrow = norm(torch.einsum("oi,bithw->bothw", conv1.weight[..., 0, 0, 0], x), bn1).relu()
    groups = [
        nn.functional.conv3d(part, weight, stride=2, padding=1)
        for part, weight in zip(narrow.chunk(4, 1), conv2.weight.chunk(4, 0), strict=True)
    ]
    middle = norm(torch.cat(groups, 1), bn2).relu()
    out = norm(torch.einsum("oi,bithw->bothw", conv3.weight[..., 0, 0, 0], middle), bn3)
    shortcut, bn = block.shortcut
    skipped = x[:, :, ::2, ::2, ::2]
    side = norm(torch.einsum("oi,bithw->bothw", shortcut.weight[..., 0, 0, 0], skipped), bn)
    torch.testing.assert_close(block(x), (out + side).relu(), atol=1e-4, rtol=1e-4)


def test_grouped_convolutions_have_right_gradients_under_bfloat16() -> None:
    """Plain ones do not: on some CPUs their bfloat16 weight gradients are NaN in about every second run."""
    torch.manual_seed(0)
    for _ in range(20):
        plain = nn.Conv3d(32, 32, 3, padding=1, groups=4, bias=False)
        ours = GroupedConv3d(32, 32, 3, padding=1, groups=4, bias=False)
        ours.load_state_dict(plain.state_dict())
        ours = ours.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        x = torch.randn(4, 32, 2, 8, 8)
        plain(x).square().sum().backward()
        with torch.autocast("cpu", torch.bfloat16):
            ours(x.bfloat16().contiguous(memory_format=torch.channels_last_3d)).square().sum().backward()
        assert plain.weight.grad is not None and ours.weight.grad is not None
        worst = (ours.weight.grad - plain.weight.grad).abs().max() / plain.weight.grad.abs().max()
        assert worst < 0.02


def test_what_is_computed_again_in_bfloat16_changes_nothing() -> None:
    def learn(large: bool) -> nn.Module:
        torch.manual_seed(0)
        encoder = ResNeXt3D(1 / 8)
        blocks = [module for module in encoder.modules() if isinstance(module, Bottleneck)]
        assert sum(block.large for block in blocks) == 3  # those of the first layer
        for block in blocks:
            block.large &= large
        maps = torch.randn(2, 3, 8, 64, 64)
        with torch.autocast("cpu", torch.bfloat16):
            for stage in encoder.stages:
                maps = stage(maps)
        maps.float().square().sum().backward()
        return encoder

    again, kept = learn(True), learn(False)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter.grad, kept.get_parameter(name).grad), name  # type: ignore[arg-type]
    for name, buffer in again.named_buffers():  # the norms have seen one batch, not two
        assert torch.equal(buffer, kept.get_buffer(name)), name


def test_training_in_bfloat16_stays_finite_and_scores_in_float32() -> None:
    torch.manual_seed(0)
    model = create_model("cfn_sr", width=1 / 8)
    video, audio = torch.randn(4, 3, 8, 64, 64), torch.randn(4, 13, 212)
    for _ in range(3):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(video, audio)
        assert scores.dtype == torch.float32
        scores[:, 0].sum().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
