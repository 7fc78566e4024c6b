"""The REST API, asked over the loopback as programs do."""

import csv
import io
import json
import math
import re
import threading
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import cfnsr
from cfnsr.data import preparer
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.media.encode import write_video
from cfnsr.serve import work
from cfnsr.serve.app import create_app
from cfnsr.serve.limits import Limits

Make = Callable[..., Any]

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "srt": "application/x-subrip",
    "vtt": "text/vtt; charset=utf-8",
}


def refused(answer: httpx.Response, status: int, reason: str) -> str:
    """The message of a request that was declined as it should be."""
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"} and answer.json()["error"].keys() == {"reason", "message"}
    assert answer.json()["error"]["reason"] == reason
    message: str = answer.json()["error"]["message"]
    assert "\n" not in message and "/" not in message.replace("/docs", "").replace("/jobs", "").replace(
        "multipart/form-data", ""
    )
    return message


def expected(new_ear: Make, file: Path, **how: Any) -> dict[str, Any]:
    """The library's answer about the same file, under the name that the server gives it."""
    return json.loads(json.dumps({**cfnsr.predict(new_ear(), file, **how).as_json(), "file": "upload.wav"}))


@pytest.mark.parametrize("how", [{}, {"window": 4.0, "hop": 2.5}])
def test_predict_answers_what_the_library_does(
    ear: Any, new_ear: Make, talk: Path, how: dict[str, float]
) -> None:
    answer = ear.upload("/predict", talk, **how)
    assert answer.status_code == 200
    assert answer.json() == expected(new_ear, talk, **how)
    windows = answer.json()["timeline"]
    assert len(windows) == (7 if not how else 3)
    assert any(window["probabilities"] is None for window in windows), "the silent part has no answer"
    assert ear.left() == []


def test_a_job_has_its_result_and_nothing_of_the_recording_is_left(
    ear: Any, new_ear: Make, talk: Path
) -> None:
    sent = ear.upload("/jobs", talk)
    assert sent.status_code == 202 and sent.headers["location"] == f"/jobs/{sent.json()['id']}"
    assert len(sent.json()["id"]) >= 22, "128 bits"
    job = ear.over(sent.json()["id"])
    assert job["state"] == "done" and job["progress"] == {"done": 7, "total": 7} and job["before"] == 0
    assert job["result"] == expected(new_ear, talk)
    assert job["words"][0].startswith("Most of the time happy (") and "No speech from 0:0" in job["words"][0]
    assert 590 < job["seconds_left"] <= 600
    assert not job["explainable"] and ear.left() == []
    assert ear.client.delete(f"/jobs/{job['id']}").status_code == 204
    for method in ("GET", "DELETE"):
        refused(ear.client.request(method, f"/jobs/{job['id']}"), 404, "not found")


def test_timelines_to_download(ear: Any, talk: Path) -> None:
    job = ear.job(talk)
    answers = {kind: ear.client.get(f"/jobs/{job['id']}/timeline.{kind}") for kind in MEDIA_TYPES}
    for kind, answer in answers.items():
        assert answer.status_code == 200 and answer.headers["content-type"] == MEDIA_TYPES[kind]
        assert answer.headers["content-disposition"] == f'attachment; filename="timeline.{kind}"'
    windows = job["result"]["timeline"]
    assert answers["json"].json() == job["result"]
    rows = list(csv.DictReader(io.StringIO(answers["csv"].text)))
    assert [float(row["start"]) for row in rows] == pytest.approx([each["start"] for each in windows])
    assert [row["emotion"] for row in rows].count("") == sum(not each["probabilities"] for each in windows)
    assert answers["png"].content.startswith(b"\x89PNG")
    for kind, begin in (("vtt", "WEBVTT"), ("srt", "1\n00:00:00,000 --> ")):
        assert answers[kind].text.startswith(begin) and re.search(r"happy \d\d %", answers[kind].text)
    assert ear.left() == []


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"hello, I am no film" * 40, "film.mp4", "not media"),
        (b"", "film.mp4", "broken"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(4000), "film.mp4", "broken"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "list.m3u8", "not media"),
        (b"#!/bin/sh\nrm -r /\n", "../../../../etc/cron.d/evil.sh", "not media"),
    ],
)
def test_what_is_no_recording_is_declined_in_one_line(
    ear: Any, content: bytes, name: str, reason: str
) -> None:
    message = refused(ear.upload("/predict", content, name), 422, reason)
    assert message.startswith("upload.mp4 " if name.endswith("mp4") else "upload ")
    job = ear.job(content, name)
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["error"] == {"reason": reason, "message": message}
    refused(ear.client.get(f"/jobs/{job['id']}/timeline.csv"), 422, reason)
    assert ear.left() == []


def test_the_stream_that_is_asked_for(
    ear: Any, new_ear: Make, talk: Path, two_tracks: Make, tmp_path: Path
) -> None:
    with wave.open(str(talk)) as file:
        rate, content = file.getframerate(), file.readframes(file.getnframes())
    voice = np.frombuffer(content, "<i2") / 32_767
    both = two_tracks(tmp_path / "both.mka", 0 * voice, voice, rate)
    alone = expected(new_ear, talk)["timeline"]
    note = "sound stream {} of 2 is taken, {}"
    for query, why in (({}, "marked default"), ({"audio_stream": 2}, "as asked for")):
        answer = ear.upload("/predict", both, "both.mka", **query).json()
        assert answer["timeline"] == alone and answer["notes"] == [note.format(2, why)]
    job = ear.job(both, "both.mka", audio_stream=1)
    assert job["result"]["notes"] == [note.format(1, "as asked for")] and not job["result"]["emotion"]
    assert job["words"][0].endswith("Sound stream 1 of 2 is taken, as asked for.")
    message = refused(ear.upload("/predict", both, "both.mka", audio_stream=3), 422, "no sound")
    assert message.endswith("expected a number up to 2; correct audio_stream")
    refused(ear.upload("/predict", both, "both.mka", video_stream=0), 422, "bad request")
    assert ear.left() == []


def test_what_is_too_long_too_large_or_broken_off(ear: Any, record: Make) -> None:
    message = refused(ear.upload("/predict", record(15.5)), 422, "too long")
    assert message == "the recording is 15.5 s long: expected at most 15 s; cut it"
    content = record(9).read_bytes()
    message = refused(ear.upload("/predict", content, hop=0.25), 422, "too long")
    assert message == "a hop of 0.25 s makes 25 windows: expected at most 15; give a longer hop"
    message = refused(ear.upload("/predict", content[:-60_000]), 422, "truncated")
    assert message.startswith("upload.wav is truncated: ")
    fits = content.ljust(600_000, b"\0")
    assert ear.upload("/predict", fits).status_code == 200
    message = refused(ear.upload("/predict", fits + b"\0"), 413, "too large")
    assert message == "the file is too large: expected at most 0.572 MiB; cut it or compress it"
    assert ear.left() == []


def test_values_that_cannot_be(ear: Any, talk: Path) -> None:
    for query, message in (
        ({"hop": "soon"}, "hop is 'soon': Input should be a valid number"),
        ({"hop": 0.01}, "hop is '0.01': Input should be greater than or equal to 0.1"),
        ({"hop": "nan"}, "hop is 'nan': Input should be "),
        ({"window": 1}, "window is 1 s: expected 1.5 to 30"),
        ({"window": "inf"}, "window is inf s: expected 1.5 to 30"),
        ({"all_faces": True}, "model ear looks for no faces: leave all_faces out"),
    ):
        reason = "unsupported" if "all_faces" in query else "bad request"
        for where in ("/predict", "/jobs"):
            assert refused(ear.upload(where, talk, **query), 422, reason).startswith(message)
    assert ear.left() == []


def test_a_model_without_an_inside_is_not_explained(ear: Any, talk: Path) -> None:
    refused(ear.upload("/predict", talk, explain=True), 501, "unsupported")
    refused(ear.upload("/jobs", talk, explain=True), 501, "unsupported")
    job = ear.job(talk)
    refused(ear.client.get(f"/jobs/{job['id']}/explanation?window=0"), 501, "unsupported")


def test_a_result_is_not_kept_for_long(serve: Make, new_ear: Make, talk: Path, until: Make) -> None:
    with serve(new_ear(), keep_seconds=0.5) as served:
        sent = served.upload("/jobs", talk).json()["id"]
        until(lambda: sent not in served.app.state.jobs.jobs)
        refused(served.client.get(f"/jobs/{sent}"), 404, "not found")


def test_the_queue(serve: Make, new_ear: Make, talk: Path, until: Make) -> None:
    gate = threading.Event()
    model = new_ear(gate)
    with serve(model, queue=2) as served:
        try:
            first, second, third = [served.upload("/jobs", talk).json()["id"] for _ in range(3)]
            assert model.reached.wait(60)
            answer = served.upload("/jobs", talk)
            message = refused(answer, 429, "busy")
            assert message.startswith("3 recordings wait or are worked on: try again in ")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert len(served.left()) == 6, "three recordings, each in its folder"

            health = served.client.get("/health").json()
            assert health["queue"] == {"waiting": 2, "working": 1, "busy": 3, "places": 3}
            state = served.client.get(f"/jobs/{third}").json()
            assert (state["state"], state["before"]) == ("waiting", 1)
            refused(served.client.get(f"/jobs/{third}/timeline.csv"), 409, "not done")

            assert served.client.delete(f"/jobs/{second}").status_code == 204
            until(lambda: len(served.left()) == 4)
            assert served.client.get(f"/jobs/{third}").json()["before"] == 0
            last = served.upload("/jobs", talk).json()["id"]
            assert served.client.delete(f"/jobs/{first}").status_code == 204
        finally:
            gate.set()
        assert [served.over(each)["state"] for each in (third, last)] == ["done", "done"]
        refused(served.client.get(f"/jobs/{first}"), 404, "not found")
        until(lambda: served.client.get("/health").json()["queue"]["busy"] == 0)
        assert served.left() == []


def test_too_many_requests_at_a_time(
    serve: Make, new_ear: Make, talk: Path, until: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfnsr.serve.guard.MOST", 1)
    gate = threading.Event()
    model = new_ear(gate)
    with serve(model) as served, ThreadPoolExecutor(1) as clients:
        waiting = clients.submit(served.upload, "/predict", talk)
        try:
            assert model.reached.wait(60)
            answer = served.client.get("/health")
            refused(answer, 503, "busy")
            assert answer.headers["retry-after"] == "5"
        finally:
            gate.set()
        assert waiting.result().status_code == 200
        assert served.client.get("/health").status_code == 200


def test_several_workers_work_at_once(serve: Make, new_ear: Make, talk: Path, until: Make) -> None:
    gate = threading.Event()
    with serve(new_ear(gate), workers=2) as served:
        sent = [served.upload("/jobs", talk).json()["id"] for _ in range(3)]
        try:
            until(lambda: served.client.get("/health").json()["queue"]["working"] == 2)
            assert served.client.get(f"/jobs/{sent[2]}").json()["state"] == "waiting"
        finally:
            gate.set()
        assert [served.over(each)["state"] for each in sent] == ["done"] * 3


def test_a_fault_of_the_model_goes_to_the_log_alone(
    serve: Make, new_ear: Make, talk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = new_ear()
    model.probabilities = lambda clips: 1 / 0
    with serve(model) as served:
        message = refused(served.upload("/predict", talk), 500, "internal")
        assert message == "the server failed: its log says why"
        assert "ZeroDivisionError" in caplog.text
        assert served.left() == [] and served.client.get("/health").json()["queue"]["busy"] == 0


def test_health_and_settings(ear: Any) -> None:
    health = ear.client.get("/health").json()
    assert health["status"] == "ok" and health["model"] == "ear" and health["version"] == cfnsr.__version__
    assert health["labels"][:2] == ["neutral", "calm"] and health["reads"] == {"audio": "audio"}
    assert (health["explains"], health["all_faces"]) == (False, False)
    limits = {"max_bytes": 600_000, "max_seconds": 15, "windows": 15, "keep_seconds": 600}
    assert health["limits"] == limits
    settings = ear.client.get("/settings").json()
    assert list(settings["colours"]) == health["labels"] and settings["examples"] == []
    refused(ear.client.get("/examples/happy.mp4"), 404, "not found")


def test_an_example_is_drawn_when_it_is_asked_for(serve: Make, new_ear: Make, small_examples: None) -> None:
    with serve(new_ear(), examples=True) as served:
        names = [each["name"] for each in served.client.get("/settings").json()["examples"]]
        assert names == ["happy", "angry", "changing"]
        film = served.client.get("/examples/happy.mp4")
        assert film.headers["content-type"] == "video/mp4"
        assert served.upload("/predict", film.content, "happy.mp4").status_code == 200
        assert served.left() == [], "it is kept in the cache of the user"
        refused(served.client.get("/examples/none.mp4"), 404, "not found")


def test_answers_are_not_kept_by_browsers_and_nothing_is_let_in(ear: Any, talk: Path) -> None:
    job = f"/jobs/{ear.job(talk)['id']}"
    changing = ["/health", "/settings", job, f"{job}/timeline.csv", "/none"]
    for address in [*changing, "/", "/docs", "/openapi.json", "/page/page.js", "/page/style.css"]:
        headers = ear.client.get(address).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers
        if address in changing:
            assert headers["cache-control"] == "no-store"


def test_strange_names_and_other_sites(ear: Any, talk: Path) -> None:
    def ask(method: str = "GET", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        where = "/health" if method == "GET" else "/jobs/none"
        answer: httpx.Response = ear.client.request(method, where, headers=named)
        return answer

    for host in (
        *("evil.example", "127.0.0.1.evil.example:80", "localhost:80@evil.example", "[::1].evil.example"),
        *(f"[::2]:{ear.port}", ""),
    ):
        refused(ask(host=host), 400, "forbidden")
    for host in (f"localhost:{ear.port}", f"127.0.0.1:{ear.port}", f"[::1]:{ear.port}", "LOCALHOST"):
        assert ask(host=host).status_code == 200
    refused(ask("DELETE", origin="https://evil.example"), 403, "forbidden")
    refused(ask("DELETE", origin="null"), 403, "forbidden")
    refused(ask("DELETE", origin=f"http://localhost:{ear.port + 1}"), 403, "forbidden")
    refused(ask("DELETE", sec_fetch_site="cross-site"), 403, "forbidden")
    refused(ask("DELETE", origin=ear.address, sec_fetch_site="same-origin"), 404, "not found")
    answer = ear.client.post("/jobs", files={"file": ("a", b"x")}, headers={"origin": "https://evil.example"})
    refused(answer, 403, "forbidden")


def test_the_description_names_all_there_is(ear: Any) -> None:
    api = ear.client.get("/openapi.json").json()
    operations = {(path, method) for path, methods in api["paths"].items() for method in methods}
    assert operations == {
        ("/predict", "post"),
        ("/jobs", "post"),
        ("/jobs/{id}", "get"),
        ("/jobs/{id}", "delete"),
        ("/jobs/{id}/timeline.{kind}", "get"),
        ("/jobs/{id}/explanation", "get"),
        ("/health", "get"),
    }
    for path, method in operations:
        for status, answer in api["paths"][path][method]["responses"].items():
            if status >= "400":
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}
    body = api["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert body["properties"]["file"]["format"] == "binary"
    assert "HTTPValidationError" not in api["components"]["schemas"]


def test_the_documentation_loads_nothing_from_elsewhere(ear: Any) -> None:
    page = ear.client.get("/docs").text
    for path in ear.client.get("/openapi.json").json()["paths"]:
        assert path in page
    for attribute in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert attribute.startswith(("/", "#")), attribute
    assert "<script" not in page and "`" not in page


def test_addresses_that_are_not_there(ear: Any, talk: Path) -> None:
    job = ear.job(talk)
    assert "kind is 'exe'" in refused(ear.client.get(f"/jobs/{job['id']}/timeline.exe"), 422, "bad request")
    refused(ear.client.get("/jobs/guessed/timeline.csv"), 404, "not found")
    refused(ear.client.get("/nothing"), 404, "not found")
    refused(ear.client.put("/jobs"), 405, "bad request")
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page/"):
        assert ear.client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        *[("max_bytes", 0, 1), ("queue", -1, 0), ("workers", 0, 1)],
        *[("max_seconds", math.nan, 1), ("max_seconds", math.inf, 1)],
    ],
)
def test_limits_that_leave_nothing(name: str, value: Any, least: int) -> None:
    with pytest.raises(InputError, match=rf"{name} is {value}: expected {least} or more"):
        Limits(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalised": True}, "standardised over all their takes"),
        ({"preparation": Preparation(modalities=("openface",))}, "sees OpenFace tracks"),
        ({"preparation": Preparation(modalities=("video",))}, "CFNSR_YUNET names nowhere"),
    ],
)
def test_models_that_need_more_than_a_recording(
    new_ear: Make, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("CFNSR_YUNET", "nowhere")
    preparer.detector.cache_clear()
    model = new_ear()
    vars(model).update(changes)
    with pytest.raises(InputError, match=message):
        create_app(model)


def test_pictures_that_are_too_large(
    serve: Make, new_ear: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MOST_PIXELS", 64 * 48 - 1)
    film = write_video(tmp_path / "film.mp4", np.zeros((10, 48, 64, 3), np.uint8), 10)
    with serve(new_ear()) as served:
        message = refused(served.upload("/predict", film, "film.mp4"), 422, "too large")
        assert message.startswith("the pictures have 0.0 million pixels: expected at most 0.0")
