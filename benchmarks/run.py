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
from benchmarks.subjects import prepare
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


INTRODUCTION = """# Benchmarks

```
make bench BENCH_CLIP=clip.mp4    # cfnsr bench clip.mp4 --out docs/benchmarks.md
```

*Plain* is the same mathematics as the field's scripts do it, restated in `benchmarks/plain.py`: eager
float32, a JPEG a frame, a take at a time. *Limit* is what the machine cannot do better: as many operations
in its best matrix product, the same bytes copied, the same files decoded, the same transforms, and nothing
else. Tasks take turns in one process, so that plain too has cfnsr's large pages of memory (about a tenth
faster); medians are reported, and the range behind a ratio is that of the rounds. `cfn_sr` has the paper's
size and random weights, because weights do not change the time. s/s are seconds of work a second of video;
live, the video is played as if it came from a camera, and one answer in twenty was later than the delay.
"""


@dataclass
class Report:
    """What was measured."""

    clip: str
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    growth: list[growing.Growth] = field(default_factory=list)
    profiles: dict[str, profiling.Parts] = field(default_factory=dict)

    def as_json(self) -> list[dict[str, object]]:
        """Return the form that `cfnsr bench --json` prints."""
        return [figure.as_json() for figures in self.figures.values() for figure in figures]


def measure(
    clip: Path,
    sections: Collection[str] = (),
    *,
    rounds: int = ROUNDS,
    progress: Progress = lambda what: None,
) -> Report:
    """Measure on a real clip.

    Args:
        clip: a video with one face and sound, of a few seconds.
        sections: of `SECTIONS`; all if none are named, "gpu" where there is one.
        rounds: of everything; the median counts.

    Raises:
        InputError: the clip has no pictures or no sound, or a section is not known.
    """
    if unknown := set(sections) - set(SECTIONS):
        raise InputError(f"--only {','.join(sorted(unknown))}: expected some of {', '.join(SECTIONS)}")
    if "gpu" in sections and not torch.cuda.is_available():
        raise InputError("--only gpu: PyTorch finds no GPU of CUDA here")
    scan = scan_packets(clip)
    if not (scan.frame_count and scan.sample_rate):
        raise InputError(f"{clip} has no pictures or no sound: expected a clip of a person who speaks")
    _, (height, width) = first_picture(clip)
    report, few = Report(f"a clip of {scan.duration:.1f} s, {width} x {height}"), (rounds + 1) // 2

    def wanted(section: str) -> bool:
        return section in sections or (not sections and (section != "gpu" or torch.cuda.is_available()))

    with tempfile.TemporaryDirectory(prefix="cfnsr-bench-") as folder:
        if wanted("network") or wanted("use"):
            subjects = prepare(Path(folder), clip, progress)
        tasks: dict[str, list[Callable[[], list[Figure]]]] = {
            "network": [
                lambda: network.forward(rounds, progress),
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
                lambda: use.measure_long_video(subjects, rounds, progress),
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
        {"figures": report.as_json(), "growth": [each.as_json() for each in report.growth]},
    )
    write_text(page, as_markdown(report, picture.name))


def as_markdown(report: Report, picture: str = "") -> str:
    """Write the figures as docs/benchmarks.md has them, with a picture of the growth where there is one."""
    lines = [INTRODUCTION, f"{datetime.date.today().isoformat()}: {machine()}; {report.clip}."]
    for section, figures in report.figures.items():
        lines += ["", f"## {SECTIONS[section]}", "", *as_table(figures)]
    if report.growth:
        lines += [
            "",
            f"## {SECTIONS['growth']}",
            "",
            *([f"![Seconds and memory]({picture})", ""] if picture else []),
            "The last column is the largest distance of a time from the straight line, in % of the longest.",
            "",
            "| what | more | amounts | seconds | GB | off the line % |",
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
    """Cores, processor and what it multiplies."""
    bfloat16 = "with" if has_bfloat16() else "without"
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cores()} cores of {processor()}, {bfloat16} bfloat16{gpu}, PyTorch {version('torch')}"


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
