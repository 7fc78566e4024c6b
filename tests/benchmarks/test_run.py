"""The benchmarks: all take turns, goals and ratios are right, the whole runs, and what it writes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import data, fold, gpu, growing, network, profiling, run, subjects, use
from benchmarks import measure as module
from benchmarks.growing import Growth
from benchmarks.measure import Figure, Goal, alone, alternate, compare
from cfnsr.cli import give
from cfnsr.errors import InputError
from cfnsr.media.encode import write_video
from cfnsr.models.entries import TABLES
from cfnsr.training.config import PAPER


def test_all_take_turns_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = 0.0, ""
    costs = {"plain": iter([99.0, 4.0, 9.0, 8.0]), "ours": iter([99.0, 2.0, 3.0, 1.0])}

    def work(name: str) -> None:
        nonlocal now, order
        now += next(costs[name])
        order += name[0]

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    seconds = alternate({name: lambda name=name: work(name) for name in costs}, 3)  # type: ignore[misc]
    assert order == "popopopo" and seconds == {"plain": [4.0, 9.0, 8.0], "ours": [2.0, 3.0, 1.0]}
    figure = compare("one thing", {**seconds, "limit": [1.0, 1.0, 1.0]}, goal=Goal(3, "plain", least=True))
    assert (figure.plain, figure.ours, figure.limit, figure.spread) == (8, 2, 1, (2, 8))
    assert (figure.ratio, figure.of_limit, figure.reached) == (4, 2, True)
    rate = compare("another", seconds, goal=Goal(8, least=True), unit="1/s", amount=16)
    assert (rate.ours, rate.plain, rate.ratio, rate.reached) == (8, 2, 4, True)
    assert compare("a third", seconds, unit="ms", amount=4).ours == 500


@pytest.mark.parametrize(
    ("goal", "reached", "text"),
    [
        (Goal(2.1), True, "≤ 2.1"),
        (Goal(1.9), False, "≤ 1.9"),
        (Goal(4.1, "plain", least=True), False, "≥ 4.1 x plain"),
        (Goal(1.5, "limit"), False, "≤ 1.5 x limit"),
    ],
)
def test_goals(goal: Goal, reached: bool, text: str) -> None:
    figure = Figure("thing", 2, plain=8, limit=1, goal=goal)
    assert (figure.reached, str(goal)) == (reached, text)
    assert figure.as_json() | {"ratio": 4, "of_limit": 2, "goal": text} == figure.as_json()


def test_a_process_of_its_own() -> None:
    grown = alone("held = []; task = lambda: held.append(bytearray(400_000_000))", 2)
    assert grown["GB"] > 0.75 and grown["s"] > 0
    child = "[sys.executable, '-c', 'bytearray(400_000_000)']"
    grown = alone(f"import subprocess, sys; task = lambda: subprocess.run({child}, check=True)", 1)
    assert 0.4 < grown["GB"] < 0.6, "of the largest process"
    with pytest.raises(InputError, match="ZeroDivisionError"):
        alone("task = lambda: 1 / 0", 1)


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_a_growth_and_its_power(power: float) -> None:
    """Amounts that are far apart too: a straight line through three such points comes near to a parabola."""
    amounts = 100, 1_000, 10_000
    seconds = tuple(amount**power for amount in amounts)
    growth = Growth("start", "clips", amounts, seconds, (1, 2, 3))
    assert growth.power == pytest.approx(power)
    last = growth.figures()[-1]
    assert (last.what, last.ours, last.unit) == ("start, clips: 10,000", 3, "GB")


def test_a_clip_without_sound_is_refused(tmp_path: Path) -> None:
    silent = write_video(tmp_path / "clip.mp4", np.zeros((9, 48, 64, 3), np.uint8), 10)
    with pytest.raises(InputError, match=r"clip\.mp4 has no sound: give a recording with sound"):
        run.measure(silent)
    with pytest.raises(InputError, match="--only speed: expected some of network, data"):
        run.measure(silent, ["speed"])
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="--only gpu: PyTorch finds no GPU"):
            run.measure(silent, ["gpu"])


def test_an_installation_without_the_repository_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(give, "REPOSITORY", tmp_path)
    with pytest.raises(InputError, match="folder benchmarks of cfnsr's repository: clone it"):
        give.bench(tmp_path / "clip.mp4")


@pytest.mark.long
def test_all_is_measured(shared: Path, yunet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a small network, few clips and a video that is not long."""
    for package in ("openvino", "nncf", "onnxscript", "uvicorn"):
        pytest.importorskip(package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CFNSR_YUNET", str(yunet))
    monkeypatch.setenv("CFNSR_SPEECH_ENCODER", str(shared / "models" / "whisper-tiny-en-encoder"))
    small = {
        (subjects, network, growing, profiling): {"WIDTH": 1 / 8},
        (subjects, use): {"LONG": 7.0},
        (data,): {"TAKES": 2, "CLIPS": 16},
        (fold,): {"TAKES": 8},
        (growing,): {"AXES": {"frames": (8, 16)}, "STORED": (20, 40), "PREPARED": (1, 2), "SIZE": 64},
    }
    for places, values in small.items():
        for place in places:
            for name, value in values.items():
                monkeypatch.setattr(place, name, value)
    clip = next((shared / "clips").rglob("*.mp4"))
    tasks: list[str] = []
    monkeypatch.chdir(clip.parent)  # processes of their own run elsewhere
    report = run.measure(Path(clip.name), rounds=1, progress=tasks.append)
    assert list(report.figures) == ["network", "data", "use", "fold"]
    figures = report.as_json()
    assert all({"what", "plain", "ours", "ratio", "unit"} <= figure.keys() for figure in figures)
    assert sum(figure["goal"] is not None for figure in figures) == 19
    assert len(report.growth) == 6 and len(report.profiles) == 3
    page = tmp_path / "benchmarks.md"
    run.write(report, page)
    assert (tmp_path / "benchmarks-growth.png").stat().st_size > 5_000
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert written["figures"] == json.loads(json.dumps(figures)) and written["machine"] == run.machine()
    text = page.read_text()
    titles = [title for name, title in run.SECTIONS.items() if name != "gpu"]
    assert all(f"## {title}" in text for title in titles) and "| forward, one clip" in text


def test_the_part_for_a_gpu_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the compiler, which takes minutes, and the memory."""
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model, dynamic: compiled.append(model))
    small = replace(PAPER, frames=8, size=64, width=1 / 8, batch_size=2, epochs=1)
    settings = {"DEVICE": "cpu", "RECIPE": small, "SIDE": 256, "STEPS": 1, "_peak": lambda task: 1.0}
    for name, value in settings.items():
        monkeypatch.setattr(gpu, name, value)
    progressed: list[str] = []
    rate, memory, fold_, table = gpu.training(1, progressed.append)
    assert rate.plain and rate.limit and rate.ratio and memory.ratio == 1
    assert fold_.ours == pytest.approx(1152 / rate.ours)
    assert table.unit == "h" and progressed[-1].endswith("cfn_sr") and len(progressed) == 12
    (answers,) = gpu.inference(1, progressed.append)
    assert answers.ours > 0 and answers.unit == "1/s"
    assert len(compiled) == 2 + len(TABLES[1]) + 1, "timed, looked at for memory, the rows, answers"
