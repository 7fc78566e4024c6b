"""A take under another codec and a person under two spellings never stand on both sides of a fold."""

import csv
import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from cfnsr.corpus.table import read_table
from cfnsr.data import copies as kept_copies
from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.store import Header, Store
from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.features.speech_encoder import VARIABLE, SpeechEncoder
from cfnsr.media.fingerprint import Content, copies
from cfnsr.training.prepared import PreparedCorpus

RATE = 16_000
NESTED = PROTOCOLS["nested"]
CODECS = {"wav": ("pcm_s16le", "s16"), "flac": ("flac", "s16"), "mp3": ("libmp3lame", "s16p")}
EMOTIONS = ("calm", "happy")
CHANGES: list[dict[str, object]] = [  # of what is kept of a search
    *({"copies": odd} for odd in (None, [], {"another": 0}, {"copy": "0"}, {"copy": True})),
    {"version": "0.0.1"},
    {"preparation": {}},
]


def voice(seed: int, seconds: float = 2.5) -> np.ndarray:
    """Something like speech: harmonics of a wandering pitch, in syllables."""
    noise = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    knots = np.linspace(0, seconds, 9)
    pitch = np.interp(time, knots, noise.uniform(110, 240, 9))
    loudness = np.interp(time, knots, [0, *noise.uniform(0.1, 1, 7), 0])
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return 0.2 * loudness * sum(np.sin(k * phase) / k for k in range(1, 12))


def write(path: Path, samples: np.ndarray) -> Path:
    """Mono sound in the codec of its suffix."""
    codec, layout = CODECS[path.suffix[1:]]
    frame = av.AudioFrame.from_ndarray((32_767 * samples).astype(np.int16)[None], layout, "mono")
    frame.sample_rate = RATE
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=RATE, layout="mono")
        fifo = av.AudioFifo()
        fifo.write(frame)
        size = track.codec_context.frame_size or 1024
        while (piece := fifo.read(size) or fifo.read(size, partial=True)) is not None:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return path


def recode(source: Path, path: Path) -> Path:
    """The same sound in another codec."""
    with av.open(str(source)) as file:
        pieces = [frame.to_ndarray() for frame in file.decode(audio=0)]
    samples = np.concatenate(pieces, axis=1)[0]
    return write(path, samples / (32_768 if samples.dtype == np.int16 else 1))


def prepared(
    folder: Path, files: list[tuple[Path, str, str]], modalities: tuple[str, ...] = ("audio",)
) -> PreparedCorpus:
    """A corpus of (file, emotion, speaker), through the table and the preparation that a user takes."""
    table = folder / "takes.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "speaker"), *files])
    corpus = read_table(table)
    encoder = SpeechEncoder(folder / "whisper") if "speech" in modalities else None
    preparation = Preparation(
        modalities,
        keep=1.5,
        speech_encoder=encoder.name if encoder else "",
        speech_sha256=encoder.sha256 if encoder else "",
        speech_speeds=(),
        lenient=True,  # some are silent
    )
    store = Store.create(folder / "store", corpus.name, corpus.labels, preparation.as_json())
    assert not prepare_corpus(corpus.takes, store, preparation, workers=0).failures
    return PreparedCorpus(store)


def takes(folder: Path, suffix: str) -> list[tuple[Path, str, str]]:
    """Two takes of each speaker, all different."""
    return [
        (write(folder / f"{speaker}-{emotion}.{suffix}", voice(7 * place + label)), emotion, speaker)
        for place, speaker in enumerate(("Ann", "Bo", "Cy"))
        for label, emotion in enumerate(EMOTIONS)
    ]


def check_all(corpus: PreparedCorpus, protocol: str = "nested") -> None:
    for fold in corpus.folds(PROTOCOLS[protocol]):
        corpus.check(PROTOCOLS[protocol], fold)


@pytest.mark.parametrize(
    ("modality", "suffix"), [("audio", "flac"), ("audio", "mp3"), ("log_mel", "mp3"), ("speech", "flac")]
)
def test_a_take_in_another_codec_is_refused(
    tmp_path: Path,
    write_whisper: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    modality: str,
    suffix: str,
) -> None:
    """Whatever is prepared of the sound; where leaking is the protocol's aim it is allowed."""
    if modality == "speech":
        monkeypatch.setenv(VARIABLE, str(write_whisper(tmp_path / "whisper")))
    files = takes(tmp_path, suffix)
    if modality == "audio":
        (tmp_path / "clean").mkdir()
        clean = prepared(tmp_path / "clean", files, (modality,))
        check_all(clean)
        assert clean.uncompared() == ""
    files += [(recode(files[0][0], tmp_path / "copy.wav"), "calm", "Cy")]
    corpus = prepared(tmp_path, files, (modality,))
    for fold in corpus.folds(NESTED):  # Ann and Cy have two parts in each of the three
        with pytest.raises(InputError) as refused:
            corpus.check(NESTED, fold)
        said = str(refused.value)
        assert "by its sound" in said and "Ann-calm" in said and " copy " in said and "\n" not in said
    check_all(corpus, "shared_actors")


def test_a_copy_within_a_part_is_harmless(tmp_path: Path) -> None:
    files = takes(tmp_path, "flac")
    files += [(recode(files[0][0], tmp_path / "copy.wav"), "calm", "Ann")]
    check_all(prepared(tmp_path, files))


def test_clips_prepared_without_a_fingerprint_are_compared_by_their_waveform(tmp_path: Path) -> None:
    files = takes(tmp_path, "flac")
    files += [(recode(files[0][0], tmp_path / "copy.wav"), "calm", "Cy")]
    store = prepared(tmp_path, files).store
    for header in store.headers():
        tensors = store.load(header.name)
        del tensors["sound_map"]
        store.write(header, tensors)
    with pytest.raises(InputError, match="by its sound"):
        check_all(PreparedCorpus(store))


def test_copies_are_searched_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a clip is added, or what is kept is damaged."""
    searched = []

    def search(sounds: list[Content]) -> np.ndarray:
        searched.append(len(sounds))
        return copies(sounds)

    monkeypatch.setattr(kept_copies, "copies", search)
    files = takes(tmp_path, "flac")
    store = prepared(tmp_path, [*files, (recode(files[0][0], tmp_path / "copy.wav"), "calm", "Ann")]).store
    first, second = PreparedCorpus(store)._copies, PreparedCorpus(store)._copies
    assert searched == [7] and first == second
    assert first["Ann-calm"] == first["copy"] == 0 and set(first.values()) == {0, -1}
    kept = store.folder / "copies.json"
    whole = json.loads(kept.read_text())
    damaged = ["{", "[]", "{}", *(json.dumps(whole | change) for change in CHANGES)]
    for text in damaged:
        kept.write_text(text)
        assert PreparedCorpus(store)._copies == first
    assert searched == [7] * (1 + len(damaged))
    searched.clear()
    header = store.headers()[0]
    store.write(replace(header, name="another"), store.load(header.name))
    assert PreparedCorpus(store)._copies["another"] == PreparedCorpus(store)._copies[header.name]
    assert searched == [8]


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), NotImplementedError()])
def test_a_folder_that_may_only_be_read_is_searched_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a kind of object storage."""

    def refuse(path: Path, value: object) -> None:
        raise error

    monkeypatch.setattr(kept_copies, "write_json", refuse)
    store = prepared(tmp_path, takes(tmp_path, "flac")).store
    assert len(PreparedCorpus(store)._copies) == 6 and not (store.folder / "copies.json").exists()


def test_what_cannot_be_compared_is_said(tmp_path: Path, fill_features: Callable[..., Store]) -> None:
    """A silent take; and features alone, as earlier versions kept them."""
    files = takes(tmp_path, "wav")
    silence = write(tmp_path / "silence.wav", np.zeros(2 * RATE))
    said = prepared(tmp_path, [*files, (silence, "calm", "Ann")]).uncompared()
    assert said.startswith("1 of 7 clips have no sound")
    mute = PreparedCorpus(fill_features(tmp_path / "features"))
    check_all(mute)
    assert mute.uncompared().startswith("20 of 20 clips have no sound to compare")


def spoken_by(folder: Path, *speakers: str) -> PreparedCorpus:
    """Two takes of each speaker, which hold nothing."""
    store = Store.create(folder, "made-up", RAVDESS, {})
    for place, speaker in enumerate(speakers):
        for emotion in EMOTIONS:
            store.write(Header(f"{place}-{emotion}", emotion, speaker, None, {}, {}, {}), {})
    return PreparedCorpus(store)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KL", "kl"),
        ("Ann Lee", "Ann  Lee"),
        ("Zo\u00eb", "Zoe\u0308"),
        ("1", "1.0"),
        ("KL", "\uff2b\uff2c"),
        ("straße", "STRASSE"),
    ],
)
def test_one_person_in_two_spellings_is_refused(tmp_path: Path, one: str, other: str) -> None:
    corpus = spoken_by(tmp_path, one, other, "Bo", "Cy")
    for protocol in ("nested", "paper", "leave_one_actor_out", "nested_normalised"):
        with pytest.raises(InputError) as refused:
            corpus.folds(PROTOCOLS[protocol])
        said = str(refused.value)
        assert repr(one) in said and repr(other) in said and "one person" in said and "\n" not in said
    assert corpus.folds(PROTOCOLS["shared_actors"]), "its folds do not rest on who speaks"


def test_people_of_near_names_are_several(tmp_path: Path) -> None:
    assert len(spoken_by(tmp_path, "1.2", "11", "1.1", "-11", "Jo", "Joe").folds(NESTED)) == 6


def test_real_recordings(shared: Path, tmp_path: Path) -> None:
    """RAVDESS holds one recording twice, both of one actor, so all of these pass."""
    sounds = shared / "ravdess" / "audio"
    emotions = {"01": "calm", "03": "happy"}
    files = [
        (path, emotions[path.stem.split("-")[2]], path.stem[-2:])
        for actor in ("05", "06", "07")
        for path in sorted((sounds / f"Actor_{actor}").glob("03-01-0[13]-*-02-*.flac"))
    ]
    double = [path.stem for path, _, _ in files if path.match("03-01-03-01-02-*-07.flac")]
    assert len(double) == 2
    corpus = prepared(tmp_path, files)
    assert corpus._copies[double[0]] == corpus._copies[double[1]] >= 0
    check_all(corpus)
