"""Exported files without PyTorch: the same answers, and one line for whatever is no such file."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import cfnsr
from cfnsr.emotions import CREMAD
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference import checksum, exported
from cfnsr.inference.exported import load_exported
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.media.mfcc import mfcc
from cfnsr.models.entries import Model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

PREPARATION = Preparation(("audio",), keep=0.7)
CONFIG = ModelSpec(
    "audio",
    {"classes": 6, "mfcc_steps": PREPARATION.mfcc_steps, "width": 1.0},
    CREMAD,
    preparation=PREPARATION,
    temperature=2.5,
    modality_dropout=0.2,
)
Change = Callable[[Path], object]


def model() -> Model:
    torch.manual_seed(0)
    made = cfnsr.create_model("audio", **CONFIG.settings).eval()
    made.config = CONFIG  # type: ignore[assignment]
    return made


def sounds(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"waveform": (rng.standard_normal(30_870) / 9).astype(np.float32)} for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest model in both formats."""
    from cfnsr.export.onnx import export_onnx
    from cfnsr.export.openvino import export_openvino

    out = tmp_path_factory.mktemp("exported")
    export_onnx(model(), out / "model.onnx")
    export_openvino(model(), out / "model.xml")
    return out


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> Path:
    """A copy of them, to be spoilt."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


FORMS = [("model.onnx", "onnxruntime"), ("model.onnx", "openvino"), ("model.xml", "openvino")]


@pytest.mark.parametrize(("name", "runtime"), FORMS)
def test_it_answers_as_the_model_does(folder: Path, name: str, runtime: exported.Runtime) -> None:
    found = load_exported(folder / name, runtime=runtime, threads=1)
    clips = sounds(5)
    with_features = [each | {"audio": mfcc(each["waveform"])} for each in clips]
    expected = TorchRecogniser(model()).probabilities(with_features)
    answers = found.probabilities(clips)
    assert answers.dtype == np.float64 and answers.shape == (5, 6)
    np.testing.assert_allclose(answers, expected, atol=1e-5)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(found.probabilities(clips[3:4]), answers[3:4], atol=1e-6)
    assert found.probabilities([]).shape == (0, 6)
    asked = TorchRecogniser(model())
    for field in ("name", "labels", "reads", "preparation", "normalised", "tolerant"):
        assert getattr(found, field) == getattr(asked, field), field
    assert (found.frames, found.size, found.runtime) == (30, 224, runtime)


@pytest.mark.parametrize(("name", "runtime"), [FORMS[0], FORMS[2]])
def test_pytorch_is_not_imported(folder: Path, name: str, runtime: str) -> None:
    program = (
        "import sys, numpy as np\n"
        "from cfnsr.inference.exported import load_exported\n"
        f"model = load_exported({str(folder / name)!r}, runtime={runtime!r}, threads=1)\n"
        "print(model.probabilities([{'waveform': np.zeros(30_870, np.int16)}]).shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 6) False\n" and done.stderr == ""


def test_a_clip_without_sound(folder: Path) -> None:
    found = load_exported(folder / "model.onnx", threads=1)
    with pytest.raises(InputError, match="the clip has no waveform: model audio reads waveform"):
        found.probabilities([{"video": np.zeros((1, 2, 2, 3), np.uint8)}])
    with pytest.raises(InputError, match=r"waveform of a clip is \(100,\): model audio expects \(30870,\)"):
        found.probabilities([{"waveform": np.zeros(100, np.int16)}])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sealed(data: bytes, suffix: str) -> bytes:
    """Content of a file that is whole, whatever it holds."""
    return data + checksum.tail(data, suffix)


def content(data: bytes) -> Change:
    return lambda path: path.write_bytes(data)


POINTER = content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
EMPTY = onnx.helper.make_model(onnx.helper.make_graph([], "other", [], [])).SerializeToString()
ENTITIES = b'<!DOCTYPE net [<!ENTITY a "b">]><net>&a;</net>'
SPOILT: list[tuple[str, Change, str]] = [
    ("model.onnx", cut, "is damaged"),
    ("model.onnx", flip, "is damaged"),
    ("model.onnx", content(np.random.default_rng(0).bytes(5000)), "is damaged"),
    ("model.onnx", Path.unlink, "cannot be read"),
    ("model.onnx", content(sealed(EMPTY, ".onnx")), "is no exported model"),
    ("model.onnx", content(sealed(b"\xff" * 100, ".onnx")), "cannot be run"),
    ("model.onnx", POINTER, "git lfs pull"),
    ("model.xml", POINTER, "git lfs pull"),
    ("model.bin", POINTER, "git lfs pull"),
    ("model.xml", cut, "is damaged"),
    ("model.xml", flip, "is damaged"),
    ("model.xml", content(b"<html>no model</html>"), "is damaged"),
    ("model.xml", content(sealed(b"<net><rt_info/></net>", ".xml")), "is no exported model"),
    ("model.xml", content(sealed(b"<net", ".xml")), "is no exported model"),
    ("model.xml", content(sealed(ENTITIES, ".xml")), "is no exported model"),
    ("model.bin", cut, "is damaged"),
    ("model.bin", flip, "is damaged"),
    ("model.bin", Path.unlink, "cannot be read"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), SPOILT)
def test_a_spoilt_file_is_refused_in_one_line(files: Path, name: str, spoil: Change, words: str) -> None:
    spoil(files / name)
    refused(files / name.replace(".bin", ".xml"), words)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        load_exported(path, threads=1)
    message = str(error.value)
    assert "\n" not in message and path.stem in message, message
    for word in words:
        assert word in message, message


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change what a file says of itself, and give it a new checksum."""
    written = onnx.load(path)
    (entry,) = (entry for entry in written.metadata_props if entry.key == "cfnsr")
    value = json.loads(entry.value)
    change(value)
    del written.metadata_props[:]
    new = written.metadata_props.add()
    new.key, new.value = "cfnsr", json.dumps(value)
    path.write_bytes(sealed(written.SerializeToString(), ".onnx"))


def test_another_format_names_the_version(files: Path) -> None:
    rewrite(files / "model.onnx", lambda value: value.update(format=7, cfnsr="9.0"))
    refused(files / "model.onnx", "has format 7 (written by cfnsr 9.0)", "reads format 4")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": None},
        {"reads": {"audio": "taste"}},
        {"reads": {}},
        {"reads": {"video": "audio"}},
        {"settings": {"classes": 3}},
        {"frames": 10**9},
        {"size": "64"},
        {"precision": "f64"},
        {"temperature": 0},
        {"preparation": {}},
    ],
)
def test_a_description_of_nonsense(files: Path, change: dict[str, object]) -> None:
    rewrite(files / "model.onnx", lambda value: value.update(change))
    refused(files / "model.onnx", "is damaged")


def test_a_graph_of_other_inputs(files: Path) -> None:
    def longer(value: dict[str, object]) -> None:
        value["preparation"]["keep"] = 1.0  # type: ignore[index]

    rewrite(files / "model.onnx", longer)
    for runtime in exported.RUNTIMES[".onnx"]:
        with pytest.raises(InputError, match="its graph takes"):
            load_exported(files / "model.onnx", runtime=runtime, threads=1)


def test_weights_elsewhere_are_not_read(files: Path) -> None:
    """A path in the file could lead anywhere."""
    written = onnx.load(files / "model.onnx")
    (largest,) = sorted(written.graph.initializer, key=lambda each: len(each.raw_data))[-1:]
    (files / "weights.bin").write_bytes(largest.raw_data)
    largest.ClearField("raw_data")
    largest.data_location = onnx.TensorProto.EXTERNAL
    entry = largest.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    (files / "model.onnx").write_bytes(sealed(written.SerializeToString(), ".onnx"))
    refused(files / "model.onnx", "reads other files")


def test_operations_of_others_are_not_run(files: Path) -> None:
    written = onnx.load(files / "model.onnx")
    written.graph.node[0].domain = "com.example"
    (files / "model.onnx").write_bytes(sealed(written.SerializeToString(), ".onnx"))
    refused(files / "model.onnx", "operations of its own")


def test_other_arguments(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected an \.onnx or \.xml file"):
        load_exported(tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"runtime is .onnxruntime.: expected openvino for model\.xml"):
        load_exported(folder / "model.xml", runtime="onnxruntime")
    with pytest.raises(InputError, match="precision is 'int4': expected f32 or bf16"):
        load_exported(folder / "model.xml", precision="int4")
    with pytest.raises(InputError, match=r"precision is bf16 for model\.onnx: expected an \.xml file"):
        load_exported(folder / "model.onnx", precision="bf16")


@pytest.mark.parametrize(
    ("missing", "name", "needed"),
    [
        ({"openvino", "onnxruntime"}, "model.onnx", "onnxruntime"),
        ({"openvino"}, "model.xml", "openvino"),
        ({"onnx"}, "model.onnx", "onnx"),
    ],
)
def test_without_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, missing: set[str], name: str, needed: str
) -> None:
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: None if package in missing else object())
    with pytest.raises(InputError, match=rf"^{needed} is not installed: run pip install 'cfnsr\[export\]'"):
        load_exported(folder / name, threads=1)


def test_onnx_runs_where_openvino_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: None if package == "openvino" else object())
    assert load_exported(folder / "model.onnx", threads=1).runtime == "onnxruntime"


def test_a_description_survives_its_file() -> None:
    spec = ModelSpec(
        "cfn_sr_features",
        {"classes": 6, "openface_features": 35, "speech_layers": 2, "speech_width": 8},
        CREMAD,
        reads={"video": "openface", "audio": "speech"},
        frames=9,
        size=64,
        openface_steps=4,
        speech_steps=6,
        preparation=Preparation(("openface", "speech"), speech_sha256="0" * 64, speech_speeds=()),
        normalised=True,
        modality_dropout=0.2,
        temperature=1.5,
        precision="bf16",
    )
    assert ModelSpec.from_export(json.dumps(spec.as_json()), "model.onnx") == spec
    assert spec.shapes == {"openface": (35, 4), "speech": (1, 2, 6, 8)} and spec.tolerant


def test_several_threads_may_ask_at_once(folder: Path) -> None:
    clips = sounds(6)
    for name, runtime in FORMS:
        found = load_exported(folder / name, runtime=runtime, threads=1)  # type: ignore[arg-type]
        expected = found.probabilities(clips)
        with ThreadPoolExecutor(4) as pool:
            each = list(pool.map(lambda clip: found.probabilities([clip])[0], clips * 3))  # noqa: B023
        np.testing.assert_allclose(each, np.tile(expected, (3, 1)), atol=1e-6)
