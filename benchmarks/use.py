"""What a user waits for: start to end, within a running process, along a long video, and live.

A model of the paper's size with random weights is measured, because weights do not change the time.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, Goal, Progress, alternate, compare
from benchmarks.subjects import CFNSR, LONG, Subjects, ask, serving
from cfnsr.errors import InputError

HOP = 1.0
# Ways to run a model, and of them those that are compared with PyTorch.
CALLED = {
    "torch": "PyTorch",
    "onnx": "exported (.onnx)",
    "int8": "exported (int8)",
    "features": "PyTorch, `cfn_sr_features`",
}
COMPARED = ("onnx", "int8")


def measure_starts(rounds: int, progress: Progress) -> list[Figure]:
    """Measure importing the package and asking for help, each in a process of its own."""
    progress("import and help")
    seconds = alternate(
        {
            "ours": partial(run, [sys.executable, "-c", "import cfnsr"]),
            "help": partial(run, [*CFNSR, "--help"]),
            "limit": partial(run, [sys.executable, "-c", "pass"]),
        },
        rounds,
    )
    return [
        compare("`import cfnsr`; limit: an empty process", seconds, goal=Goal(0.3)),
        compare("`cfnsr --help`", seconds, "help", Goal(0.5)),
    ]


def measure_one_file(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """Measure one file: in a new process, within a running one, and by a running server."""
    models, clip = subjects.pixels, subjects.clip
    progress("one file, in new processes")
    command = [*CFNSR, "predict"]
    new = {name: partial(run, [*command, str(path), str(clip), "--json"]) for name, path in models.items()}
    figures = beside_torch("`cfnsr predict` on one file, start to end, ", alternate(new, rounds), int8=1.2)
    progress("one file, within a running process")
    running = {name: predictor(path, clip) for name, path in models.items()}
    figures += beside_torch("one file within a running process, ", alternate(running, rounds))
    progress("one file, by a running server")
    with serving(models["torch"]) as plain, serving(models["int8"]) as ours:
        for address in (plain, ours):
            ask(address, clip)  # the first time loads what is loaded when needed
        served = {"torch": partial(ask, plain, clip), "int8": partial(ask, ours, clip)}
        return figures + beside_torch(
            "one file by a running `cfnsr serve`, ", alternate(served, rounds), int8=0.5
        )


def measure_long_video(subjects: Subjects, progress: Progress) -> list[Figure]:
    """Measure seconds of work for a second of video, in windows a second apart."""
    progress(f"a video of {LONG:g} s")
    models = {name: path for name, path in subjects.pixels.items() if name != "onnx"}  # as slow as PyTorch
    tasks = {name: predictor(path, subjects.long) for name, path in models.items()}
    if subjects.features is not None:
        tasks["features"] = predictor(subjects.features, subjects.long, openface=subjects.track)
    measured = alternate(tasks, 1, aside=0)  # a minute, which a start does not change
    what = f"{LONG:g} s of video, hop {HOP:g} s, "
    return beside_torch(what, measured, "s/s", LONG, int8=0.2, features=0.2)


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
        Figure(what + "from one answer to the next", float(np.diff(seconds).mean()), goal=Goal(0.5)),
        Figure(what + "delay of the latest in twenty", float(np.quantile(delays, 0.95)), goal=Goal(1.0)),
    ]


def beside_torch(
    what: str, seconds: Mapping[str, Sequence[float]], unit: str = "s", amount: float = 1.0, **goals: float
) -> list[Figure]:
    """Make a figure of each way to run a model; exported ones stand beside PyTorch."""
    figures = []
    for name in seconds:
        there = {name: seconds[name]} | ({"plain": seconds["torch"]} if name in COMPARED else {})
        goal = Goal(goals[name]) if name in goals else None
        figures.append(compare(what + CALLED[name], there, name, goal, unit=unit, amount=amount))
    return figures


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
