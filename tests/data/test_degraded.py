"""Degraded versions of takes: prepared beside them, drawn from their names, and never tested."""

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from cfnsr.cli.corpus import prepare
from cfnsr.corpus.take import Take
from cfnsr.data.clip import prepare_clip
from cfnsr.data.degraded import degraded_takes
from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features.base import Sound
from cfnsr.features.mel import MFCC
from cfnsr.features.preparation import Preparation
from cfnsr.media.degrade import degrade
from cfnsr.media.encode import write_audio
from cfnsr.training.prepared import PreparedCorpus

SOUND = Preparation(modalities=("audio",))
RATE = 16_000


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A table of five speakers' sound, two takes each."""
    lines = ["path,label,speaker"]
    for speaker in range(1, 6):
        for emotion in ("happy", "sad"):
            rng = np.random.default_rng([speaker, len(emotion)])
            name = f"{emotion}-{speaker}.wav"
            write_audio(tmp_path / name, 0.3 * rng.uniform(-1, 1, 3 * RATE).astype(np.float32), RATE)
            lines.append(f"{name},{emotion},{speaker}")
    (tmp_path / "corpus.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "corpus.csv"


def test_a_version_is_the_take_degraded_as_its_name_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = 0.3 * rng.uniform(-1, 1, 3 * RATE).astype(np.float32)
    file = write_audio(tmp_path / "take.wav", sound, RATE)
    take = Take("take", "happy", 1, audio=file)
    one, two = degraded_takes([take], 2)
    clips = [prepare_clip(each, SOUND).tensors["audio"] for each in (take, one, two, one)]
    assert np.array_equal(clips[1], clips[3]), "the same at every run"
    assert np.abs(clips[1] - clips[0]).max() > 1 and np.abs(clips[1] - clips[2]).max() > 1

    kept = np.round(sound * 32_767).astype(np.float32) / 32_768  # of 16 bits
    expected = degrade(kept, RATE, crc32(b"take degraded 1"))
    made = MFCC.extract(Sound(expected, RATE, SOUND), SOUND)["audio"]
    np.testing.assert_allclose(clips[1], made, atol=0.1)


def test_versions_train_and_are_not_tested(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus, tmp_path / "out", workers=1, modalities="audio", degraded=2)
    prepared, protocol = PreparedCorpus(Store(tmp_path / "out")), PROTOCOLS["nested"]
    assert len(prepared.headers) == 30
    fold = prepared.folds(protocol)[0]
    prepared.check(protocol, fold)
    tested = [prepared.headers[place].name for place in prepared.places(protocol, fold.test)]
    assert tested and not any("degraded" in name for name in tested)
    plain = prepared.places(protocol, fold.train)
    every = prepared.places(protocol, fold.train, degraded=True)
    assert len(every) == 3 * len(plain) and set(plain) < set(every)


def test_versions_of_pictures_are_refused(synthetic: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--degraded 1 with modalities video, audio: expected"):
        prepare(synthetic, tmp_path / "out", modalities="video,audio", degraded=1)
    assert not (tmp_path / "out").exists()
