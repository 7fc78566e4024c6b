"""A model's size counts the pretrained encoder that it hears by; each count is that of real weights."""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import cfnsr
from cfnsr.features.speech_encoder import SpeechEncoder
from cfnsr.models import listing
from cfnsr.models.encoders.discriminant import Discriminant
from cfnsr.models.parameters import count_total, whisper_encoder


def in_file(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict


@pytest.fixture(scope="module")
def tiny(shared: Path) -> Path:
    folder = shared / "models" / "whisper-tiny-en-encoder"
    if not folder.is_dir():
        pytest.skip(f"no speech encoder at {folder}")
    return folder


def test_whisper_tiny_has_as_many_as_its_file(tiny: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    sizes = ("d_model", "encoder_layers", "encoder_ffn_dim", "num_mel_bins", "max_source_positions")
    assert whisper_encoder() == whisper_encoder(*(config[name] for name in sizes))
    assert whisper_encoder() == in_file(tiny / "model.safetensors") == SpeechEncoder(tiny).parameters


def test_another_whisper_too(write_whisper: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_whisper(tmp_path)
    assert whisper_encoder(16, 2, 32, 40) == in_file(folder / "model.safetensors")
    assert SpeechEncoder(folder).parameters == in_file(folder / "model.safetensors")


def test_what_hears_by_it_counts_it() -> None:
    """And the discriminants, value by value; what hears by nothing pretrained has what it trains."""
    model = cfnsr.create_model("cfn_sr_features")
    solved = sum(
        value.numel()
        for part in (model.video, model.audio)  # type: ignore[union-attr]
        for name, value in part.state_dict().items()
        if ".discriminant." in name
    )
    assert solved == 35 * 1002 + 1000 * 9 + 8 + 5760 * 10 + 8
    assert count_total(model, 1000) == sum(p.numel() for p in model.parameters()) + solved + 1000
    assert not any(isinstance(module, Discriminant) for module in cfnsr.create_model("cfn_sr").modules())
    assert count_total(cfnsr.create_model("cfn_sr"), 1000) == 26_301_417
    with torch.device("meta"):
        seen = cfnsr.create_model("video+openface")
    assert count_total(seen, 1000) == count_total(seen, 0)


def test_the_listing_tells_both() -> None:
    rows = {row["name"]: row for row in listing.as_json()}
    ours = rows["cfn_sr_features"]
    assert (ours["params"], ours["trained_params"]) == (12_066_404, 3_756_334)
    assert rows["cfn_sr"]["params"] == rows["cfn_sr"]["trained_params"] == 26_301_417
    for text in (listing.as_text(), listing.as_markdown()):
        (line,) = [line for line in text.splitlines() if "cfn_sr_features" in line]
        assert "12,066,404" in line and "3,756,334" in line
        assert "8,208,384" in text and "speed" in text
