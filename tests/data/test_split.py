"""Every form of a split CSV is read for what it says, and every leak in it is named."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cfnsr.data.folds import nested_folds
from cfnsr.data.leaks import Findings, Leak, check_split, find_files, read_contents
from cfnsr.data.split import PARTS, Split, read_split
from cfnsr.errors import InputError
from cfnsr.media.encode import write_audio

SEXES = {actor: "male" if actor % 2 else "female" for actor in range(1, 25)}


def name(actor: int, emotion: int = 1, repetition: int = 1, modality: int = 1, statement: int = 1) -> str:
    return f"{modality:02d}-01-{emotion:02d}-01-{statement:02d}-{repetition:02d}-{actor:02d}"


def table(folder: Path, text: str | bytes, file: str = "split.csv") -> Path:
    path = folder / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def csv_of(folder: Path, header: str, rows: Sequence[Sequence[object]], separator: str = ",") -> Path:
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    return table(folder, "\n".join(lines) + "\n")


def who(split: Split, fold: int = 0) -> dict[str, list[str]]:
    """The paths of each part of a fold."""
    found = {part: [split.recordings[i].path for i in split.folds[fold].part(part)] for part in PARTS}
    return {part: sorted(paths) for part, paths in found.items() if paths}


def leaks_of(path: Path, media: Path | None = None) -> tuple[Leak, ...]:
    return check_split(read_split(path), media=media, workers=1).leaks


def noted(findings: Findings, start: str) -> str:
    """The one note that starts so."""
    notes = [note for note in findings.notes if note.startswith(start)]
    assert len(notes) == 1, findings.notes
    return notes[0]


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_split(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(str(path))
    return message


# Forms


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
    assert "\n" not in split.read_as and split.folds[0].name == ""


def test_how_it_was_read_is_said(tmp_path: Path) -> None:
    rows = [[f"{name(1)}.mp4", "train", 1, "sad"], [f"{name(2)}.mp4", "val", 1, "sad"]]
    split = read_split(csv_of(tmp_path, "file,split,fold,emotion", rows), {"path": "file"})
    assert split.read_as == "path = file, part = split, fold = fold, actor from RAVDESS names"
    assert [recording.actor for recording in split.recordings] == ["1", "2"]


def test_several_folds_one_below_the_other(tmp_path: Path) -> None:
    rows = [["a", 1, "train"], ["b", 1, "test"], ["a", 2, "test"], ["b", 2, "dev"], ["c", "", "train"]]
    split = read_split(csv_of(tmp_path, "clip,fold,split", rows))
    assert [fold.name for fold in split.folds] == ["1", "2"]
    assert who(split, 0) == {"train": ["a", "c"], "test": ["b"]}  # of no fold: in all of them
    assert who(split, 1) == {"train": ["c"], "validation": ["b"], "test": ["a"]}


def test_a_column_of_folds_alone(tmp_path: Path) -> None:
    rows = [["a", "0.0"], ["b", "1.0"], ["c", "10.0"], ["d", "-1"]]
    split = read_split(csv_of(tmp_path, "path,fold", rows))
    assert [fold.name for fold in split.folds] == ["0", "1", "10"]
    assert who(split, 2) == {"train": ["a", "b", "d"], "test": ["c"]}
    assert "its rows are tested" in split.read_as


def test_the_test_parts_of_all_folds(tmp_path: Path) -> None:
    split = read_split(csv_of(tmp_path, "clip,fold,split", [["a", 1, "test"], ["b", 2, "test"]]))
    assert who(split, 0) == {"train": ["b"], "test": ["a"]}


def test_folds_dealt_within_the_training_part(tmp_path: Path) -> None:
    rows = [["a", "train", 0], ["b", "train", 1], ["c", "test", ""], ["d", "test", -1]]
    split = read_split(csv_of(tmp_path, "path,split,fold", rows))
    assert who(split, 1) == {"train": ["a"], "validation": ["b"], "test": ["c", "d"]}


def test_predictions_of_a_run(tmp_path: Path) -> None:
    rows = [[name(1), 1, "validation", "sad", -0.1, -2.3], [name(2), 2, "test", "sad", -0.1, -2.3]]
    path = csv_of(tmp_path, "clip,actor,split,label,neutral,sad", rows)
    findings = check_split(read_split(path), workers=1)
    assert findings.read_as == "path = clip, part = split, actor = actor"
    assert findings.clean and "only validation and test" in noted(findings, "no train part")


# Bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path,split\na.wav,train\nb.wav,tset\nc.wav,other\n",
            "unknown part 'tset', 'other' in column split",
        ),
        ("path,split\na.wav,train\n", "only one part"),
        ("path,split\n", "holds no recording"),
        ("", "is empty"),
        ("path,split,split\na,train,test\n", "'split' is given twice"),
        ("path,label\na.wav,sad\n", "no column split or fold among path, label"),
        ("file,split\na.wav,train\n", "no column path among file, split; expected a header and one line a "),
        ("file,split\na.wav,train\n", "give for each --column path=THEIR_NAME"),
        ("path,split\na,0\nb,1\n", "unknown part '0', '1' in column split: expected train"),
        ("path,split\na,0\nb,1\n", "give --column fold=split"),
        ("path,split\na.wav,train\nb.wav\n", "line 3: has 1 cells where the header has 2"),
        ("path,split\na.wav,train\nb,c.wav,test\n", "line 3: has 3 cells"),
        ("path,split\na.wav,train\n,test\n", "line 3: no path"),
        ("path,split,actor\na.wav,train,Ann\na.wav,test,Bo\n", "line 3: a.wav is of actor Bo, and of Ann"),
        ('path,split\n"a.wav,train\n', "cannot be read as a table"),
        (b"path,split\n\xe9.wav,train\n\xe9.wav,tr\xe9s\n", r"unknown part 'tr\xe9s'"),
        (b"PK\x03\x04\x14\x00\x08\x00\xe2\x28\xa1", "save it as CSV"),
        ("path,split\n" + "a" * 200_000 + ",train\n", "cannot be read as a table"),
    ],
)
def test_what_is_no_split_is_refused_in_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in error_of(table(tmp_path, text))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "file,split,Split", [["a.wav", "train", "train"], ["b.wav", "test", "test"]])
    for columns, said in (
        ({}, "the column 'split' is given twice"),
        ({"path": "files"}, "no column files among file, split, Split; correct --column"),
        ({"paths": "file"}, "--column paths=file: expected path, split, fold, actor before the ="),
    ):
        with pytest.raises(InputError, match=said):
            read_split(path, columns)
    assert "does not exist" in error_of(tmp_path / "none.csv")
    assert "is no file" in error_of(tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Bytes, as an old zip leaves them; shown as escapes."""
    path = table(tmp_path, b"path,split,actor\ns\xe9.wav,train,M\xfcller\ns\xe9.wav,test,M\xfcller\n")
    assert read_split(path).recordings[0].path == os.fsdecode(b"s\xe9.wav")
    shown = {example for leak in leaks_of(path) for example in leak.examples}
    assert shown == {r"M\xfcller", r"s\xe9.wav"}


def test_a_large_table_is_read(tmp_path: Path) -> None:
    rows = [[f"{i}.wav", i % 5, i // 100] for i in range(10_000)]
    split = read_split(csv_of(tmp_path, "path,fold,actor", rows))
    assert len(split.recordings) == 10_000 and len(split.folds[0].part("test")) == 2_000
    assert {leak.count for leak in check_split(split, workers=1).leaks} == {100}


# Leaks by name


def test_actors_in_two_parts(tmp_path: Path) -> None:
    rows = [
        [f"{name(actor, emotion)}.wav", part]
        for emotion, part in ((1, "train"), (2, "test"))
        for actor in (1, 2, 3, 10)
    ]
    rows += [[f"{name(20)}.wav", "test"]]
    (leak,) = leaks_of(csv_of(tmp_path, "path,split", rows))
    assert leak == Leak("shared actors", "actors", "", ("train", "test"), 4, ("1", "2", "3"))
    assert str(leak) == "shared actors: 4 actors stand in train and test: 1, 2, 3 and 1 more"


def test_actors_are_the_same_however_they_are_written(tmp_path: Path) -> None:
    rows = [
        ["a.wav", "train", "01"],
        ["b.wav", "test", "1.0"],
        ["c.wav", "test", ""],
        ["d.wav", "test", "x1"],
    ]
    (leak,) = leaks_of(csv_of(tmp_path, "path,split,actor", rows))
    assert (leak.count, leak.examples) == (1, ("1",))


def test_actors_are_the_same_in_capitals_or_not(tmp_path: Path) -> None:
    rows = [["a", "train", "S1"], ["b", "test", "s1"], ["c", "test", "STRASSE"], ["d", "train", "Straße"]]
    rows += [["e", "train", "Ann"], ["a", "train", "s1"]]
    findings = check_split(read_split(csv_of(tmp_path, "path,split,actor", rows)), workers=1)
    (leak,) = findings.leaks
    assert (leak.kind, leak.count, leak.examples) == ("shared actors", 2, ("S1", "Straße"))
    assert noted(findings, "taken for one") == "taken for one actor: S1 = s1; STRASSE = Straße"
    assert findings.checked["actors"] == 3


def test_no_cell_reaches_the_terminal_raw(tmp_path: Path) -> None:
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
    findings = check_split(
        read_split(csv_of(tmp_path, f"path,split,actor,fold,label{evil}", rows)), workers=1
    )
    assert [leak.kind for leak in findings.leaks] == ["shared actors", "copies of a recording"]
    assert findings.leaks[0].examples == (r"Ann\x1b[2J\x9b1m\u202e\x07",)
    told = json.dumps(findings.as_json(), ensure_ascii=False)
    assert told.isprintable() and all(line.isprintable() for line in findings.lines())
    assert r"\u001b" not in told  # nor does it come back when the JSON is read
    assert {note.split(":")[0] for note in findings.notes} >= {"counted twice", "content not checked"}
    for text in (f"path,split\na,te{evil}st\nb,train\nc,train\n", f"path,no{evil}\na,1\n"):
        message = error_of(table(tmp_path, text))
        assert message.isprintable() and r"\x1b" in message


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
def test_a_take_in_two_parts(tmp_path: Path, one: str, other: str) -> None:
    rows = [[one, "train"], ["else.wav", "train"], [other, "test"], ["more.wav", "test"]]
    leaks = leaks_of(csv_of(tmp_path, "path,split", rows))
    (leak,) = [leak for leak in leaks if leak.shared == "takes"]
    assert (leak.kind, leak.parts, leak.count) == ("shared takes", ("train", "test"), 1)
    assert leak.examples == ((one,) if one == other else (f"{one} = {other}",))


def test_the_same_name_in_another_folder_may_be_another_take(tmp_path: Path) -> None:
    rows = [["ann/1.wav", "train"], ["bo/1.wav", "test"], ["bo/2.wav", "test"]]
    findings = check_split(read_split(csv_of(tmp_path, "path,split", rows)), workers=1)
    assert findings.clean and findings.checked["takes"] == 3
    assert "1 file names, such as 1.wav" in noted(findings, "names in doubt")


def test_leaks_are_told_fold_by_fold(tmp_path: Path) -> None:
    rows = [["a.wav", "Ann", 1], ["b.wav", "Ann", 2], ["c.wav", "Bo", 3]]
    leaks = leaks_of(csv_of(tmp_path, "path,actor,fold", rows))
    assert [(leak.fold, leak.kind, leak.examples) for leak in leaks] == [
        ("1", "shared actors", ("Ann",)),
        ("2", "shared actors", ("Ann",)),
    ]
    assert str(leaks[0]) == "fold 1: shared actors: 1 actor stands in train and test: Ann"


def test_many_folds_are_told_shortly(tmp_path: Path) -> None:
    findings = check_split(
        read_split(csv_of(tmp_path, "path,actor,fold", [[f"{i}.wav", "Ann", i] for i in range(30)])),
        workers=1,
    )
    assert len(findings.leaks) == 30
    lines = findings.lines()
    assert "shared actors: the same in 20 more pairs of parts" in lines
    assert len(lines) < 20 and lines[-1].startswith("30 leaks: 30 folds, 1 actor, 30 takes compared")


# The inner validation


def test_a_validation_that_is_used_again(tmp_path: Path) -> None:
    rows = [
        ["a", "train", "Ann"],
        ["b", "val", "Ann"],
        ["b", "test", "Ann"],
        ["c", "val", "Bo"],
        ["d", "test", "Cy"],
    ]
    leaks = leaks_of(csv_of(tmp_path, "path,split,actor", rows))
    found = {(leak.kind, leak.shared, leak.parts) for leak in leaks}
    assert found == {
        ("inner validation reused", "actors", ("train", "validation")),
        ("inner validation reused", "actors", ("validation", "test")),
        ("inner validation reused", "takes", ("validation", "test")),
        ("shared actors", "actors", ("train", "test")),
    }


def test_a_validation_that_is_the_test(tmp_path: Path) -> None:
    rows = [["a", "train", "Ann"], *([clip, part, "Bo"] for clip in "bc" for part in ("val", "test"))]
    (leak,) = leaks_of(csv_of(tmp_path, "path,split,actor", rows))
    assert leak.identical and leak.count == 2
    assert str(leak) == "inner validation reused: validation and test are the same 2 takes"


def test_no_validation_is_a_note(tmp_path: Path) -> None:
    rows = [["a", "train", "Ann", 1], ["b", "test", "Bo", 1], ["a", "train", "Ann", 2], ["b", "val", "Bo", 2]]
    findings = check_split(read_split(csv_of(tmp_path, "path,split,actor,fold", rows)), workers=1)
    assert findings.clean
    assert noted(findings, "no inner validation").startswith(
        "no inner validation in fold 1: whatever is chosen"
    )
    assert noted(findings, "no test part").startswith("no test part in fold 2:")


def test_the_same_take_twice_in_one_part_is_a_note(tmp_path: Path) -> None:
    rows = [["a", "train", "Ann"], ["a", "train", "Ann"], ["b", "test", "Bo"], ["c", "", "Bo"]]
    findings = check_split(read_split(csv_of(tmp_path, "path,split,actor", rows)), workers=1)
    assert findings.clean
    assert noted(findings, "counted twice") == "counted twice: 1 take more than once in one part: a"
    assert noted(findings, "left out") == "left out: 1 rows without a part"


def test_actors_who_are_never_tested_are_a_note(tmp_path: Path) -> None:
    rows = [[f"{actor}.wav", actor, -1 if actor > 4 else actor] for actor in range(1, 7)]
    findings = check_split(read_split(csv_of(tmp_path, "path,actor,fold", rows)), workers=1)
    assert findings.clean and noted(findings, "never tested") == "never tested: actor 5, 6"


def test_nested_folds_are_clean(tmp_path: Path) -> None:
    rows = []
    for fold in nested_folds(SEXES):
        for part in PARTS:
            rows += [
                [fold.number, f"{name(int(actor), emotion)}.mp4", part]
                for actor in getattr(fold, part)
                for emotion in range(1, 9)
            ]
    findings = check_split(read_split(csv_of(tmp_path, "fold,path,split", rows)), workers=1)
    assert findings.clean
    assert findings.lines()[-1] == "no leak: 6 folds, 24 actors, 192 takes compared; NOT CHECKED: content"
    assert len(findings.notes) == 1 and "192 files not found" in noted(findings, "content not checked")


# Content


def tone(path: Path, seed: int, rate: int = 16_000) -> Path:
    """Two seconds of a voice of its own."""
    noise = np.random.default_rng(seed)
    time = np.arange(2 * rate) / rate
    pitch = np.interp(time, np.linspace(0, 2, 9), noise.uniform(110, 240, 9))
    loudness = np.interp(time, np.linspace(0, 2, 9), [0, *noise.uniform(0.1, 1, 7), 0])
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = 0.1 * loudness * sum(np.sin(k * phase) / k for k in range(1, 12))
    return write_audio(path, sound.astype(np.float32), rate)


def test_copies_are_found_by_their_content(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 0)
    shutil.copy(tmp_path / "a.wav", tmp_path / "same_bytes.wav")
    tone(tmp_path / "b.wav", 1)
    tone(tmp_path / "same_sound.m4a", 1, 44_100)
    tone(tmp_path / "c.wav", 2)
    (tmp_path / "x.npy").write_bytes(b"features")
    (tmp_path / "y.npy").write_bytes(b"features")
    rows = [[file, "train"] for file in ("a.wav", "b.wav", "x.npy")]
    rows += [[file, "test"] for file in ("same_bytes.wav", "same_sound.m4a", "y.npy", "c.wav", "gone.wav")]
    findings = check_split(read_split(csv_of(tmp_path, "path,split", rows)), workers=1)
    (leak,) = findings.leaks
    assert (leak.kind, leak.shared, leak.count) == ("copies of a recording", "recordings", 3)
    assert set(leak.examples) == {"a.wav = same_bytes.wav", "b.wav = same_sound.m4a", "x.npy = y.npy"}
    assert str(leak).startswith(
        "copies of a recording: 3 recordings stand in train and test under other names: "
    )
    assert noted(findings, "content not checked") == "content not checked: 1 file not found: gone.wav"
    assert "2 files without sound" in noted(findings, "compared by their bytes alone")
    assert findings.checked["files"] == 7


def test_what_the_names_tell_is_not_told_twice(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 0)
    tone(tmp_path / "a.flac", 0)
    (leak,) = leaks_of(csv_of(tmp_path, "path,split", [["a.wav", "train"], ["a.flac", "test"]]))
    assert leak.kind == "shared takes"


def test_copies_within_a_part_are_a_note(tmp_path: Path) -> None:
    for file in ("a.wav", "b.wav"):
        tone(tmp_path / file, 0)
    tone(tmp_path / "c.wav", 1)
    rows = [["a.wav", "train"], ["b.wav", "train"], ["c.wav", "test"]]
    findings = check_split(read_split(csv_of(tmp_path, "path,split", rows)), workers=1)
    assert findings.clean
    assert noted(findings, "counted twice").endswith("under several names in one part: a.wav = b.wav")


def test_broken_files_are_named(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 0)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    findings = check_split(
        read_split(csv_of(tmp_path, "path,split", [["a.wav", "train"], ["b.wav", "test"]])), workers=1
    )
    assert findings.clean and "1 file could not be listened to" in noted(findings, "broken")
    assert "b.wav" in noted(findings, "broken") and "content of 2 files" in findings.lines()[-1]


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
    rows = [[path, part] for path in paths for part in ("train", "test")]
    split = read_split(csv_of(tmp_path, "path,split", rows))
    found = dict(
        zip((recording.path for recording in split.recordings), find_files(split, media), strict=True)
    )
    assert found == {path: place and place.resolve() for path, place in paths.items()}


def test_media_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "path,split", [["a", "train"], ["b", "test"]])
    with pytest.raises(InputError, match="is no folder: expected the folder with the recordings"):
        leaks_of(path, media=path)


def test_several_processes_read_as_one(tmp_path: Path) -> None:
    files = []
    for i in range(20):
        files.append(tmp_path / f"{i}.npy")
        files[-1].write_bytes(bytes([i]))
    done: list[tuple[int, int]] = []
    contents = read_contents(files, workers=2, progress=lambda count, total: done.append((count, total)))
    assert [content.sha256 for content in contents] == [c.sha256 for c in read_contents(files, workers=1)]
    assert done == [(i, 20) for i in range(21)]


def test_json_holds_all_of_it(tmp_path: Path) -> None:
    findings = check_split(
        read_split(csv_of(tmp_path, "path,split,actor", [["a", "train", "Ann"], ["b", "test", "Ann"]])),
        workers=1,
    )
    told = json.loads(json.dumps(findings.as_json()))
    assert told["clean"] is False and told["split"].endswith("split.csv")
    assert told["leaks"] == [
        {
            "kind": "shared actors",
            "shared": "actors",
            "fold": "",
            "parts": ["train", "test"],
            "count": 1,
            "examples": ["Ann"],
            "identical": False,
        }
    ]
    assert told["checked"] == {"folds": 0, "actors": 1, "takes": 2, "files": 0}


def test_real_recordings(shared: Path, tmp_path: Path) -> None:
    """Whole actors apart are clean by content too; a re-coded take on the other side is found."""
    audio = shared / "ravdess" / "audio"
    rows = []
    for actor, part in ((1, "train"), (2, "val"), (12, "test")):
        files = sorted((audio / f"Actor_{actor:02d}").glob("*-01-0?-01-01-0?-*.flac"))
        assert len(files) == 16
        rows += [[file.name, part] for file in files]
    findings = check_split(read_split(csv_of(tmp_path, "path,split", rows)), media=audio, workers=1)
    assert findings.clean and not findings.notes
    assert findings.lines()[-1] == "no leak: 3 actors, 48 takes, content of 48 files compared"

    film = shared / "clips/ravdess/Actor_01" / f"{name(1)}.mp4"
    shutil.copy(film, tmp_path / "interview.mp4")
    rows.append(["interview.mp4", "test"])
    findings = check_split(read_split(csv_of(tmp_path, "path,split", rows)), media=audio, workers=1)
    (leak,) = findings.leaks
    assert leak.kind == "copies of a recording"
    assert leak.examples == (f"{name(1, modality=3)}.flac = interview.mp4",)
