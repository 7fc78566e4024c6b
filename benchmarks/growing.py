"""How time and memory grow with clips, frames, size and batch; each point is a process of its own."""

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT, Figure, Progress, alone
from benchmarks.subjects import WIDTH

FRAMES, SIZE, BATCH = 16, 112, 1
AXES = {"frames": (8, 16, 32, 64), "size": (64, 112, 160, 224), "batch": (1, 2, 4, 8)}
STORED = (100, 1_000, 10_000)
PREPARED = (8, 32, 64)
LEAST = 1e-3  # seconds that can be told from none


@dataclass(frozen=True)
class Growth:
    """A quantity that was made larger, and what it cost.

    Args:
        amounts: in what cost is expected to be linear, such as the pixels of a picture.
    """

    what: str
    along: str
    amounts: tuple[float, ...]
    seconds: tuple[float, ...]
    gigabytes: tuple[float, ...]

    @property
    def power(self) -> float:
        """The power of the amount with which the seconds grow between the two largest: 1 is linear."""
        (before, last), (less, more) = self.seconds[-2:], self.amounts[-2:]
        return math.log(max(last, LEAST) / max(before, LEAST)) / math.log(more / less)

    def figures(self) -> list[Figure]:
        """Every point, as the other figures."""
        return [
            Figure(f"{self.what}, {self.along}: {amount:,.0f}", value, unit)
            for unit, values in (("s", self.seconds), ("GB", self.gigabytes))
            for amount, value in zip(self.amounts, values, strict=True)
        ]


def growth(clip: Path, progress: Progress) -> list[Growth]:
    """Measure all of it."""
    return [*_network(progress), _preparation(clip, progress), *_store(progress)]


def _network(progress: Progress) -> list[Growth]:
    found = []
    for kind, method in (("forward", forward), ("training step", step)):
        for axis, values in AXES.items():
            progress(f"growth: {kind}, {axis}")
            sizes = [
                {"frames": FRAMES, "size": SIZE, "batch": BATCH + (method is step)} | {axis: value}
                for value in values
            ]
            setups = [
                f"from benchmarks.growing import *; task = {method.__name__}(**{size})" for size in sizes
            ]
            amounts = [size[axis] ** (2 if axis == "size" else 1) for size in sizes]
            along = "pixels of a frame" if axis == "size" else "clips of a batch" if axis == "batch" else axis
            found.append(_grown(kind, along, amounts, [alone(setup, 3) for setup in setups]))
    return found


def _preparation(clip: Path, progress: Progress) -> Growth:
    """Wall time of `prepare` on all cores, and the memory of the largest of its processes."""
    progress("growth: preparation")
    points = []
    for takes in PREPARED:
        with tempfile.TemporaryDirectory() as folder:
            setup = (
                "from benchmarks.data import *; "
                f"listed = [copy_take(Path({str(clip)!r}), Path({folder!r}), n) for n in range({takes})]; "
                f"store = Store.create(Path({folder!r}) / 'p', 'copies', RAVDESS, PIXELS.as_json()); "
                "task = lambda: prepare_corpus(listed, store, PIXELS)"
            )
            points.append(alone(setup, 1))
    return _grown("preparation", "takes", PREPARED, points)


def _store(progress: Progress) -> list[Growth]:
    progress("growth: store")
    numbers = ",".join(map(str, STORED))
    steps = {
        "again": "preparing again what is done",
        "first_start": "first start, which compares all sounds",
        "start": "start of a cross-validation",
    }
    command = [sys.executable, "docs/store_scale.py", numbers, "--steps", ",".join(steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [
        _grown(
            called,
            "clips",
            STORED,
            [{"s": row["seconds"], "GB": row["MB"] / 1e3} for row in rows if row["step"] == step],
        )
        for step, called in steps.items()
    ]


def _grown(what: str, along: str, amounts: Sequence[float], points: Sequence[dict[str, float]]) -> Growth:
    seconds, gigabytes = (tuple(point[unit] for point in points) for unit in ("s", "GB"))
    return Growth(what, along, tuple(amounts), seconds, gigabytes)


def forward(frames: int, size: int, batch: int) -> Callable[[], object]:
    """A forward pass of some shape, as `predict` runs it."""
    import torch

    from cfnsr import create_model
    from cfnsr.models.fast import fast

    model = fast(create_model("cfn_sr", width=WIDTH).eval())
    video = torch.randn(batch, 3, frames, size, size).contiguous(memory_format=torch.channels_last_3d)
    audio = torch.randn(batch, 13, 212)

    def answer() -> object:
        with torch.inference_mode():
            return model(video, audio)

    return answer


def step(frames: int, size: int, batch: int) -> Callable[[], object]:
    """A training step of some shape."""
    from benchmarks import network

    network.FRAMES, network.SIZE, network.BATCH = frames, size, batch
    return network.step("ours")


def draw(found: Sequence[Growth], path: Path) -> None:
    """Draw all of it: seconds from the left, gigabytes from the right."""
    from matplotlib.figure import Figure as Sheet

    columns = 3
    rows = -(-len(found) // columns)
    sheet = Sheet(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    for axis, each in zip(sheet.subplots(rows, columns, squeeze=False).flat, found, strict=False):
        axis.plot(each.amounts, each.seconds, "o-", color="tab:blue")
        axis.set(title=each.what, xlabel=each.along, ylabel="seconds", ylim=(0, None), xlim=(0, None))
        memory = axis.twinx()
        memory.plot(each.amounts, each.gigabytes, "s--", color="tab:orange")
        memory.set(ylabel="GB", ylim=(0, None))
    for axis in list(sheet.axes)[len(found) : rows * columns]:
        if not axis.lines:
            axis.set_visible(False)
    sheet.savefig(path, dpi=80)


def table(found: Sequence[Growth]) -> list[str]:
    """A line of Markdown for each."""

    def row(values: Sequence[float]) -> str:
        return ", ".join(f"{value:.3g}" for value in values)

    return [
        f"| {each.what} | {each.along} | {', '.join(f'{amount:,.0f}' for amount in each.amounts)} "
        f"| {row(each.seconds)} | {row(each.gigabytes)} | {each.power:.1f} |"
        for each in found
    ]
