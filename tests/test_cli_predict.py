"""The verbs that use a model as a person uses them: predict, explain, live, serve and share."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]

RATE = 16_000
PATIENCE = 60.0  # seconds until a test gives up
# As in a shell: a process that was started in the background would ignore Ctrl-C.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from cfnsr.cli import main; main()"
)


def refused(done: Done, *words: str) -> None:
    """One line on stderr and no more, which holds the words; exit code 2."""
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("ALSA lib"))
    assert line.startswith("cfnsr: "), done.stderr
    for word in words:
        assert word in line, line


@contextmanager
def started(*arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`cfnsr` while it runs; killed at the end if it still does."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write_model(folder: Path, name: str, modalities: tuple[str, ...], **changes: Any) -> Path:
    """The checkpoint of a tiny model that has met a few batches of noise; its answers are nobody's."""
    import torch

    from cfnsr.emotions import RAVDESS
    from cfnsr.features.preparation import Preparation
    from cfnsr.features.spec import ModelSpec
    from cfnsr.models.zoo import create_model
    from cfnsr.training.checkpoint import save_weights

    preparation = Preparation(modalities=modalities, frames=8, size=64)
    settings = {"classes": len(RAVDESS), "mfcc_steps": preparation.mfcc_steps, "width": 1 / 8}
    torch.manual_seed(0)
    model = create_model(name, **settings)
    with torch.no_grad():
        for _ in range(8):
            pictures = torch.randn(4, 3, 1, 1, 1) + torch.randn(4, 3, 8, 64, 64)
            model(pictures, 40 * torch.randn(4, 13, preparation.mfcc_steps))
    config = ModelSpec(name, settings, RAVDESS, frames=8, size=64, preparation=preparation, **changes)
    folder.mkdir(exist_ok=True)
    config.write(folder)
    save_weights(model, folder)
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what these tests read and never write."""
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="session")
def seeing(place: Path) -> Path:
    """A model that sees and hears."""
    return write_model(place / "seeing", "cfn_sr", ("video", "audio"))


@pytest.fixture(scope="session")
def hearing(place: Path) -> Path:
    """A model of sound only."""
    return write_model(place / "hearing", "audio", ("audio",))


def noise(seconds: float, loudness: float = 0.3) -> np.ndarray:
    """Bursts of noise, each of them another one: (N,) float32."""
    values = np.random.default_rng(0).uniform(-1, 1, round(seconds * RATE))
    pulse = 0.1 + np.abs(np.sin(2 * np.arange(len(values)) / RATE))
    return (loudness * values * pulse).astype(np.float32)


@pytest.fixture(scope="session")
def files(place: Path) -> dict[str, Path]:
    """Recordings without a face, without sound, with silence alone, of 0.8 and of 60 s, and a text."""
    from cfnsr.media.encode import write_audio, write_video

    found = {name: place / f"{name}.mp4" for name in ("faceless", "mute", "text")}
    found |= {name: place / f"{name}.wav" for name in ("silent", "short", "talk", "long")}
    pictures = np.random.default_rng(0).integers(0, 255, (20, 96, 96, 3), dtype=np.uint8)
    write_video(found["mute"], pictures, 10)
    write_video(found["faceless"], pictures, 10, noise(2), RATE)
    found["text"].write_text("this is text\n")
    write_audio(found["silent"], 0 * noise(2), RATE)
    write_audio(found["short"], noise(0.8), RATE)
    write_audio(found["talk"], noise(3.4), RATE)
    write_audio(found["long"], noise(60), RATE)
    return found


@pytest.fixture(scope="session")
def meeting(place: Path, synthetic: Path) -> Path:
    """9 s: two people side by side for 4 s, nobody for 2 s, then the first alone."""
    from cfnsr.media.decode import decode
    from cfnsr.media.encode import write_video

    takes = [decode(next(synthetic.glob(f"Actor_0{actor}/*.mp4")), frames=30) for actor in (1, 2)]
    one, other = (take.frames[:, 30:210, 70:250] for take in takes if take.frames is not None)
    wall = np.full_like(one, 124)
    both, alone = np.concatenate([one, other], axis=2), np.concatenate([one, wall], axis=2)
    nobody = np.concatenate([wall, wall], axis=2)[:20]
    pictures = np.concatenate([both, both[:10], nobody, alone])
    return write_video(place / "meeting.mp4", pictures, 10, noise(9), RATE)


def left(folder: Path) -> list[str]:
    """All files of a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def picture(path: Path) -> np.ndarray:
    """(H, W, 3), by another library than the one that drew it."""
    found = cv2.imread(str(path))
    assert found is not None, path
    return found


def is_drawn(sheet: np.ndarray) -> bool:
    """Whether there is something to be seen in every part of its height, and not a title alone."""
    return all(part.std() > 5 for part in np.array_split(sheet, 8))


# --- predict: a longer file and all that can be written of it ---


def emotion_of(window: dict[str, Any]) -> str:
    """The most probable one; nothing where the model abstains."""
    probabilities = window["probabilities"]
    return max(probabilities, key=probabilities.get) if probabilities else ""


def same_windows(rows: list[dict[str, str]], timeline: list[dict[str, Any]]) -> None:
    """Rows of a CSV tell the windows of a timeline."""
    assert len(rows) == len(timeline) > 0
    for row, window in zip(rows, timeline, strict=True):
        assert float(row["start"]) == pytest.approx(window["start"], abs=1e-3)
        assert float(row["end"]) == pytest.approx(window["end"], abs=1e-3)
        assert row["emotion"] == emotion_of(window)
        assert row["uses"] == "+".join(window["uses"])
        assert (row["face"], row["speech"]) == tuple(str(window[key]).lower() for key in ("face", "speech"))
        for emotion, probability in (window["probabilities"] or {}).items():
            assert float(row[emotion]) == pytest.approx(probability, rel=1e-4, abs=1e-9)


def test_all_that_is_written_of_a_long_file_tells_the_same(
    cfnsr: Run, seeing: Path, meeting: Path, yunet: Path, tmp_path: Path
) -> None:
    from cfnsr.media.scan import scan_packets

    out = tmp_path / "made" / "here"
    forms = ("csv", "json", "txt", "srt", "vtt")
    options = [option for form in forms for option in ("--write", out / f"{{name}}.{form}")]
    options += ["--plot", out / "p.png", "--plot", out / "p.svg", "--annotate", out / "a.mp4"]
    done = cfnsr("predict", seeing, meeting, "--window", 2, "--hop", 0.5, *options)
    assert done.returncode == 0, done.stderr
    names = sorted(["a.mp4", "p.png", "p.svg", *(f"meeting.{form}" for form in forms)])
    assert left(out) == names, "and nothing partial"

    prediction = json.loads((out / "meeting.json").read_text())
    timeline = prediction["timeline"]
    assert [window["start"] for window in timeline] == [0.5 * number for number in range(15)]
    nobody = [window["start"] for window in timeline if not window["face"]]
    assert {4.0} <= set(nobody) <= {3.0, 3.5, 4.0, 4.5, 5.0}
    assert [window["start"] for window in timeline if window["probabilities"] is None] == nobody
    with (out / "meeting.csv").open() as file:
        same_windows(list(csv.DictReader(file)), timeline)
    assert (out / "meeting.txt").read_text() == done.stdout
    assert f"meeting.mp4: {prediction['emotion']} " in done.stdout and "15 windows" in done.stdout
    drawn = picture(out / "p.png")
    assert drawn.shape[0] > 200 and drawn.shape[1] > 400 and is_drawn(drawn)
    before, after = scan_packets(meeting), scan_packets(out / "a.mp4")
    assert after.frame_count == before.frame_count == 90 and after.sample_rate == RATE
    assert after.duration == pytest.approx(before.duration, abs=0.1)


def test_all_faces_of_a_long_file(cfnsr: Run, seeing: Path, meeting: Path, yunet: Path) -> None:
    done = cfnsr("predict", seeing, meeting, "--window", 2, "--all-faces", "--json")
    assert done.returncode == 0, done.stderr
    (prediction,) = json.loads(done.stdout)
    one, other = prediction["people"]
    assert (one["person"], other["person"]) == (1, 2)
    assert one["timeline"][-1]["start"] == 7 and other["timeline"][-1]["end"] <= 5
    assert one["timeline"][0]["probabilities"] != other["timeline"][0]["probabilities"]


def test_names_of_what_is_written_of_two_files(
    cfnsr: Run, hearing: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    two = files["talk"], files["silent"]
    done = cfnsr("predict", hearing, *two, "--write", tmp_path / "{name}" / "{name}.json")
    assert done.returncode == 0, done.stderr
    assert left(tmp_path) == ["silent/silent.json", "talk/talk.json"]
    for file in two:
        prediction = json.loads((tmp_path / file.stem / f"{file.stem}.json").read_text())
        assert prediction["file"] == str(file)
        assert (prediction["emotion"] is None) == (file == files["silent"])


def test_lines_of_many_files_go_on_where_they_were_cut_off(
    cfnsr: Run, hearing: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    out, given = tmp_path / "new" / "lines.jsonl", [files[name] for name in ("talk", "text", "silent")]
    done = cfnsr("predict", hearing, *given[:2], given[0], "--out", out)
    assert (done.returncode, done.stdout) == (2, f"2 files predicted, 0 kept, 1 failed: {out}\n")
    first = out.read_bytes()
    assert cfnsr("predict", hearing, *given, "--out", out).stdout.startswith("1 files predicted, 2 kept, 1")
    whole = out.read_bytes()
    assert whole.startswith(first)
    lines = [json.loads(line) for line in whole.splitlines()]
    expected = json.loads(cfnsr("predict", hearing, given[0], given[2], "--json").stdout)
    assert [lines[0], lines[2]] == expected
    assert lines[1].keys() == {"file", "error"} and lines[1]["file"] == str(given[1])
    assert lines[1]["error"] in cfnsr("predict", hearing, given[1]).stderr
    out.write_bytes(whole[:-9])
    assert cfnsr("predict", hearing, *given, "--out", out).stdout.startswith("1 files predicted, 2 kept, 1")
    assert out.read_bytes() == whole
    out.write_text("[1]\n")
    refused(cfnsr("predict", hearing, *given, "--out", out), "lines.jsonl line 1", "give another --out")
    refused(cfnsr("predict", hearing, *given, "--out", out, "--json"), "--json does not go with --out")
    refused(cfnsr("predict", hearing, *given, "--engine", "ray"), "expected --out")


# A plugin of the worker alone: one file crashes its decoder, one hangs it.
DEADLY = """
import os, signal, time
from cfnsr import processes
from cfnsr.inference import lines

def deadly(model, file, *arguments, inner=lines.predict, **settings):
    if file.stem == "silent":
        os.kill(os.getpid(), signal.SIGSEGV)
    if file.stem == "short":
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        time.sleep(60)
    return inner(model, file, *arguments, **settings)

def loaded(self, inner=lines.LinePredictor.model.func):
    with open("{log}", "a") as log:
        print("loaded", file=log)
    return inner(self)

lines.predict = deadly
lines.LinePredictor.model.func = loaded
"""


def test_a_file_that_crashes_or_hangs_its_decoder_costs_its_line_alone(
    cfnsr: Run, hearing: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin, out, log = tmp_path / "deadly.py", tmp_path / "lines.jsonl", tmp_path / "log"
    plugin.write_text(DEADLY.format(log=log))
    monkeypatch.setattr("cfnsr.plugin._loaded", {plugin: None})
    given = [files[name] for name in ("talk", "text", "long", "silent", "short", "faceless")]
    done = cfnsr("predict", hearing, *given, "--out", out)
    assert (done.returncode, done.stdout) == (2, f"6 files predicted, 0 kept, 3 failed: {out}\n"), done
    found = {line["file"]: line.get("error") for line in map(json.loads, out.read_text().splitlines())}
    assert found[str(files["silent"])] == "the process that read it died (-11)"
    assert found[str(files["short"])] == "it took too long"
    assert [found[str(files[name])] for name in ("talk", "long", "faceless")] == [None] * 3
    # Once for the files of a process; a new one for each that died, of which one died twice.
    assert log.read_text() == "loaded\n" * 4
    done = cfnsr("predict", hearing, *given, "--out", out)
    assert done.stdout == f"0 files predicted, 6 kept, 3 failed: {out}\n"


def test_a_fault_of_the_machine_is_no_line(
    cfnsr: Run, seeing: Path, meeting: Path, yunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "lines.jsonl"
    with monkeypatch.context() as patch:
        patch.setenv("CFNSR_YUNET", str(tmp_path / "none.onnx"))
        done = cfnsr("predict", seeing, meeting, "--out", out)
    assert done.returncode == 2 and "cfnsr: CFNSR_YUNET names" in done.stderr, done
    assert out.read_text() == ""
    assert cfnsr("predict", seeing, meeting, "--out", out).stdout.startswith("1 files predicted, 0 kept, 0")


def test_lines_never_replace_what_is_no_line(
    cfnsr: Run, hearing: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    recording, link, notes = tmp_path / "talk.wav", tmp_path / "link.wav", tmp_path / "notes.txt"
    recording.write_bytes(files["talk"].read_bytes())
    link.symlink_to(recording)
    notes.write_text("one line without an end")
    for out in (recording, link):
        refused(cfnsr("predict", hearing, files["text"], recording, "--out", out), "it is a file to predict")
    refused(cfnsr("predict", hearing, files["text"], "--out", recording), "line 1", "give another --out")
    refused(cfnsr("predict", hearing, recording, "--out", notes), "line 1", "give another --out")
    assert recording.read_bytes() == files["talk"].read_bytes()
    assert notes.read_text() == "one line without an end"


def test_outputs_that_cannot_be_are_refused_before_any_work(
    cfnsr: Run, hearing: Path, files: dict[str, Path], meeting: Path, tmp_path: Path
) -> None:
    before = meeting.read_bytes()
    elsewhere = tmp_path / "talk.wav"
    elsewhere.symlink_to(files["talk"])
    (tmp_path / "folder.csv").mkdir()
    # The checkpoint is none, which nobody finds out: what is written is looked at first.
    common = ("predict", tmp_path / "none", files["talk"])
    refused(cfnsr(*common, files["silent"], "--write", "t.csv"), "--write t.csv for 2 files", "{name}.csv")
    refused(cfnsr(*common, elsewhere, "--plot", "{name}.png"), "--plot {name}.png", "of different names")
    refused(cfnsr(*common, "--write", "t.doc"), "t.doc", ".csv, .json, .srt, .txt, .vtt")
    refused(cfnsr(*common, "--plot", "t.csv"), "--plot t.csv", ".png")
    refused(cfnsr(*common, "--annotate", "t.avi"), "--annotate t.avi", ".mp4")
    refused(cfnsr(*common, "--write", tmp_path / "folder.csv"), "folder.csv is a folder", "name of a file")
    refused(cfnsr(*common, "--write", elsewhere / "a" / "t.csv"), f"{elsewhere} is a file: give another name")
    twice = ("predict", hearing, meeting, "--annotate", meeting)
    refused(cfnsr(*twice), f"--annotate {meeting}: it is the file to predict")
    assert meeting.read_bytes() == before and left(tmp_path) == ["talk.wav"]


# --- explain ---


def test_explain_draws_what_was_seen_and_heard(
    cfnsr: Run, seeing: Path, meeting: Path, yunet: Path, tmp_path: Path
) -> None:
    """Two moments of one file have two pictures; the second replaces the first."""
    out = tmp_path / "why.png"
    out.write_bytes(b"what was there before")
    sheets = []
    for at in (0, 9):
        done = cfnsr("explain", seeing, meeting, out, "--at", at, "--window", 2)
        assert done.returncode == 0 and done.stdout == f"written: {out}\n", done.stderr
        sheets.append(picture(out))
        assert left(tmp_path) == ["why.png"]
    first, second = sheets
    assert first.shape == second.shape and first.shape[0] > 600 and first.shape[1] > 800
    assert is_drawn(first) and is_drawn(second) and (first != second).mean() > 0.01
    refused(cfnsr("explain", seeing, meeting, out, "--at", 5, "--window", 2), "no face from 4.0 to 6.0 s")
    assert (picture(out) == second).all(), "what was there stays"


def test_explain_pictures_that_cannot_be_written(
    cfnsr: Run, hearing: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    """Told before the model is loaded, and before the exported one would be missed."""
    (tmp_path / "folder.png").mkdir()
    common = ("explain", hearing, files["talk"])
    refused(cfnsr(*common, tmp_path / "why.jpg"), "why.jpg has another ending: expected .png")
    refused(cfnsr(*common, tmp_path / "folder.png"), "folder.png is a folder")
    refused(cfnsr(*common, files["text"] / "why.png"), "text.mp4 is a file: give another name")
    if os.geteuid():  # root may write everywhere
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        refused(cfnsr(*common, closed / "why.png"), f"no permission to write {closed}")
    done = cfnsr("explain", tmp_path / "model.onnx", files["talk"], tmp_path / "why.png")
    refused(done, "model.onnx is exported", "give its checkpoint's folder")
    assert left(tmp_path) == []


# --- live ---


def test_live_plays_a_file_to_its_end(cfnsr: Run, hearing: Path, files: dict[str, Path]) -> None:
    options = ("--window", 2, "--every", 0.5, "--json", "--only", "happy,sad")
    done = cfnsr("live", hearing, "--from", files["talk"], *options)
    assert done.returncode == 0, done.stderr
    moments = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(moments) >= 4
    seconds = [moment["second"] for moment in moments]
    assert seconds == sorted(seconds) and seconds[-1] == pytest.approx(3.4, abs=0.3)
    assert {"second", "emotion", "window", "delay", "dropped", "skipped"} <= set(moments[0])
    adapted = cfnsr("live", hearing, "--from", files["talk"], "--adapt", files["talk"])
    refused(adapted, "model audio cannot be adapted")
    answers = [moment for moment in moments if moment["window"] is not None]
    assert answers and moments[0]["window"] is None and moments[0]["emotion"] is None
    assert all(set(moment["window"]["probabilities"]) == {"happy", "sad"} for moment in answers)
    for moment in answers:
        window = moment["window"]
        assert window["end"] - window["start"] == pytest.approx(2)
        assert window["end"] == pytest.approx(moment["second"], abs=1e-3) and window["uses"] == ["audio"]
        assert moment["emotion"] == emotion_of(window) != "" and moment["delay"] >= 0
    (said,) = done.stderr.splitlines()
    assert f"talk.wav: {seconds[-1]:.1f} s: {len(answers)} answer" in said and "0 windows skipped" in said


def test_live_writes_a_line_for_each_answer(
    cfnsr: Run, seeing: Path, meeting: Path, yunet: Path, tmp_path: Path
) -> None:
    """In a file, which is no terminal; seen and heard."""
    from cfnsr.media.decode import decode
    from cfnsr.media.encode import write_video

    frames = decode(meeting, frames=90).frames
    assert frames is not None
    arrival = write_video(tmp_path / "arrival.mp4", frames[46:82], 10, noise(3.6), RATE)  # after 1.4 s
    done = cfnsr("live", seeing, "--from", arrival, "--window", 1.5, "--every", 0.4)
    assert done.returncode == 0, done.stderr
    listening, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"listening\.\.\. \d\.\d s", listening)
    assert all(re.fullmatch(r" +\d\.\d s  \S.*  delay \d+\.\d\d s.*", line) for line in lines), lines
    assert "no face: no answer  " in lines[0] and re.search(r"[a-z]+ \d+ %  ", lines[-1])
    assert f"{len(lines)} answers" in done.stderr and "\x1b" not in done.stdout


def test_the_stream_that_is_asked_for(
    cfnsr: Run, hearing: Path, files: dict[str, Path], two_tracks: Callable[..., Path], tmp_path: Path
) -> None:
    """In predict, live and explain; a note says which was taken, on stderr."""
    voice = noise(3.4)
    both = two_tracks(tmp_path / "both.mka", 0 * voice, voice, RATE)

    def predicted(*arguments: object) -> tuple[Any, str]:
        done = cfnsr("predict", hearing, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[0], done.stderr

    alone, said = predicted(files["talk"])
    assert "stream" not in said and "notes" not in alone and alone["probabilities"]
    usual, said = predicted(both)
    assert usual["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-4)
    assert said == f"{both}: sound stream 2 of 2 is taken, marked default\n"
    silent, said = predicted(both, "--audio-stream", 1)
    assert silent["probabilities"] is None and "sound stream 1 of 2 is taken, as asked for" in said
    refused(cfnsr("predict", hearing, both, "--audio-stream", 3), "no stream 3 of sound", "--audio-stream")
    refused(cfnsr("predict", hearing, both, "--video-stream", 0), "--video-stream is 0")
    refused(cfnsr("live", hearing, "--audio-stream", 1), "--from")
    done = cfnsr("live", hearing, "--from", both, "--audio-stream", 1, "--json")
    assert done.returncode == 0 and "sound stream 1 of 2" in done.stderr, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers and not any(answer.get("probabilities") for answer in answers)
    out = tmp_path / "new" / "why.png"
    done = cfnsr("explain", hearing, both, out)
    assert done.returncode == 0 and "sound stream 2 of 2" in done.stderr, done.stderr
    drawn = picture(out)
    assert 300 < drawn.shape[0] < 1000 < drawn.shape[1] and is_drawn(drawn)
    done = cfnsr("explain", hearing, both, out, "--audio-stream", 1)
    assert done.returncode == 2 and "no speech" in done.stderr


def test_ctrl_c_ends_live_as_the_end_of_the_file_does(hearing: Path, files: dict[str, Path]) -> None:
    with started("live", hearing, "--from", files["long"], "--json") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE / 2)  # the file would go on for longer
    assert process.returncode == 0, errors
    assert first["window"] is None and all(json.loads(line) for line in rest.splitlines())
    (said,) = errors.splitlines()
    assert "answers" in said and "skipped" in said


def test_live_sources_that_cannot_be(
    cfnsr: Run, seeing: Path, hearing: Path, files: dict[str, Path], yunet: Path
) -> None:
    short = cfnsr("live", hearing, "--from", files["short"], "--window", 2)
    refused(short, "short.wav ends after 0.8", "expected at least 2 s", "cfnsr predict")
    for device in ("--camera", "--microphone"):
        both = cfnsr("live", hearing, "--from", files["talk"], device, "x")
        refused(both, f"{device} x: expected one of the two")
    done = cfnsr("live", seeing, "--camera", "/dev/video99")
    refused(done, "/dev/video99 is not there", "expected")
    assert done.stdout == ""


# --- serve ---


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_server_answers_and_leaves_nothing_when_it_is_stopped(
    hearing: Path, tmp_path: Path, by: signal.Signals
) -> None:
    """It is stopped while it draws its examples: once in a cache, once where there is none."""
    pytest.importorskip("fastapi")
    temporary, home = tmp_path / "temporary", tmp_path / "home"
    for folder in (temporary, home):
        folder.mkdir()
    cache = os.devnull if by == signal.SIGINT else str(tmp_path / "cache")
    environment = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": cache, "HOME": str(home)}
    with started("serve", hearing, "--port", 0, "--only", "happy,sad", **environment) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(" ")[0]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), process.communicate()
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"{address}health", timeout=PATIENCE) as answer:
            health = json.load(answer)
        assert (
            health["status"] == "ok" and health["model"] == "audio" and health["labels"] == ["happy", "sad"]
        )
        assert list(temporary.glob("cfnsr-serve-*"))
        process.send_signal(by)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == (0 if by == signal.SIGINT else -signal.SIGTERM), errors
    assert (rest, errors) == ("", "")
    assert not list(temporary.glob("cfnsr*"))
    assert all(re.fullmatch(r"[a-z]+\.mp4", Path(name).name) for name in left(tmp_path / "cache"))


def test_servers_that_cannot_be(cfnsr: Run, hearing: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    refused(cfnsr("serve", tmp_path / "none"), "none/config.json is missing", "expected a checkpoint folder")
    refused(cfnsr("serve", hearing, "--max-megabytes", 0), "--max-megabytes is 0: expected 1 or more")
    for minutes in ("0", "nan"):
        refused(cfnsr("serve", hearing, "--minutes", minutes), f"--minutes is {minutes}: expected a second")


# --- share ---


def test_a_model_is_shared_as_a_folder(cfnsr: Run, hearing: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    done = cfnsr("share", hearing, out, "--folder")
    assert done.returncode == 0 and done.stdout == f"{out}\n", done.stderr
    assert left(tmp_path) == [f"shared/{name}" for name in ("README.md", "config.json", "model.safetensors")]


def test_folders_that_are_not_shared(cfnsr: Run, hearing: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(cfnsr("share", tmp_path, out, "--folder"), "config.json is missing", "expected")
    refused(cfnsr("share", hearing, out, "--folder", "--private"), "--private with --folder")
    assert left(tmp_path) == []
