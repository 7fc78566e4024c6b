"""Tables for programs and for people, subtitles, and the file that a suffix names."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnsr.errors import InputError
from cfnsr.inference.timeline import Prediction, Window, most_probable, summary
from cfnsr.inference.writers import WRITERS, to_csv, to_srt, to_table, to_vtt, write

Cues = list[tuple[int, int, str]]

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def window(start: float, best: int | None, face: bool | None = True, speech: bool | None = True) -> Window:
    answer = None
    if best is not None:
        answer = {name: 0.65 if at == best else 0.05 for at, name in enumerate(EMOTIONS)}
    uses = tuple(name for name, there in (("video", face), ("audio", speech)) if there and answer)
    return Window(start, start + 2.95, answer, face, speech, uses)


def of(*windows: Window, file: str = "interview.mp4", person: int | None = None) -> Prediction:
    mean = summary(windows)
    return Prediction(file, most_probable(mean), mean, windows, person=person)


MIXED = of(window(0, 2), window(1, 2, face=False), window(2, None, False, False), window(3, 7, speech=False))
PEOPLE = replace(
    of(window(0, 2), window(1, 3), window(2, None, False)),
    people=(of(window(0, 2), window(1, 3), person=1), of(window(1, 5), person=2)),
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


def test_nothing_asked_nothing_of() -> None:
    table = read(to_csv(of(window(0, None, None, None))))
    assert table.loc[0, ["face", "speech", "uses"]].isna().all()
    assert not set(EMOTIONS) & set(table)
    assert read(to_csv(of(window(0, None)), emotions=EMOTIONS))[list(EMOTIONS)].isna().all(axis=None)


def test_names_that_need_quotes_and_names_of_columns() -> None:
    odd = {'a,"b"': 0.5, "face": 0.3, "two\nlines": 0.2}
    table = read(to_csv(of(Window(0, 1, odd, True, True), file='x,"y".mp4')))
    assert table.loc[0, "file"] == 'x,"y".mp4'
    assert [table.loc[0, name] for name in ('a,"b"', "p_face", "two\nlines")] == [0.5, 0.3, 0.2]
    assert bool(table.loc[0, "face"]) is True


def test_probabilities_keep_their_digits() -> None:
    table = read(to_csv(of(Window(100_000.125, 100_001, {"a": 1 / 3, "b": 1e-9}, True, True))))
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
    assert len(to_table(of(window(0, 2))).splitlines()) == 9
    assert to_table(of(window(0, 2, face=False))).splitlines()[-1].endswith("no face: voice alone")
    silent = to_table(of(window(0, None, False, False))).splitlines()
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


def read_vtt(text: str) -> Cues:
    """By sections 4.1 and 4.2 of the WebVTT specification; fails on what a cue may not have."""
    assert "\r" not in text and "\0" not in text
    signature, _, body = text.partition("\n")
    assert signature == "WEBVTT"
    assert not body or body.startswith("\n"), "a blank line follows the signature"
    stamp = r"((?:\d{2,}:)?[0-5]\d:[0-5]\d\.\d{3})"
    cues = []
    for block in re.split(r"\n{2,}", body.strip("\n")) if body.strip("\n") else []:
        timing, *payload = block.split("\n")
        match = re.fullmatch(rf"{stamp}[ \t]+-->[ \t]+{stamp}", timing)
        assert match, timing
        said = "\n".join(payload)
        assert said and "-->" not in said
        assert not re.search(r"<|&(?!amp;|lt;|gt;|lrm;|rlm;|nbsp;)", said), "only escapes"
        for escape, plain in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
            said = said.replace(escape, plain)
        cues.append((_milliseconds(match[1], "."), _milliseconds(match[2], "."), said))
    return cues


def read_srt(text: str) -> Cues:
    """Number, `hours:minutes:seconds,milliseconds --> ...`, lines, a blank line."""
    cues = []
    for count, block in enumerate(re.split(r"\n{2,}", text.strip("\n")) if text else [], start=1):
        number, timing, *payload = block.split("\n")
        assert number == str(count)
        match = re.fullmatch(r"(\d{2,}:[0-5]\d:[0-5]\d,\d{3}) --> (\d{2,}:[0-5]\d:[0-5]\d,\d{3})", timing)
        assert match, timing
        assert payload and not any(mark in line for line in payload for mark in ("-->", "<", "{"))
        cues.append((_milliseconds(match[1], ","), _milliseconds(match[2], ","), "\n".join(payload)))
    return cues


def _milliseconds(stamp: str, point: str) -> int:
    whole, thousandths = stamp.split(point)
    total = 0
    for part in whole.split(":"):
        total = 60 * total + int(part)
    return 1000 * total + int(thousandths)


def unsummed(*windows: Window, person: int | None = None) -> Prediction:
    return Prediction("a.mp4", None, None, windows, person=person)


def spoken(start: float, end: float, emotion: str | None, face: bool = True, speech: bool = True) -> Window:
    uses = tuple(name for name, there in (("video", face), ("audio", speech)) if there)
    return Window(start, end, None if emotion is None else {emotion: 0.72, "-": 0.28}, face, speech, uses)


def test_what_is_shown_when() -> None:
    prediction = unsummed(
        spoken(0, 3, "happy"),
        spoken(1, 4, "happy"),
        spoken(2, 5, "happy", face=False),
        spoken(3, 6, None, face=False, speech=False),
    )
    expected = [
        (0, 3000, "happy 72 %"),
        (3000, 4000, "happy 72 % (no face: voice alone)"),
        (4000, 6000, "no face, no speech: no answer"),
    ]
    assert read_srt(to_srt(prediction)) == expected
    assert read_vtt(to_vtt(prediction)) == expected


def test_several_people_share_a_subtitle() -> None:
    first = unsummed(spoken(0, 2, "happy"), person=1)
    second = unsummed(spoken(1, 3, "sad"), person=2)
    whole = unsummed(spoken(0, 2, "happy"), spoken(1, 3, "sad"), spoken(3, 4, None, face=False))
    whole = replace(whole, people=(first, second))
    expected = [
        (0, 1000, "1: happy 72 %"),
        (1000, 2000, "1: happy 72 %\n2: sad 72 %"),
        (2000, 3000, "2: sad 72 %"),
        (3000, 4000, "no face: no answer"),
    ]
    assert read_srt(to_srt(whole)) == expected
    assert read_vtt(to_vtt(whole)) == expected


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a --> b", "a --› b"),
        ("<b>&lt;</b>", "‹b›&lt;‹/b›"),
        ("this & that", "this & that"),
        ("{\\an8}up", "(\\an8)up"),
        ("two\n\n1\nlines", "two 1 lines"),
        ("froh 😀 ängstlich", "froh 😀 ängstlich"),
    ],
)
def test_names_that_would_be_taken_for_marks(name: str, plain: str) -> None:
    prediction = unsummed(spoken(0, 1, name))
    assert read_vtt(to_vtt(prediction)) == [(0, 1000, f"{' '.join(name.split())} 72 %")]
    assert read_srt(to_srt(prediction)) == [(0, 1000, f"{plain} 72 %")]


def test_hours_beyond_ninety_nine_and_nothing_to_say() -> None:
    prediction = unsummed(spoken(359_998.5, 360_001.25, "happy"))
    assert "99:59:58,500 --> 100:00:01,250" in to_srt(prediction)
    for cues in (read_srt(to_srt(prediction)), read_vtt(to_vtt(prediction))):
        assert cues == [(359_998_500, 360_001_250, "happy 72 %")]
    assert to_srt(unsummed()) == "" and read_vtt(to_vtt(unsummed())) == []


times = st.floats(-2, 40, allow_nan=False)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(times, times, st.sampled_from(["happy", "sad", None])), max_size=6), max_size=4
    )
)
def test_never_negative_never_overlapping(people: list[list[tuple[float, float, str | None]]]) -> None:
    """Whatever the windows are: in any order, of any length, touching within a millisecond."""
    several = tuple(
        unsummed(*(spoken(min(a, b), max(a, b), emotion) for a, b, emotion in windows), person=number)
        for number, windows in enumerate(people, start=1)
    )
    whole = replace(unsummed(*(each for person in several for each in person.timeline)), people=several)
    for cues in (read_srt(to_srt(whole)), read_vtt(to_vtt(whole))):
        last = 0
        for start, end, said in cues:
            assert last <= start < end
            assert len({line.split(":")[0] for line in said.split("\n")}) == said.count("\n") + 1
            last = end


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
