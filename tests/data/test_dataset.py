"""Clips as tensors: the frames and the size a model asks for, held in memory or read each time."""

import numpy as np
import pytest
import torch

from cfnsr.data import dataset
from cfnsr.data.clip import Preparation
from cfnsr.data.dataset import Clips, Column, pictures
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError
from cfnsr.media.decode import spread


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.create(tmp_path_factory.mktemp("store"), "made-up", RAVDESS, Preparation().as_json())
    for index, emotion in enumerate(("sad", "calm", "happy")):
        rng = np.random.default_rng(index)
        header = Header(f"take {index}", emotion, index, None, {}, {}, Preparation().as_json())
        tensors = {
            "video": rng.integers(0, 256, (30, 96, 96, 3), dtype=np.uint8),
            "audio": rng.normal(size=(13, 212)).astype(np.float32),
        }
        store.write(header, tensors)
    return store


def clips_of(store: Store, *names: str, frames: int = 8, size: int = 64) -> Clips:
    headers = store.headers()
    columns = {name: Column(store, headers, name, frames, size) for name in names}
    return Clips(columns, [store.labels.index(header.emotion) for header in headers])


def test_even_positions() -> None:
    assert spread(30, 30).tolist() == list(range(30))
    assert spread(30, 8).tolist() == [0, 4, 8, 12, 17, 21, 25, 29]
    assert spread(5, 8).tolist() == [0, 1, 1, 2, 2, 3, 3, 4]


def test_pictures_are_averaged_areas_of_the_chosen_frames() -> None:
    video = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    out = pictures(video, frames=3, size=4)
    assert out.shape == (3, 3, 4, 4) and out.dtype == torch.uint8
    for place, frame in enumerate(spread(6, 3)):
        for channel in range(3):
            areas = video[frame, :, :, channel].reshape(4, 2, 4, 2).mean((1, 3))
            assert np.abs(out[channel, place].numpy() - areas).max() <= 0.5


def test_clips_give_the_stored_tensors_and_labels(store: Store) -> None:
    clips = clips_of(store, "video", "audio", frames=30, size=96)
    stored = store.load("take 1", ["video", "audio"])
    batch = clips[1]
    assert torch.equal(batch.video, torch.from_numpy(stored["video"]).permute(3, 0, 1, 2))
    assert torch.equal(batch.audio, torch.from_numpy(stored["audio"]))
    assert [int(clips[place].label) for place in range(3)] == [3, 1, 2]
    assert int(batch.place) == 1


def test_reading_each_time_gives_what_memory_gives(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = clips_of(store, "video", "audio")
    monkeypatch.setattr(dataset, "MEMORY", 0)
    read = clips_of(store, "video", "audio")
    assert held.in_memory and not read.in_memory
    for place in range(3):
        for ours, theirs in zip(held[place], read[place], strict=True):
            assert torch.equal(ours, theirs)


def test_only_what_is_asked_is_read(store: Store) -> None:
    clips = clips_of(store, "audio")
    assert clips[0].video.numel() == 0 and clips[0].audio.shape == (13, 212)


def test_a_modality_that_was_not_prepared(store: Store) -> None:
    with pytest.raises(InputError, match="has no speech: prepare the corpus with what this model needs"):
        clips_of(store, "speech")
