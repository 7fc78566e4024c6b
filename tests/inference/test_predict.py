"""Prediction: the same preparation as training, and a result that says what was seen and heard."""

from pathlib import Path

import pytest
import torch

import cfnsr
from cfnsr.corpus.scan import scan
from cfnsr.data.augment import normalise
from cfnsr.data.clip import prepare_clip
from cfnsr.emotions import CREMAD
from cfnsr.features.base import FEATURES, Look
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.media.errors import MediaError
from cfnsr.training.checkpoint import read_spec, save_weights

CONFIG = ModelSpec(
    "cfn_sr",
    {"classes": 6, "mfcc_steps": 212, "width": 1 / 8},
    CREMAD,
    frames=8,
    size=64,
    preparation=Preparation(frames=10, size=80),
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    save_weights(cfnsr.create_model("cfn_sr", **CONFIG.settings), folder)
    CONFIG.write(folder)
    return folder


def test_prediction_sees_what_training_saw(checkpoint: Path, synthetic: Path) -> None:
    take = scan(synthetic).takes[0]
    assert take.video is not None
    model = cfnsr.load_model(checkpoint)
    result = cfnsr.predict(model, take.video, openface=take.openface)
    clip = prepare_clip(take, CONFIG.preparation)
    video = normalise(torch.from_numpy(FEATURES["video"].to_model(clip.tensors, Look(8, 64)).copy())[None])
    with torch.no_grad():
        expected = model(video, torch.from_numpy(clip.tensors["audio"])[None])[0].exp()
    assert list(result.probabilities) == list(CREMAD.emotions)
    told = torch.tensor(list(result.probabilities.values()))
    torch.testing.assert_close(told, expected, atol=1e-5, rtol=1e-4)
    assert result.emotion == CREMAD.emotions[int(expected.argmax())]


def test_config_survives_its_file(checkpoint: Path) -> None:
    assert read_spec(checkpoint) == CONFIG


def test_a_model_in_training_stays_in_training(checkpoint: Path, synthetic: Path) -> None:
    take = scan(synthetic).takes[0]
    assert take.video is not None
    model = cfnsr.load_model(checkpoint)
    first = cfnsr.predict(model, take.video, openface=take.openface)
    model.train()
    assert cfnsr.predict(model, take.video, openface=take.openface) == first
    assert model.training


def test_audio_model_on_a_sound_file(synthetic: Path, tmp_path: Path) -> None:
    import numpy as np

    from cfnsr.media.encode import write_audio

    model = cfnsr.create_model("audio").eval()
    loud = np.sin(np.arange(44_100 * 3) / 9).astype(np.float32) / 3
    heard = cfnsr.predict(model, write_audio(tmp_path / "loud.wav", loud, 44_100)).timeline[0]
    silent = cfnsr.predict(model, write_audio(tmp_path / "silent.wav", 0 * loud, 44_100)).timeline[0]
    assert (heard.face, heard.speech, silent.speech) == (None, True, False)
    assert (heard.start, heard.end) == (0.0, pytest.approx(3.0, abs=0.05))
    with pytest.raises(MediaError) as error:
        cfnsr.predict(cfnsr.create_model("cfn_sr", width=1 / 8), tmp_path / "loud.wav")
    assert error.value.reason == "no picture"


def test_real_clips(shared: Path, yunet: Path) -> None:
    model = cfnsr.create_model("cfn_sr", width=1 / 8).eval()
    for file in sorted((shared / "clips").rglob("*.*")):
        window = cfnsr.predict(model, file).timeline[0]
        assert window.face and window.speech, file
