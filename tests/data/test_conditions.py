"""Bad input: noise at the stated ratio, blur, darkness, silence; the same for every model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cfnsr.data.augment import normalise
from cfnsr.data.conditions import CONDITIONS, CorruptedSound, blurred, conditions_of, no_picture, noisy
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.features.mel import PCM
from cfnsr.features.preparation import Preparation
from cfnsr.media.mfcc import mfcc

TAKES = ["five_takes", "two_emotions", "one_emotion"]


def test_which_conditions_concern_whom() -> None:
    sound = ["noise_20db", "noise_10db", "noise_0db"]
    assert [*conditions_of({"video": "video", "audio": "audio"}), *TAKES] == list(CONDITIONS)
    assert list(conditions_of({"audio": "audio"})) == sound
    assert list(conditions_of({"audio": "log_mel"})) == sound
    assert list(conditions_of({"video": "video"})) == ["blurred_face", "dark_face"]
    # Tracks and states were computed of recordings that this machine may not have.
    assert not conditions_of({"video": "openface", "audio": "speech"})
    assert list(conditions_of({"video": "openface", "audio": "audio"})) == ["silent_sound", *sound]
    assert list(conditions_of({"video": "video", "audio": "speech"})) == [
        "no_picture",
        "blurred_face",
        "dark_face",
    ]
    for reads in ({"video": "openface", "audio": "speech"}, {"audio": "audio"}):
        assert list(conditions_of(reads, normalised=True)) == TAKES


def takes_of(actor: int, counts: dict[str, int]) -> list[Header]:
    return [
        Header(f"{emotion}-{actor}-{number:02}", emotion, actor, None, {}, {}, {})
        for emotion, count in counts.items()
        for number in range(count)
    ]


def known_by(condition: str, headers: list[Header]) -> dict[str, set[str]]:
    """By take, the names of those that it is standardised by."""
    among = CONDITIONS[condition].among
    assert among is not None
    rows = among(headers).tolist()
    return {
        header.name: {other.name for other, is_in in zip(headers, row, strict=True) if is_in}
        for header, row in zip(headers, rows, strict=True)
    }


EIGHT = dict.fromkeys(RAVDESS.emotions, 8) | {"neutral": 4}


@pytest.mark.parametrize("actor", range(1, 21))
def test_a_take_counts_among_the_few_it_is_standardised_by(actor: int) -> None:
    headers = takes_of(actor, EIGHT)
    five, two, one = (known_by(condition, headers) for condition in TAKES)
    assert all(take in names for known in (five, two, one) for take, names in known.items())
    assert all(len(names) == 5 for names in five.values())
    assert len(set.union(*(names - {take} for take, names in five.items()))) == 5, "the same few for all"
    emotion = {header.name: header.emotion for header in headers}
    for take, names in one.items():
        assert names == {name for name in emotion if emotion[name] == emotion[take]}
    others = set()
    for take, names in two.items():
        shown = {emotion[name] for name in names}
        assert len(shown) == 2 and len(names) == min(16, sum(EIGHT[each] for each in shown))
        others |= {emotion[name] for name in names} - {emotion[take]}
    assert len(others) == 2, "one emotion is drawn for the speaker, and another for its own takes"


def plain(known: dict[str, set[str]]) -> list[tuple[str, list[str]]]:
    return [(take, sorted(names)) for take, names in sorted(known.items())]


def test_the_few_takes_are_drawn_by_names_alone() -> None:
    """In whatever order they are given, the same; of other speakers, others."""
    for condition in TAKES:
        speakers = [takes_of(actor, EIGHT) for actor in range(1, 21)]
        known = [known_by(condition, headers) for headers in speakers]
        assert known == [known_by(condition, headers[::-1]) for headers in speakers]
        shown = {repr(each).replace(f"-{actor}-", "-") for actor, each in enumerate(map(plain, known), 1)}
        assert condition == "one_emotion" or len(shown) > 3, "of other speakers, others"


def test_a_speaker_of_few_takes_is_known_by_fewer() -> None:
    headers = takes_of(1, {"sad": 2, "calm": 1})
    every = {header.name for header in headers}
    assert known_by("five_takes", headers) == dict.fromkeys(every, every)
    assert known_by("two_emotions", headers) == dict.fromkeys(every, every)
    assert sorted(map(len, known_by("one_emotion", headers).values())) == [1, 2, 2]


@pytest.mark.parametrize("decibels", [0, 10, 20])
def test_noise_has_the_stated_ratio_to_the_clip(decibels: float) -> None:
    waveform = 0.01 * np.sin(np.arange(100_000) / 7)
    noise = noisy(decibels)(waveform, np.random.default_rng(0)) - waveform
    assert 10 * np.log10(np.mean(waveform**2) / np.mean(noise**2)) == pytest.approx(decibels, abs=0.05)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = spectrum[1:25_000].mean(), spectrum[25_000:].mean()
    assert low == pytest.approx(high, rel=0.05), "white"
    assert not noisy(decibels)(np.zeros(9), np.random.default_rng(0)).any(), "no sound has no noise"


def test_no_picture_is_zero_for_the_network() -> None:
    video = torch.randint(0, 256, (2, 3, 4, 64, 64), dtype=torch.uint8)
    assert normalise(no_picture(video)).abs().max() < 1e-5


def test_blur_against_the_sum_it_stands_for() -> None:
    video = torch.randint(0, 256, (2, 3, 2, 64, 64), dtype=torch.uint8)
    out = blurred(video)
    assert out.shape == video.shape
    # deviation 64 / 16 = 4, reach 12; a place in the middle, by hand
    weights = np.exp(-0.5 * (np.arange(-12, 13) / 4) ** 2)
    weights = np.outer(weights, weights)
    patch = video[1, 2, 1, 30 - 12 : 30 + 13, 33 - 12 : 33 + 13].double().numpy()
    assert out[1, 2, 1, 30, 33].item() == pytest.approx((weights * patch).sum() / weights.sum(), abs=1e-3)
    assert out.std() < 0.2 * video.float().std()


def test_the_smallest_picture_can_be_blurred() -> None:
    assert torch.isfinite(blurred(torch.zeros(1, 3, 8, 64, 64, dtype=torch.uint8))).all()


def test_dark_pictures_keep_a_share_of_their_light() -> None:
    change = CONDITIONS["dark_face"].pictures
    assert change is not None
    pictures = change(torch.full((1, 3, 1, 2, 2), 200, dtype=torch.uint8))
    torch.testing.assert_close(pictures, torch.full((1, 3, 1, 2, 2), 30.0))


def test_every_model_hears_the_same_noise(tmp_path: Path) -> None:
    store = Store.create(tmp_path, "made-up", RAVDESS, Preparation().as_json())
    waveform = np.random.default_rng(0).integers(-3000, 3000, 30_870).astype(np.int16)
    for name in ("a", "b"):
        header = Header(name, "sad", 1, None, {}, {}, Preparation().as_json())
        store.write(header, {"waveform": waveform})
    bad, noise = CorruptedSound(store), [CONDITIONS[f"noise_{level}db"] for level in (20, 10, 0)]
    first = bad("a", noise[1], "audio")
    assert first is bad("a", noise[1], "audio"), "computed once"
    assert torch.equal(first, CorruptedSound(store)("a", noise[1], "audio")), "the same in another process"
    assert not torch.equal(first, bad("b", noise[1], "audio")), "not the same for every clip"
    clean = torch.from_numpy(mfcc(waveform / PCM))
    errors = [(bad("a", each, "audio") - clean).abs().mean() for each in noise]
    assert errors[0] < errors[1] < errors[2]
