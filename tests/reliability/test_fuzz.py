"""The fuzzing of files: what it counts as a fault, and a run of it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cfnsr.errors import InputError


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
    assert spec is not None and spec.loader is not None
    sys.modules["fuzz"] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def fine(path: Path) -> str:
    return ""


def refuse(path: Path) -> str:
    raise InputError("a\nb")


def fail(path: Path) -> str:
    raise KeyError("width")


def litter(path: Path) -> str:
    (path / "more").touch()
    return ""


def make(rng: Any, seeds: Path, folder: Path) -> Path:
    (folder / "file").write_text(str(rng.random()))
    return folder


@pytest.mark.parametrize(
    ("check", "ended"), [(fine, "loaded"), (refuse, "refused"), (fail, "fault"), (litter, "fault")]
)
def test_what_becomes_of_a_case(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: Any, ended: str
) -> None:
    monkeypatch.setattr(fuzz, "KINDS", {"odd": fuzz.Kind(make, check, 1, 1)})
    monkeypatch.setattr(fuzz, "limit_memory", lambda: None)
    outcome = fuzz.run_case(3, 0, False, tmp_path, tmp_path)
    assert (outcome.kind, outcome.ended) == ("odd", ended), outcome
    assert not list(tmp_path.iterdir()), "whatever becomes of it, its files are deleted"


def test_a_case_is_the_same_each_time(fuzz: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "a.wav"
    source.write_bytes(bytes(range(256)) * 8)
    for change in (fuzz.mutated, fuzz.retold):
        made = [change(fuzz.Random("0 7"), source.read_bytes()) for _ in range(2)]
        assert made[0] == made[1] != source.read_bytes()
    assert fuzz.reworded(fuzz.Random("0 9"), b'{"a": [1]}') == fuzz.reworded(
        fuzz.Random("0 9"), b'{"a": [1]}'
    )
    kinds = [fuzz.kind_of(number, False) for number in range(200)]
    assert {*kinds} == {*fuzz.KINDS}


@pytest.mark.long
def test_five_hundred_files(fuzz: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All end loaded, or with one line of reason; `make fuzz` has ten times as many."""
    done = fuzz.main(["--short", "--cases", "500", "--out", str(tmp_path / "fuzz.json")])
    found = json.loads((tmp_path / "fuzz.json").read_text())
    assert done == 0 and not found["faults"], capfd.readouterr().err
    assert found["kinds"][-1]["cases"] == 500 and found["kinds"][-1]["loaded"] > 50
