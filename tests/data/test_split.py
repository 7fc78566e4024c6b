"""Every form of a split CSV is read for what it says, and every leak in it is named."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cfnsr.data.folds import nested_folds
from cfnsr.data.leaks import Findings, Leak, check_split, find_files, read_contents
from cfnsr.data.split import PARTS, Split, read_split
from cfnsr.errors import InputError
from cfnsr.media.encode import write_audio

Rows = Sequence[Sequence[object]]


def name(actor: int, emotion: int = 1, modality: int = 1) -> str:
    return f"{modality:02d}-01-{emotion:02d}-01-01-01-{actor:02d}"


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "split.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def csv_of(folder: Path, header: str, rows: Rows) -> Path:
    return table(folder, "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


Check = Callable[..., Findings]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Findings of a table of a header and rows."""

    def check(header: str, rows: Rows, media: Path | None = None) -> Findings:
        return check_split(read_split(csv_of(tmp_path, header, rows)), media=media, workers=0)

    return check


def who(split: Split, fold: int = 0) -> dict[str, list[str]]:
    """The paths of each part of a fold."""
    found = {part: [split.recordings[i].path for i in split.folds[fold].parts[part]] for part in PARTS}
    return {part: sorted(paths) for part, paths in found.items() if paths}


def noted(findings: Findings, start: str) -> str:
    """The one note that starts so."""
    (note,) = [note for note in findings.notes if note.startswith(start)]
    return note


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_split(path)
    message = str(caught.value)
    assert message.isprintable() and message.startswith(str(path))
    return message


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("path,split,speaker\na.wav,train,Ann\nb.wav,test,Bo\n", {}),
        ("\ufeffPath;Split;Actor\r\na.wav;Training;Ann\r\n\r\nb.wav;TESTING;Bo\r\n", {}),
        ("path   split  actor\na.wav  train   Ann\nb.wav   test    Bo\n", {}),
        (',clip,set,split,actor\n0,"a.wav",mine,train,Ann\n1,b.wav,mine,test,Bo\n', {}),
        ("path,split,actor\na.wav,train,Ann\nb.wav,test,Bo\n".encode("utf-16"), {}),
        (
            "id|usage|path|File Name|who\n1|train|x|a.wav|Ann\n2|eval|x|b.wav|Bo\n",
            {"path": "File name", "split": "usage", "actor": "who"},
        ),
    ],
)
def test_a_part_for_each_recording(tmp_path: Path, text: str | bytes, columns: dict[str, str]) -> None:
    split = read_split(table(tmp_path, text), columns)
    assert who(split) == {"train": ["a.wav"], "test": ["b.wav"]}
    assert [recording.actor for recording in split.recordings] == ["Ann", "Bo"]
    assert split.folds[0].name == ""


def test_how_it_was_read_is_said(tmp_path: Path) -> None:
    rows = [[f"{name(1)}.mp4", "train", 1], [f"{name(2)}.mp4", "val", 1], ["1001_DFA_ANG_XX", "test", 1]]
    split = read_split(csv_of(tmp_path, "file,split,fold", rows), {"path": "file"})
    assert split.read_as == "path = file, part = split, fold = fold, actor from RAVDESS and CREMA-D names"
    assert [recording.actor for recording in split.recordings] == ["1", "2", "1001"]


@pytest.mark.parametrize(
    ("header", "rows", "folds", "said"),
    [
        (  # several folds one below the other; what is of no fold is in all of them
            "clip,fold,split",
            [["a", 1, "train"], ["b", 1, "test"], ["a", 2, "test"], ["b", 2, "dev"], ["c", "", "train"]],
            {
                "1": {"train": ["a", "c"], "test": ["b"]},
                "2": {"train": ["c"], "validation": ["b"], "test": ["a"]},
            },
            "",
        ),
        (  # a column of folds alone
            "path,fold",
            [["a", "0.0"], ["b", "1.0"], ["c", "10.0"], ["d", "-1"]],
            {
                "0": {"train": ["b", "c", "d"], "test": ["a"]},
                "1": {"train": ["a", "c", "d"], "test": ["b"]},
                "10": {"train": ["a", "b", "d"], "test": ["c"]},
            },
            "its rows are tested",
        ),
        (  # the test parts of all folds
            "clip,fold,split",
            [["a", 1, "test"], ["b", 2, "test"]],
            {"1": {"train": ["b"], "test": ["a"]}, "2": {"train": ["a"], "test": ["b"]}},
            "its rows are tested",
        ),
        (  # folds dealt within the training part
            "path,split,fold",
            [["a", "train", 0], ["b", "train", 1], ["c", "test", ""], ["d", "test", -1]],
            {
                "0": {"train": ["b"], "validation": ["a"], "test": ["c", "d"]},
                "1": {"train": ["a"], "validation": ["b"], "test": ["c", "d"]},
            },
            "of train, each the validation once",
        ),
    ],
)
def test_forms_of_folds(
    tmp_path: Path, header: str, rows: Rows, folds: dict[str, dict[str, list[str]]], said: str
) -> None:
    split = read_split(csv_of(tmp_path, header, rows))
    assert {fold.name: who(split, place) for place, fold in enumerate(split.folds)} == folds
    assert list(folds) == [fold.name for fold in split.folds] and said in split.read_as


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path,split\na,train\nb,tset\nc,other\n",
            "unknown part 'tset', 'other' in column split: expected tr",
        ),
        ("path,split\na.wav,train\n", "only one part"),
        ("path,split\n", "holds no recording"),
        ("", "is empty"),
        ("path,split,Split\na,train,test\n", "'split' is given twice"),
        ("path,label\na.wav,sad\n", "no column split or fold among path, label"),
        ("file,split\na.wav,train\n", "no column path among file, split; expected a header and one line a "),
        ("file,split\na.wav,train\n", "give for each --column path=THEIR_NAME"),
        ("path,split\na,0\nb,1\n", "give --column fold=split"),
        ("path,split\na.wav,train\nb.wav\n", "line 3: has 1 cells where the header has 2"),
        ("path,split\na.wav,train\nb,c.wav,test\n", "line 3: has 3 cells"),
        ("path,split\na.wav,train\n,test\n", "line 3: no path"),
        ("path,split,actor\na.wav,train,Ann\na.wav,test,Bo\n", "line 3: a.wav is of actor Bo, and of Ann"),
        ('path,split\n"a.wav,train\n', "cannot be read as a table"),
        (b"path,split\n\xe9.wav,train\n\xe9.wav,tr\xe9s\n", r"unknown part 'tr\xe9s'"),
        ("path,split\na,te\x1b[2J\u202est\nb,train\n", r"unknown part 'te\x1b[2J\u202est'"),
        (b"PK\x03\x04\x14\x00\x08\x00\xe2\x28\xa1", "save it as CSV"),
        ("path,split\n" + "a" * 200_000 + ",train\n", "cannot be read as a table"),
    ],
)
def test_what_is_no_split_is_refused_in_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in error_of(table(tmp_path, text))


def test_columns_and_tables_that_are_not_there(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "file,split", [["a.wav", "train"], ["b.wav", "test"]])
    with pytest.raises(InputError, match="no column files among file, split; correct --column"):
        read_split(path, {"path": "files"})
    with pytest.raises(InputError, match="paths=file: expected path, split, fold, actor before the ="):
        read_split(path, {"paths": "file"})
    assert "does not exist" in error_of(tmp_path / "none.csv")
    assert "is no file" in error_of(tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = table(tmp_path, b"path,split,actor\ns\xe9.wav,train,M\xfcller\ns\xe9.wav,test,M\xfcller\n")
    split = read_split(path)
    assert split.recordings[0].path == os.fsdecode(b"s\xe9.wav")
    shown = {example for leak in check_split(split, workers=0).leaks for example in leak.examples}
    assert shown == {r"M\xfcller", r"s\xe9.wav"}


def test_a_large_table_is_read(check: Check) -> None:
    findings = check("path,fold,actor", [[f"{i}.wav", i % 5, i // 100] for i in range(3_000)])
    assert {leak.count for leak in findings.leaks} == {30} and findings.checked["takes"] == 3_000


def test_actors_in_two_parts(check: Check) -> None:
    rows = [[f"{name(actor, 1)}.wav", "train"] for actor in (1, 2, 3, 10)]
    rows += [[f"{name(actor, 2)}.wav", "test"] for actor in (1, 2, 3, 10, 20)]
    (leak,) = check("path,split", rows).leaks
    assert leak == Leak("shared actors", "actors", "", ("train", "test"), 4, ("1", "2", "3"))
    assert str(leak) == "shared actors: 4 actors stand in train and test: 1, 2, 3 and 1 more"


def test_actors_are_the_same_however_they_are_written(check: Check) -> None:
    rows = [["a", "train", "S1"], ["b", "test", "s1"], ["c", "test", "STRASSE"], ["d", "train", "Straße"]]
    rows += [["e", "train", "Ann"], ["a", "train", "s1"], ["f", "train", "01"], ["g", "test", "1.0"]]
    findings = check("path,split,actor", [*rows, ["h", "test", ""]])
    (leak,) = findings.leaks
    assert (leak.kind, leak.count, leak.examples) == ("shared actors", 3, ("1", "S1", "Straße"))
    assert noted(findings, "taken for one") == "taken for one actor: S1 = s1; STRASSE = Straße"
    assert noted(findings, "actors not checked").startswith("actors not checked: 1 of 8 recordings")
    assert findings.checked["actors"] == 4


def test_no_cell_reaches_the_terminal_raw(tmp_path: Path, check: Check) -> None:
    """Escape sequences, line ends, letters that turn the text round: all are shown, none is obeyed."""
    evil = "\x1b[2J\x9b1m\u202e\x07"
    files = [f"x{evil}.npy", f"y{evil}.npy"]
    for file in files:
        (tmp_path / file).write_bytes(b"features")
    rows = [
        [files[0], "train", f"Ann{evil}", f"1{evil}", "sad"],
        [files[1], "test", f"ANN{evil}", f"1{evil}", "sad"],
        [f'"z{evil}\nz.wav"', "test", "", f"1{evil}", "sad"],
        [f"z{evil}.wav", "test", "", f"1{evil}", "sad"],
        [f"z{evil}.wav", "test", "", f"1{evil}", "sad"],
    ]
    findings = check(f"path,split,actor,fold,label{evil}", rows)
    assert [leak.kind for leak in findings.leaks] == ["shared actors", "copies of a recording"]
    assert findings.leaks[0].examples == (r"Ann\x1b[2J\x9b1m\u202e\x07",)
    text = json.dumps(findings.as_json(), ensure_ascii=False)
    assert text.isprintable() and all(line.isprintable() for line in findings.lines())
    assert r"\u001b" not in text  # nor does it come back when the JSON is read
    assert {note.split(":")[0] for note in findings.notes} >= {"counted twice", "content not checked"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{name(1)}.mp4", f"sound/{name(1, modality=3)}.wav"),
        (f"{name(1, modality=2)}.mp4", f"Actor_01/{name(1)}.mp4"),
        (f"{name(1)}.mp4", f"{name(1)}_flipped.npy"),
        (f"frames/{name(1)}/0001.jpg", f"frames/{name(1)}/0002.jpg"),
        ("1001_DFA_ANG_XX.flv", "noisy_1001_DFA_ANG_XX.wav"),
        ("ann.mp4", "ann.wav"),
        ("video/ann.mp4", "audio/ann.wav"),
        ("./a/ann.mp4", "b/../a/ann.mp4"),
        ("a\\ann.mp4", "a/ann.mp4"),
        ("ann.mp4", "ann.mp4"),
        ("ann", "ann.mp4"),
    ],
)
def test_a_take_in_two_parts(check: Check, one: str, other: str) -> None:
    rows = [[one, "train"], ["else.wav", "train"], [other, "test"], ["more.wav", "test"]]
    (leak,) = [leak for leak in check("path,split", rows).leaks if leak.shared == "takes"]
    assert (leak.kind, leak.parts, leak.count) == ("shared takes", ("train", "test"), 1)
    assert leak.examples == ((one,) if one == other else (f"{one} = {other}",))


def test_the_same_name_in_another_folder_may_be_another_take(check: Check) -> None:
    findings = check("path,split", [["ann/1.wav", "train"], ["bo/1.wav", "test"], ["bo/2.wav", "test"]])
    assert findings.clean and findings.checked["takes"] == 3
    assert "1 file names, such as 1.wav" in noted(findings, "names in doubt")
    assert not any("doubt" in note for note in check("path,fold", [["1.wav", 1], ["1.WAV", 2]]).notes)


def test_leaks_are_told_fold_by_fold(check: Check) -> None:
    leaks = check("path,actor,fold", [["a.wav", "Ann", 1], ["b.wav", "Ann", 2], ["c.wav", "Bo", 3]]).leaks
    assert [(leak.fold, leak.kind, leak.examples) for leak in leaks] == [
        ("1", "shared actors", ("Ann",)),
        ("2", "shared actors", ("Ann",)),
    ]
    assert str(leaks[0]) == "fold 1: shared actors: 1 actor stands in train and test: Ann"


def test_many_folds_are_told_shortly(check: Check) -> None:
    findings = check("path,actor,fold", [[f"{i}.wav", "Ann", i] for i in range(30)])
    assert len(findings.leaks) == 30
    lines = findings.lines()
    assert "shared actors: the same in 20 more pairs of parts" in lines
    assert len(lines) < 20 and lines[-1].startswith("30 leaks: 30 folds, 1 actor, 30 takes compared")


def test_a_validation_that_is_used_again(check: Check) -> None:
    rows = [["a", "train", "Ann"], ["b", "val", "Ann"], ["b", "test", "Ann"], ["c", "val", "Bo"]]
    leaks = check("path,split,actor", [*rows, ["d", "test", "Cy"]]).leaks
    assert {(leak.kind, leak.shared, leak.parts) for leak in leaks} == {
        ("inner validation reused", "actors", ("train", "validation")),
        ("inner validation reused", "actors", ("validation", "test")),
        ("inner validation reused", "takes", ("validation", "test")),
        ("shared actors", "actors", ("train", "test")),
    }


def test_a_validation_that_is_the_test(check: Check) -> None:
    rows = [["a", "train", "Ann"], *([clip, part, "Bo"] for clip in "bc" for part in ("val", "test"))]
    (leak,) = check("path,split,actor", rows).leaks
    assert leak.identical and leak.count == 2
    assert str(leak) == "inner validation reused: validation and test are the same 2 takes"


@pytest.mark.parametrize(
    ("header", "rows", "notes"),
    [
        (
            "path,split,actor,fold",
            [
                ["a", "train", "Ann", 1],
                ["b", "test", "Bo", 1],
                ["a", "train", "Ann", 2],
                ["b", "val", "Bo", 2],
            ],
            [
                "no inner validation in fold 1: whatever is chosen (epoch, threshold) is chosen on the t",
                "no test part in fold 2: the figure is that of the validation part",
            ],
        ),
        (
            "path,split,actor",
            [["a", "train", "Ann"], ["a", "train", "Ann"], ["b", "test", "Bo"], ["c", "", "Bo"]],
            ["counted twice: 1 take more than once in one part: a", "left out: 1 rows without a part"],
        ),
        (
            "path,actor,fold",
            [[f"{actor}.wav", actor, -1 if actor > 4 else actor] for actor in range(1, 7)],
            ["never tested: actor 5, 6"],
        ),
        (  # a run's predictions.csv
            "clip,actor,split,label,neutral,sad",
            [[name(1), 1, "validation", "sad", -0.1, -2.3], [name(2), 2, "test", "sad", -0.1, -2.3]],
            ["no train part: only validation and test were compared"],
        ),
    ],
)
def test_what_is_no_leak_is_a_note(check: Check, header: str, rows: Rows, notes: list[str]) -> None:
    findings = check(header, rows)
    assert findings.clean and all(noted(findings, note) for note in notes)


def test_nested_folds_are_clean(check: Check) -> None:
    sexes = {actor: "male" if actor % 2 else "female" for actor in range(1, 25)}
    rows = [
        [fold.number, f"{name(int(actor), emotion)}.mp4", part]
        for fold in nested_folds(dict(sexes))
        for part in PARTS
        for actor in getattr(fold, part)
        for emotion in range(1, 9)
    ]
    findings = check("fold,path,split", rows)
    assert findings.clean
    assert findings.lines()[-1] == "no leak: 6 folds, 24 actors, 192 takes compared; NOT CHECKED: content"
    assert len(findings.notes) == 1 and "192 files not found" in noted(findings, "content not checked")


def tone(path: Path, seed: int, rate: int = 16_000) -> Path:
    """Two seconds of a voice of its own."""
    noise = np.random.default_rng(seed)
    time = np.arange(2 * rate) / rate
    pitch = np.interp(time, np.linspace(0, 2, 9), noise.uniform(110, 240, 9))
    loudness = np.interp(time, np.linspace(0, 2, 9), [0, *noise.uniform(0.1, 1, 7), 0])
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = 0.1 * loudness * sum(np.sin(k * phase) / k for k in range(1, 12))
    return write_audio(path, sound.astype(np.float32), rate)


def test_copies_are_found_by_their_content(tmp_path: Path, check: Check) -> None:
    tone(tmp_path / "a.wav", 0)
    shutil.copy(tmp_path / "a.wav", tmp_path / "same_bytes.wav")
    tone(tmp_path / "b.wav", 1)
    tone(tmp_path / "same_sound.m4a", 1, 44_100)
    tone(tmp_path / "c.wav", 2)
    shutil.copy(tmp_path / "c.wav", tmp_path / "d.wav")
    for file in ("x.npy", "y.npy"):
        (tmp_path / file).write_bytes(b"features")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    rows = [[file, "train"] for file in ("a.wav", "b.wav", "x.npy")]
    tested = ("same_bytes.wav", "same_sound.m4a", "y.npy", "c.wav", "d.wav", "gone.wav", "broken.wav")
    findings = check("path,split", [*rows, *([file, "test"] for file in tested)])
    (leak,) = findings.leaks
    assert (leak.kind, leak.shared, leak.count) == ("copies of a recording", "recordings", 3)
    assert set(leak.examples) == {"a.wav = same_bytes.wav", "b.wav = same_sound.m4a", "x.npy = y.npy"}
    assert str(leak).startswith(f"{leak.kind}: 3 recordings stand in train and test under other names: ")
    assert noted(findings, "counted twice").endswith("under several names in one part: c.wav = d.wav")
    assert noted(findings, "content not checked") == "content not checked: 1 file not found: gone.wav"
    assert "2 files without sound" in noted(findings, "compared by their bytes alone")
    assert "1 file could not be listened to" in noted(findings, "broken")
    assert "broken.wav" in noted(findings, "broken")
    assert findings.checked["files"] == 9 and "content of 9 files" in findings.lines()[-1]


def test_what_the_names_tell_is_not_told_twice(tmp_path: Path, check: Check) -> None:
    tone(tmp_path / "a.wav", 0)
    tone(tmp_path / "a.flac", 0)
    (leak,) = check("path,split", [["a.wav", "train"], ["a.flac", "test"]]).leaks
    assert leak.kind == "shared takes"


def test_files_are_found_where_they_lie(tmp_path: Path) -> None:
    media = tmp_path / "media"
    for file in ("ann/1.wav", "bo/1.wav", "ann/2.mp4", "ann/2.wav", "cy/3.wav"):
        (media / file).parent.mkdir(parents=True, exist_ok=True)
        (media / file).write_bytes(file.encode())
    (tmp_path / "beside.wav").touch()
    paths = {
        "beside.wav": tmp_path / "beside.wav",
        str(media / "cy/3.wav"): media / "cy/3.wav",
        "../" + tmp_path.name + "/beside.wav": tmp_path / "beside.wav",
        "old\\disk\\bo\\1.wav": media / "bo/1.wav",
        "bo/1.wav": media / "bo/1.wav",
        "1.wav": None,  # two are called so
        "2": media / "ann/2.mp4",
        "3": media / "cy/3.wav",
        "ann": None,
        "a" * 300: None,
        "a\0.wav": None,
        "4.wav": None,
    }
    path = csv_of(tmp_path, "path,split", [[path, part] for path in paths for part in ("train", "test")])
    split = read_split(path)
    found = zip((recording.path for recording in split.recordings), find_files(split, media), strict=True)
    assert dict(found) == {path: place and place.resolve() for path, place in paths.items()}
    with pytest.raises(InputError, match="is no folder: expected the folder with the recordings"):
        find_files(split, path)


def test_several_processes_read_as_one(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.npy" for i in range(20)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]))
    done: list[tuple[int, int]] = []
    contents = read_contents(files, workers=2, progress=lambda count, total: done.append((count, total)))
    assert [content.sha256 for content in contents] == [c.sha256 for c in read_contents(files, workers=0)]
    assert done == [(i, 20) for i in range(21)]


def test_json_holds_all_of_it(check: Check) -> None:
    findings = check("path,split,actor", [["a", "train", "Ann"], ["b", "test", "Ann"]])
    value = json.loads(json.dumps(findings.as_json()))
    assert value["clean"] is False and value["split"].endswith("split.csv")
    leak = {"kind": "shared actors", "shared": "actors", "fold": "", "parts": ["train", "test"], "count": 1}
    assert value["leaks"] == [{**leak, "examples": ["Ann"], "identical": False}]
    assert value["checked"] == {"folds": 0, "actors": 1, "takes": 2, "files": 0}


def test_real_recordings(shared: Path, tmp_path: Path, check: Check) -> None:
    """Whole actors apart are clean by content too; a re-coded take on the other side is found."""
    audio = shared / "ravdess" / "audio"
    rows = []
    for actor, part in ((1, "train"), (2, "val"), (12, "test")):
        files = sorted((audio / f"Actor_{actor:02d}").glob("*-01-0?-01-01-01-*.flac"))
        assert len(files) == 8
        rows += [[file.name, part] for file in files]
    findings = check("path,split", rows, audio)
    assert findings.clean and not findings.notes
    assert findings.lines()[-1] == "no leak: 3 actors, 24 takes, content of 24 files compared"

    film = shared / "clips/ravdess/Actor_01" / f"{name(1)}.mp4"
    shutil.copy(film, tmp_path / "interview.mp4")
    (leak,) = check("path,split", [*rows, ["interview.mp4", "test"]], audio).leaks
    assert leak.kind == "copies of a recording"
    assert leak.examples == (f"{name(1, modality=3)}.flac = interview.mp4",)
