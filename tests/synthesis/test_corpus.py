"""The corpus as files: layout, determinism, what is skipped and what is refused."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.synthesis import Part, corpus, is_masked, plan, synthesize
from cfnsr.synthesis.cast import cast

SMALL: Any = {"workers": 1, "size": (96, 96)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_plan_is_ravdess() -> None:
    full = plan(actors=24, takes=60)
    assert len({part.name for part in full}) == 1440
    assert all(part.intensity == 1 for part in full if part.emotion == 1)
    spoken = defaultdict(list)
    for part in plan():
        assert is_masked(part.name) == part.masked == (part.repetition == 2)
        spoken[part.masked, part.actor % 2, part.intensity, part.emotion].append(part.statement)
    plain = {(emotion, intensity) for emotion in range(1, 9) for intensity in (1, 2)} - {(1, 2)}
    assert {(emotion, intensity) for masked, _, intensity, emotion in spoken if not masked} == plain
    assert {emotion for masked, *_, emotion in spoken if masked} == {3, 5, 8}
    for statements in spoken.values():  # the sentence does not give the emotion away
        assert len(statements) == 12 and statements.count(1) == statements.count(2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("actors", 0), ("actors", 100), ("takes", 0), ("takes", 61)),
        *(("size", (321, 240)), ("size", (8, 8)), ("seed", -1), ("workers", 0)),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(InputError, match="expected"):
        synthesize(tmp_path / "corpus", **{"actors": 1, "takes": 1, name: value})  # type: ignore[arg-type]
    assert not (tmp_path / "corpus").exists()


def test_the_files_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    one, two, other = (
        contents(synthesize(tmp_path / f"{seed}{workers}", actors=2, takes=takes, seed=seed, workers=workers,
                            size=(96, 96)))
        for seed, workers, takes in ((3, 1, 2), (3, 2, 2), (4, 1, 1))
    )  # fmt: skip
    assert one == two and sum(name.endswith(".mp4") for name in one) == 4
    assert all(other[name] != one[name] for name in other)


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    synthesize(tmp_path, actors=1, takes=2, **SMALL)
    first, second = plan(1, 2)
    before, stamp = contents(tmp_path), first.files(tmp_path)[0].stat().st_mtime_ns
    second.files(tmp_path)[1].unlink()
    litter = first.files(tmp_path)[0].with_name(f".{second.name}.123.part.mp4")
    litter.write_bytes(b"half a take of a run that was killed")
    reported: list[Part] = []
    synthesize(tmp_path, actors=1, takes=2, **SMALL, progress=reported.append)
    assert reported == [first, second] and contents(tmp_path) == before
    assert first.files(tmp_path)[0].stat().st_mtime_ns == stamp
    synthesize(tmp_path, actors=1, takes=3, **SMALL)
    assert set(before) < set(contents(tmp_path)), "a corpus can grow"


def test_corpora_do_not_mix(tmp_path: Path) -> None:
    synthesize(tmp_path / "a", actors=1, takes=1, **SMALL)
    (tmp_path / "real" / "Actor_01").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name, message in (("a", "made otherwise"), ("real", "not synthesized"), ("file", "is a file")):
        with pytest.raises(InputError, match=message):
            synthesize(tmp_path / name, actors=1, takes=1, seed=1, **SMALL)


def test_a_failing_take_ends_the_run_and_keeps_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = corpus.write_video, []

    def full_disk(path: Path, *rest: Any) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        return write(path, *rest)

    monkeypatch.setattr(corpus, "write_video", full_disk)
    with pytest.raises(OSError, match="No space"):
        synthesize(tmp_path, actors=1, takes=3, **SMALL)
    assert [path.name for path in tmp_path.rglob("*.mp4")] == [calls[0].name]


def test_actors_differ_and_are_men_and_women_in_turn() -> None:
    people = [cast(number, seed=0) for number in range(1, 25)]
    assert [person.sex for person in people] == ["male", "female"] * 12
    assert len({person.face for person in people}) == len({person.throat for person in people}) == 24
    pitch = np.array([person.throat.pitch for person in people])
    assert pitch[0::2].max() < pitch[1::2].min()


def test_names_are_ravdess(synthetic_corpus: Path) -> None:
    videos = sorted(synthetic_corpus.glob("Actor_*/*.mp4"))
    assert len(videos) == len(list((synthetic_corpus / "landmarks").iterdir())) == 16
    for video in videos:
        match = re.fullmatch(r"01-01-0([1-8])-0([12])-0([12])-0([12])-(\d\d)", video.stem)
        assert match and video.parent.name == f"Actor_{match[5]}"
        assert (synthetic_corpus / "landmarks" / f"{video.stem}.csv").is_file()
    assert {path.name for path in synthetic_corpus.iterdir()} == {
        *("Actor_01", "Actor_02", "landmarks", "synthesis.json")
    }
