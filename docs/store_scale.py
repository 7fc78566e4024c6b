"""Figures of a store with many clips: its index, preparing again what is done, and the start of a training.

    python docs/store_scale.py 10000,100000 [--listing 1000000] [--folder FOLDER]

Clips, takes and recordings are made up: small files with the headers of sound alone. Each figure is of a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

ACTORS = 100
PER_FOLDER = 1_000  # recordings


def make(folder: Path, takes: int) -> None:
    """Write recordings of a byte each and a prepared clip of each."""
    from cfnsr.data.store import Header, Store
    from cfnsr.emotions import RAVDESS

    store = Store.create(folder / "prepared", "synthetic", RAVDESS, settings().as_json(), takes)
    sound = np.random.default_rng(0).integers(1, 255, 200).astype(np.uint8)
    for take in list_takes(folder, takes):
        take.audio.parent.mkdir(parents=True, exist_ok=True)
        take.audio.write_bytes(b"0")
        status = take.audio.stat()
        known = {
            "file": take.audio.name,
            "bytes": 1,
            "mtime_ns": status.st_mtime_ns,
            "sha256": f"{hash(take.name) & 2**64 - 1:064x}",
        }
        header = Header(
            take.name, take.emotion, take.actor, take.sex, {}, {"audio": known}, settings().as_json()
        )
        store.write(header, {"audio": np.roll(sound, len(take.name))})
    with store.index(whole=True) as index:
        store.update(index)


def settings():
    from cfnsr.features.preparation import Preparation

    return Preparation(modalities=("audio",))


def list_takes(folder: Path, takes: int):
    from cfnsr.corpus.take import Take
    from cfnsr.emotions import RAVDESS

    emotions = RAVDESS.emotions
    for number in range(takes):
        path = folder / "corpus" / f"{number // PER_FOLDER}" / f"take-{number:08d}.wav"
        yield Take(path.stem, emotions[number % len(emotions)], number // len(emotions) % ACTORS, None, path)


def listing(folder: Path, takes: int) -> None:
    from cfnsr.data.store import Store

    assert len(Store(folder / "prepared").entries()) == takes


def headers(folder: Path, takes: int) -> None:
    from cfnsr.data.store import Store

    assert len(Store(folder / "prepared").headers()) == takes


def unindexed(folder: Path, takes: int) -> None:
    """As `headers`, where the index is lost."""
    index, aside = folder / "prepared" / "index.sqlite", folder / "index.sqlite"
    index.replace(aside)
    try:
        headers(folder, takes)
    finally:
        aside.replace(index)


def again(folder: Path, takes: int) -> None:
    """Prepare what is prepared."""
    from cfnsr.data.prepare import prepare_corpus
    from cfnsr.data.store import Store

    outcome = prepare_corpus(list(list_takes(folder, takes)), Store(folder / "prepared"), settings())
    assert len(outcome.kept) == takes


def start(folder: Path, takes: int) -> None:
    """What crossval does before the first training: headers, folds, and the search for leaks in one fold."""
    from cfnsr.data.folds import PROTOCOLS
    from cfnsr.data.store import Store
    from cfnsr.training.prepared import PreparedCorpus

    begun = perf_counter()
    corpus = PreparedCorpus(Store(folder / "prepared"))
    spent = {"headers": perf_counter() - begun}
    protocol = PROTOCOLS["nested"]

    def timed(name: str, work) -> None:
        begun = perf_counter()
        work()
        spent[name] = perf_counter() - begun

    timed("preparation", lambda: corpus.preparation)
    timed("fingerprint", lambda: corpus.fingerprint)
    timed("folds", lambda: corpus.folds(protocol))
    timed("sounds", lambda: corpus.uncompared())
    timed("leaks of a fold", lambda: corpus.check(protocol, corpus.folds(protocol)[0]))
    print(*(f"{name} {seconds:.1f}" for name, seconds in spent.items()), sep=", ", end="; ", file=sys.stderr)


STEPS = {step.__name__: step for step in (listing, headers, unindexed, again, start)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("takes", help="numbers, with commas between")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--folder", type=Path, help="kept, and used again")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        step, folder = given.run
        begun = perf_counter()
        STEPS[step](Path(folder), int(given.takes))
        seconds, peak = perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": round(seconds, 2), "MB": round(peak)}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for takes in map(int, given.takes.split(",")):
            folder = (given.folder or Path(scratch)) / str(takes)
            if not folder.exists():
                make(folder, takes)
            for step in given.steps.split(","):
                command = [sys.executable, __file__, str(takes), "--run", step, str(folder)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                print(f"{takes} clips, {step}: {done.stderr}{done.stdout}", end="", flush=True)


if __name__ == "__main__":
    main()
