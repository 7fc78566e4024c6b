"""The ONNX file of every model of the zoo, run by ONNX Runtime as any language would run it."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cfnsr
from cfnsr.corpus.take import Take
from cfnsr.data.clip import prepare_clip
from cfnsr.errors import InputError
from cfnsr.export import check
from cfnsr.export.onnx import export_onnx
from cfnsr.features.mel import PCM
from cfnsr.features.preparation import Preparation
from cfnsr.inference.exported import load_exported
from cfnsr.inference.predict import predict
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.models.entries import Model
from cfnsr.training.checkpoint import config_of

from .conftest import LABELS, Clip, by_torch, clip, config_for

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TOLERANCE = 1e-4  # of a log-probability, the contract's


def by_hand(path: Path, model: Model, clips: list[Clip]) -> np.ndarray:
    """What a program in another language does: the file's inputs, made of the clips by nothing of cfnsr's."""
    config = config_of(model)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    chosen = np.rint(np.linspace(0, config.preparation.frames - 1, config.frames)).astype(int)
    fields = {
        "frames": np.stack([each["video"][chosen] for each in clips]),
        "waveform": np.stack([each["waveform"] / PCM for each in clips]).astype(np.float32),
    }
    (answers,) = session.run(
        ["log_probabilities"], {entry.name: fields[entry.name] for entry in session.get_inputs()}
    )
    found: np.ndarray = answers
    return found


# What is left out has the parts of another row: another solver than lda, CFN-SR without some of its block.
ROWS = [name for name in cfnsr.list_models() if not name.startswith(("logistic", "cfn_sr_no_"))]


@pytest.mark.every_row
@pytest.mark.parametrize("name", ROWS)
def test_every_model_says_what_it_says_in_torch(
    make: Callable[..., Model], tmp_path: Path, name: str
) -> None:
    model = make(name)
    config = replace(config_of(model), size=80)  # as the clips are prepared: there is nothing to shrink
    model.config = config  # type: ignore[assignment]
    checked = export_onnx(model, tmp_path / "model.onnx", [clip(number, config) for number in range(3)])
    assert (checked.clips, checked.real, checked.agreement) == (3, True, 1.0)
    assert checked.difference <= TOLERANCE
    assert checked.bytes == (tmp_path / "model.onnx").stat().st_size

    others = [clip(number, config) for number in range(40, 45)]
    expected = by_torch(model, others)
    if "openface" not in model.reads.values():
        np.testing.assert_allclose(
            by_hand(checked.path, model, others), expected, atol=TOLERANCE, rtol=TOLERANCE / 20
        )
    found = load_exported(checked.path, runtime="onnxruntime")
    np.testing.assert_allclose(found.log_probabilities(others), expected, atol=TOLERANCE, rtol=TOLERANCE / 20)
    np.testing.assert_allclose(found.probabilities(others[:1]), np.exp(expected[:1]), atol=TOLERANCE)


@pytest.fixture(scope="module")
def exported(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    checked = export_onnx(model, out)
    assert (checked.clips, checked.real) == (3, False), "made-up ones"
    return out


def test_the_file_describes_itself(exported: Path, model: Model) -> None:
    written = onnx.load(exported)
    onnx.checker.check_model(written, full_check=True)
    (about,) = (json.loads(entry.value) for entry in written.metadata_props if entry.key == "cfnsr")
    assert about["format"] == 4
    assert about["labels"]["emotions"] == list(LABELS.emotions)
    assert about["inputs"] == {"frames": "uint8", "waveform": "float32"}
    assert about["shapes"] == {"frames": [8, 64, 64, 3], "waveform": [30_870]}
    assert (about["temperature"], about["reads"]) == (1.7, {"video": "video", "audio": "audio"})
    assert Preparation.from_json(about["preparation"]) == config_of(model).preparation
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", 18)]
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    shapes = {entry.name: (entry.type, entry.shape) for entry in session.get_inputs()}
    batch = shapes["frames"][1][0]
    assert isinstance(batch, str)
    assert shapes == {
        "frames": ("tensor(uint8)", [batch, 8, 64, 64, 3]),
        "waveform": ("tensor(float)", [batch, 30_870]),
    }
    (answers,) = session.get_outputs()
    assert (answers.name, answers.shape) == ("log_probabilities", [batch, 3])


def test_nothing_of_this_machine_is_in_the_file(exported: Path) -> None:
    data = exported.read_bytes()
    for word in (b"/", b"\\", b"cfnsr.export", b"site-packages"):
        places = [data[at - 20 : at + 60] for at in range(len(data)) if data.startswith(word, at)][:3]
        # A byte of the weights may be a slash; a path has letters on both sides.
        assert not [place for place in places if place.decode("ascii", "replace").isprintable()], word


@pytest.mark.parametrize("wrong", [1.1e-4, float("nan")])
def test_a_file_that_says_something_else_is_not_left(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """One of nine answers is a little off, at the second of the two sizes of a batch."""
    true = check.reference

    def off(*arguments: object) -> np.ndarray:
        answers = true(*arguments)  # type: ignore[arg-type]
        answers[2, 1] += wrong
        return answers

    monkeypatch.setattr("cfnsr.export.onnx.reference", off)
    with pytest.raises(
        InputError, match=r"was not written: its log-probabilities are .* away from PyTorch's"
    ):
        export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_cannot_be_exported(model: Model, tmp_path: Path) -> None:
    class Looking(nn.Module):
        def forward(self, video: torch.Tensor, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return (video, audio) if video.sum().item() > 0 else (-video, audio)

    other = deepcopy(model)
    other.exchanges[2] = Looking()  # type: ignore[operator]
    with pytest.raises(InputError, match="model cfn_sr has no graph") as error:
        export_onnx(other, tmp_path / "model.onnx")
    assert "\n" not in str(error.value)


def test_names_of_other_files(model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pt has another ending: expected \.onnx"):
        export_onnx(model, tmp_path / "model.pt")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        export_onnx(model, tmp_path / "folder.onnx")


def test_without_the_extra(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(InputError, match=r"onnxscript is not installed: run pip install 'cfnsr\[export\]'"):
        export_onnx(model, tmp_path / "model.onnx")


def test_real_clips(shared: Path, yunet: Path, make: Callable[..., Model], tmp_path: Path) -> None:
    """Faces and sound of the six recordings: the file agrees with `predict`'s own way, from the file on."""
    config = config_for("cfn_sr")
    files = sorted((shared / "clips").rglob("*.*"))
    clips = [
        prepare_clip(Take(file.stem, "", 0, video=file, audio=file), config.preparation).tensors
        for file in files
    ]
    model = make("cfn_sr", met=clips)
    checked = export_onnx(model, tmp_path / "model.onnx", clips)
    assert (checked.clips, checked.real) == (6, True) and checked.difference <= TOLERANCE
    exported, recogniser = load_exported(checked.path), TorchRecogniser(model)
    for file in files:
        one, other = predict(exported, file).probabilities, predict(recogniser, file).probabilities
        assert one is not None and other is not None and list(one) == list(other)
        apart = np.abs(np.log(list(one.values())) - np.log(list(other.values())))
        assert apart.max() <= TOLERANCE, file.name
