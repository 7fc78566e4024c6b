"""Kill preparation, cross-validation and report at random moments, and compare what comes out in the end.

    python tests/reliability/chaos.py --kills 50 --out docs/results/chaos.json   # `make chaos`

Each verb is started, killed after a random time and started again until it has ended by itself, so often that
it was killed as many times as asked. SIGKILL goes to the command's process, to one of its workers, or to the
command and then once more to the one that was started after it, early. Then all its files must be those of an
undisturbed run, bit for bit but for seconds, and what was finished before a kill must not have been touched.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ACTORS = 4
SETTINGS = [
    "cfn_sr",
    *("--protocol", "leave_one_actor_out", "--folds", "1,2", "--workers", "2"),
    *("--preset", "small", "--set", "epochs=2", "--set", "fused_epochs=2", "--set", "width=0.0625"),
]
TARGETS = ("command", "worker", "twice")
SOON = 2.0  # seconds after which the second of two kills in a row comes at the latest


@dataclass
class Verb:
    """A command that is killed, and the folder that it writes."""

    name: str
    arguments: Sequence[str]
    folder: Path
    kept: Callable[[Path], dict[str, bytes]]  # what must be the same
    finished: Callable[[Path], set[Path]]  # files of what need not be done again


@dataclass
class Outcome:
    """Counts of what happened to one verb."""

    kills: int = 0
    rounds: int = 0
    targets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TARGETS, 0))
    compared: int = 0  # files
    faults: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Count all of it."""
        targets = {f"of {name}": count for name, count in self.targets.items()}
        counts = {"kills": self.kills, **targets, "rounds": self.rounds}
        return {**counts, "files compared": self.compared, "faults": len(self.faults)}


def start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command of cfnsr with its output in a file."""
    command = [sys.executable, "-m", "cfnsr", *arguments]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def kill(process: subprocess.Popen[bytes], delay: float, worker: bool, rng: random.Random) -> bool:
    """Kill a command, or one of its workers, after some seconds; False if it had ended by itself."""
    try:
        process.wait(delay)
        return False
    except subprocess.TimeoutExpired:
        pass
    victim = psutil.Process(process.pid)
    if worker:
        # Python's tracker of resources is no worker.
        children = [each for each in victim.children() if "spawn_main" in " ".join(_command(each))]
        victim = rng.choice(children) if children else victim
    try:
        victim.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    if victim.pid == process.pid:
        process.wait()
    return True


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def run(arguments: Sequence[str], log: Path) -> float:
    """Run a command to its end; returns its seconds."""
    started = time.monotonic()
    process = start(arguments, log)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}; see {log}")
    return time.monotonic() - started


def chaos(
    verb: Verb,
    reference: Path,
    seconds: float,
    kills: int,
    rng: random.Random,
    log: Path,
    begin: Path | None = None,
) -> Outcome:
    """Kill a verb `kills` times or a few more, round by round, and compare each round's files.

    Args:
        reference: folder of an undisturbed run, which took some `seconds`.
        begin: folder that each round begins with; an empty one by default.
    """
    outcome, expected = Outcome(), verb.kept(reference)
    while outcome.kills < kills:
        outcome.rounds += 1
        shutil.rmtree(verb.folder, ignore_errors=True)
        if begin is not None:
            shutil.copytree(begin, verb.folder, ignore=shutil.ignore_patterns("results.json", "tables.md"))
        done: dict[Path, tuple[int, int]] = {}
        while True:
            target = rng.choice(TARGETS) if outcome.kills < kills else None
            process = start(verb.arguments, log)
            if target is not None and kill(process, rng.uniform(0, seconds), target == "worker", rng):
                outcome.kills += 1
                outcome.targets[target] += 1
                if target == "twice":
                    process = start(verb.arguments, log)
                    outcome.kills += kill(process, rng.uniform(0, SOON), False, rng)
            code = process.wait()
            outcome.faults += [f"{verb.name}: {each} was done again" for each in _touched(done)]
            done = {path: _stamp(path) for path in verb.finished(verb.folder)}
            if code == 0:
                break
        found = verb.kept(verb.folder)
        outcome.compared += len(expected)
        different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
        outcome.faults += [f"{verb.name}: {name} differs from an undisturbed run" for name in different]
        left = list(verb.folder.rglob("*.tmp"))
        outcome.faults += [f"{verb.name}: {path} was left behind" for path in left]
    return outcome


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino


def _touched(done: dict[Path, tuple[int, int]]) -> list[Path]:
    return [path for path, before in done.items() if not path.exists() or _stamp(path) != before]


def prepared(folder: Path) -> dict[str, bytes]:
    """Bytes of all clips, the description and the failures."""
    files = [*folder.glob("clips/**/*.safetensors"), folder / "corpus.json", folder / "failures.csv"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.exists()}


def runs(folder: Path) -> dict[str, bytes]:
    """Bytes of all weights and predictions, and the descriptions without seconds."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".safetensors", ".csv", ".json", ".jsonl", ".md"):
            content = path.read_bytes()
            if path.suffix == ".json":
                content = json.dumps(_timeless(json.loads(content))).encode()
            found[str(path.relative_to(folder))] = content
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key != "seconds"}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def finished_runs(folder: Path) -> set[Path]:
    """List the weights of runs that are finished."""
    about = [path for path in folder.rglob("run.json") if json.loads(path.read_bytes())["finished"]]
    return {path.with_name("model.safetensors") for path in about}


def main() -> int:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cfnsr-chaos-") as folder:
        outcomes = kill_all(Path(folder), options.kills, options.seed)
    rows = [{"verb": name, **each.counts()} for name, each in outcomes.items()]
    for row, each in zip(rows, outcomes.values(), strict=True):
        print(", ".join(f"{head} {value}" for head, value in row.items()))
        print("".join(f"  {fault}\n" for fault in each.faults), end="")
    if options.out is not None:
        options.out.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1) + "\n")
    return int(any(each.faults for each in outcomes.values()))


def kill_all(folder: Path, kills: int, seed: int) -> dict[str, Outcome]:
    """Kill every verb on a synthetic corpus in a folder."""
    corpus, log, rng = folder / "corpus", folder / "log.txt", random.Random(seed)
    run(["synthesize", str(corpus), "--actors", str(ACTORS)], log)
    first, data, first_runs = folder / "first", folder / "data", folder / "first_runs"
    prepare = ["prepare", str(corpus), "--modalities", "video,audio", "--size", "64", "--workers", "2"]
    prepare_to = [*prepare[:2], "{}", *prepare[2:]]
    outcomes = {}

    def to(arguments: Sequence[str], place: Path) -> list[str]:
        return [str(place) if each == "{}" else each for each in arguments]

    seconds = run(to(prepare_to, first), log)
    clips = Verb(
        "prepare",
        to(prepare_to, data),
        data,
        prepared,
        lambda folder: {*folder.glob("clips/**/*.safetensors")},
    )
    outcomes["prepare"] = chaos(clips, first, seconds, kills, rng, log)

    crossval = ["crossval", *SETTINGS, "--data", str(first), "--out", "{}", "--resume"]
    seconds = run(to(crossval, first_runs), log)
    again = folder / "runs"
    trained = Verb("crossval", to(crossval, again), again, runs, finished_runs)
    outcomes["crossval"] = chaos(trained, first_runs, seconds, kills, rng, log)

    seconds = run(["report", str(first_runs)], log)
    reported = Verb("report", ["report", str(again)], again, runs, finished_runs)
    outcomes["report"] = chaos(reported, first_runs, seconds, kills, rng, log, begin=first_runs)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
