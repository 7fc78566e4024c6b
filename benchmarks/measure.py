"""Measuring in alternation, and a line of the benchmarks."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cfnsr.errors import InputError

Progress = Callable[[str], object]
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Goal:
    """What was to be reached: at least or at most a value, `of` the speed-up, the figure or its limit."""

    value: float
    of: Literal["plain", "ours", "limit"] = "ours"
    least: bool = False

    def __str__(self) -> str:
        times = {"plain": " x plain", "ours": "", "limit": " x limit"}[self.of]
        return f"{'≥' if self.least else '≤'} {self.value:g}{times}"


@dataclass(frozen=True)
class Figure:
    """A line of the benchmarks.

    Args:
        ours: median of what cfnsr does, in `unit`.
        plain: of the same mathematics by the field's usual script; None where there is nothing to compare.
        limit: of what the machine cannot do better: the same products, bytes or files and nothing else.
        unit: "s", "s/s" (seconds of work a second of video), "GB", "ms" or "1/s".
        spread: least and greatest of the rounds' ratios of plain to ours.
    """

    what: str
    ours: float
    unit: str = "s"
    plain: float | None = None
    limit: float | None = None
    goal: Goal | None = None
    spread: tuple[float, float] | None = None

    @property
    def ratio(self) -> float | None:
        """Times as good as plain."""
        if self.plain is None:
            return None
        return self.ours / self.plain if self.unit == "1/s" else self.plain / self.ours

    @property
    def of_limit(self) -> float | None:
        """Times the limit: 1 is the best that the machine can do."""
        if self.limit is None:
            return None
        return self.limit / self.ours if self.unit == "1/s" else self.ours / self.limit

    @property
    def reached(self) -> bool | None:
        """Whether the goal was reached; None where none was set."""
        if self.goal is None:
            return None
        value = {"plain": self.ratio, "ours": self.ours, "limit": self.of_limit}[self.goal.of]
        assert value is not None
        return value >= self.goal.value if self.goal.least else value <= self.goal.value

    def as_json(self) -> dict[str, object]:
        """Return the form that `cfnsr bench --json` prints."""
        goal = str(self.goal) if self.goal else None
        return {**asdict(self), "ratio": self.ratio, "of_limit": self.of_limit, "goal": goal}


def alternate(
    tasks: Mapping[str, Callable[[], object]], rounds: int, aside: int = 1
) -> dict[str, list[float]]:
    """Seconds of some tasks that take turns, so that what slows the machine slows all.

    Args:
        aside: turns before those that count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(aside + rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            if number >= aside:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def compare(
    what: str,
    seconds: Mapping[str, Sequence[float]],
    name: str = "ours",
    goal: Goal | None = None,
    *,
    unit: str = "s",
    amount: float = 1.0,
) -> Figure:
    """Make a figure of tasks that took turns; "plain" and "limit" stand beside it where they are among them.

    Args:
        amount: of what was done in the seconds: they are shared out over it, or are that many "1/s".
    """

    def figure(of: str) -> float | None:
        if of not in seconds:
            return None
        each = statistics.median(seconds[of])
        return amount / each if unit == "1/s" else each / amount * (1000 if unit == "ms" else 1)

    spread = None
    if len(seconds.get("plain", ())) > 1:
        ratios = [plain / ours for plain, ours in zip(seconds["plain"], seconds[name], strict=True)]
        spread = min(ratios), max(ratios)
    ours = figure(name)
    assert ours is not None
    return Figure(what, ours, unit, figure("plain"), figure("limit"), goal, spread)


def alone(setup: str, times: int) -> dict[str, float]:
    """Measure a task in a process of its own: median seconds, and the peak of its memory.

    Of a task that has others do its work, the peak is that of the largest of them.

    Args:
        setup: Python that makes `task`.
        times: it runs, of which the first does not count unless it is the only one.
    """
    code = f"""
import json, re, resource, statistics, time
{setup}
seconds = []
for _ in range({times}):
    started = time.perf_counter()
    task()
    seconds.append(time.perf_counter() - started)
own = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
peak = max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
print(json.dumps({{"s": statistics.median(seconds[1:] or seconds), "GB": peak * 1024 / 1e9}}))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{setup}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured
