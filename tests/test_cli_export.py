"""`cfnsr export` as a person uses it, and `cfnsr predict` on what it wrote, where there is no PyTorch."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package)

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

CHECK = r"(\S+): (\S+) MB; on (\d+) (\S+) clips no log-probability is further than (\S+) from PyTorch\n"


def refused(done: Done, *words: str) -> None:
    """One line on stderr and no more, which holds the words; exit code 2."""
    assert (done.returncode, done.stdout) == (2, ""), (done.stdout, done.stderr)
    (line,) = done.stderr.splitlines()
    assert line.startswith("cfnsr: "), line
    for word in words:
        assert word in line, line


def checked(done: Done, *files: Path) -> tuple[int, str, float]:
    """What one line says: of the clips, and of the distance from PyTorch."""
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(CHECK, done.stdout)
    assert found is not None, done.stdout
    path, size, clips, kind, distance = found.groups()
    assert path == str(files[0])
    assert float(size) == pytest.approx(sum(file.stat().st_size for file in files) / 1e6, abs=0.051)
    return int(clips), kind, float(distance)


def unasked(home: Path) -> dict[str, str]:
    """The environment of somebody who has never said whether openvino may send what it is used for."""
    return {"HOME": str(home), "CI": "", "TF_BUILD": "", "JENKINS_URL": ""}


@pytest.fixture(scope="module")
def audio(runs: Path) -> Path:
    """A model of sound only, of the same training."""
    return runs / "nested" / "audio" / "seed_0" / "fold_1"


@pytest.fixture(scope="module")
def onnx(cfnsr: Run, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "model.onnx"
    clips, kind, distance = checked(cfnsr("export", checkpoint, out), out)
    assert (clips, kind) == (3, "made-up") and distance <= 1e-4
    return out


@pytest.fixture(scope="module")
def int8(shell: Run, checkpoint: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its cost, which is also counted here."""
    pytest.importorskip("nncf")
    from cfnsr.data.store import Store
    from cfnsr.inference.exported import load_exported

    out = tmp_path_factory.mktemp("int8") / "model.xml"
    home = tmp_path_factory.mktemp("home")
    done = shell("export", checkpoint, out, "--precision", "int8", "--data", prepared, **unasked(home))
    assert list(home.iterdir()) == [], "OpenVINO or NNCF has made up an identity, to send what it is used for"
    assert done.returncode == 0, done.stderr
    assert {file.name for file in out.parent.iterdir()} == {"model.xml", "model.bin"}
    found = re.fullmatch(
        r"(\S+): (\d+\.\d) MB, int8 by 4 training clips; on 4 others accuracy (\d+\.\d) %, in float32 "
        r"(\d+\.\d) % \(([+-]\d+\.\d)\), the same answer on (\d+\.\d) %\n",
        done.stdout,
    )
    assert found is not None, done.stdout
    accuracy, before, cost, _ = (float(each) for each in found.groups()[2:])
    assert found[1] == str(out) and cost == pytest.approx(accuracy - before, abs=0.11)
    tested = json.loads((checkpoint / "run.json").read_text())["test_actors"]
    model, store = load_exported(out, threads=1), Store(prepared)
    right = [
        model.labels.emotions[model.probabilities([store.load(each.name)]).argmax()] == each.emotion
        for each in store.headers()
        if each.actor in tested
    ]
    assert accuracy == pytest.approx(100 * sum(right) / len(right), abs=0.05)
    return out


@pytest.mark.long
def test_the_pair_of_openvino(cfnsr: Run, audio: Path, tmp_path: Path) -> None:
    """Without a corpus on made-up clips."""
    out = tmp_path / "model.xml"
    files = out, out.with_suffix(".bin")
    clips, kind, distance = checked(cfnsr("export", audio, out, "--precision", "bf16"), *files)
    assert (clips, kind) == (3, "made-up") and 0 <= distance < 1
    assert b'"precision": "bf16"' in unescaped(out)
    assert {file.name for file in tmp_path.iterdir()} == {"model.xml", "model.bin"}


def unescaped(path: Path) -> bytes:
    return path.read_bytes().replace(b"&quot;", b'"').replace(b'":"', b'": "')


def test_a_model_without_its_run(
    cfnsr: Run, checkpoint: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows whom it was tested on: no accuracy is printed, and the clips are not called others."""
    from cfnsr.export.openvino import Quantised

    def quantise(run: Path, out: Path, clips: list[object], tested: list[object]) -> Quantised:
        assert not tested
        return Quantised(out, 1_000_000, len(clips), len(clips), None, None, 1.0, 0.0)

    monkeypatch.setattr("cfnsr.export.openvino.export_int8", quantise)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint / name, tmp_path)
    out = tmp_path / "model.xml"
    done = cfnsr("export", tmp_path, out, "--precision", "int8", "--data", prepared)
    assert done.returncode == 0, done.stderr
    expected = r"\S+: \d+\.\d MB, int8 by 12 training clips; on them the same answer on \d+\.\d %\n"
    assert re.fullmatch(expected, done.stdout), done.stdout


@pytest.fixture(scope="module")
def torchless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which torch is found first, and cannot be imported."""
    folder = tmp_path_factory.mktemp("torchless")
    (folder / "torch.py").write_text("raise ImportError('no torch here')\n")
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize(("form", "tolerance"), [("onnx", 1e-3), ("int8", 0.1)])
@pytest.mark.long
def test_predict_without_torch(
    cfnsr: Run,
    shell: Run,
    checkpoint: Path,
    synthetic: Path,
    torchless: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    form: str,
    tolerance: float,
) -> None:
    """The same probabilities as the checkpoint's, in windows too."""
    files = sorted(synthetic.glob("Actor_0[12]/*.mp4"))[3:5]
    asked = (*files, "--openface", synthetic / "landmarks", "--window", 2, "--hop", 1, "--json")
    done = cfnsr("predict", checkpoint, *asked)
    assert done.returncode == 0, done.stderr
    model = request.getfixturevalue(form)
    exported = shell("predict", model, *asked, PYTHONPATH=torchless, **unasked(tmp_path))
    assert not (tmp_path / "intel").exists(), "nothing is sent here either"
    assert exported.returncode == 0, exported.stderr
    for expected, found in zip(json.loads(done.stdout), json.loads(exported.stdout), strict=True):
        assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=tolerance)
        assert len(found["timeline"]) == len(expected["timeline"]) > 1
        for one, other in zip(found["timeline"], expected["timeline"], strict=True):
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=tolerance)
            assert (one["start"], one["uses"]) == (other["start"], other["uses"])
    # There is none indeed: the checkpoint itself cannot be used.
    assert shell("predict", checkpoint, *asked, PYTHONPATH=torchless).returncode not in (0, 2)


def test_a_file_is_written_over_or_left_as_it_was(
    cfnsr: Run, audio: Path, prepared: Path, tmp_path: Path
) -> None:
    """Into a folder that is not there yet; checked on what the run was trained on: one actor's four clips."""
    out = tmp_path / "not" / "yet" / "model.onnx"
    for options, where in (((), (3, "made-up")), (("--data", prepared), (4, "prepared"))):
        clips, kind, distance = checked(cfnsr("export", audio, out, *options), out)
        assert (clips, kind) == where and distance <= 1e-4
        assert [file.name for file in out.parent.iterdir()] == ["model.onnx"]
    before = out.read_bytes()
    refused(cfnsr("export", tmp_path / "nowhere", out), "nowhere/config.json is missing")
    assert out.read_bytes() == before


def test_what_is_refused(cfnsr: Run, checkpoint: Path, audio: Path, prepared: Path, tmp_path: Path) -> None:
    out, pair = tmp_path / "model.onnx", tmp_path / "model.xml"
    data = ("--data", prepared)
    refused(cfnsr("export", checkpoint, tmp_path / "model.pt"), "model.pt", "expected .onnx or .xml")
    unknown = cfnsr("export", checkpoint, pair, "--precision", "int4")
    refused(unknown, "int4", "expected one of f32, bf16, int8")
    for precision in ("bf16", "int8"):
        refused(cfnsr("export", checkpoint, out, "--precision", precision, *data), "expected an .xml file")
    refused(cfnsr("export", checkpoint, pair, "--precision", "int8"), "expected --data")
    refused(cfnsr("export", prepared, out), "config.json is missing: expected a checkpoint folder")
    refused(cfnsr("export", checkpoint, out, "--data", tmp_path), "corpus.json is missing", "cfnsr prepare")
    refused(cfnsr("export", audio, pair, "--precision", "int8", *data), "model audio reads no pictures")
    (tmp_path / "folder.xml").mkdir()
    refused(cfnsr("export", checkpoint, tmp_path / "folder.xml"), "folder.xml is a folder")
    (tmp_path / "file").touch()
    refused(cfnsr("export", audio, tmp_path / "file" / "model.onnx"), "file")
    assert {file.name for file in tmp_path.iterdir()} == {"folder.xml", "file"}


def test_clips_that_the_model_cannot_read(
    cfnsr: Run, checkpoint: Path, synthetic: Path, tmp_path: Path
) -> None:
    done = cfnsr("prepare", synthetic, tmp_path / "sound", "--modalities", "audio", "--workers", 1)
    assert done.returncode == 0, done.stderr
    for precision in ("f32", "int8"):
        out = (tmp_path / "model.xml", "--data", tmp_path / "sound", "--precision", precision)
        refused(cfnsr("export", checkpoint, *out), "the clip has no video: model cfn_sr reads video")
