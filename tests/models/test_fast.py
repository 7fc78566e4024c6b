"""The model as it answers fastest is the model."""

import pytest
import torch
from torch import nn

from cfnsr import create_model
from cfnsr.models import fast as module
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.fast import VARIABLE, fast, has_bfloat16


def trained() -> nn.Module:
    """CFN-SR whose norms have statistics and weights of their own."""
    torch.manual_seed(0)
    model = create_model("cfn_sr", width=1 / 8)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def test_it_answers_as_the_model_does() -> None:
    model = trained()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    video, audio = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 13, 212)
    with torch.inference_mode():
        torch.testing.assert_close(fast(model)(video, audio), model(video, audio), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    encoders = [each for each in model.modules() if isinstance(each, ResNeXt3D)]
    assert any(isinstance(each, nn.BatchNorm3d) for each in encoders[0].modules())


def test_a_large_network_answers_in_bfloat16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    monkeypatch.setattr(module, "LARGE", 1)
    video, audio = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 13, 212)
    with torch.inference_mode():
        change = (fast(model)(video, audio).exp() - model(video, audio).exp()).abs().max()
    assert change < 0.01 and (change > 1e-5) == has_bfloat16()


def test_a_cpu_that_emulates_bfloat16_is_spared_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    monkeypatch.setattr(module, "LARGE", 1)
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    video, audio = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 13, 212)
    with torch.inference_mode():
        torch.testing.assert_close(fast(model)(video, audio), model(video, audio), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("missing", ["wanted", "oneDNN"])
def test_else_the_model_answers_itself(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    assert fast(model) is not model
    if missing == "wanted":
        monkeypatch.setenv(VARIABLE, "1")
    else:
        monkeypatch.setattr(module.mkldnn, "is_available", lambda: False)
    assert fast(model) is model
