"""The devices of a training."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cfnsr.training import devices
from cfnsr.training.config import PRESETS


def test_bfloat16_that_is_emulated_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(PRESETS["small"], precision="bf16")
    stub = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    monkeypatch.setattr(devices, "Accelerator", lambda **settings: stub)  # there can be one a process
    for there, lines in ((True, 0), (False, 1), (False, 0)):
        monkeypatch.setattr(devices, "has_bfloat16", lambda there=there: there)
        devices.accelerator(recipe)
        assert capsys.readouterr().err.count("this CPU emulates bfloat16") == lines
