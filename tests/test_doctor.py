"""What `cfnsr doctor` says of a machine that lacks something."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cfnsr import doctor
from cfnsr.doctor import Finding, examine
from cfnsr.media.face import YUNET_URL


def findings() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine()}


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CFNSR_YUNET", raising=False)
    monkeypatch.delenv("CFNSR_SPEECH_ENCODER", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_machine_without_the_detector(bare: Path) -> None:
    found = findings()["face detector"]
    assert found.well and YUNET_URL in found.advice and "set CFNSR_YUNET" in found.advice
    assert found.line().startswith("note") and "\n" not in found.line()
    assert not (bare / "cache").exists(), "nothing is fetched or written"


def test_what_is_there(bare: Path, yunet: Path) -> None:
    found = findings()
    assert found["face detector"].well and str(yunet) in found["face detector"].state
    assert "h264" in found["decoders"].state and found["decoders"].well
    assert "PyAV" in found["media"].state and "libavcodec" in found["media"].state
    assert "GB free" in found["disk, here"].state and str(bare) in found["cache folder"].state
    assert {name for name in found if "[" in name} == {
        "[export]",
        "[serve]",
        "[pretrained]",
        "[live]",
        "[ray]",
    }
    assert len(found) <= 20, "one screen"


@pytest.mark.parametrize("content", ["no model", "version https://git-lfs.github.com/spec/v1\n"])
def test_a_detector_that_is_none(bare: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bare / "y.onnx"
    path.write_text(content)
    monkeypatch.setenv("CFNSR_YUNET", str(path))
    found = findings()["face detector"]
    assert not found.well and str(path) in found.state and "unset CFNSR_YUNET" in found.advice


def test_what_is_missing_is_told(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DECODERS", ("h264", "no_such_codec"))
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e9)
    monkeypatch.setattr(doctor, "_packages", lambda extra: ["numpy", f"no-{extra}"])
    monkeypatch.setenv("CFNSR_SPEECH_ENCODER", str(bare / "nowhere"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(doctor, "cores", lambda: 64)
    found = findings()
    assert not found["decoders"].well and "not no_such_codec" in found["decoders"].advice
    assert not found["disk, here"].well and not found["speech encoder"].well
    assert "no no-serve" in found["[serve]"].state and "pip install 'cfnsr[serve]'" in found["[serve]"].advice
    assert found["[serve]"].well and "OMP_NUM_THREADS" in found["threads"].advice


def test_by_its_exit_code(
    cfnsr: Callable[..., subprocess.CompletedProcess[str]], bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFNSR_YUNET", str(bare / "nowhere.onnx"))
    done = cfnsr("doctor", "--json")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1 and done.stderr == ""
    assert found["face detector"]["well"] is False and "nowhere" in found["face detector"]["state"]
