"""OpenVINO's pair of files: the same answers, and in bfloat16 and int8 what is heard as exact as before."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.export import check
from cfnsr.export.openvino import Quantised, _write, export_int8, export_openvino
from cfnsr.inference.exported import load_exported
from cfnsr.inference.telemetry import telemetry_off
from cfnsr.media.mfcc import mfcc
from cfnsr.models.entries import Model

from .conftest import by_torch, clip, config_for

pytest.importorskip("onnxscript")
with telemetry_off():
    openvino = pytest.importorskip("openvino")

# Whether this processor computes in it; elsewhere it is asked for in vain.
BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
TOLERANCE = 1e-4  # of a log-probability
MADE = config_for("cfn_sr")
CLIPS = [clip(number, MADE) for number in range(0, 60, 10)]
OTHERS = [clip(number, MADE) for number in range(5, 60, 10)]


def features_of(graph: Any) -> Any:
    """Where the graph has what it makes of the sound."""
    (inside,) = (
        output
        for node in graph.get_ordered_ops()
        for output in node.outputs()
        if "sound_features" in output.get_names()
    )
    return inside


def heard(path: Path, precision: str) -> np.ndarray:
    """What the graph makes of the sound of `OTHERS`, computed in a precision."""
    core = openvino.Core()
    graph = core.read_model(path)
    inside = features_of(graph)
    (sound,) = (each for each in graph.get_parameters() if "waveform" in each.output(0).get_names())
    part = openvino.Model([inside], [sound])
    compiled = core.compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    waveforms = np.stack([each["waveform"] for each in OTHERS]).astype(np.float32) / 32_767
    found: np.ndarray = compiled([waveforms])[0]
    return found


def assert_heard(path: Path, precision: str) -> None:
    expected = [mfcc(each["waveform"] / 32_767) for each in OTHERS]
    np.testing.assert_allclose(heard(path, precision), expected, atol=0.001)


@pytest.fixture(scope="module")
def float32(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("openvino") / "model.xml"
    checked = export_openvino(model, out, CLIPS)
    assert (checked.clips, checked.real, checked.agreement) == (6, True, 1.0)
    assert checked.difference <= TOLERANCE
    assert checked.bytes == out.stat().st_size + out.with_suffix(".bin").stat().st_size
    return out


def test_it_says_what_torch_says(float32: Path, model: Model) -> None:
    found = load_exported(float32, threads=1)
    np.testing.assert_allclose(found.log_probabilities(OTHERS), by_torch(model, OTHERS), atol=TOLERANCE)
    assert found.spec.precision == "f32"
    # Any program may give any number of clips, by OpenVINO alone.
    graph = openvino.Core().read_model(float32)
    shapes = {each.get_any_name(): str(each.get_partial_shape()) for each in graph.inputs}
    assert shapes == {"frames": "[?,8,64,64,3]", "waveform": "[?,30870]"}
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (answers,) = compiled(found.spec.batch(OTHERS)).values()
    np.testing.assert_allclose(answers, by_torch(model, OTHERS), atol=TOLERANCE)


def test_the_sound_stays_exact_in_bfloat16(float32: Path) -> None:
    assert_heard(float32, "f32")
    assert_heard(float32, "bf16")
    # On a processor without bfloat16 that shows nothing; the marks are there all the same.
    assert float32.read_text().count('name="precise"') > 30


def test_in_the_whole_graph_too(float32: Path) -> None:
    """As `predict` compiles it, for one clip: nothing before the MFCCs is in bfloat16, the network is."""
    core = openvino.Core()
    graph = core.read_model(float32)
    waiting, sound = [features_of(graph).get_node()], set()
    while waiting:
        node = waiting.pop()
        if node.get_type_name() not in ("Parameter", "Constant"):
            sound.add(node.get_friendly_name())
            waiting += [value.get_node() for value in node.input_values()]
    assert len(sound) > 30
    graph.reshape({each: [1, *list(each.get_partial_shape())[1:]] for each in graph.inputs})
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    low: set[str] = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = {key: value.astype(str) for key, value in node.get_rt_info().items()}
        if told["runtimePrecision"] == "bf16":
            low |= set(told["originalLayersNames"].split(","))
    assert not low & sound
    assert ("node_relu" in low) == BF16


def test_what_it_was_made_of_is_not_told(float32: Path) -> None:
    text = float32.read_text()
    for word in (
        "conversion_parameters",
        "input_model",
        str(Path.home()),
        "site-packages",
        str(float32.parent),
    ):
        assert word not in text


def test_bfloat16_by_the_file(model: Model, tmp_path: Path) -> None:
    checked = export_openvino(model, tmp_path / "model.xml", CLIPS, precision="bf16")
    found = load_exported(checked.path, threads=1)
    assert found.spec.precision == "bf16"
    expected = by_torch(model, OTHERS)
    exact = load_exported(checked.path, precision="f32", threads=1)
    np.testing.assert_allclose(exact.log_probabilities(OTHERS), expected, atol=TOLERANCE)
    answers = found.log_probabilities(OTHERS)
    np.testing.assert_allclose(answers, expected, atol=0.3)
    asked = load_exported(checked.path, precision="bf16", threads=1)
    np.testing.assert_array_equal(asked.log_probabilities(OTHERS), answers)
    assert (np.abs(answers - expected).max() > TOLERANCE) == BF16
    # What is told is the distance of what the file will run in.
    on_those = np.abs(found.log_probabilities(CLIPS) - by_torch(model, CLIPS)).max()
    assert checked.difference == pytest.approx(on_those, abs=TOLERANCE)


def test_a_file_that_says_something_else_is_not_left(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfnsr.export.openvino.reference", lambda *given: check.reference(*given) + 1.1e-4)
    with pytest.raises(InputError, match=r"model\.xml was not written"):
        export_openvino(model, tmp_path / "model.xml")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def audio(make: Callable[..., Model]) -> Model:
    return make("audio")


def test_a_kill_leaves_no_mixed_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another model is written over one, and killed before its first, second, ... change on the disk."""
    out = tmp_path / "model.xml"
    names = [out, out.with_suffix(".bin")]
    after = []
    for most in range(20):
        for path in names:
            path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            killed = killing(patch, tmp_path, most)
            with suppress(KeyboardInterrupt):
                _write((b"new", b"new"), out)
        there = {path.read_bytes().decode() for path in names} if out.exists() else {"none"}
        after.append(there.pop())
        assert not there, "a mixed pair"
        if not killed:
            break
    # Two temporary files, the old .xml away, the new .bin and no temporary one, the new .xml.
    assert after == ["old"] * 3 + ["none"] * 3 + ["new"] * 2
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "model.bin",
        "model.xml",
    ]


def killing(patch: pytest.MonkeyPatch, folder: Path, most: int) -> list[str]:
    """No more than so many changes of a folder are made, then each raises; the list has those not made."""
    made, killed = [], []
    for name in ("write_bytes", "unlink", "replace"):
        true = getattr(Path, name)

        def change(self: Path, *given: Any, true: Any = true, name: str = name, **how: Any) -> object:
            if self.parent != folder:
                return true(self, *given, **how)
            if len(made) == most:
                killed.append(name)
                raise KeyboardInterrupt
            made.append(name)
            return true(self, *given, **how)

        patch.setattr(Path, name, change)
    return killed


def test_the_weights_of_another_export(float32: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.xml"
    out.write_bytes(float32.read_bytes())
    weights = bytearray(float32.with_suffix(".bin").read_bytes())
    weights[-4:] = b"\0\0\0\0"
    out.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(InputError, match=r"model\.bin is damaged, or was changed"):
        load_exported(out)


@pytest.fixture(scope="module")
def quantised(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Quantised:
    """Labelled by what the model says itself, the last clip wrongly."""
    pytest.importorskip("nncf")
    labels = by_torch(model, OTHERS).argmax(axis=1)
    labels[-1] = (labels[-1] + 1) % 3
    out = tmp_path_factory.mktemp("int8") / "model.xml"
    return export_int8(model, out, CLIPS, zip(OTHERS, labels.tolist(), strict=True))


def test_the_cost_of_int8_is_told(quantised: Quantised, float32: Path, model: Model) -> None:
    assert (quantised.calibrated, quantised.clips) == (6, 6)
    assert quantised.float_accuracy == pytest.approx(5 / 6)
    exact, found = load_exported(float32, threads=1), load_exported(quantised.path, threads=1)
    assert found.spec == replace(exact.spec, precision="int8")
    before, after = exact.probabilities(OTHERS), found.probabilities(OTHERS)
    assert quantised.difference == pytest.approx(np.abs(before - after).max(), abs=1e-6)
    assert 1e-5 < quantised.difference < 0.1, "eight bits are near, and not the same"
    same = before.argmax(axis=1) == after.argmax(axis=1)
    assert quantised.agreement == pytest.approx(same.mean())
    labels = before.argmax(axis=1)
    labels[-1] = (labels[-1] + 1) % 3
    assert quantised.accuracy == pytest.approx((after.argmax(axis=1) == labels).mean())


def test_int8_is_of_the_pictures_alone(quantised: Quantised, float32: Path) -> None:
    assert_heard(quantised.path, "f32")
    sizes = [path.with_suffix(".bin").stat().st_size for path in (float32, quantised.path)]
    weights = {}
    for path in (float32, quantised.path):
        graph = openvino.Core().read_model(path)
        constants = (node for node in graph.get_ordered_ops() if node.get_type_name() == "Constant")
        weights[path] = sum(node.get_element_type().to_string() == "i8" for node in constants)
    assert weights[float32] == 0 and weights[quantised.path] >= 15, "a weight of each convolution in 3D"
    assert sizes[1] < 0.75 * sizes[0]


def test_without_labels_the_calibration_counts(
    model: Model, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf")
    found = export_int8(model, tmp_path / "model.xml", CLIPS[:2])
    assert capfd.readouterr() == ("", ""), "stdout is for what a command prints"
    assert (found.float_accuracy, found.accuracy, found.clips) == (None, None, 2)
    assert found.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_what_int8_is_refused_for(audio: Model, model: Model, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    out = tmp_path / "model.xml"
    with pytest.raises(InputError, match="model audio reads no pictures"):
        export_int8(audio, out, CLIPS)
    with pytest.raises(InputError, match="there is no clip to calibrate int8 on"):
        export_int8(model, out, [])
    with pytest.raises(InputError, match=r"model\.onnx has another ending: expected \.xml"):
        export_int8(model, tmp_path / "model.onnx", CLIPS)
    with pytest.raises(InputError, match="precision is 'int8': expected f32 or bf16"):
        export_openvino(model, out, precision="int8")
    assert list(tmp_path.iterdir()) == []
