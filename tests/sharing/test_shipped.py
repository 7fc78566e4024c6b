"""The models that come with the package: small, licensed, found by name, and answering by what is there."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import av
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import cfnsr
from cfnsr.emotions import RAVDESS
from cfnsr.features import expression_net, speech_encoder
from cfnsr.features.base import FEATURES
from cfnsr.inference.recogniser import as_recogniser
from cfnsr.inference.timeline import Prediction
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_audio
from cfnsr.models.baselines import Statistics
from cfnsr.sharing.loading import is_model
from cfnsr.sharing.shipped import DEFAULT, shipped_models
from cfnsr.training.checkpoint import read_spec

Run = Callable[..., CompletedProcess[str]]
SEVEN = tuple(emotion for emotion in RAVDESS.emotions if emotion != "calm")
HAPPY, SURPRISED = "clips/cremad/1001_DFA_HAP_XX.flv", "clips/ravdess/Actor_06/01-01-08-02-01-01-06.mp4"


@pytest.fixture
def networks(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The pretrained networks, as a user without a network names them."""
    monkeypatch.setenv(speech_encoder.VARIABLE, str(shared / "models" / "whisper-tiny-en-encoder"))
    monkeypatch.setenv(expression_net.VARIABLE, str(shared / "models" / "face-expression"))
    monkeypatch.setenv("CFNSR_YUNET", str(shared / "models" / "face_detection_yunet_640.onnx"))
    return shared


def silent(source: Path, out: Path) -> Path:
    """Copy a video without its sound."""
    with av.open(str(source)) as read, av.open(str(out), "w") as file:
        copied = file.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(read.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copied
                file.mux(packet)
    return out


def by(prediction: Prediction) -> tuple[str, ...]:
    (window,) = prediction.timeline
    return window.uses


@pytest.mark.parametrize("name", ["voice", "everyday"])
def test_each_is_small_and_says_what_it_is(name: str) -> None:
    folder = shipped_models()[name]
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "model.safetensors", "README.md", "LICENSE"}
    assert (folder / "model.safetensors").stat().st_size < 2e6
    assert "NonCommercial" in (folder / "LICENSE").read_text()
    assert "Not for" in (folder / "README.md").read_text()
    spec = read_spec(folder)
    assert spec.labels.emotions == SEVEN and spec.labels.index("calm") == 0
    assert spec.preparation.speech_encoder == "openai/whisper-tiny.en"
    assert (folder / "config.json").read_text().count("/work") == 0


def test_a_name_is_a_model_and_a_recording_is_none(tmp_path: Path) -> None:
    assert is_model(DEFAULT) and is_model("voice") and is_model("owner/name") and is_model("x.onnx")
    assert is_model(str(tmp_path))
    assert is_model("runs/nested/cfn_sr/seed_0/fold_1"), "though it is not there"
    assert not is_model("interview.mp4") and not is_model(str(tmp_path / "interview.wav"))


def test_missing_statistics_leave_every_emotion_alike(networks: Path) -> None:
    model = as_recogniser(cfnsr.load("everyday"))
    nothing = {}
    for name in model.reads.values():
        nothing |= FEATURES[name].absent(model.preparation, model.settings)
    np.testing.assert_allclose(model.probabilities([nothing]), 1 / 7, atol=1e-6)


def test_everyday_is_the_product_of_voice_and_face(networks: Path) -> None:
    voice, both = cfnsr.load("voice"), cfnsr.load("everyday")
    (stream,) = (each for each in voice.modules() if isinstance(each, Statistics))
    states = torch.randn(4, *(side or 24 for side in stream.shape))
    face = torch.randn(4, 263, 10)
    face[:, :7] *= 6  # some scores are far below others
    alone = voice(None, states) / voice.config.temperature
    weights = both.head.streams.video.weight
    cooling = (both.video.deviation[0] / weights[0, 0]).item()
    assert 1 < cooling < 20 and not weights[:, 7:].any()
    seen = face[:, :7].mean(dim=2) / cooling
    expected = (alone.log_softmax(dim=1) + seen.log_softmax(dim=1)).log_softmax(dim=1)
    torch.testing.assert_close(both(face, states), expected, atol=1e-4, rtol=0)


def test_it_answers_by_what_is_there(networks: Path, tmp_path: Path) -> None:
    model, file = cfnsr.load("everyday"), networks / SURPRISED
    together = cfnsr.predict(model, file)
    assert together.emotion == "surprised" and by(together) == ("video", "audio")
    read = decode(file, video=False)
    sound = write_audio(tmp_path / "sound.wav", read.waveform, read.sample_rate)
    heard = cfnsr.predict(model, sound)
    assert by(heard) == ("audio",)
    voice = cfnsr.predict(cfnsr.load("voice"), sound)
    assert heard.probabilities == pytest.approx(voice.probabilities, abs=1e-5)
    seen = cfnsr.predict(model, silent(file, tmp_path / "silent.mp4"))
    assert by(seen) == ("video",)
    product = {name: value * seen.probabilities[name] for name, value in heard.probabilities.items()}
    expected = {name: value / sum(product.values()) for name, value in product.items()}
    assert together.probabilities == pytest.approx(expected, abs=0.02)


def test_predict_without_a_model_uses_it_and_says_so(networks: Path, cfnsr: Run) -> None:
    done = cfnsr("predict", networks / HAPPY, "--only", "happy,sad,angry", "--json")
    assert done.returncode == 0
    assert done.stderr.startswith(
        "model everyday: trained on acted emotions of RAVDESS and nEMO (CC BY-NC-SA"
    )
    (result,) = json.loads(done.stdout)
    assert set(result["probabilities"]) == {"happy", "sad", "angry"}
    assert sum(result["probabilities"].values()) == pytest.approx(1)


def test_its_networks_are_missing(networks: Path, cfnsr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(speech_encoder.VARIABLE, "/nowhere")
    done = cfnsr("predict", networks / HAPPY)
    assert done.returncode == 2 and "/nowhere" in done.stderr.splitlines()[-1]


@pytest.mark.long
def test_the_files_are_what_is_built(tmp_path: Path) -> None:
    """In a quarter of an hour, where `make everyday` has prepared the corpora."""
    repository = Path(__file__).resolve().parents[2]
    people = repository / "people"
    if not (people / "prepared").exists():
        pytest.skip("no people/prepared: `make people/prepared` makes it")
    faces = [word for name in ("faces", "more_faces") for word in ("--faces", people / name)]
    command = [
        sys.executable,
        repository / "docs" / "everyday.py",
        people / "ravdess",
        people / "nemo",
        tmp_path,
    ]
    subprocess.run([*command, *faces], check=True)
    for name, folder in shipped_models().items():
        built, there = (load_file(each / "model.safetensors") for each in (tmp_path / name, folder))
        assert built.keys() == there.keys()
        for tensor, value in built.items():
            np.testing.assert_allclose(value, there[tensor], rtol=0.01, atol=0.01 * value.std() + 1e-6)
