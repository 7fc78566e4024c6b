"""Real recordings and the examples through the server, with the real face detector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cfnsr
from cfnsr.data import preparer
from cfnsr.emotions import RAVDESS
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.serve.examples import draw

Make = Callable[..., Any]


@pytest.fixture
def model(yunet: Path) -> Any:
    """A small model; no detector that was made for another test."""
    getattr(preparer.detector, "cache_clear", lambda: None)()
    settings = {"classes": 8, "mfcc_steps": 212, "width": 1 / 8}
    model = cfnsr.create_model("cfn_sr", **settings)
    preparation = Preparation(frames=10, size=64)
    model.config = ModelSpec("cfn_sr", settings, RAVDESS, frames=6, size=64, preparation=preparation)
    return model.eval()


def test_real_clips(serve: Make, shared: Path, model: Any) -> None:
    files = sorted((shared / "clips").rglob("*.*"))[::3]
    with serve(model) as served:
        for file in files:
            answer = served.upload("/predict", file, file.name).json()
            (window,) = answer["timeline"]
            assert window["face"] and window["speech"], file
            assert answer == {**cfnsr.predict(model, file).as_json(), "file": f"upload{file.suffix}"}
        assert served.left() == []


@pytest.mark.long
def test_a_face_is_seen_in_the_examples(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    film = draw("changing", tmp_path)
    windows = cfnsr.predict(model, film, window=2).timeline
    assert [window.face for window in windows[:2]] == [True, True]
    assert windows[-1].face and windows[-1].speech
    assert any((window.face, window.speech) == (False, False) for window in windows)
    before = film.stat().st_mtime_ns
    assert draw("changing", tmp_path).stat().st_mtime_ns == before, "it is drawn once"
