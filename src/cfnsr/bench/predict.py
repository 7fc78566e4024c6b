"""Benchmark of a prediction: start to end, within a running process, along a long video, and live.

A model of the paper's size with random weights is measured, because weights do not change the time.
"""

from __future__ import annotations

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

from cfnsr.bench.server import ask, serving
from cfnsr.bench.subjects import LONG, Progress, Subjects, prepare
from cfnsr.errors import InputError
from cfnsr.media.scan import first_picture, scan_packets
from cfnsr.processes import cores

ROUNDS = 5  # of everything, in alternation; the median is reported
HOP = 1.0
# Ways to run a model.
CALLED = {
    "torch": "PyTorch",
    "onnx": "exported (.onnx)",
    "int8": "exported (int8)",
    "features": "PyTorch, `cfn_sr_features`",
}


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
        told = {"what": self.what, "plain": self.plain, "ours": self.ours, "ratio": self.ratio}
        return {**told, "unit": self.unit, "goal": self.goal}


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
            *starts(rounds, progress),
            *one_file(subjects, rounds, progress),
            *long_video(subjects, rounds, progress),
            *in_front_of_it(subjects, progress),
        ]


def starts(rounds: int, progress: Progress) -> list[Figure]:
    """Measure importing the package and asking for help, each in a process of its own."""
    progress("import and help")
    measured = alternated(
        {
            "import": lambda: run([sys.executable, "-c", "import cfnsr"]),
            "help": lambda: run([*CFNSR, "--help"]),
            "nothing": lambda: run([sys.executable, "-c", "pass"]),
        },
        rounds,
    )
    return [
        Figure(
            "`import cfnsr`, beyond an empty process",
            None,
            measured["import"] - measured["nothing"],
            "s",
            0.3,
        ),
        Figure("`cfnsr --help`", None, measured["help"], "s", 0.5),
    ]


def one_file(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """Measure one file: in a new process, within a running one, and by a running server."""
    progress("one file, in new processes")
    new = alternated({name: command(path, subjects.clip) for name, path in subjects.pixels.items()}, rounds)
    progress("one file, within a running process")
    running = alternated(
        {name: recognise(path, subjects.clip) for name, path in subjects.pixels.items()}, rounds
    )
    progress("one file, by a running server")
    with serving(subjects.pixels["torch"]) as plain, serving(subjects.pixels["int8"]) as ours:
        servers = {"torch": plain, "int8": ours}
        for address in servers.values():
            ask(address, subjects.clip)  # the first time loads what is loaded when needed
        served = alternated(
            {name: partial(ask, address, subjects.clip) for name, address in servers.items()}, rounds
        )
    start, within, server = (
        "`cfnsr predict` on one file, start to end, ",
        "one file within a running process, ",
        "one file by a running `cfnsr serve`, ",
    )
    return [
        Figure(start + CALLED["torch"], None, new["torch"], "s", 5.0),
        Figure(start + CALLED["onnx"], new["torch"], new["onnx"], "s"),
        Figure(start + CALLED["int8"], new["torch"], new["int8"], "s", 2.0),
        Figure(within + CALLED["torch"], None, running["torch"], "s"),
        Figure(within + CALLED["onnx"], running["torch"], running["onnx"], "s"),
        Figure(within + CALLED["int8"], running["torch"], running["int8"], "s"),
        Figure(server + CALLED["torch"], None, served["torch"], "s"),
        Figure(server + CALLED["int8"], served["torch"], served["int8"], "s", 0.8),
    ]


def long_video(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """Measure seconds of work for a second of video, in windows a second apart."""
    progress(f"a video of {LONG:g} s")
    tasks = {name: recognise(path, subjects.long, hop=HOP) for name, path in subjects.pixels.items()}
    if subjects.features is not None:
        tasks["features"] = recognise(subjects.features, subjects.long, hop=HOP, openface=subjects.track)
    measured = alternated(tasks, max(1, rounds // 2))
    share = {name: seconds / LONG for name, seconds in measured.items()}
    what = f"{LONG:g} s of video, hop {HOP:g} s, "
    figures = [
        Figure(what + CALLED["torch"], None, share["torch"], "s/s"),
        Figure(what + CALLED["onnx"], share["torch"], share["onnx"], "s/s"),
        Figure(what + CALLED["int8"], share["torch"], share["int8"], "s/s", 0.35),
    ]
    if "features" in share:
        figures.append(Figure(what + CALLED["features"], None, share["features"], "s/s", 0.2))
    return figures


def in_front_of_it(subjects: Subjects, progress: Progress) -> list[Figure]:
    """Measure rate and delay of `cfnsr live`, with the long video played as if live."""
    from cfnsr.inference.exported import load_exported
    from cfnsr.inference.live import live
    from cfnsr.media.capture import Player

    progress(f"{LONG:g} s live")
    told = [
        (moment.second, moment.delay)
        for moment in live(load_exported(subjects.pixels["int8"]), Player(subjects.long))
        if moment.delay is not None
    ]
    seconds, delays = zip(*told, strict=True)
    what = f"`cfnsr live` for {LONG:g} s, {CALLED['int8']}, "
    return [
        Figure(what + "from one answer to the next", None, float(np.diff(seconds).mean()), "s", 0.5),
        Figure(what + "delay of the latest in twenty", None, float(np.quantile(delays, 0.95)), "s", 1.0),
    ]


def alternated(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of some tasks that take turns, so that what slows the machine slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


CFNSR = (sys.executable, "-m", "cfnsr")


def run(command: Sequence[str]) -> None:
    """Run a command to its end; raise `InputError` with its last line where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{' '.join(command[1:4])} ended with {done.returncode}: {last}")


def command(model: Path, clip: Path) -> Callable[[], None]:
    """Return a task that runs `cfnsr predict` in a process of its own."""
    return lambda: run([*CFNSR, "predict", str(model), str(clip), "--json"])


def recognise(
    model: Path, file: Path, hop: float = HOP, openface: Path | None = None
) -> Callable[[], object]:
    """Return a task that predicts in this process, with the model loaded and used once before."""
    from cfnsr.inference.predict import predict
    from cfnsr.inference.recogniser import as_recogniser

    if model.is_dir():
        from cfnsr.training.checkpoint import load_model

        recogniser = as_recogniser(load_model(model))
    else:
        from cfnsr.inference.exported import load_exported

        recogniser = load_exported(model)
    return lambda: predict(recogniser, file, hop=hop, openface=openface)


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
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in told if line.startswith("model name"))
    return next(names, platform.machine())
