"""Several prepared corpora read as one: names, speakers, labels, folds, balance and masked answers."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfnsr.data.dataset import Clips
from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.joined import JoinedStore, open_stores
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS, LabelSet, parse_labels
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.training.prepared import PreparedCorpus

PREPARATION = Preparation(modalities=("audio",), keep=0.7)
Fill = Callable[..., Store]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Fills a folder with clips of noise: speakers with one take of each emotion."""

    def fill(corpus: str, emotions: tuple[str, ...], speakers: int, keep: float = 0.7) -> Store:
        preparation = Preparation(modalities=("audio",), keep=keep).as_json()
        store = Store.create(tmp_path / corpus, corpus, LabelSet(corpus, emotions), preparation)
        for speaker in range(1, speakers + 1):
            for emotion in emotions:
                rng = np.random.default_rng([*corpus.encode(), speaker, emotions.index(emotion)])
                name = f"{speaker}-{emotion}"
                source = {"file": name, "bytes": 1, "mtime_ns": 1, "sha256": f"{corpus} {name}"}
                header = Header(name, emotion, speaker, None, {}, {"audio": source}, preparation)
                waveform = rng.integers(-9000, 9000, 30_870).astype(np.int16)
                audio = rng.normal(size=(13, PREPARATION.mfcc_steps)).astype(np.float32)
                store.write(header, {"audio": audio, "waveform": waveform})
        return store

    return fill


def test_clips_and_speakers_carry_their_corpus(fill: Fill) -> None:
    one, two = fill("one", ("calm", "happy"), 2), fill("two", ("happy", "sad"), 2)
    joined = JoinedStore([one, two])
    headers = joined.headers()
    assert {header.actor for header in headers} == {"one 1", "one 2", "two 1", "two 2"}
    assert joined.labels is RAVDESS and joined.corpus == "one+two"
    for header in headers:
        own = (one if header.attributes["corpus"] == "one" else two).load(header.name.partition("/")[2])
        assert np.array_equal(joined.load(header.name)["audio"], own["audio"])


def test_labels_are_mapped_and_others_left_out(fill: Fill) -> None:
    stores = [fill("one", ("neutral", "calm", "happy"), 2), fill("two", ("happy", "disgust", "neutral"), 2)]
    corpus = PreparedCorpus(JoinedStore(stores, parse_labels("neutral,happy,calm=neutral")))
    counted = Counter(corpus.store.labels.index(header.emotion) for header in corpus.headers)
    assert counted == {0: 6, 1: 4}
    with pytest.raises(InputError, match="two has no clip of calm, surprised: its labels are happy, disgust"):
        JoinedStore(stores, parse_labels("calm,surprised")).headers()


def test_a_label_set_with_merged_emotions_survives_json() -> None:
    labels = parse_labels("neutral,happy,calm=neutral")
    assert LabelSet.from_json(labels.as_json()) == labels
    assert "merged" not in RAVDESS.as_json()
    with pytest.raises(InputError, match="counts 'calm' as 'sad': expected an emotion outside neutral"):
        parse_labels("neutral,happy,calm=sad")


def test_what_does_not_go_together_is_refused(fill: Fill, tmp_path: Path) -> None:
    one = fill("one", ("calm", "happy"), 2)
    with pytest.raises(InputError, match="have one name"):
        JoinedStore([one, one])
    with pytest.raises(InputError, match=r"prepared with different|keep 0\.7 and 0\.8"):
        JoinedStore([one, fill("two", ("calm", "happy"), 2, keep=0.8)])
    assert type(open_stores([one.folder])) is Store


def test_a_recording_in_two_corpora_leaks(fill: Fill, tmp_path: Path) -> None:
    fill("one", ("calm", "happy"), 2)
    copied = Store.create(
        tmp_path / "copy", "copy", LabelSet("copy", ("calm", "happy")), PREPARATION.as_json()
    )
    for header in Store(tmp_path / "one").headers():
        copied.write(header, Store(tmp_path / "one").load(header.name))
    corpus = PreparedCorpus(open_stores([tmp_path / "one", tmp_path / "copy"]))
    protocol = PROTOCOLS["leave_one_corpus_out"]
    with pytest.raises(InputError, match="leaks: the recording of"):
        corpus.check(protocol, corpus.folds(protocol)[0])


def test_each_corpus_is_left_out_in_turn(fill: Fill) -> None:
    stores = [fill(name, ("calm", "happy"), 8) for name in ("one", "two", "three")]
    corpus = PreparedCorpus(JoinedStore(stores))
    folds = corpus.folds(PROTOCOLS["leave_one_corpus_out"])
    assert len(folds) == 3
    for fold, name in zip(folds, ("one", "three", "two"), strict=True):
        assert {str(actor).split()[0] for actor in fold.test} == {name}
        assert len(fold.test) == 8
        for other in {"one", "two", "three"} - {name}:
            assert sum(str(actor).startswith(other) for actor in fold.validation) == 2
            assert sum(str(actor).startswith(other) for actor in fold.train) == 6
    with pytest.raises(InputError, match="leaving one corpus out needs two or more: give --data several"):
        PreparedCorpus(stores[0]).folds(PROTOCOLS["leave_one_corpus_out"])


def test_nested_folds_spread_every_corpus(fill: Fill) -> None:
    corpus = PreparedCorpus(
        JoinedStore([fill("one", ("calm", "happy"), 12), fill("two", ("calm", "sad"), 6)])
    )
    for fold in corpus.folds(PROTOCOLS["nested"]):
        tested = Counter(str(actor).split()[0] for actor in fold.test)
        assert tested == {"one": 2, "two": 1}


def test_sampling_is_balanced_by_corpus_and_class(fill: Fill) -> None:
    corpora = ["large"] * 9 + ["small"] * 3
    labels = [0] * 6 + [1] * 3 + [0, 0, 1]
    clips = Clips({}, labels, 2, corpora=corpora)
    drawn = Counter((corpora[place], labels[place]) for place in clips.balanced(range(12)))
    assert set(drawn.values()) == {6} and len(drawn) == 4
    repeats = Counter(clips.balanced(range(12)))
    assert set(repeats) == set(range(12)), "nothing is left out"
    assert max(repeats[place] for place in range(6)) == 1 and repeats[11] == 6


def test_a_clip_is_answered_among_the_emotions_of_its_corpus(fill: Fill) -> None:
    stores = [fill("one", ("neutral", "happy"), 2), fill("two", ("happy", "sad"), 2)]
    corpus = PreparedCorpus(JoinedStore(stores))
    emotions = np.array(corpus.store.labels.emotions)
    expected = {"one": ["neutral", "happy"], "two": ["happy", "sad"]}
    for header, row in zip(corpus.headers, corpus.possible, strict=True):
        assert emotions[row].tolist() == expected[header.attributes["corpus"]]


def test_what_a_label_set_leaves_out_is_said(fill: Fill) -> None:
    stores = [fill("one", ("neutral", "calm"), 2), fill("two", ("happy", "sad"), 3)]
    joined = JoinedStore(stores, parse_labels("neutral,happy,bored,calm=neutral"))
    assert joined.notes() == ["3 clips of sad left out", "no clip of bored"]
