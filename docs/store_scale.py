"""Measure a store of many clips: its listing, its headers, preparing again, and the start of a training.

    python docs/store_scale.py 10000,100000
    python docs/store_scale.py 1000000 --steps listing

Recordings are made up, of a byte each, and so are clips: those of sound alone, 30 kB each; for the listing
alone, which opens no clip, they are empty files. A training is begun twice, for the first one compares all
sounds with all. Each step is a process of its own; its seconds, by the clock and
of the processor, are those after the imports, its memory is the peak with them.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from cfnsr.corpus.take import Take
from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.features.preparation import Preparation
from cfnsr.media.fingerprint import SOUND_MAP
from cfnsr.training.prepared import PreparedCorpus

ACTORS = 100
PER_FOLDER = 1_000  # recordings
SOUND = Preparation(modalities=("audio",))


def make(folder: Path, takes: int, hollow: bool) -> None:
    """Write recordings of a byte each, and a prepared clip of each; or `hollow` clips alone."""
    store = Store.create(folder / "prepared", "synthetic", RAVDESS, SOUND.as_json(), takes)
    preparation, rng = SOUND.as_json(), np.random.default_rng(0)
    with store.index(whole=True) as index:
        for take in list_takes(folder, takes):
            recording = folder / "clip" if hollow else take.audio
            recording.parent.mkdir(parents=True, exist_ok=True)
            recording.write_bytes(b"0")
            changed = recording.stat().st_mtime_ns
            source = {"file": take.audio.name, "bytes": 1, "mtime_ns": changed, "sha256": take.name.zfill(64)}
            facts = take.name, take.emotion, take.actor, take.sex, {}
            header = Header(*facts, {"audio": source}, preparation)
            if hollow:
                clip = store.path(take.name)
                clip.parent.mkdir(parents=True, exist_ok=True)
                clip.touch()
                stamp = clip.stat().st_size, clip.stat().st_mtime_ns
            else:
                sound = rng.integers(0, 250, SOUND_MAP, dtype=np.uint8)
                stamp = store.write(header, {"audio": sound[:1], "sound_map": sound})
            index.put(store.file(take.name), stamp, vars(header))
        store.update(index)


def list_takes(folder: Path, takes: int) -> Iterator[Take]:
    emotions = RAVDESS.emotions
    for number in range(takes):
        path = folder / "corpus" / f"{number // PER_FOLDER}" / f"take-{number:08d}.wav"
        yield Take(path.stem, emotions[number % len(emotions)], number // len(emotions) % ACTORS, None, path)


def listing(folder: Path, takes: int) -> int:
    """Open the store, and list name, emotion and actor of every clip."""
    return len(Store(folder / "prepared").entries())


def headers(folder: Path, takes: int) -> int:
    return len(Store(folder / "prepared").headers())


def unindexed(folder: Path, takes: int) -> int:
    """As `headers`, where the index is lost."""
    index, aside = folder / "prepared" / "index.sqlite", folder / "index.sqlite"
    index.replace(aside)
    try:
        return headers(folder, takes)
    finally:
        aside.replace(index)


def again(folder: Path, takes: int) -> int:
    """Prepare what is prepared."""
    listed = list(list_takes(folder, takes))
    return len(prepare_corpus(listed, Store(folder / "prepared"), SOUND).kept)


def start(folder: Path, takes: int) -> int:
    """What crossval does before the first training: headers, folds, and the search for leaks in one."""
    at = [perf_counter()]

    def timed(name: str, value: object) -> None:
        at.append(perf_counter())
        print(f"{name} {at[-1] - at[-2]:.1f} s", file=sys.stderr, end=", ")

    corpus, protocol = PreparedCorpus(Store(folder / "prepared")), PROTOCOLS["nested"]
    timed("headers", corpus)
    timed("one preparation", corpus.preparation)
    timed("fingerprint", corpus.fingerprint)
    timed("folds", folds := corpus.folds(protocol))
    timed("sounds", corpus.uncompared())
    timed("leaks", corpus.check(protocol, folds[0]))
    return len(corpus.headers)


def first_start(folder: Path, takes: int) -> int:
    """The same, where nobody has compared the sounds."""
    (folder / "prepared" / "copies.json").unlink(missing_ok=True)
    return start(folder, takes)


STEPS: dict[str, Callable[[Path, int], int]] = {
    step.__name__: step for step in (listing, headers, unindexed, again, first_start, start)
}


def run(step: str, folder: Path, takes: int) -> None:
    begun, worked = perf_counter(), process_time()
    found = STEPS[step](folder, takes)
    seconds, worked = round(perf_counter() - begun, 2), round(process_time() - worked, 2)
    peak = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    megabytes = int(peak[1]) / 1024 if peak else float("nan")
    print(
        json.dumps({"clips": found, "step": step, "seconds": seconds, "cpu": worked, "MB": round(megabytes)})
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("takes", help="numbers, with commas between")
    usual = [step for step in STEPS if step != "first_start"]  # which takes minutes for 100,000
    parser.add_argument("--steps", default=",".join(usual))
    parser.add_argument("--folder", type=Path, help="receives the stores, which are kept and used again")
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.of:
        run(given.steps, given.of, int(given.takes))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for takes in map(int, given.takes.split(",")):
            folder = (given.folder or Path(scratch)) / str(takes)
            if not folder.exists():
                make(folder, takes, hollow=given.steps == "listing")
            for step in given.steps.split(","):
                command = [sys.executable, __file__, str(takes), "--steps", step, "--of", str(folder)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
