"""All benchmarks, and their page."""

import datetime
import platform
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import data, fold, gpu, growing, network, profiling, use
from benchmarks.measure import Figure, Progress
from benchmarks.subjects import as_take, prepare
from cfnsr.data.clip import prepare_clip
from cfnsr.errors import InputError
from cfnsr.files import write_json, write_text
from cfnsr.media.scan import first_picture, scan_packets
from cfnsr.models.fast import has_bfloat16
from cfnsr.processes import cores

ROUNDS = 3
SECTIONS = {
    "network": "The network at the paper's size",
    "data": "From files to batches",
    "use": "What a user waits for",
    "fold": "One fold",
    "gpu": "On a GPU",
    "growth": "How cost grows",
    "profiles": "Where time goes",
}


INTRODUCTION = """# {title}

```
cfnsr bench clip.mp4 --out docs/{name}
```

What was missed, why, and what was tried: [speed](speed.md).

*Plain* is the same mathematics as the field's scripts do it, restated in `benchmarks/plain.py`: eager
float32, a JPEG a frame, a take at a time. *Limit* is what the machine cannot do better: as many operations
in its best matrix product, the same bytes copied, every picture and sound of the same files decoded, the
same transforms, and nothing else. Of what a user waits for, plain is cfnsr's own PyTorch.

Tasks take turns in one process, so that plain too has cfnsr's large pages of memory (about a tenth faster).
Figures are medians of {rounds} turns, of {few} for training, preparation and loading; the range behind a
ratio is that of the turns. The long video, live and the fold are done once. `cfn_sr` has the paper's size and
random weights, because weights do not change the time. s/s are seconds of work a second of video; live, the
video is played as if it came from a camera, and one answer in twenty was later than the delay.
"""


@dataclass
class Report:
    """What was measured."""

    clip: str
    rounds: int
    machine: str = field(default_factory=lambda: machine())
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    growth: list[growing.Growth] = field(default_factory=list)
    profiles: dict[str, profiling.Parts] = field(default_factory=dict)

    @property
    def few(self) -> int:
        """Turns of the longest tasks."""
        return (self.rounds + 1) // 2

    def as_json(self) -> list[dict[str, object]]:
        """Return the form that `cfnsr bench --json` prints: all that was measured, one after the other."""
        figures = [figure for figures in self.figures.values() for figure in figures]
        figures += [figure for each in self.growth for figure in each.figures()]
        figures += [
            Figure(f"{what}: {part}", seconds)
            for what, parts in self.profiles.items()
            for part, seconds in parts
        ]
        return [figure.as_json() for figure in figures]


def measure(
    clip: Path,
    sections: Collection[str] = (),
    *,
    rounds: int = ROUNDS,
    progress: Progress = lambda what: None,
) -> Report:
    """Measure on a real clip.

    Args:
        clip: a video of a few seconds, with a face and speech.
        sections: of `SECTIONS`; all if none are named, "gpu" where there is one.
        rounds: turns of each task, half as many of the longest ones.

    Raises:
        InputError: the clip cannot be prepared, or a section is not known.
    """
    if unknown := set(sections) - set(SECTIONS):
        raise InputError(f"--only {','.join(sorted(unknown))}: expected some of {', '.join(SECTIONS)}")
    if "gpu" in sections and not torch.cuda.is_available():
        raise InputError("--only gpu: PyTorch finds no GPU of CUDA here")
    clip = clip.resolve()  # processes of their own run in the repository
    prepare_clip(as_take(clip), data.PIXELS)  # refuses it before anything is measured
    _, (height, width) = first_picture(clip)
    duration = scan_packets(clip).duration
    report = Report(f"a clip of {duration:.1f} s, {width} x {height}", rounds)
    few = report.few

    def wanted(section: str) -> bool:
        return section in sections or (not sections and (section != "gpu" or torch.cuda.is_available()))

    with tempfile.TemporaryDirectory(prefix="cfnsr-bench-") as folder:
        if wanted("network") or wanted("use"):
            subjects = prepare(Path(folder), clip, progress)
        tasks: dict[str, list[Callable[[], list[Figure]]]] = {
            "network": [
                lambda: network.forward(subjects, rounds, progress),
                lambda: network.exported(subjects, rounds, progress),
                lambda: network.training(few, progress),
            ],
            "data": [
                lambda: data.preparation(clip, few, progress),
                lambda: data.loading(clip, few, progress),
                lambda: data.sound(rounds, progress),
            ],
            "use": [
                lambda: use.measure_starts(rounds, progress),
                lambda: use.measure_one_file(subjects, rounds, progress),
                lambda: use.measure_long_video(subjects, progress),
                lambda: use.measure_live(subjects, progress),
            ],
            "fold": [lambda: fold.features(progress)],
            "gpu": [lambda: gpu.training(few, progress), lambda: gpu.inference(few, progress)],
        }
        for section, parts in tasks.items():
            if wanted(section):
                report.figures[section] = [figure for part in parts for figure in part()]
        if wanted("growth"):
            report.growth = growing.growth(clip, progress)
        if wanted("profiles"):
            report.profiles = profiling.profiles(clip, progress)
    return report


def write(report: Report, page: Path) -> None:
    """Write the page, and beside it the figures as JSON and a picture of the growth."""
    picture = page.with_name(f"{page.stem}-growth.png")
    if report.growth:
        growing.draw(report.growth, picture)
    write_json(
        page.with_suffix(".json"),
        {
            "date": report.date,
            "machine": report.machine,
            "clip": report.clip,
            "figures": report.as_json(),
        },
    )
    write_text(page, as_markdown(report, page.name, picture.name))


def as_markdown(report: Report, name: str = "benchmarks.md", picture: str = "") -> str:
    """Write the figures as the page of a name has them, with a picture of the growth where there is one."""
    title = "Benchmarks" if "AVX-512" in report.machine else "Benchmarks without AVX-512"
    introduction = INTRODUCTION.format(title=title, name=name, rounds=report.rounds, few=report.few)
    lines = [introduction, f"{report.date}: {report.machine}; {report.clip}."]
    for section, figures in report.figures.items():
        lines += ["", f"## {SECTIONS[section]}", "", *as_table(figures)]
    if report.growth:
        lines += [
            "",
            f"## {SECTIONS['growth']}",
            "",
            *([f"![Seconds and memory]({picture})", ""] if picture else []),
            "The last column is the power of the amount with which the seconds grow at last: 1 is linear.",
            "",
            "| what | more | amounts | seconds | GB | power |",
            "| --- | --- | --- | --- | --- | ---: |",
            *growing.table(report.growth),
        ]
    if report.profiles:
        lines += ["", f"## {SECTIONS['profiles']}", ""]
        for what, parts in report.profiles.items():
            whole = sum(seconds for _, seconds in parts)
            lines += [f"| {what}: {whole:.2f} s | % |", "| --- | ---: |"]
            lines += [f"| {part} | {100 * seconds / whole:.0f} |" for part, seconds in parts] + [""]
    return "\n".join(lines).rstrip() + "\n"


def as_table(figures: Sequence[Figure]) -> list[str]:
    """Write some figures as a table of Markdown."""
    lines = [
        "| what | ours | plain | times as good | limit | of the limit | goal | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.1f}"
        if figure.spread is not None:
            ratio += " ({:.1f} to {:.1f})".format(*figure.spread)
        cells = [
            figure.what,
            f"{figure.ours:.3g} {figure.unit}".strip(),
            "" if figure.plain is None else f"{figure.plain:.3g}",
            ratio,
            "" if figure.limit is None else f"{figure.limit:.3g}",
            "" if figure.of_limit is None else f"{figure.of_limit:.1f} x",
            "" if figure.goal is None else str(figure.goal),
            {None: "", True: "reached", False: "**missed**"}[figure.reached],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def machine() -> str:
    """Cores, processor and what it can: of what makes networks fast all that there is."""
    has = {
        "AVX2": torch.cpu._is_avx2_supported(),
        "AVX-512": torch.cpu._is_avx512_supported(),
        "VNNI": torch.cpu._is_vnni_supported(),
        "bfloat16": has_bfloat16(),
    }
    there = ", ".join(name for name, is_there in has.items() if is_there) or "none of AVX2, AVX-512"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cores()} cores of {processor()} ({there}){gpu}, PyTorch {version('torch')}"


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
