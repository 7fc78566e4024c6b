"""Benchmark of a prediction: start to end, within a running process, along a long video, and live.

A model of the paper's size with random weights is measured, because weights do not change the time.
"""

import datetime
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cfnsr.bench.subjects import CFNSR, LONG, Progress, Subjects, ask, prepare, serving
from cfnsr.errors import InputError
from cfnsr.media.scan import first_picture, scan_packets
from cfnsr.processes import cores

ROUNDS = 5  # of everything, in alternation; the median is reported
HOP = 1.0
# Ways to run a model, and of them those that are compared with PyTorch.
CALLED = {
    "torch": "PyTorch",
    "onnx": "exported (.onnx)",
    "int8": "exported (int8)",
    "features": "PyTorch, `cfn_sr_features`",
}
COMPARED = ("onnx", "int8")


@dataclass(frozen=True)
class Figure:
    """One line of the benchmark.

    Args:
        plain: by PyTorch; None where there is nothing to compare with.
        ours: by what cfnsr offers for speed, or the thing itself.
        unit: "s", or "s/s" for seconds of work a second of video.
        goal: at most; None where none was set.
    """

    what: str
    plain: float | None
    ours: float
    unit: str
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """Speed-up over `plain`."""
        return None if self.plain is None else self.plain / self.ours

    def as_json(self) -> dict[str, object]:
        """Return the form `cfnsr bench predict --json` prints."""
        row = {"what": self.what, "plain": self.plain, "ours": self.ours, "ratio": self.ratio}
        return {**row, "unit": self.unit, "goal": self.goal}


def measure(clip: Path, *, rounds: int = ROUNDS, progress: Progress = lambda what: None) -> list[Figure]:
    """Measure all of it on a real clip.

    Args:
        clip: a video with one face and sound, of a few seconds.
        rounds: of everything; the median counts.

    Raises:
        InputError: the clip has no pictures or no sound, or the extra `export` is not installed.
    """
    scan = scan_packets(clip)
    if not (scan.frame_count and scan.sample_rate):
        raise InputError(f"{clip} has no pictures or no sound: expected a clip of a person who speaks")
    with tempfile.TemporaryDirectory(prefix="cfnsr-bench-") as folder:
        subjects = prepare(Path(folder), clip, progress)
        return [
            *measure_starts(rounds, progress),
            *measure_one_file(subjects, rounds, progress),
            *measure_long_video(subjects, rounds, progress),
            *measure_live(subjects, progress),
        ]


def measure_starts(rounds: int, progress: Progress) -> list[Figure]:
    """Measure importing the package and asking for help, each in a process of its own."""
    progress("import and help")
    seconds = alternate(
        {
            "import": partial(run, [sys.executable, "-c", "import cfnsr"]),
            "help": partial(run, [*CFNSR, "--help"]),
            "nothing": partial(run, [sys.executable, "-c", "pass"]),
        },
        rounds,
    )
    beyond = seconds["import"] - seconds["nothing"]
    return [
        Figure("`import cfnsr`, beyond an empty process", None, beyond, "s", 0.3),
        Figure("`cfnsr --help`", None, seconds["help"], "s", 0.5),
    ]


def measure_one_file(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """Measure one file: in a new process, within a running one, and by a running server."""
    models, clip = subjects.pixels, subjects.clip
    progress("one file, in new processes")
    command = [*CFNSR, "predict"]
    new = {name: partial(run, [*command, str(path), str(clip), "--json"]) for name, path in models.items()}
    figures = compare(
        "`cfnsr predict` on one file, start to end, ", alternate(new, rounds), torch=5.0, int8=2.0
    )
    progress("one file, within a running process")
    running = {name: predictor(path, clip) for name, path in models.items()}
    figures += compare("one file within a running process, ", alternate(running, rounds))
    progress("one file, by a running server")
    with serving(models["torch"]) as plain, serving(models["int8"]) as ours:
        for address in (plain, ours):
            ask(address, clip)  # the first time loads what is loaded when needed
        served = {"torch": partial(ask, plain, clip), "int8": partial(ask, ours, clip)}
        return figures + compare("one file by a running `cfnsr serve`, ", alternate(served, rounds), int8=0.8)


def measure_long_video(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """Measure seconds of work for a second of video, in windows a second apart."""
    progress(f"a video of {LONG:g} s")
    tasks = {name: predictor(path, subjects.long) for name, path in subjects.pixels.items()}
    if subjects.features is not None:
        tasks["features"] = predictor(subjects.features, subjects.long, openface=subjects.track)
    measured = alternate(tasks, max(1, rounds // 2))
    seconds = {name: each / LONG for name, each in measured.items()}
    return compare(f"{LONG:g} s of video, hop {HOP:g} s, ", seconds, "s/s", int8=0.35, features=0.2)


def measure_live(subjects: Subjects, progress: Progress) -> list[Figure]:
    """Measure rate and delay of `cfnsr live`, with the long video played as if live."""
    from cfnsr.inference.exported import load_exported
    from cfnsr.inference.live import live
    from cfnsr.media.capture import Player

    progress(f"{LONG:g} s live")
    moments = live(load_exported(subjects.pixels["int8"]), Player(subjects.long))
    answered = [(each.second, each.delay) for each in moments if each.delay is not None]
    seconds, delays = zip(*answered, strict=True)
    what = f"`cfnsr live` for {LONG:g} s, {CALLED['int8']}, "
    return [
        Figure(what + "from one answer to the next", None, float(np.diff(seconds).mean()), "s", 0.5),
        Figure(what + "delay of the latest in twenty", None, float(np.quantile(delays, 0.95)), "s", 1.0),
    ]


def alternate(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of some tasks that take turns, so that what slows the machine slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(what: str, seconds: Mapping[str, float], unit: str = "s", **goals: float) -> list[Figure]:
    """Make a figure of each way to run a model; exported ones stand beside PyTorch."""
    return [
        Figure(
            what + CALLED[name], seconds["torch"] if name in COMPARED else None, each, unit, goals.get(name)
        )
        for name, each in seconds.items()
    ]


def run(command: Sequence[str]) -> None:
    """Run a command to its end; raise `InputError` with its last line where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{' '.join(command[1:4])} ended with {done.returncode}: {last}")


def predictor(model: Path, file: Path, openface: Path | None = None) -> Callable[[], object]:
    """Return a task that predicts in this process, with the model loaded before."""
    from cfnsr.inference.predict import predict
    from cfnsr.inference.recogniser import as_recogniser
    from cfnsr.sharing.loading import load

    return partial(predict, as_recogniser(load(model)), file, hop=HOP, openface=openface)


def page(figures: Sequence[Figure], clip: Path) -> str:
    """Write the figures as docs/benchmarks.md has them."""
    duration, (_, (height, width)) = scan_packets(clip).duration, first_picture(clip)
    lines = [
        "# Benchmarks",
        "",
        f"`cfnsr bench predict CLIP --out docs/benchmarks.md` on {datetime.date.today().isoformat()}: "
        f"{cores()} cores of {processor()}; a clip of {duration:.1f} s, {width} x {height}; "
        "`cfn_sr` at the paper's size with random weights, because weights do not change the time. Medians "
        "of rounds in which all take turns.",
        "",
        "Start to end is a new process; within a running process and by a running server the model is loaded "
        "before, and the server is asked by `POST /predict`. s/s are seconds of work for a second of video. "
        "Live, the video is played as if it came from a camera, once; the delay is from the arrival of a "
        "window's newest picture or sound to its answer, and one answer in twenty was later than that. "
        "`cfn_sr_features` is given a made-up OpenFace track (OpenFace's own work is not counted), and hears "
        "by the speech encoder that `CFNSR_SPEECH_ENCODER` names.",
        "",
        "| what | goal | measured | PyTorch | times as fast |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for figure in figures:
        goal = "" if figure.goal is None else f"{figure.goal:g}"
        plain = "" if figure.plain is None else f"{figure.plain:.2f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.1f}"
        lines.append(f"| {figure.what} | {goal} | {figure.ours:.2f} {figure.unit} | {plain} | {ratio} |")
    return "\n".join([*lines, ""])


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
