"""Folders as people have them: what becomes a take, and where everything else is accounted for."""

import os
import pickle
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.corpus import scan
from cfnsr.corpus.take import MEDIA_SUFFIXES, Corpus, Take
from cfnsr.emotions import CREMAD, RAVDESS
from cfnsr.errors import InputError

TAIL = "01-05-01-01-01-03"  # speech, angry, actor 3
SONG = "02-05-01-01-01-03"


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
    corpus = scan(lay(tmp_path, f"{place}01-{TAIL}.mp4"))
    file = tmp_path / f"{place}01-{TAIL}.mp4"
    take = only(corpus)
    assert (corpus.name, corpus.labels) == ("ravdess", RAVDESS)
    assert (take.name, take.video, take.audio, take.openface) == (f"01-{TAIL}", file, file, None)
    assert (take.emotion, take.actor, take.sex) == ("angry", 3, "male")
    assert not (corpus.unknown or corpus.duplicates or corpus.left_out)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_an_audio_only_tree_has_no_pictures(tmp_path: Path, suffix: str) -> None:
    take = only(scan(lay(tmp_path, f"Actor_03/03-{TAIL}{suffix}")))
    assert (take.name, take.video) == (f"03-{TAIL}", None)
    assert take.audio == tmp_path / f"Actor_03/03-{TAIL}{suffix}"


def test_twins_never_count_beside_the_audio_video_file(tmp_path: Path) -> None:
    corpus = scan(lay(tmp_path, f"v/02-{TAIL}.mp4", f"v/01-{TAIL}.mp4", f"a/03-{TAIL}.wav"))
    take = only(corpus)
    assert take.video == take.audio == tmp_path / f"v/01-{TAIL}.mp4"
    assert sum(corpus.left_out.values()) == 2
    assert not corpus.duplicates


def test_video_only_and_audio_only_files_join(tmp_path: Path) -> None:
    take = only(scan(lay(tmp_path, f"v/02-{TAIL}.mp4", f"a/03-{TAIL}.wav")))
    assert take.name == f"02-{TAIL}"
    assert (take.video, take.audio) == (tmp_path / f"v/02-{TAIL}.mp4", tmp_path / f"a/03-{TAIL}.wav")


def test_video_only_alone_is_a_silent_take(tmp_path: Path) -> None:
    take = only(scan(lay(tmp_path, f"02-{TAIL}.mp4")))
    assert (take.video, take.audio) == (tmp_path / f"02-{TAIL}.mp4", None)


def test_repeated_takes_are_listed_and_the_shallowest_is_used(tmp_path: Path) -> None:
    deep = [f"Video_Speech_Actor_03/Actor_03/01-{TAIL}.mp4", f"A/Actor_03/01-{TAIL}.mp4"]
    corpus = scan(lay(tmp_path, f"Actor_03/01-{TAIL}.mp4", *deep))
    assert only(corpus).video == tmp_path / f"Actor_03/01-{TAIL}.mp4"
    assert set(corpus.duplicates) == {tmp_path / name for name in deep}


def test_a_repeated_twin_is_counted_once(tmp_path: Path) -> None:
    corpus = scan(lay(tmp_path, f"01-{TAIL}.mp4", f"02-{TAIL}.mp4", f"a/02-{TAIL}.mp4"))
    assert corpus.duplicates == (tmp_path / f"a/02-{TAIL}.mp4",)
    assert list(corpus.left_out.values()) == [1]


def test_the_published_form_goes_before_a_tracking_overlay(tmp_path: Path) -> None:
    corpus = scan(lay(tmp_path, f"01-{TAIL}.avi", f"deep/er/01-{TAIL}.mp4"))
    assert only(corpus).video == tmp_path / f"deep/er/01-{TAIL}.mp4"
    assert corpus.duplicates == (tmp_path / f"01-{TAIL}.avi",)


def test_songs_are_an_option(tmp_path: Path) -> None:
    lay(tmp_path, f"01-{TAIL}.mp4", f"01-{SONG}.mp4")
    assert only(scan(tmp_path)).attributes["channel"] == "speech"
    assert list(scan(tmp_path).left_out.values()) == [1]
    assert [take.attributes["channel"] for take in scan(tmp_path, song=True).takes] == ["speech", "song"]


def test_a_folder_of_songs_says_how_to_get_them(tmp_path: Path) -> None:
    assert "song" in error_of(lay(tmp_path, f"01-{SONG}.mp4"))


def test_unknown_names_are_listed(tmp_path: Path) -> None:
    strange = [f"01-{TAIL}_croppad.wav", "01-01-09-01-01-01-03.mp4", "holiday.mov", f"02-{TAIL}.wav"]
    corpus = scan(lay(tmp_path, f"01-{TAIL}.mp4", "readme.txt", "1.jpg", *strange))
    assert set(corpus.unknown) == {tmp_path / name for name in strange}
    assert "4 with a name that fits no scheme" in corpus.notes()[0]


def test_hidden_files_are_counted_and_hidden_folders_passed_over(tmp_path: Path) -> None:
    corpus = scan(
        lay(tmp_path, f"01-{TAIL}.mp4", f"__MACOSX/._01-{TAIL}.mp4", ".DS_Store", f".download/01-{TAIL}.mp4")
    )
    assert corpus.left_out == {"hidden files": 1}
    assert not corpus.duplicates


@pytest.mark.parametrize(
    "table",
    [f"Actor_03/01-{TAIL}.csv", f"landmarks/01-{TAIL}.csv", f"FacialTracking_Actors_01-24/x/03-{TAIL}.csv"],
)
@pytest.mark.parametrize("media", [f"Actor_03/01-{TAIL}.mp4", f"Actor_03/03-{TAIL}.wav"])
def test_openface_tables_belong_to_the_take_of_their_name(tmp_path: Path, media: str, table: str) -> None:
    corpus = scan(lay(tmp_path, media, table, "au_means.csv"))
    assert only(corpus).openface == tmp_path / table
    assert not corpus.left_out


def test_openface_tables_of_the_given_folder_go_first(tmp_path: Path) -> None:
    lay(tmp_path, f"c/01-{TAIL}.mp4", f"c/01-{TAIL}.csv", f"t/deep/01-{TAIL}.csv")
    corpus = scan(tmp_path / "c", openface=tmp_path / "t")
    assert only(corpus).openface == tmp_path / f"t/deep/01-{TAIL}.csv"
    assert corpus.left_out == {"repeated OpenFace CSVs": 1}


def test_openface_tables_without_a_recording_are_counted(tmp_path: Path) -> None:
    corpus = scan(lay(tmp_path, f"01-{TAIL}.mp4", "l/01-01-01-01-01-01-04.csv", f"l/01-{SONG}.csv"))
    assert only(corpus).openface is None
    assert sorted(corpus.left_out.values()) == [1, 1]


def test_openface_tables_alone_are_takes(tmp_path: Path) -> None:
    corpus = scan(lay(tmp_path, f"l/01-{TAIL}.csv", f"l/01-{SONG}.csv", "l/notes.csv"))
    take = only(corpus)
    assert (take.name, take.video, take.audio) == (f"01-{TAIL}", None, None)
    assert take.openface == tmp_path / f"l/01-{TAIL}.csv"
    assert sum(corpus.left_out.values()) == 1


def test_a_folder_of_tables_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, f"c/01-{TAIL}.mp4", "t/01-01-01-01-01-01-04.csv")
    assert str(tmp_path / "t") in error_of(tmp_path / "c", openface=tmp_path / "t")
    assert "no such" in error_of(tmp_path / "c", openface=tmp_path / "missing")


def test_cremad_files_of_one_name_are_one_take(tmp_path: Path) -> None:
    stem = "1001_DFA_ANG_XX"
    corpus = scan(lay(tmp_path, f"VideoFlash/{stem}.flv", f"AudioWAV/{stem}.wav", f"AudioMP3/{stem}.mp3"))
    take = only(corpus)
    assert (corpus.name, corpus.labels) == ("cremad", CREMAD)
    assert (take.name, take.actor, take.sex, take.emotion) == (stem, 1001, None, "angry")
    assert take.video == take.audio == tmp_path / f"VideoFlash/{stem}.flv"
    assert corpus.duplicates == (tmp_path / f"AudioMP3/{stem}.mp3",)


@pytest.mark.parametrize("suffix", ["flv", "mp4", "wav"])
def test_cremad_forms(tmp_path: Path, suffix: str) -> None:
    take = only(scan(lay(tmp_path, f"1001_DFA_ANG_XX.{suffix}")))
    assert (take.video is None) == (suffix == "wav")
    assert take.audio is not None


def test_cremad_sexes_come_from_the_table_in_the_tree(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "AudioWAV/1001_DFA_ANG_XX.wav",
        "AudioWAV/1002_DFA_ANG_XX.wav",
        "AudioWAV/1003_DFA_ANG_XX.wav",
    )
    (tmp_path / "VideoDemographics.csv").write_text("ActorID,Sex\n1001,Male\n1002,Female\n")
    assert [take.sex for take in scan(tmp_path).takes] == ["male", "female", None]


def test_two_corpora_in_one_folder_must_be_told_apart(tmp_path: Path) -> None:
    assert "subfolder" in error_of(lay(tmp_path, f"r/01-{TAIL}.mp4", "c/1001_DFA_ANG_XX.flv"))


def test_takes_are_sorted_by_actor_and_can_be_sent_to_other_processes(tmp_path: Path) -> None:
    lay(tmp_path, "03-01-01-01-01-01-12.wav", "03-01-02-01-01-01-02.wav", "03-01-01-01-01-01-02.wav")
    corpus = scan(tmp_path)
    assert [take.actor for take in corpus.takes] == [2, 2, 12]
    assert [take.emotion for take in corpus.takes] == ["neutral", "calm", "neutral"]
    assert corpus.actors == (2, 12)
    assert pickle.loads(pickle.dumps(corpus.takes)) == corpus.takes  # noqa: S301


@pytest.mark.parametrize(
    ("names", "word"),
    [((), "no recording"), (("notes.txt", "x/y.jpg"), "no recording"), (("holiday.mp4",), "holiday.mp4")],
)
def test_a_folder_without_a_take_is_an_error(tmp_path: Path, names: tuple[str, ...], word: str) -> None:
    assert word in error_of(lay(tmp_path, *names))


def test_what_is_neither_folder_nor_table_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, f"01-{TAIL}.mp4")
    assert "no such" in error_of(tmp_path / "nowhere")
    assert "folder" in error_of(tmp_path / f"01-{TAIL}.mp4")


def test_links_lead_neither_in_circles_nor_up_the_disk(tmp_path: Path) -> None:
    corpus_folder = lay(tmp_path, f"neighbour/01-{TAIL}.mp4", f"corpus/a/01-{TAIL}.mp4") / "corpus"
    (corpus_folder / "a/loop").symlink_to(corpus_folder, target_is_directory=True)
    (corpus_folder / "up").symlink_to(tmp_path, target_is_directory=True)
    (corpus_folder / "again").symlink_to("a", target_is_directory=True)
    (corpus_folder / "self.mp4").symlink_to("self.mp4")
    corpus = scan(corpus_folder)
    assert only(corpus).video == corpus_folder / f"a/01-{TAIL}.mp4"
    assert not corpus.duplicates
    assert corpus.left_out == {"broken links": 1}


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    lay(tmp_path, f"disk/Actor_03/01-{TAIL}.mp4")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/videos").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert only(scan(tmp_path / "corpus")).video == tmp_path / f"corpus/videos/Actor_03/01-{TAIL}.mp4"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_closed_folder_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path, f"closed/01-{TAIL}.mp4")
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
    assert len(scan(shared / "clips/ravdess").takes) == 3
    assert len(scan(shared / "clips/cremad").takes) == 3
    assert "subfolder" in error_of(shared / "clips")


def lay_means(path: Path, *names: str, header: str = "AU01_r, name") -> Path:
    path.write_text("\n".join([header, *(f"0.5, {name}" for name in names)]) + "\n")
    return path


@pytest.mark.parametrize("media", [f"Actor_03/01-{TAIL}.mp4", f"Actor_03/03-{TAIL}.wav"])
def test_a_table_of_means_belongs_to_the_takes_it_names(tmp_path: Path, media: str) -> None:
    lay(tmp_path / "c", media, "03-01-02-01-01-01-02.wav", f"l/01-{TAIL}.csv")
    means = lay_means(tmp_path / "means.csv", f"01-{TAIL}", "01-01-01-01-01-01-04")
    corpus = scan(tmp_path / "c", openface=means)
    assert only(corpus).openface == means and only(corpus).actor == 3
    assert corpus.left_out == {
        "takes that means.csv does not have": 1,
        "OpenFace CSVs that means.csv goes before": 1,
    }
    assert "1 left out: takes that means.csv does not have" in corpus.notes()


def test_means_of_every_take_leave_nothing_out(tmp_path: Path) -> None:
    lay(tmp_path / "c", "1001_DFA_ANG_XX.flv", "1002_DFA_ANG_XX.flv")
    means = lay_means(tmp_path / "means.csv", "1001_DFA_ANG_XX", "1002_DFA_ANG_XX")
    corpus = scan(tmp_path / "c", openface=means)
    assert [take.openface for take in corpus.takes] == [means, means] and not corpus.left_out


def test_means_of_a_table_of_takes_go_by_name(tmp_path: Path) -> None:
    lay(tmp_path, "a.wav", "b.wav", f"03-{TAIL}.wav")
    (tmp_path / "takes.csv").write_text(
        f"path,label,speaker,name\na.wav,sad,1,Ann 1\nb.wav,sad,2,\n03-{TAIL}.wav,sad,3,\n"
    )
    means = lay_means(tmp_path / "means.csv", "Ann 1", "a", f"01-{TAIL}")
    corpus = scan(tmp_path / "takes.csv", openface=means)
    assert [take.name for take in corpus.takes] == ["Ann 1", f"03-{TAIL}"]


def test_a_table_of_means_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path / "c", f"01-{TAIL}.mp4")
    means = tmp_path / "means.csv"
    assert f"expected names such as 01-{TAIL}" in error_of(
        tmp_path / "c", openface=lay_means(means, "01-01-01-01-01-01-04")
    )
    assert "none of its 0 rows" in error_of(tmp_path / "c", openface=lay_means(means))
    lay_means(means, f"01-{TAIL}", header="AU01_r,take")
    assert "has no column name" in error_of(tmp_path / "c", openface=means)
    lay_means(means, f"01-{TAIL}", header="frame,name")
    assert "has a column frame" in error_of(tmp_path / "c", openface=means)
    means.write_bytes(bytes(range(256)) * 10)
    assert "save it as CSV" in error_of(tmp_path / "c", openface=means)


def test_the_real_means(shared: Path) -> None:
    means = shared / "ravdess/openface/au_means.csv"
    corpus = scan(shared / "ravdess/audio", openface=means)
    assert len(corpus.takes) == 1200 and corpus.actors == tuple(range(1, 21))
    assert {take.openface for take in corpus.takes} == {means}
    assert all(take.audio is not None for take in corpus.takes)
    assert corpus.left_out == {"takes that au_means.csv does not have": 240}
