"""Tables for programs and for people, and the file that a suffix names."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from cfnsr.errors import InputError
from cfnsr.inference.prediction import Prediction, Window, most_probable, summary
from cfnsr.inference.writers import WRITERS, to_csv, to_table, write

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def window(start: float, best: int | None, face: bool | None = True, speech: bool | None = True) -> Window:
    told = None
    if best is not None:
        told = {name: 0.65 if at == best else 0.05 for at, name in enumerate(EMOTIONS)}
    uses = tuple(name for name, there in (("video", face), ("audio", speech)) if there and told)
    return Window(start, start + 2.95, told, face, speech, uses)


def told(*windows: Window, file: str = "interview.mp4", person: int | None = None) -> Prediction:
    mean = summary(windows)
    return Prediction(file, most_probable(mean), mean, windows, person=person)


MIXED = told(
    window(0, 2), window(1, 2, face=False), window(2, None, False, False), window(3, 7, speech=False)
)
PEOPLE = replace(
    told(window(0, 2), window(1, 3), window(2, None, False)),
    people=(told(window(0, 2), window(1, 3), person=1), told(window(1, 5), person=2)),
)


def read(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))


def test_a_row_each_window() -> None:
    table = read(to_csv(MIXED))
    assert list(table) == ["file", "person", "start", "end", "emotion", *EMOTIONS, "face", "speech", "uses"]
    assert table["start"].tolist() == [0, 1, 2, 3]
    assert table["end"].tolist() == [2.95, 3.95, 4.95, 5.95]
    assert table["emotion"].tolist()[0::3] == ["happy", "surprised"]
    assert table["happy"].tolist()[:2] == [0.65, 0.65]
    assert table.loc[2, ["emotion", *EMOTIONS, "uses"]].isna().all(), "empty where it abstains"
    assert table["face"].tolist() == [True, False, False, True]
    assert table["speech"].tolist() == [True, True, False, False]
    assert table["uses"].tolist()[:2] == ["video+audio", "audio"]
    assert table["person"].isna().all()


def test_of_several_people_and_files() -> None:
    table = read(to_csv(PEOPLE, MIXED))
    assert table["person"].fillna(0).astype(int).tolist() == [1, 1, 2, 0, 0, 0, 0, 0]
    assert table["start"].tolist() == [0, 1, 1, 2, 0, 1, 2, 3]
    assert table["emotion"].tolist()[:3] == ["happy", "sad", "fearful"]


def test_nothing_asked_nothing_told() -> None:
    table = read(to_csv(told(window(0, None, None, None))))
    assert table.loc[0, ["face", "speech", "uses"]].isna().all()
    assert not set(EMOTIONS) & set(table)
    assert read(to_csv(told(window(0, None)), emotions=EMOTIONS))[list(EMOTIONS)].isna().all(axis=None)


def test_names_that_need_quotes_and_names_of_columns() -> None:
    odd = {'a,"b"': 0.5, "face": 0.3, "two\nlines": 0.2}
    table = read(to_csv(told(Window(0, 1, odd, True, True), file='x,"y".mp4')))
    assert table.loc[0, "file"] == 'x,"y".mp4'
    assert [table.loc[0, name] for name in ('a,"b"', "p_face", "two\nlines")] == [0.5, 0.3, 0.2]
    assert bool(table.loc[0, "face"]) is True


def test_probabilities_keep_their_digits() -> None:
    table = read(to_csv(told(Window(100_000.125, 100_001, {"a": 1 / 3, "b": 1e-9}, True, True))))
    assert table.loc[0, "a"] == pytest.approx(1 / 3, rel=1e-5)
    assert table.loc[0, "b"] == pytest.approx(1e-9)
    assert table.loc[0, "start"] == 100_000.125


def test_the_terminal_reads_the_summary_first() -> None:
    lines = to_table(MIXED).splitlines()
    assert lines[0] == "interview.mp4: happy 45 %"
    assert lines[1] == "  4 windows from 0:00.0 to 0:06.0, 1 without an answer"
    assert lines[2:10] == [
        f"  {name:<12} {100 * share:5.1f} %  {'#' * round(40 * share)}".rstrip()
        for name, share in (MIXED.probabilities or {}).items()
    ]
    assert [" ".join(line.split()) for line in lines[11:]] == [
        "0:00.0 - 0:02.0 happy 65 % ######",
        "0:02.0 - 0:03.0 happy 65 % ###### no face: voice alone",
        "0:03.0 - 0:04.0 no face, no speech: no answer",
        "0:04.0 - 0:06.0 surprised 65 % ###### no speech: picture alone",
    ]


def test_a_single_window_needs_no_table() -> None:
    assert len(to_table(told(window(0, 2))).splitlines()) == 9
    assert to_table(told(window(0, 2, face=False))).splitlines()[-1].endswith("no face: voice alone")
    silent = to_table(told(window(0, None, False, False))).splitlines()
    assert silent[0] == "interview.mp4: no face, no speech: no answer"


def test_people_in_the_terminal() -> None:
    lines = to_table(PEOPLE).splitlines()
    assert lines[0].startswith("interview.mp4: happy")
    assert [line for line in lines if line.startswith("person")] == [
        "person 1: happy 35 %, 2 windows from 0:00.0 to 0:04.0",
        "person 2: fearful 65 %, 1 window from 0:01.0 to 0:04.0",
    ]
    rows = [line.split() for line in lines[lines.index("") + 1 :]]
    assert [row[3] for row in rows] == ["1", "2", "1", "-"], "in order of time"


@pytest.mark.parametrize("prediction", [MIXED, PEOPLE])
@pytest.mark.parametrize("hours", [0, 120])
def test_the_table_fits_into_eighty_columns(prediction: Prediction, hours: int) -> None:
    def later(each: Prediction) -> Prediction:
        moved = [replace(w, start=w.start + 3600 * hours, end=w.end + 3600 * hours) for w in each.timeline]
        people = tuple(map(later, each.people))
        return replace(
            each, file="/a/long/folder/" * 9 + "interview.mp4", timeline=tuple(moved), people=people
        )

    lines = to_table(later(prediction)).splitlines()
    assert max(map(len, lines)) <= 80
    assert "interview.mp4: happy" in lines[0]


@pytest.mark.parametrize("suffix", list(WRITERS))
def test_the_suffix_names_the_form(tmp_path: Path, suffix: str) -> None:
    path = write(MIXED, tmp_path / "new" / f"timeline{suffix.upper()}")
    text = path.read_text(encoding="utf-8")
    assert text == WRITERS[suffix](MIXED)
    assert text.endswith("\n")
    assert list(path.parent.iterdir()) == [path]
    if suffix == ".json":
        assert json.loads(text) == MIXED.as_json()


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"timeline\.docx.*\.csv"):
        write(MIXED, tmp_path / "timeline.docx")
    assert not list(tmp_path.iterdir())
