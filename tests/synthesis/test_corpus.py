"""The corpus as files: layout, determinism, what is skipped and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.synthesis import Part, is_masked, plan, synthesize
from cfnsr.synthesis.acting import ACTION_UNITS
from cfnsr.synthesis.corpus import act, play

SMALL = (96, 96)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_layout_and_names(corpus: Path) -> None:
    videos = sorted(corpus.glob("Actor_*/*.mp4"))
    assert len(videos) == 16
    for video in videos:
        match = re.fullmatch(r"01-01-0([1-8])-0([12])-0([12])-0([12])-(\d\d)", video.stem)
        assert match
        assert video.parent.name == f"Actor_{match[5]}"
        assert (corpus / "landmarks" / f"{video.stem}.csv").is_file()
    assert len(list((corpus / "landmarks").iterdir())) == 16
    assert sorted(p.name for p in corpus.iterdir()) == ["Actor_01", "Actor_02", "landmarks", "synthesis.json"]


def test_the_plan_is_ravdess() -> None:
    full = plan(actors=24, takes=60)
    assert len({part.name for part in full}) == 1440
    assert all(part.intensity == 1 for part in full if part.emotion == 1)
    assert len(plan()) == 24 * 21
    round_ = [part for part in plan() if not part.masked]
    assert len(round_) == 360
    assert {(p.emotion, p.intensity) for p in round_ if p.actor == 3} == {
        (emotion, intensity)
        for emotion in range(1, 9)
        for intensity in (1, 2)
        if (emotion, intensity) != (1, 2)
    }
    for statement in (1, 2):  # no emotion is given away by its words
        assert {p.emotion for p in round_ if p.statement == statement} == set(range(1, 9))


@pytest.mark.parametrize("numbers", [{"actors": 0}, {"actors": 100}, {"takes": 0}, {"takes": 61}])
def test_impossible_plans(numbers: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected 1 to"):
        plan(**numbers)


def test_the_files_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    one = synthesize(tmp_path / "one", actors=2, takes=2, seed=3, workers=1, size=SMALL)
    two = synthesize(tmp_path / "two", actors=2, takes=2, seed=3, workers=2, size=SMALL)
    assert contents(one) == contents(two)
    other = synthesize(tmp_path / "other", actors=1, takes=1, seed=4, workers=1, size=SMALL)
    name = plan(1, 1)[0].files(Path())[1]
    assert (other / name).read_bytes() != (one / name).read_bytes()


def test_a_second_run_makes_only_what_is_missing(tmp_path: Path) -> None:
    synthesize(tmp_path, actors=1, takes=2, workers=1, size=SMALL)
    first, second = plan(1, 2)
    before, stamps = contents(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    second.files(tmp_path)[1].unlink()
    litter = first.files(tmp_path)[0].with_name(f".{second.name}.123.part.mp4")
    litter.write_bytes(b"half a take of a run that was killed")
    told: list[Part] = []
    synthesize(tmp_path, actors=1, takes=2, workers=1, size=SMALL, progress=told.append)
    assert sorted(told) == [first, second]
    assert contents(tmp_path) == before
    assert first.files(tmp_path)[0].stat().st_mtime_ns == stamps[first.files(tmp_path)[0]]
    synthesize(tmp_path, actors=1, takes=3, workers=1, size=SMALL)
    assert set(before) < set(contents(tmp_path)), "a corpus can grow"


def test_corpora_do_not_mix(tmp_path: Path) -> None:
    synthesize(tmp_path / "a", actors=1, takes=1, workers=1, size=SMALL)
    with pytest.raises(InputError, match="made otherwise"):
        synthesize(tmp_path / "a", actors=1, takes=1, seed=1, workers=1, size=SMALL)
    (tmp_path / "real" / "Actor_01").mkdir(parents=True)
    with pytest.raises(InputError, match="not synthesized"):
        synthesize(tmp_path / "real", actors=1, takes=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        synthesize(tmp_path / "file", actors=1, takes=1)


@pytest.mark.parametrize(
    "bad",
    [{"size": (321, 240)}, {"size": (8, 8)}, {"seed": -1}, {"workers": 0}],
    ids=lambda bad: next(iter(bad)),
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(InputError):
        synthesize(tmp_path / "corpus", actors=1, takes=1, **bad)  # type: ignore[arg-type]
    assert not (tmp_path / "corpus").exists()


def test_a_failing_take_ends_the_run_and_keeps_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfnsr.synthesis import corpus

    write, calls = corpus.write_video, []

    def full_disk(path: Path, *rest: object) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device", str(path))
        return write(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(corpus, "write_video", full_disk)
    with pytest.raises(OSError, match="No space"):
        synthesize(tmp_path, actors=1, takes=3, workers=1, size=SMALL)
    assert [p.name for p in tmp_path.rglob("*.mp4")] == [calls[0].name]
    monkeypatch.undo()
    synthesize(tmp_path, actors=1, takes=3, workers=1, size=SMALL)
    assert len(list(tmp_path.rglob("*.mp4"))) == 3


def test_actors_differ_and_are_men_and_women_in_turn() -> None:
    from cfnsr.synthesis.cast import cast

    people = [cast(number, seed=0) for number in range(1, 25)]
    assert [person.sex for person in people] == ["male", "female"] * 12
    assert len({person.face for person in people}) == len({person.throat for person in people}) == 24
    pitch = np.array([person.throat.pitch for person in people])
    assert pitch[0::2].max() < pitch[1::2].min()


def test_the_sentence_does_not_give_the_emotion_away() -> None:
    """Within a sex and an intensity each emotion is spoken in either sentence equally often."""
    spoken: dict[tuple[int, ...], list[int]] = {}
    for part in plan():
        kind = part.actor % 2, part.intensity, part.emotion, part.repetition
        spoken.setdefault(kind, []).append(part.statement)
    for statements in spoken.values():
        assert statements.count(1) == statements.count(2)


def test_masked_takes_are_told_by_their_names() -> None:
    parts = plan(actors=2)
    assert [is_masked(part.name) for part in parts] == [part.masked for part in parts]
    masked = [part for part in parts if part.masked and part.actor == 1]
    assert sorted((part.emotion, part.intensity) for part in masked) == [
        (emotion, intensity) for emotion in (3, 5, 8) for intensity in (1, 2)
    ]


def test_a_masked_take_passes_through_the_files(tmp_path: Path) -> None:
    """Its landmarks' table has one emotion's units above and another's below."""
    masked = next(part for part in plan(actors=1) if part.masked)
    scene = act(masked, seed=5)
    play(masked, tmp_path, seed=5, size=SMALL)
    video, tracks = masked.files(tmp_path)
    assert video.stat().st_size > 1000
    names = tracks.read_text().splitlines()[0].split(", ")
    table = dict(zip(names, np.loadtxt(tracks, delimiter=",", skiprows=1).T, strict=True))
    for unit, column in zip(ACTION_UNITS, scene.performance.units.T, strict=True):
        assert table[f"AU{unit:02d}_r"].mean() == pytest.approx(column.mean(), abs=0.15)
