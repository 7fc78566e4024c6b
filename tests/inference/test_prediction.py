"""What a prediction says of itself."""

import json

import numpy as np
import pytest

from cfnsr.inference.prediction import Prediction, Window, most_probable, summary

SURE, UNSURE = {"happy": 0.9, "sad": 0.1}, {"happy": 0.4, "sad": 0.6}
ANSWERED = Window(0.0, 2.0, SURE, True, True)
ABSTAINING = Window(1.0, 3.0, None, False, False, ())


def test_the_most_probable_emotion() -> None:
    assert most_probable(SURE) == "happy" and most_probable(UNSURE) == "sad"
    assert most_probable({"happy": 0.5, "sad": 0.5}) == "happy", "in class order where two are alike"
    assert most_probable(None) is None
    assert ANSWERED.emotion == "happy" and ABSTAINING.emotion is None


def test_a_summary_is_the_mean_of_those_that_answer() -> None:
    windows = [ANSWERED, ABSTAINING, Window(2.0, 4.0, UNSURE, False, True, ("audio",)), ANSWERED]
    assert summary(windows) == {"happy": pytest.approx(2.2 / 3), "sad": pytest.approx(0.8 / 3)}
    assert list(summary(windows) or {}) == ["happy", "sad"]
    assert summary([ABSTAINING, ABSTAINING]) is None
    assert summary([]) is None


def test_the_form_that_scripts_read() -> None:
    one = Prediction("a.mp4", "happy", SURE, (ANSWERED,), person=1)
    value = Prediction("a.mp4", "happy", SURE, (ANSWERED, ABSTAINING), people=(one,)).as_json()
    assert json.loads(json.dumps(value)) == {
        "file": "a.mp4",
        "emotion": "happy",
        "probabilities": {"happy": 0.9, "sad": 0.1},
        "timeline": [
            {
                "start": 0.0,
                "end": 2.0,
                "probabilities": {"happy": 0.9, "sad": 0.1},
                "face": True,
                "speech": True,
                "uses": ["video", "audio"],
            },
            {"start": 1.0, "end": 3.0, "probabilities": None, "face": False, "speech": False, "uses": []},
        ],
        "people": [
            {
                "file": "a.mp4",
                "emotion": "happy",
                "probabilities": {"happy": 0.9, "sad": 0.1},
                "timeline": [ANSWERED.as_json()],
                "person": 1,
            }
        ],
    }
    plain = Prediction("a.mp4", None, None, ())
    assert set(plain.as_json()) == {"file", "emotion", "probabilities", "timeline"}


def test_predictions_are_alike_whatever_their_squares() -> None:
    """Arrays have no single truth of being equal, so they are left out."""
    one = Prediction("a.mp4", "happy", SURE, (ANSWERED,), faces=np.ones((2, 4), np.float32))
    assert one == Prediction("a.mp4", "happy", SURE, (ANSWERED,))
    assert one != Prediction("a.mp4", "happy", SURE, (ABSTAINING,))
    assert Prediction("a.mp4", None, None, ()).faces.shape == (0, 4)
    assert "faces" not in repr(one)
