"""How long a prediction takes: start to end, within a running process, and along a long video.

A model of the paper's size with random weights is measured, because weights do not change the time.
"""

from __future__ import annotations

import datetime
import itertools
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfnsr.errors import InputError
from cfnsr.machine import cores
from cfnsr.media.container import probe
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_video

ROUNDS = 5  # of everything, in alternation; the median is told
LONG = 60.0  # seconds of the long video
HOP = 1.0
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Figure:
    """One line of the benchmark.

    Args:
        what: is measured.
        plain: by PyTorch; None where there is nothing to compare with.
        ours: what cfnsr offers for speed, or the thing itself.
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
        """How many times faster."""
        return None if self.plain is None else self.plain / self.ours

    def as_json(self) -> dict[str, object]:
        """The form `cfnsr bench predict --json` prints."""
        told = {"what": self.what, "plain": self.plain, "ours": self.ours, "ratio": self.ratio}
        return {**told, "unit": self.unit, "goal": self.goal}


@dataclass(frozen=True)
class Subjects:
    """What is measured: the same model as a checkpoint and exported, a clip, and a long video of it."""

    checkpoint: Path
    onnx: Path
    int8: Path
    clip: Path
    long: Path


def measure(clip: Path, *, rounds: int = ROUNDS, progress: Progress = lambda what: None) -> list[Figure]:
    """Measure all of it on a real clip.

    Args:
        clip: a video with one face and sound, of a few seconds.
        rounds: of everything; the median counts.
        progress: told what is measured next.

    Raises:
        InputError: the clip has no pictures or no sound, or the extra `export` is not installed.
    """
    info = probe(clip)
    if not (info.has_video and info.has_audio):
        raise InputError(f"{clip} has no pictures or no sound: expected a clip of a person who speaks")
    with tempfile.TemporaryDirectory(prefix="cfnsr-bench-") as folder:
        subjects = prepare(Path(folder), clip, progress)
        return [
            *starts(rounds, progress),
            *one_file(subjects, rounds, progress),
            *long_video(subjects, rounds, progress),
        ]


def prepare(folder: Path, clip: Path, progress: Progress) -> Subjects:
    """A checkpoint of the paper's size, its exported forms and a long video, in a folder."""
    import torch

    from cfnsr.corpus.take import Take
    from cfnsr.data.clip import Preparation, prepare_clip
    from cfnsr.export.onnx import export_onnx
    from cfnsr.export.openvino import export_int8
    from cfnsr.models.zoo import create_model
    from cfnsr.training.checkpoint import Config, save_weights

    progress("a model of the paper's size is exported")
    settings = {"classes": 8, "mfcc_steps": 212, "width": 1.0}
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    torch.manual_seed(0)
    save_weights(create_model("cfn_sr", classes=8), checkpoint)
    Config("cfn_sr", settings).write(checkpoint)
    prepared = prepare_clip(Take(clip.stem, "", 0, video=clip, audio=clip), Preparation()).tensors
    onnx, int8 = folder / "model.onnx", folder / "int8.xml"
    export_onnx(checkpoint, onnx, [prepared])
    export_int8(checkpoint, int8, [prepared])
    progress(f"the clip is repeated for {LONG:g} s")
    return Subjects(checkpoint, onnx, int8, clip, repeated(clip, folder / "long.mp4", LONG))


def repeated(clip: Path, out: Path, seconds: float) -> Path:
    """A clip again and again, as one video of some seconds."""
    info = probe(clip)
    whole = decode(clip, frames=info.frame_count)
    assert whole.frames is not None and whole.waveform is not None  # noqa: S101 - asked for
    length = round(info.frame_count / info.fps * whole.sample_rate)
    sound = np.pad(whole.waveform, (0, max(0, length - len(whole.waveform))))[:length]
    height, width = (side // 2 * 2 for side in whole.frames.shape[1:3])
    pictures = itertools.islice(itertools.cycle(whole.frames[:, :height, :width]), round(seconds * info.fps))
    times = int(seconds * info.fps / info.frame_count) + 1
    waveform = np.tile(sound, times)[: round(seconds * whole.sample_rate)]
    return write_video(out, pictures, info.fps, waveform, whole.sample_rate)


def starts(rounds: int, progress: Progress) -> list[Figure]:
    """Importing the package and asking for help, each in a process of its own."""
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
    """One file, start to end in a new process and within a running one."""
    progress("one file, in new processes")
    paths = {"torch": subjects.checkpoint, "onnx": subjects.onnx, "int8": subjects.int8}
    new = alternated({name: command(path, subjects.clip) for name, path in paths.items()}, rounds)
    progress("one file, within a running process")
    running = alternated({name: recognise(path, subjects.clip) for name, path in paths.items()}, rounds)
    torch = "`cfnsr predict` on one file, start to end, "
    within = "the same within a running process, "
    return [
        Figure(torch + "PyTorch", None, new["torch"], "s", 5.0),
        Figure(torch + "exported (.onnx)", new["torch"], new["onnx"], "s", 2.0),
        Figure(torch + "exported (int8)", new["torch"], new["int8"], "s", 2.0),
        Figure(within + "PyTorch", None, running["torch"], "s"),
        Figure(within + "exported (.onnx)", running["torch"], running["onnx"], "s", 0.8),
        Figure(within + "exported (int8)", running["torch"], running["int8"], "s", 0.8),
    ]


def long_video(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """Seconds of work for a second of video, in windows a second apart."""
    progress(f"a video of {LONG:g} s")
    paths = {"torch": subjects.checkpoint, "onnx": subjects.onnx, "int8": subjects.int8}
    measured = alternated(
        {name: recognise(path, subjects.long, hop=HOP) for name, path in paths.items()}, max(1, rounds // 2)
    )
    share = {name: seconds / LONG for name, seconds in measured.items()}
    what = f"{LONG:g} s of video, hop {HOP:g} s, "
    return [
        Figure(what + "PyTorch", None, share["torch"], "s/s"),
        Figure(what + "exported (.onnx)", share["torch"], share["onnx"], "s/s"),
        Figure(what + "exported (int8)", share["torch"], share["int8"], "s/s", 0.35),
    ]


def alternated(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of some tasks that take turns, so that what slows the machine slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


CFNSR = (sys.executable, "-m", "cfnsr")


def run(command: Sequence[str]) -> None:
    """Run a command to its end; raises `InputError` with its last line where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{' '.join(command[1:4])} ended with {done.returncode}: {last}")


def command(model: Path, clip: Path) -> Callable[[], None]:
    """`cfnsr predict` in a process of its own."""
    return lambda: run([*CFNSR, "predict", str(model), str(clip), "--json"])


def recognise(model: Path, file: Path, hop: float = HOP) -> Callable[[], object]:
    """The same in this process, with the model loaded and used once before."""
    from cfnsr.inference.predict import as_recogniser, predict

    if model.is_dir():
        from cfnsr.training.checkpoint import load_model

        recogniser = as_recogniser(load_model(model))
    else:
        from cfnsr.inference.exported import load_exported

        recogniser = load_exported(model)
    return lambda: predict(recogniser, file, hop=hop)


def page(figures: Sequence[Figure], clip: Path) -> str:
    """The figures as docs/benchmarks.md has them."""
    info = probe(clip)
    lines = [
        "# Benchmarks",
        "",
        f"`cfnsr bench predict CLIP --out docs/benchmarks.md` on {datetime.date.today().isoformat()}: "
        f"{cores()} cores of {processor()}; a clip of {info.duration:.1f} s, {info.width} x {info.height}; "
        "`cfn_sr` at the paper's size with random weights. Medians of rounds in which all take turns.",
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
    """What the processor calls itself."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in told if line.startswith("model name"))
    return next(names, platform.machine())
