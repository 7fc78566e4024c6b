"""Clips as tensors: as much of them as a model asks for, held in memory or read each time."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cfnsr.data import dataset
from cfnsr.data.dataset import Clips, Column
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError
from cfnsr.features.base import Look
from cfnsr.features.preparation import Preparation


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
    columns = {name: Column(store, headers, name, Look(frames, size)) for name in names}
    return Clips(columns, [store.labels.index(header.emotion) for header in headers], len(store.labels))


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
    with pytest.raises(InputError, match=r"has no speech, speech_0\.9, speech_1\.1: prepare the corpus with"):
        clips_of(store, "speech")


LOOK = Look(8, 64, openface_steps=3, openface_features=4, speech_steps=2)
FEATURES = Preparation(("openface", "speech"), speech_sha256="0" * 64, speech_speeds=(0.9,))


def fill_features(folder: Path, louder: int = 0) -> Store:
    """Two takes each of actors 1 to 3; one of them may be louder than with the others."""
    store = Store.create(folder, "made-up", RAVDESS, FEATURES.as_json())
    for index in range(6):
        actor = index % 3 + 1
        rng = np.random.default_rng(index)
        scale = 5 if actor == louder else 1
        tensors = {
            "openface": (actor + scale * rng.normal(size=(4, 6))).astype(np.float32),
            "speech": (actor + scale * rng.normal(size=(2, 5, 3))).astype(np.float16),
            "speech_0.9": (3 * actor + scale * rng.normal(size=(2, 6, 3))).astype(np.float16),
        }
        tensors["openface"][:, 3] = actor  # a value that a speaker never changes
        store.write(Header(f"take {index}", "sad", actor, None, {}, {}, FEATURES.as_json()), tensors)
    return store


def column_of(store: Store, name: str) -> Column:
    return Column(store, store.headers(), name, LOOK)


def of_actor(column: Column, actor: int) -> torch.Tensor:
    places = [place for place, header in enumerate(column.headers) if header.actor == actor]
    return torch.stack([column[place].float() for place in places])


def test_tracks_are_standardised_on_a_logarithmic_scale(tmp_path: Path) -> None:
    """Value by value, by hand: outliers are held at 6 deviations, and then all go back to their own scale."""
    preparation = Preparation(("openface",)).as_json()
    store = Store.create(tmp_path, "made-up", RAVDESS, preparation)
    rng = np.random.default_rng(0)
    tracks = [rng.exponential(1, (30, 3)).astype(np.float32) for _ in range(5)]
    tracks[0][3, 1], tracks[2][7, 2], tracks[1][:, 0] = 1e7, -1e7, 2.5
    tracks[3][:, 0] = 2.5  # in both takes of actor 2
    for index, track in enumerate(tracks):
        header = Header(f"take {index}", "sad", 1 + index % 2, None, {}, {}, preparation)
        store.write(header, {"openface": track})
    look = Look(8, 64, openface_steps=30, openface_features=3)
    column = Column(store, store.headers(), "openface", look).standardised()
    found = torch.stack([column[place] for place in range(5)])
    expected = np.zeros((5, 3, 30))
    for takes in ([0, 2, 4], [1, 3]):
        for feature in range(3):
            rows = np.stack([tracks[take][:, feature] for take in takes]).astype(float)
            logs = np.array([[math.copysign(math.log(1 + 3 * abs(v)), v) for v in row] for row in rows])
            mean = sum(logs.ravel()) / logs.size
            deviation = math.sqrt(sum((logs.ravel() - mean) ** 2) / logs.size)
            for take, row in zip(takes, logs, strict=True):
                for step, value in enumerate(row):
                    held = min(6.0, max(-6.0, (value - mean) / (deviation + 1e-3)))
                    expected[take, feature, step] = math.copysign((math.exp(abs(held)) - 1) / 3, held)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4, rtol=1e-4)
    farthest = (math.exp(6) - 1) / 3
    assert found[0, 1, 3].item() == pytest.approx(farthest)
    assert found[2, 2, 7].item() == pytest.approx(-farthest)
    assert (found.abs() > 0.99 * farthest).sum() == 2
    assert found[1, 0].abs().max() < 1e-3, "what never changes is 0"


@pytest.mark.parametrize("name", ["openface", "speech"])
def test_speakers_are_standardised_apart(name: str, tmp_path: Path) -> None:
    """What others show and say changes nothing of a speaker's own values; the column itself stays."""
    plain = column_of(fill_features(tmp_path / "plain"), name)
    before = [plain[place].clone() for place in range(6)]
    ours = plain.standardised()
    theirs = column_of(fill_features(tmp_path / "louder", louder=2), name).standardised()
    for actor, same in ((1, True), (2, False), (3, True)):
        assert torch.equal(of_actor(ours, actor), of_actor(theirs, actor)) is same
    assert all(torch.equal(plain[place], value) for place, value in enumerate(before))


@pytest.mark.parametrize("name", ["openface", "speech"])
def test_each_take_is_standardised_by_the_takes_chosen_for_it(name: str, tmp_path: Path) -> None:
    """Value by value, in plain numbers: takes 0, 1 by both, 2 by itself and 0; others stay as they are."""
    store = fill_features(tmp_path)
    for index in (6, 7):  # of the actor of takes 0 and 3
        tensors = store.load(f"take {index - 6}")
        tensors = {key: (value * 2 + index).astype(value.dtype) for key, value in tensors.items()}
        store.write(Header(f"take {index}", "sad", 1, None, {}, {}, FEATURES.as_json()), tensors)
    among = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    plain = column_of(store, name)
    asked: list[list[str]] = []

    def chosen(headers: Sequence[Header]) -> torch.Tensor:
        asked.append([header.name for header in headers])
        return among

    found = plain.standardised(chosen, [1])
    assert asked == [["take 0", "take 3", "take 6", "take 7"]]
    takes = [place for place, header in enumerate(plain.headers) if header.actor == 1]
    assert all(torch.equal(found[place], plain[place]) for place in range(8) if place not in takes)
    values = np.stack([plain[place].double().numpy() for place in takes])
    if name == "openface":
        values = np.sign(values) * np.log1p(3 * np.abs(values))
    else:
        values = np.moveaxis(values, -2, -1)
    for row, place in enumerate(takes):
        expected = np.empty(values.shape[1:])
        for index in np.ndindex(expected.shape[:-1]):
            known = [v for take in range(4) if among[row, take] for v in values[take][index]]
            mean = sum(known) / len(known)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in known) / len(known))
            expected[index] = (values[row][index] - mean) / (deviation + 1e-3)
        if name == "openface":
            expected = np.clip(expected, -6, 6)
            expected = np.sign(expected) * np.expm1(np.abs(expected)) / 3
        else:
            expected = np.moveaxis(expected, -1, -2)
        np.testing.assert_allclose(found[place].double().numpy(), expected, atol=2e-3, rtol=2e-3)


def test_all_takes_are_what_is_known_of_a_speaker_unless_some_are_chosen(tmp_path: Path) -> None:
    column = column_of(fill_features(tmp_path), "speech")
    every = column.standardised(lambda headers: torch.ones(len(headers), len(headers), dtype=torch.bool))
    assert all(torch.equal(column.standardised()[place], every[place]) for place in range(6))


def test_what_cannot_be_standardised(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = fill_features(tmp_path)
    alone = features.load("take 0")
    features.write(Header("take 6", "sad", 9, None, {}, {}, FEATURES.as_json()), alone)
    for name in ("openface", "speech"):  # one take alone would become all zeros
        with pytest.raises(InputError, match=f"{name} of speaker 9 cannot be standardised: expected 2 or"):
            column_of(features, name).standardised()
    with pytest.raises(InputError, match="video cannot be standardised per speaker: expected features"):
        Column(store, store.headers(), "video", Look(8, 64)).standardised()
    monkeypatch.setattr(dataset, "MEMORY", 0)
    with pytest.raises(InputError, match=r"speech cannot be standardised .* fit into memory"):
        column_of(features, "speech").standardised()
