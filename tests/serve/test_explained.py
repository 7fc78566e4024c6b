"""Explanations of single windows: the clip is made anew, and must be the one that was predicted from."""

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import cfnsr

Make = Callable[..., Any]


def apart(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest difference of two answers."""
    return max(abs(one[emotion] - other[emotion]) for emotion in one)


@pytest.fixture(scope="module")
def served(serve: Make, new_seer: Make) -> Iterator[Any]:
    with serve(new_seer(modality_dropout=0.3)) as served:
        yield served


@pytest.fixture(scope="module")
def crossing(film: Make) -> Path:
    """8 s: a red face that grows faint for the model when a blue one joins, nobody at the end; a pause."""

    def faces(time: float) -> list[tuple[str, int]]:
        there = [("r", 20 + round(4 * time))] if time < 6.5 else []
        return there + ([("b", 130)] if 2 < time < 5 else [])

    file: Path = film(9.5, faces, silent=(0, 3))
    return file


def explanation(served: Any, job: dict[str, Any], **query: Any) -> Any:
    return served.client.get(f"/jobs/{job['id']}/explanation", params=query)


def explains(served: Any, job: dict[str, Any], answered: dict[str, Any], **query: Any) -> dict[str, Any]:
    """An explanation, which is of what was predicted from: it has the same answer as the window."""
    explained: dict[str, Any] = explanation(served, job, **query).json()
    assert explained["probabilities"] == pytest.approx(answered["probabilities"], abs=1e-5)
    return explained


def test_each_window_is_explained_by_what_was_predicted_from(served: Any, crossing: Path) -> None:
    job = served.job(crossing, explain=True, hop=2)
    assert job["explainable"] and len(served.left()) == 2, "the recording is kept for the questions"
    windows = job["result"]["timeline"]
    assert {tuple(window["uses"]) for window in windows} == {("video",), ("video", "audio"), ("audio",)}
    answers = [window["probabilities"] for window in windows]
    assert all(apart(one, other) > 1e-3 for one, other in combinations(answers, 2)), "else it proves nothing"
    for number, window in enumerate(windows):
        explained = explains(served, job, window, window=number)
        assert explained["window"] == number
        assert {each["modality"] for each in explained["contributions"]} == {"video", "audio"}
        (block,) = explained["blocks"]
        assert sum(sum(map(sum, plane)) for plane in block["places"]) == pytest.approx(1, abs=1e-5)
        assert explained["tolerant"]
    picture = explanation(served, job, window=0, format="png")
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")

    assert explanation(served, job, window=len(windows)).status_code == 404
    assert explanation(served, job, window=-1).status_code == 422
    assert explanation(served, job, window=0, person=1).status_code == 404
    assert served.client.delete(f"/jobs/{job['id']}").status_code == 204
    assert served.left() == []
    assert explanation(served, job, window=0).status_code == 404


def test_each_person_is_explained_by_their_own_face(served: Any, crossing: Path) -> None:
    job = served.job(crossing, explain=True, all_faces=True)
    people = job["result"]["people"]
    assert len(people) == 2 and len(job["words"]) == 3
    for person in people:
        place = len(person["timeline"]) // 2
        explains(served, job, person["timeline"][place], window=place, person=person["person"])
    first, second = [{each["start"]: each["probabilities"] for each in one["timeline"]} for one in people]
    both = [start for start in first if start in second and first[start] and second[start]]
    assert max(apart(first[start], second[start]) for start in both) > 1e-3, "else it proves nothing"
    served.client.delete(f"/jobs/{job['id']}")


def test_a_lone_window_is_explained_as_a_take(served: Any, film: Make) -> None:
    file = film(3, lambda time: [("r", 60)])
    job = served.job(file, explain=True)
    (window,) = job["result"]["timeline"]
    explains(served, job, window, window=0)
    served.client.delete(f"/jobs/{job['id']}")


def test_all_windows_at_once(served: Any, new_seer: Make, crossing: Path) -> None:
    answer = served.upload("/predict", crossing, "film.mp4", explain=True, hop=2.5).json()
    explanations = answer.pop("explanations")
    answered = [number for number, window in enumerate(answer["timeline"]) if window["probabilities"]]
    assert [each["window"] for each in explanations] == answered
    for each in explanations:
        window = answer["timeline"][each["window"]]
        assert each["probabilities"] == pytest.approx(window["probabilities"], abs=1e-5)
    model = new_seer(modality_dropout=0.3).eval()
    library = cfnsr.predict(model, crossing, hop=2.5).as_json()
    assert answer["timeline"] == library["timeline"] and served.left() == []


def test_too_many_windows_are_not_explained_at_once(
    served: Any, crossing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfnsr.serve import work

    monkeypatch.setattr(work, "MOST_EXPLAINED", 3)
    answer = served.upload("/predict", crossing, "film.mp4", explain=True)
    assert answer.status_code == 422 and "windows to explain: expected at most 3" in answer.text
    assert served.left() == []


def test_where_the_model_abstained_there_is_nothing_to_explain(
    serve: Make, new_seer: Make, crossing: Path
) -> None:
    with serve(new_seer()) as served:
        job = served.job(crossing, explain=True)
        windows = job["result"]["timeline"]
        silent = next(place for place, each in enumerate(windows) if each["probabilities"] is None)
        answer = explanation(served, job, window=silent)
        assert answer.status_code == 422 and answer.json()["error"]["reason"] == "no answer"


def test_a_recording_that_was_not_kept_is_gone(served: Any, crossing: Path) -> None:
    job = served.job(crossing)
    assert not job["explainable"] and served.left() == []
    answer = explanation(served, job, window=0)
    assert answer.status_code == 410 and "without explain=true" in answer.text


def test_only_some_recordings_and_sheets_are_kept(
    serve: Make, new_seer: Make, film: Make, until: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfnsr.serve import jobs

    monkeypatch.setattr(jobs, "MOST_UPLOADS_KEPT", 2)
    monkeypatch.setattr(jobs, "MOST_KEPT", 3)
    file = film(3, lambda time: [("r", 60)])
    with serve(new_seer()) as served:
        sent = [served.job(file, explain=True) for _ in range(4)]
        until(lambda: len(served.left()) == 4)
        answers = [served.client.get(f"/jobs/{each['id']}") for each in sent]
        assert [answer.status_code for answer in answers] == [404, 200, 200, 200]
        assert [answer.json()["explainable"] for answer in answers[1:]] == [False, True, True]
        assert explanation(served, sent[1], window=0).status_code == 410
    assert served.left() == []
