"""Sizes of models: published counts, the pretrained encoder that a model hears by, and the list of all."""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import cfnsr
from cfnsr.features.speech_encoder import SpeechEncoder
from cfnsr.models import listing, zoo
from cfnsr.models.entries import ENTRIES, NOTES, TABLES, Model
from cfnsr.models.parameters import count_parameters, count_total, whisper_encoder

PAPERS = {
    "video": 25_882_056,
    "audio": 34_024,
    "averaging": 25_916_080,
    "multiplicative": 25_916_080,
    "multiplication": 25_916_080,
    "concat_fc": 26_838_952,
    "mcbp": 26_044_088,
    "mmtm": 31_793_264,
    "msaf": 25_940_724,
    "eranns": 24_021_578,
    "cfn_sr": 26_301_417,
    "cfn_sr_no_cross_modal": 25_916_072,
    "cfn_sr_video_to_audio": 26_305_577,
    "cfn_sr_no_self_attention": 26_051_369,
    "cfn_sr_no_residual": 26_301_417,
}
VARIANTS = {
    "cfn_sr_map": PAPERS["cfn_sr"],
    "cfn_sr_k_maps": PAPERS["cfn_sr"] - 65,  # no score
    "cfn_sr_released": PAPERS["cfn_sr"],
    "concat_fc_heads": 26_868_664,  # the paper's 26.87 M of Concat + FC
}


def meta(name: str) -> Model:
    with torch.device("meta"):
        return zoo.create_model(name)


def test_the_paper_has_two_tables_of_eleven_and_six_rows() -> None:
    first, second = ([name for _, name in TABLES[number]] for number in (1, 2))
    assert len(first) == 11 and len(second) == 6 and second.count("cfn_sr") == 2
    assert list(dict.fromkeys([*first, *second])) == list(PAPERS), "the zoo is in the order of the tables"
    assert cfnsr.list_models()[:20] == [*PAPERS, *VARIANTS, "cfn_sr_features"]


@pytest.mark.parametrize("name", [*PAPERS, *VARIANTS])
def test_published_parameter_count(name: str) -> None:
    """Of four rows the recipe cannot be known; of ERANNs the paper gives no count, nor of our variants."""
    entry, count = ENTRIES[name], count_parameters(meta(name))
    assert count == (PAPERS | VARIANTS)[name]
    if name in VARIANTS:
        assert entry.paper_accuracy is entry.paper_params is None
    elif name in ("concat_fc", "mcbp", "mmtm", "cfn_sr_video_to_audio", "eranns"):
        assert NOTES[name] and (entry.paper_params is None) == (name == "eranns")
    else:
        assert count / 1e6 == pytest.approx(entry.paper_params, abs=0.0051) and name not in NOTES


def in_file(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no dict


def test_whisper_tiny_has_as_many_as_its_file(shared: Path) -> None:
    tiny = shared / "models" / "whisper-tiny-en-encoder"
    if not tiny.is_dir():
        pytest.skip(f"no speech encoder at {tiny}")
    config = json.loads((tiny / "config.json").read_text())
    sizes = ("d_model", "encoder_layers", "encoder_ffn_dim", "num_mel_bins", "max_source_positions")
    assert whisper_encoder() == whisper_encoder(*(config[name] for name in sizes))
    assert whisper_encoder() == in_file(tiny / "model.safetensors") == SpeechEncoder(tiny).parameters


def test_another_whisper_too(write_whisper: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_whisper(tmp_path)
    assert whisper_encoder(16, 2, 32, 40) == in_file(folder / "model.safetensors")
    assert SpeechEncoder(folder).parameters == in_file(folder / "model.safetensors")


def test_what_hears_by_it_counts_it() -> None:
    """And the discriminants; what hears by nothing pretrained has what it trains."""
    model = meta("cfn_sr_features")
    solved = 35 * 1002 + 1000 * 9 + 8 + 5760 * 10 + 8
    assert count_total(model, 1000) == count_parameters(model) + solved + 1000
    assert count_total(meta("cfn_sr"), 1000) == PAPERS["cfn_sr"]
    assert count_total(meta("video+openface"), 1000) == count_total(meta("video+openface"), 0)


def test_the_listing_shows_the_counts_of_real_models() -> None:
    rows = {row["name"]: row for row in listing.as_json()}
    assert list(rows) == cfnsr.list_models()
    for row in rows.values():
        assert set(row) == {"name", "params", "paper_params", "paper_accuracy", "fusion", "trained_params"}
    for key in ("params", "trained_params"):  # the paper's rows have no encoder but their own
        assert {name: rows[name][key] for name in PAPERS} == PAPERS
    ours = rows["cfn_sr_features"]
    assert (ours["params"], ours["trained_params"]) == (12_066_404, 3_756_334)
    assert ours["paper_params"] is None and ours["paper_accuracy"] is None
    for text in (listing.as_text(), listing.as_markdown()):
        (line,) = [line for line in text.splitlines() if "cfn_sr_features" in line]
        assert "12,066,404" in line and "3,756,334" in line
        assert "8,208,384" in text and "speed" in text
