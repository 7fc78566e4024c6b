"""A CSV of takes, and every way to get one wrong."""

import os
from pathlib import Path

import pytest

from cfnsr.corpus import read_table, scan
from cfnsr.emotions import CREMAD
from cfnsr.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "s.wav", "sub/a.mp4", "t/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "takes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_table(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_table_of_takes(folder: Path) -> None:
    corpus = scan(
        table(
            folder,
            "\ufeffspeaker, path ,label,audio,openface,sex,mood\r\n"
            "Ann,a.mp4,sad,s.wav,t/a.csv,F,low\r\n\r\n"
            f"007,{folder / 'b.mp4'},happy,,,,high\r\n"
            '9,"s.wav",sad,,,male,\r\n',
        )
    )
    bond, nine, ann = corpus.takes  # one of them has a name, so none is a number
    assert (corpus.name, corpus.labels) == ("takes", CREMAD)
    assert (ann.name, ann.actor, ann.sex, ann.attributes) == ("a", "Ann", "female", {"mood": "low"})
    assert (ann.video, ann.audio, ann.openface) == (folder / "a.mp4", folder / "s.wav", folder / "t/a.csv")
    assert (bond.actor, bond.video, bond.audio, bond.sex) == ("007", folder / "b.mp4", folder / "b.mp4", None)
    assert (nine.video, nine.audio, nine.sex) == (None, folder / "s.wav", "male")


def test_speakers_are_numbers_only_where_all_are(folder: Path) -> None:
    lines = "path,label,speaker\na.mp4,sad,10\nb.mp4,sad,"
    assert [take.actor for take in scan(table(folder, lines + "9\n")).takes] == [9, 10]
    assert [take.actor for take in scan(table(folder, lines + "Ann\n")).takes] == ["10", "Ann"]


def test_other_labels_make_their_own_set(folder: Path) -> None:
    path = table(folder, "path,label,speaker,name\na.mp4,tired,1,\nsub/a.mp4,awake,2,sub-a\n")
    corpus = read_table(path)
    assert corpus.labels.emotions == ("awake", "tired")
    assert [take.name for take in corpus.takes] == ["a", "sub-a"], "a name tells equal stems apart"
    assert read_table(path, ("tired", "awake", "calm")).labels.emotions == ("tired", "awake", "calm")
    with pytest.raises(InputError, match="'awake' is outside the set"):
        read_table(path, ("tired", "calm"))
    with pytest.raises(InputError, match="at least two"):
        read_table(table(folder, "path,label,speaker\na.mp4,bored,1\n"))


def test_the_openface_option_goes_by_name(folder: Path) -> None:
    path = table(folder, "path,label,speaker\na.mp4,sad,1\nb.mp4,happy,2\n")
    first, second = scan(path, openface=folder / "t").takes
    assert (first.openface, second.openface) == (folder / "t/a.csv", None)


@pytest.mark.parametrize(
    ("rows", "line", "word"),
    [
        ("path,label\na.mp4,sad\n", 1, "speaker"),
        ("path;label\na.mp4;sad\n", 1, "speaker"),
        ("path,label,speaker,label\na.mp4,sad,1,sad\n", 1, "twice"),
        ("path,label,speaker\na.mp4,,1\n", 2, "label"),
        ("path,label,speaker\na.mp4,sad,\n", 2, "speaker"),
        ("path,label,speaker\na.mp4,sad,1\n\nnowhere.mp4,sad,1\n", 4, "nowhere.mp4"),
        ("path,label,speaker\nsub,sad,1\n", 2, "'sub'"),
        ("path,label,speaker\nt/a.csv,sad,1\n", 2, "recording"),
        ("path,label,speaker\na.mp4,sad,1\nsub/a.mp4,sad,1\n", 3, "line 2"),
        ("path,label,speaker,name\na.mp4,sad,1,X\nb.mp4,sad,1,x\n", 3, "line 2"),
        ("path,label,speaker,name\na.mp4,sad,1,../x\n", 2, "'../x'"),
        ("path,label,speaker,audio\na.mp4,sad,1,no.wav\n", 2, "audio 'no.wav'"),
        ("path,label,speaker,audio\ns.wav,sad,1,s.wav\n", 2, "already sound"),
        ("path,label,speaker,openface\na.mp4,sad,1,no.csv\n", 2, "openface 'no.csv'"),
        ("path,label,speaker,sex\na.mp4,sad,1,other\n", 2, "sex 'other'"),
        ("path,label,speaker\na.mp4,sad,1\nb.mp4,Sad,2\n", 3, "spelt"),
        ("path,label,speaker\na.mp4,g\u00ea,1\nb.mp4,ge\u0302,2\n", 3, "spelt"),
        ("path,label,speaker\na.mp4,sad,1,2\n", 2, "4 cells"),
        ("path,label,speaker\na.mp4,sad\n", 2, "2 cells"),
        ("path,label,speaker\n" + "x" * 5000 + ".mp4,sad,1\n", 2, "no such file"),
    ],
)
def test_a_bad_line_is_named(folder: Path, rows: str, line: int, word: str) -> None:
    message = error_of(table(folder, rows))
    assert f" line {line}: " in message
    assert word in message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"path,label,speaker\n", "no take"),
        (b"path,label,speaker\n\xff\xfe,sad,1\n", "UTF-8"),
        (b'path,label,speaker\n"a.mp4,sad,1\n', "table"),
        (b"path,label,speaker\nx.mp4,sad,1\na.mp4,sad,1\ny.mp4,sad,1\n,sad,1\n", "(and 2 more such lines)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_what_is_no_table_is_refused(folder: Path, content: bytes, word: str) -> None:
    assert word in error_of(table(folder, content))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("KL", "kl"), ("A B", "A  B"), ("Zo\u00eb", "Zoe\u0308"), ("1", "1.0"), ("1", "1.")),
        *(("KL", "\uff2b\uff2c"), ("P01", "P1"), ("Actor 2", "Actor_02"), ("actor 1", "actor-1")),
        *(("actor2", "Actor 2"), ("anna", "anna."), ("Li An", "li_an"), ("Li An", "Li\u00a0An")),
        *(("3", "\u0663"), ("anna", "an\u200bna"), ("Ses01F", "ses1f")),
    ],
)
def test_a_speaker_in_two_spellings_is_refused(folder: Path, one: str, other: str) -> None:
    rows = f"path,label,speaker\na.mp4,sad,{one}\nb.mp4,happy,{other}\ns.wav,sad,Bo\n"
    with pytest.raises(InputError, match="one person in two spellings") as caught:
        scan(table(folder, rows))
    message = str(caught.value)
    assert repr(one) in message and repr(other) in message and "\n" not in message
    assert ("two Unicode forms" in message) == (one[:2] == "Zo")
    assert len(scan(table(folder, rows.replace(other, one))).actors) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("Li An", "Lian"), ("1 2", "12"), ("1", "-1"), ("P1", "P10"), ("P1 2", "P12"), ("P1", "Q1")),
        *(("B\u00e4r", "B\u00f6r"), ("anna", "anne")),
    ],
)
def test_two_speakers_of_like_names(folder: Path, one: str, other: str) -> None:
    rows = f"path,label,speaker\na.mp4,sad,{one}\nb.mp4,happy,{other}\ns.wav,sad,Bo\n"
    assert len(scan(table(folder, rows)).actors) == 3


def test_the_speakers_of_a_real_table(shared: Path, tmp_path: Path) -> None:
    text = (shared / "cases" / "speakers" / "speaker_two_spellings.csv").read_text()
    (tmp_path / "wav").mkdir()
    for line in text.splitlines()[1:]:
        (tmp_path / line.split(",")[0]).touch()
    with pytest.raises(InputError, match="'KL' and 'kl' are one person in two spellings"):
        scan(table(tmp_path, text))
    assert len(scan(table(tmp_path, text.replace(",kl", ",KL"))).actors) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"path;label;speaker\na.mp4;sad;1\nb.mp4;happy;2\n",
        b"sep=;\r\npath;label;speaker\r\na.mp4;sad;1\r\nb.mp4;happy;2\r\n",
        "path\tlabel\tspeaker\t\t\na.mp4\tsad\t1\t\t\nb.mp4\thappy\t2\t\t\n".encode("utf-16"),
    ],
)
def test_a_table_as_spreadsheets_save_it(folder: Path, content: bytes) -> None:
    takes = read_table(table(folder, content)).takes
    assert [(take.name, take.emotion, take.actor, take.attributes) for take in takes] == [
        ("a", "sad", 1, {}),
        ("b", "happy", 2, {}),
    ]


def test_recordings_whose_names_are_no_text(folder: Path) -> None:
    """As the table names them, in bytes; what else is no text is refused."""
    (folder / os.fsdecode(b"caf\xe9.mp4")).touch()
    corpus = read_table(table(folder, b"path,label,speaker\ncaf\xe9.mp4,sad,1\nb.mp4,happy,2\n"))
    assert [take.name for take in corpus.takes] == [r"caf\xe9", "b"]
    assert corpus.takes[0].video == folder / os.fsdecode(b"caf\xe9.mp4")
    assert "UTF-8" in error_of(table(folder, b"path,label,speaker\na.mp4,g\xea,1\nb.mp4,sad,2\n"))
    assert r"'th\xe9.mp4'" in error_of(table(folder, b"path,label,speaker\nth\xe9.mp4,sad,1\n"))
    assert r"'M\xfcller'" in error_of(table(folder, b"path,label,speaker\na.mp4,sad,M\xfcller\n"))
