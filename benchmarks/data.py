"""From files to batches: preparation, loading and augmentation, MFCCs."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import plain
from benchmarks.decoding import decode
from benchmarks.measure import Figure, Goal, Progress, alternate, compare
from benchmarks.subjects import as_take
from cfnsr.corpus.take import Take
from cfnsr.data import augment
from cfnsr.data.clip import prepare_clip
from cfnsr.data.dataset import Batch, Clips, Column
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.features.base import Look
from cfnsr.features.preparation import Preparation
from cfnsr.media.mfcc import N_SAMPLES, mfcc
from cfnsr.processes import cores, map_surviving
from cfnsr.training.inputs import to_input

TAKES = 40  # that are prepared, so that the start of the processes is a small part
CLIPS = 64  # that are loaded
BATCH = 16
PIXELS = Preparation(modalities=("video", "audio"))


def preparation(clip: Path, rounds: int, progress: Progress) -> list[Figure]:
    """Copies of a take prepared on all cores, beside decoding them by as many processes and nothing else."""
    progress(f"preparation of {TAKES} takes")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed = [copy_take(clip, folder, number) for number in range(TAKES)]
        files = [take.video for take in listed if take.video is not None]

        def prepare() -> None:
            shutil.rmtree(folder / "prepared", ignore_errors=True)
            store = Store.create(folder / "prepared", "copies", RAVDESS, PIXELS.as_json())
            outcome = prepare_corpus(listed, store, PIXELS, workers=cores())
            assert not outcome.failures, outcome.failures[0]

        def only_decode() -> None:
            for _ in map_surviving(decode, files, cores(), lambda file, _: 0):
                pass

        seconds = alternate({"ours": prepare, "limit": only_decode}, rounds)
    goal = Goal(1.25, "limit")
    return [
        compare("preparation of a take: faces, crops, MFCCs", seconds, goal=goal, unit="ms", amount=TAKES)
    ]


def copy_take(clip: Path, folder: Path, number: int) -> Take:
    """Copy a recording, as another take."""
    path = folder / f"take-{number:04d}{clip.suffix}"
    if not path.exists():
        shutil.copyfile(clip, path)
    return Take(path.stem, RAVDESS.emotions[number % 8], number // 8, video=path, audio=path)


def loading(clip: Path, rounds: int, progress: Progress) -> list[Figure]:
    """Prepared clips to tensors: as bytes, as training hands them to the device, and augmented on it."""
    progress(f"loading of {CLIPS} clips")
    generator = torch.Generator().manual_seed(0)
    maps = augment.draw(CLIPS, generator)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store.create(folder / "prepared", "copies", RAVDESS, PIXELS.as_json())
        tensors = prepare_clip(as_take(clip), PIXELS).tensors
        for number in range(CLIPS):
            store.write(Header(f"{number:03d}", "happy", number, None, {}, {}, PIXELS.as_json()), tensors)
        columns = {
            modality: Column(store, store.headers(), modality, Look(PIXELS.frames, PIXELS.size))
            for modality in ("video", "audio")
        }
        for column in columns.values():
            column._held = None  # read from the files, as a corpus that is larger than the memory
        clips = Clips(columns, [0] * CLIPS, 8)
        jpegs = [plain.write_frames(tensors["video"], folder / "jpegs" / str(at)) for at in range(8)]
        contents = np.stack([tensors["video"]] * CLIPS)

        def load() -> None:
            for _ in DataLoader(clips, BATCH):
                pass

        def load_and_augment() -> None:
            for each in DataLoader(clips, BATCH):
                batch = Batch(*each)
                to_input(batch, torch.device("cpu"), maps[batch.place])

        def load_plainly() -> None:
            for paths in jpegs:
                plain.read_clip(paths, (10, 10, 210, 210), flip=True)

        seconds = alternate(
            {"bytes": load, "ours": load_and_augment, "plain": load_plainly, "limit": contents.copy}, rounds
        )
    seconds["plain"] = [each * CLIPS / len(jpegs) for each in seconds["plain"]]
    of = partial(compare, unit="1/s", amount=CLIPS)
    return [
        of("clips loaded, uint8, one process", seconds, "bytes", Goal(250, least=True)),
        of(
            "clips loaded, cropped, flipped and normalised on the CPU", seconds, "ours", Goal(250, least=True)
        ),
    ]


def sound(rounds: int, progress: Progress, takes: int = 32) -> list[Figure]:
    """MFCCs, a take at a time on one core, beside librosa; the limit is the Fourier transforms alone."""
    import cv2

    progress(f"MFCCs of {takes} takes")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((takes, N_SAMPLES)).astype(np.float32)
    frames = np.random.default_rng(0).standard_normal((1 + N_SAMPLES // 512, 2048)).astype(np.float32)
    seconds = alternate(
        {
            "plain": lambda: [plain.mfcc(waveform) for waveform in waveforms],
            "ours": lambda: [mfcc(waveform) for waveform in waveforms],
            "limit": lambda: [cv2.dft(frames, flags=cv2.DFT_ROWS) for _ in waveforms],
        },
        rounds,
    )
    cv2.setNumThreads(threads)
    what = "MFCCs of takes, one core"
    return [compare(what, seconds, goal=Goal(1000, least=True), unit="1/s", amount=takes)]
