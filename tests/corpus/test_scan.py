"""Folders as people have them: what becomes a take, and where everything else is accounted for."""

import os
import pickle
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.corpus import scan
from cfnsr.corpus.scan import SONGS
from cfnsr.corpus.take import MEDIA_SUFFIXES, Corpus, Take
from cfnsr.emotions import CREMAD, RAVDESS
from cfnsr.errors import InputError

TAIL = "01-05-01-01-01-03"  # speech, angry, actor 3
SONG = "02-05-01-01-01-03"
AV, VIDEO, SOUND, TRACK = f"01-{TAIL}.mp4", f"02-{TAIL}.mp4", f"03-{TAIL}.wav", f"01-{TAIL}.csv"
CREMA = "1001_DFA_ANG_XX"
TWINS = (
    "video-only copies beside their audio-video twins",
    "audio-only copies beside their audio-video twins",
)


def lay(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def only(corpus: Corpus) -> Take:
    (take,) = corpus.takes
    return take


def error_of(*arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        scan(*arguments, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "place", ["Video_Speech_Actor_03/Actor_03/", "Actor_03/", "", "a/b c/d.e/", "speech.mp4/Actor_03/"]
)
def test_an_audio_video_file_is_found_in_any_layout(tmp_path: Path, place: str) -> None:
    corpus = scan(lay(tmp_path, f"{place}{AV}"))
    take = only(corpus)
    assert (corpus.name, corpus.labels) == ("ravdess", RAVDESS)
    assert take.video == take.audio == tmp_path / f"{place}{AV}"
    assert (take.name, take.emotion, take.actor, take.sex) == (f"01-{TAIL}", "angry", 3, "male")


@pytest.mark.parametrize(
    ("used", "duplicates", "left_out"),
    [
        # The take's pictures, sound and OpenFace CSV; what repeats them; what is left out and why.
        ((None, f"Actor_03/{SOUND}", None), [], {}),
        ((None, f"03-{TAIL}.flac", None), [], {}),
        ((None, f"03-{TAIL}.WAV", None), [], {}),
        ((f"v/{VIDEO}", f"a/{SOUND}", None), [], {}),
        ((VIDEO, None, None), [], {}),
        ((f"v/{AV}", f"v/{AV}", None), [], {f"v/{VIDEO}": TWINS[0], f"a/{SOUND}": TWINS[1]}),
        ((AV, AV, None), [f"a/{VIDEO}"], {VIDEO: TWINS[0]}),
        ((f"A/{AV}", f"A/{AV}", None), [f"A/B/{AV}", f"Video_Speech_Actor_03/A/{AV}"], {}),
        ((f"deep/er/{AV}", f"deep/er/{AV}", None), [f"01-{TAIL}.avi"], {}),  # a tracking overlay
        ((AV, AV, f"landmarks/{TRACK}"), [], {}),
        ((None, SOUND, f"Actor_03/{TRACK}"), [], {}),
        ((AV, AV, f"FacialTracking_Actors_01-24/x/03-{TAIL}.csv"), [], {}),
        ((AV, AV, TRACK), [], {f"l/{TRACK}": "repeated OpenFace CSVs"}),
        ((AV, AV, None), [], {"l/01-01-01-01-01-01-04.csv": "OpenFace CSVs without a recording"}),
        ((AV, AV, None), [], {f"l/01-{SONG}.csv": SONGS, f"01-{SONG}.mp4": SONGS}),
        ((None, None, f"l/{TRACK}"), [], {f"l/01-{SONG}.csv": SONGS}),
        ((AV, AV, None), [], {f"__MACOSX/._{AV}": "hidden files"}),
        ((f"v/{CREMA}.flv", f"v/{CREMA}.flv", None), [f"a/{CREMA}.mp3"], {f"w/{CREMA}.wav": TWINS[1]}),
        ((f"{CREMA}.mp4", f"{CREMA}.mp4", None), [], {}),
        ((None, f"{CREMA}.wav", None), [], {}),
    ],
)
def test_every_file_of_a_take(
    tmp_path: Path, used: tuple[str | None, ...], duplicates: list[str], left_out: dict[str, str]
) -> None:
    ignored = [".DS_Store", f".download/{AV}", "notes.csv", "readme.txt", "1.jpg"]
    corpus = scan(lay(tmp_path, *filter(None, used), *duplicates, *left_out, *ignored))
    take = only(corpus)
    assert (take.video, take.audio, take.openface) == tuple(name and tmp_path / name for name in used)
    assert (take.name, take.emotion) == (Path(next(filter(None, used))).stem, "angry")
    assert corpus.duplicates == tuple(tmp_path / name for name in duplicates) and not corpus.unknown
    assert corpus.left_out == Counter(left_out.values())


def test_songs_are_an_option(tmp_path: Path) -> None:
    lay(tmp_path, AV, f"01-{SONG}.mp4")
    assert [take.attributes["channel"] for take in scan(tmp_path, song=True).takes] == ["speech", "song"]
    (tmp_path / AV).unlink()
    assert "ask for songs with --song" in error_of(tmp_path)


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    strange = [f"01-{TAIL}_croppad.wav", "01-01-09-01-01-01-03.mp4", "holiday.mov", f"02-{TAIL}.wav"]
    corpus = scan(lay(tmp_path, AV, *strange))
    assert set(corpus.unknown) == {tmp_path / name for name in strange}
    assert "4 with a name that fits no scheme" in corpus.notes()[0] and "and 1 more" in corpus.notes()[0]


def test_a_note_is_one_line_whatever_a_file_is_called(tmp_path: Path) -> None:
    (note,) = scan(lay(tmp_path, AV, "a\n\x1b[2J\u202e.mp4")).notes()
    assert note.isprintable() and r"a\n\x1b[2J" in note


def test_openface_tables_of_the_given_folder_go_first(tmp_path: Path) -> None:
    lay(tmp_path, f"c/{AV}", f"c/{TRACK}", f"t/deep/{TRACK}", "u/01-01-01-01-01-01-04.csv")
    corpus = scan(tmp_path / "c", openface=tmp_path / "t")
    assert only(corpus).openface == tmp_path / f"t/deep/{TRACK}"
    assert corpus.left_out == {"repeated OpenFace CSVs": 1}
    assert str(tmp_path / "u") in error_of(tmp_path / "c", openface=tmp_path / "u")
    assert "no such" in error_of(tmp_path / "c", openface=tmp_path / "missing")


def test_cremad_sexes_come_from_the_table_in_the_tree(tmp_path: Path) -> None:
    corpus = scan(lay(tmp_path, *(f"AudioWAV/{actor}_DFA_ANG_XX.wav" for actor in (1001, 1002, 1003))))
    assert (corpus.name, corpus.labels, corpus.takes[0].sex) == ("cremad", CREMAD, None)
    (tmp_path / "VideoDemographics.csv").write_text("ActorID,Sex\n1001,Male\n1002,Female\n")
    assert [take.sex for take in scan(tmp_path).takes] == ["male", "female", None]


def test_takes_are_sorted_by_actor_and_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    lay(tmp_path, "03-01-01-01-01-01-12.wav", "03-01-02-01-01-01-02.wav", "03-01-01-01-01-01-02.wav")
    corpus = scan(tmp_path)
    found = [(take.actor, take.emotion) for take in corpus.takes]
    assert found == [(2, "neutral"), (2, "calm"), (12, "neutral")]
    assert corpus.actors == (2, 12)
    assert pickle.loads(pickle.dumps(corpus.takes)) == corpus.takes  # noqa: S301


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ((), "no recording in it; expected names as in RAVDESS (01-01-06-01-02-01-12.mp4) or CREMA-D (1001_"),
        (("notes.txt", "x/y.jpg"), "no recording"),
        (("holiday.mp4",), "none of its 1 recordings, such as holiday.mp4"),
        ((f"r/{AV}", f"c/{CREMA}.flv"), "two corpora, 1 of ravdess and 1 of cremad; choose a subfolder"),
    ],
)
def test_a_folder_of_no_corpus_or_of_two_is_an_error(
    tmp_path: Path, names: tuple[str, ...], word: str
) -> None:
    assert word in error_of(lay(tmp_path, *names))


def test_what_is_neither_folder_nor_table_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, AV)
    assert "no such" in error_of(tmp_path / "nowhere")
    assert "expected a folder" in error_of(tmp_path / AV)
    assert "a folder has its own" in error_of(tmp_path, labels=("calm", "tense"))


def test_links_lead_neither_in_circles_nor_up_the_disk(tmp_path: Path) -> None:
    corpus_folder = lay(tmp_path, f"neighbour/{AV}", f"corpus/a/{AV}") / "corpus"
    (corpus_folder / "a/loop").symlink_to(corpus_folder, target_is_directory=True)
    (corpus_folder / "up").symlink_to(tmp_path, target_is_directory=True)
    (corpus_folder / "again").symlink_to("a", target_is_directory=True)
    (corpus_folder / "self.mp4").symlink_to("self.mp4")
    corpus = scan(corpus_folder)
    assert only(corpus).video == corpus_folder / f"a/{AV}" and not corpus.duplicates
    assert corpus.left_out == {"broken links": 1}


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    lay(tmp_path, f"disk/Actor_03/{AV}")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/videos").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert only(scan(tmp_path / "corpus")).video == tmp_path / f"corpus/videos/Actor_03/{AV}"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_closed_folder_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, f"closed/{AV}")
    (tmp_path / "closed").chmod(0)
    try:
        assert "permission" in error_of(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)


names = st.builds(
    "{}{:02d}-{:02d}-{:02d}-01-01-01-{:02d}{}".format,
    st.sampled_from(["", "a/", "a/b/", "c/"]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 9),
    st.sampled_from([1, 2]),
    st.sampled_from([".mp4", ".avi", ".wav", ".flac", ".csv"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(names, min_size=1, max_size=25, unique=True), st.booleans())
def test_every_file_is_used_or_accounted_for(files: list[str], song: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lay(Path(folder), "01-01-02-01-01-01-03.mp4", *files)
        corpus = scan(folder, song=song)
    used = {path for take in corpus.takes for path in (take.video, take.audio, take.openface) if path}
    named = {Path(folder) / name for name in (*files, "01-01-02-01-01-01-03.mp4")}
    strange = {path for path in named if path.suffix == ".csv" and not _is_name(path)}
    assert used <= named
    assert len(used) + len(corpus.unknown) + len(corpus.duplicates) + sum(corpus.left_out.values()) == len(
        named - strange
    )
    assert not used & {*corpus.unknown, *corpus.duplicates}
    assert all(path.suffix in MEDIA_SUFFIXES for path in (*corpus.unknown, *corpus.duplicates))
    assert len({take.name for take in corpus.takes}) == len(corpus.takes)


def _is_name(path: Path) -> bool:
    modality, _, emotion = path.name.split("-")[:3]
    return int(modality) < 4 and int(emotion) < 9


def test_the_real_recordings(shared: Path) -> None:
    corpus = scan(shared / "ravdess/audio", openface=shared / "ravdess/openface/frames")
    assert len(corpus.takes) == 1440
    assert corpus.actors == tuple(range(1, 25))
    assert sum(take.openface is not None for take in corpus.takes) == 240
    assert all(take.openface is None or take.openface.stem[2:] == take.name[2:] for take in corpus.takes)
    assert sum(take.emotion == "neutral" for take in corpus.takes) == 96
    assert not (corpus.unknown or corpus.duplicates or corpus.left_out)


def test_the_real_clips(shared: Path) -> None:
    assert len(scan(shared / "clips/ravdess").takes) == len(scan(shared / "clips/cremad").takes) == 3


def lay_means(path: Path, *names: str, header: str = "AU01_r, name") -> Path:
    path.write_text("\n".join([header, *(f"0.5, {name}" for name in names)]) + "\n")
    return path


@pytest.mark.parametrize("media", [f"Actor_03/{AV}", f"Actor_03/{SOUND}"])
def test_a_table_of_means_belongs_to_the_takes_it_names(tmp_path: Path, media: str) -> None:
    lay(tmp_path / "c", media, "03-01-02-01-01-01-02.wav", f"l/{TRACK}")
    means = lay_means(tmp_path / "means.csv", f"01-{TAIL}", "01-01-01-01-01-01-04")
    corpus = scan(tmp_path / "c", openface=means)
    assert only(corpus).openface == means and only(corpus).actor == 3
    lacking = "takes that means.csv does not have"
    assert corpus.left_out == {lacking: 1, "OpenFace CSVs that means.csv goes before": 1}
    assert f"1 left out: {lacking}" in corpus.notes()


def test_means_of_every_take_leave_nothing_out(tmp_path: Path) -> None:
    lay(tmp_path / "c", f"{CREMA}.flv", "1002_DFA_ANG_XX.flv")
    means = lay_means(tmp_path / "means.csv", CREMA, "1002_DFA_ANG_XX")
    corpus = scan(tmp_path / "c", openface=means)
    assert [take.openface for take in corpus.takes] == [means, means] and not corpus.left_out


def test_means_of_a_table_of_takes_go_by_name(tmp_path: Path) -> None:
    lay(tmp_path, "a.wav", "b.wav", SOUND)
    (tmp_path / "takes.csv").write_text(
        f"path,label,speaker,name\na.wav,sad,1,Ann 1\nb.wav,sad,2,\n{SOUND},sad,3,\n"
    )
    means = lay_means(tmp_path / "means.csv", "Ann 1", "a", f"01-{TAIL}")
    corpus = scan(tmp_path / "takes.csv", openface=means)
    assert [take.name for take in corpus.takes] == ["Ann 1", f"03-{TAIL}"]


@pytest.mark.parametrize(
    ("header", "rows", "word"),
    [
        ("AU01_r, name", ["01-01-01-01-01-01-04"], f"expected names such as 01-{TAIL}"),
        ("AU01_r, name", [], "none of its 0 rows"),
        ("AU01_r,take", [f"01-{TAIL}"], "has no column name"),
        ("frame,name", [f"01-{TAIL}"], "has a column frame"),
    ],
)
def test_a_table_of_means_that_fits_nothing_is_an_error(
    tmp_path: Path, header: str, rows: list[str], word: str
) -> None:
    means = lay_means(tmp_path / "means.csv", *rows, header=header)
    assert word in error_of(lay(tmp_path / "c", AV), openface=means)


def test_the_real_means(shared: Path) -> None:
    means = shared / "ravdess/openface/au_means.csv"
    corpus = scan(shared / "ravdess/audio", openface=means)
    assert len(corpus.takes) == 1200 and corpus.actors == tuple(range(1, 21))
    assert {take.openface for take in corpus.takes} == {means}
    assert all(take.audio is not None for take in corpus.takes)
    assert corpus.left_out == {"takes that au_means.csv does not have": 240}
