from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.media.errors import MediaError
from cfnsr.media.openface import (
    ACTION_UNITS,
    FEATURES,
    GAZE,
    LANDMARKS,
    POSE,
    OpenFaceTrack,
    face_shape,
    is_means,
    read_means,
    read_openface,
)

EVERYTHING = ("frame", "timestamp", "confidence", "success", *GAZE, *POSE, *LANDMARKS, *ACTION_UNITS)


def text(columns: dict[str, np.ndarray], *, before: str = "", shuffle: int | None = None) -> str:
    """A table with `before` in front of each name; `shuffle` is the seed of a random order."""
    names = list(columns)
    if shuffle is not None:
        names = [names[i] for i in np.random.default_rng(shuffle).permutation(len(names))]
    lines = [",".join(before + name for name in names)]
    for row in zip(*(columns[name].tolist() for name in names), strict=True):
        lines.append(",".join(f"{value:g}" for value in row))
    return "\n".join(lines) + "\n"


def write(path: Path, columns: dict[str, np.ndarray], **settings: Any) -> Path:
    path.write_text(text(columns, **settings))
    return path


def table(rows: int = 6) -> dict[str, np.ndarray]:
    """Each cell of a column is 10 times its place in `EVERYTHING` plus its row; see `column`."""
    columns = {name: cells(name, rows) for name in EVERYTHING}
    return columns | {
        "frame": np.arange(1.0, rows + 1),
        "timestamp": np.arange(rows) / 30,
        "confidence": np.full(rows, 0.98),
        "success": np.ones(rows),
    }


def cells(name: str, rows: int) -> np.ndarray:
    """Action units are a ten-thousandth of it, so that they stay in their range."""
    values = 10.0 * EVERYTHING.index(name) + np.arange(rows)
    return values / 10_000 if name in ACTION_UNITS else values


def column(name: str, rows: int = 6) -> list[float]:
    return cells(name, rows).astype(np.float32).tolist()


@pytest.mark.parametrize("shuffle", [None, 1, 2])
@pytest.mark.parametrize("before", ["", " "])
def test_columns_are_found_by_name(tmp_path: Path, before: str, shuffle: int | None) -> None:
    columns = table() | {"eye_lmk_x_0": np.full(6, -1.0), "p_rx": np.full(6, -1.0)}
    track = read_openface(write(tmp_path / "a.csv", columns, before=before, shuffle=shuffle))
    assert track.action_units.shape == (6, 35) and track.action_units.dtype == np.float32
    for place, name in enumerate(ACTION_UNITS):
        assert track.action_units[:, place].tolist() == column(name)
    assert track.landmarks is not None and track.landmarks.shape == (6, 68, 2)
    assert track.landmarks[:, 33, 0].tolist() == column("x_33")
    assert track.landmarks[:, 8, 1].tolist() == column("y_8")
    assert track.pose is not None and track.pose[:, 3].tolist() == column("pose_Rx")
    assert track.gaze is not None and track.gaze.shape == (6, 8)
    assert track.gaze[:, 4].tolist() == column("gaze_1_y")
    assert track.gaze[:, 7].tolist() == column("gaze_angle_y")
    assert track.frame_numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert track.timestamps == pytest.approx(np.arange(6) / 30, abs=1e-6)
    assert track.success.all() and track.confidence == pytest.approx(0.98)


def test_of_two_faces_the_one_seen_longest_is_kept(tmp_path: Path) -> None:
    """Face 0 has more rows, but lost its person; their rows are mixed."""
    lost, seen = table(8), table(6)
    lost |= {"face_id": np.zeros(8), "success": (np.arange(8) < 3) * 1.0}
    seen |= {"face_id": np.ones(6)}
    both = {name: np.concatenate([lost[name], seen[name]]) for name in lost}
    order = np.random.default_rng(0).permutation(14)
    track = read_openface(write(tmp_path / "a.csv", {name: values[order] for name, values in both.items()}))
    assert track.frame_numbers.tolist() == [0, 1, 2, 3, 4, 5] and track.success.all()
    assert track.action_units[:, 0].tolist() == column("AU01_r")


def test_a_track_at_chosen_pictures(tmp_path: Path) -> None:
    columns = {name: values[[0, 1, 4, 5]] for name, values in table().items()}
    track = read_openface(write(tmp_path / "a.csv", columns))
    chosen = track.at(np.array([0, 0, 2, 4, 5, 9]))
    assert chosen.frame_numbers.tolist() == [0, 0, 1, 4, 5, 5]
    assert chosen.action_units[:, 0].tolist() == [column("AU01_r")[n] for n in (0, 0, 1, 4, 5, 5)]
    assert chosen.landmarks is not None and chosen.landmarks.shape == (6, 68, 2)


def refused(path: Path, message: str, read: Callable[[Path], object] = read_openface) -> None:
    with pytest.raises(MediaError) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert message in str(caught.value)


TEXT = text(table())
WITHOUT = {name: values for name, values in table().items() if name not in ("AU12_r", "AU28_c")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (TEXT.splitlines()[0], "has a header but no rows: expected one for each picture"),
        (TEXT.replace("0.98", "high"), "'high' as confidence in the row of frame 1: expected a number; wri"),
        (TEXT + "7,0.2\n", "line 8: has 2 cells where the header has 189; add what is missing"),
        (TEXT + TEXT.splitlines()[-1][:60], "line 8: has"),  # cut off
        (
            text(table() | {"AU01_r": np.full(6, np.nan)}),
            "nan as AU01_r in the row of frame 1: expected a",
        ),
        (text(WITHOUT), "lacks the columns AU12_r, AU28_c: expected OpenFace 2's table; run it with -aus"),
        (TEXT.replace("AU02_r", "AU01_r", 1), "lacks the columns AU02_r"),
        (text(table() | {" AU01_r": np.zeros(6)}), "has 2 columns AU01_r: expected one; remove the others"),
        ("time,happy\n0,1\n", "and 33 more: expected OpenFace 2's table; see whether it is one"),
        (TEXT.replace(",", "~"), "separate the cells by commas, semicolons or tabs"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("PK\3\4\24\0\6\0 a workbook", "save it as CSV"),
        ("\xff\xfe\1\2\3", "expected an OpenFace CSV"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="latin-1")
    refused(tmp_path / "a.csv", message)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for read in (read_openface, read_means):
        refused(tmp_path / "none.csv", "does not exist", read)
        refused(tmp_path, "is no file", read)


@pytest.mark.parametrize(
    ("name", "value", "highest"), [("AU12_r", 5.02, 5), ("AU12_r", -0.02, 5), ("AU28_c", 1.02, 1)]
)
def test_units_beyond_their_range_are_refused(tmp_path: Path, name: str, value: float, highest: int) -> None:
    """In a row that saw a face; what rounding adds does no harm."""
    there, path = table(), tmp_path / "a.csv"
    there[name][3] = value
    message = f"{value:g} as {name} in the row of frame 4: expected 0 to {highest}; write it again with Open"
    refused(write(path, there), message)
    there["success"][3] = 0
    read_openface(write(path, there))
    there["success"][3], there[name][3] = 1, highest + 0.005
    read_openface(write(path, there))
    path = spoilt(means(tmp_path / "m.csv", ["a", "b"]), f"{value:g}", 2, name)
    message = f"{value:g} as {name} in the row of 'b': expected 0 to {highest}; mend or remove that row"
    refused(path, message, read_means)


@pytest.fixture(scope="module")
def real(shared: Path) -> dict[str, OpenFaceTrack]:
    """The real tracks by the names of their takes."""
    paths = sorted((shared / "ravdess/openface/frames").rglob("*.csv"))
    assert len(paths) == 240
    return {path.stem: read_openface(path) for path in paths}


def test_every_real_table(real: dict[str, OpenFaceTrack]) -> None:
    for track in real.values():
        assert track.landmarks is None and track.success.all()
        assert np.diff(track.frame_numbers).min() == 1
        assert track.timestamps == pytest.approx(track.frame_numbers / 29.97, abs=0.01)
        assert track.action_units.min() >= 0 and track.action_units[:, :17].max() <= 5
        assert set(np.unique(track.action_units[:, 17:])) <= {0.0, 1.0}


def means(path: Path, takes: list[str], *, before: str = "", extra: tuple[str, ...] = ()) -> Path:
    """A table of clip means: cell of take i and the j-th column is i / 4 + j / 1000."""
    names = (*reversed(ACTION_UNITS), "name", *extra)
    lines = [",".join(before + name for name in names)]
    for take, name in enumerate(takes):
        value = {unit: take / 4 + place / 1000 for place, unit in enumerate(ACTION_UNITS)}
        lines.append(",".join(name if unit == "name" else f"{value.get(unit, 7.0):g}" for unit in names))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("before", "groups", "width"), [("", (), 35), (" ", (*LANDMARKS, *POSE, *GAZE), 185)]
)
def test_a_row_of_means_is_a_track_of_one_row(
    tmp_path: Path, before: str, groups: tuple[str, ...], width: int
) -> None:
    path = means(tmp_path / "m.csv", ["b", "a 1", "c"], before=before, extra=("frames", *groups))
    assert is_means(path)
    found = read_means(path)
    assert sorted(found) == ["a 1", "b", "c"]
    track = found["a 1"]
    assert track.action_units == pytest.approx(0.25 + np.arange(35)[None] / 1000, abs=1e-6)
    assert track.frame_numbers.tolist() == [0] and track.timestamps.tolist() == [0.0]
    assert track.confidence.tolist() == [1.0] and track.success.tolist() == [True]
    assert [group is None for group in (track.landmarks, track.pose, track.gaze)] == [not groups] * 3
    assert track.seen().features().shape == (1, width)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.257", "nan", "nan as AU10_r in the row of 'b': expected a finite number; mend or remove that"),
        ("0.257", "1e300", "expected a finite number"),
        ("0.257", " ", "'' as AU10_r in the row of 'b': expected a number; mend or remove that row"),
        ("0.257", "high", "'high' as AU10_r in the row of 'b'"),
        ("AU12_r", "AU99_r", "lacks the columns AU12_r"),
        ("AU12_r", "AU12_r, AU12_r", "has 2 columns AU12_r"),
        ("name", "take", "lacks the columns name"),
        (",b\n", ",\n", "without a name"),
    ],
)
def test_what_is_no_table_of_means_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = means(tmp_path / "m.csv", ["a", "b"])
    path.write_text(path.read_text().replace(old, new))
    refused(path, message, read_means)


def test_what_is_a_table_of_means(tmp_path: Path) -> None:
    refused(means(tmp_path / "m.csv", []), "no rows", read_means)
    path = write(tmp_path / "a.csv", table())
    refused(path, "lacks the columns name", read_means)
    assert not is_means(path) and not is_means(tmp_path) and not is_means(tmp_path / "none")
    path.write_bytes(bytes(range(256)))
    assert not is_means(path)


def test_a_take_may_stand_in_the_means_twice_with_the_same_values_alone(tmp_path: Path) -> None:
    path = means(tmp_path / "m.csv", ["a", "b"])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[2]]))
    assert list(read_means(path)) == ["a", "b"]
    path.write_text("".join([*lines, lines[2].replace("0.257", "0.258")]))
    message = "two different rows of one take: expected one; mend or remove the row of 'b'"
    refused(path, message, read_means)


def columns_without(*groups: tuple[str, ...], rows: int = 3) -> dict[str, np.ndarray]:
    left_out = {name for group in groups for name in group}
    return {name: values for name, values in table(rows).items() if name not in left_out}


@pytest.mark.parametrize("rows", [1, 5])
def test_features_are_a_beginning_of_the_wider_ones(tmp_path: Path, rows: int) -> None:
    tracks = []
    for groups in ((), (LANDMARKS,), (LANDMARKS, GAZE), (LANDMARKS, GAZE, POSE)):
        columns = columns_without(*groups, rows=rows)
        tracks.append(read_openface(write(tmp_path / "a.csv", columns, before=" ", shuffle=rows)))
    assert tracks[-1].landmarks is tracks[-1].pose is tracks[-1].gaze is None
    widest = tracks[0].features()
    assert widest.dtype == np.float32 and np.isfinite(widest).all()
    widths = np.cumsum(list(FEATURES.values())).tolist()
    assert widths == [35, 41, 49, 185]
    for track, width in zip(tracks, reversed(widths), strict=True):
        assert track.features().shape == (rows, width)
        assert np.array_equal(track.features(), widest[:, :width])


def test_a_missing_group_ends_the_features(tmp_path: Path) -> None:
    for left_out, width in ((GAZE, 41), (POSE, 35)):
        track = read_openface(write(tmp_path / "a.csv", columns_without(left_out)))
        assert track.features().shape[1] == width


def test_what_the_features_hold(tmp_path: Path) -> None:
    track = read_openface(write(tmp_path / "a.csv", table()))
    features = track.features()
    assert features[:, 0].tolist() == column("AU01_r")
    assert features[:, 35] == pytest.approx(np.array(column("pose_Tx")) / 1000), "metres"
    assert features[:, 38].tolist() == column("pose_Rx"), "radians"
    assert features[:, 48].tolist() == column("gaze_angle_y")
    assert track.landmarks is not None
    assert (face_shape(np.full((2, 68, 2), 5.0, np.float32)) == 0).all(), "points that coincide have no form"
    for row, points in zip(features[:, 49:], track.landmarks.astype(np.float64), strict=True):
        away = points - points.mean(0)
        size = np.mean([x * x + y * y for x, y in away]) ** 0.5
        assert row[[33, 68 + 33]] == pytest.approx(away[33] / size, abs=1e-5), "x_33 and y_33"


def test_rows_without_a_face_are_no_measurement(tmp_path: Path) -> None:
    columns = table() | {"success": np.array([0.0, 1, 1, 0, 1, 0])}
    columns["AU01_r"] = np.where(columns["success"] > 0, columns["AU01_r"], np.nan)
    track = read_openface(write(tmp_path / "a.csv", columns))
    seen = track.seen()
    assert seen.frame_numbers.tolist() == [1, 2, 4] and seen.success.all()
    assert seen.timestamps == pytest.approx(np.array([1, 2, 4]) / 30, abs=1e-6)
    assert seen.features().shape == (3, 185) and np.isfinite(seen.features()).all()
    columns["success"][:] = 0
    with pytest.raises(MediaError, match="found no face in any of 6 rows") as caught:
        read_openface(write(tmp_path / "a.csv", columns)).seen()
    assert caught.value.reason == "no face"


def test_the_real_means_agree_with_the_real_tracks(shared: Path, real: dict[str, OpenFaceTrack]) -> None:
    """They come from two runs of OpenFace: the same takes, hardly different figures."""
    rows = read_means(shared / "ravdess/openface/au_means.csv")
    assert len(rows) == 1200
    ours = np.stack([track.seen().features().mean(axis=0) for track in real.values()])
    assert ours.shape == (240, 35)
    theirs = np.concatenate([rows[name].features() for name in real])
    assert np.abs(ours - theirs).mean() < 0.01 and np.abs(ours - theirs).max() < 0.2
    assert all(np.corrcoef(ours[:, unit], theirs[:, unit])[0, 1] > 0.98 for unit in range(35))


def spoilt(path: Path, cell: str, row: int, *names: str, separator: str = ",") -> Path:
    """One row's cells of some columns replaced in a written table."""
    lines = path.read_text().splitlines()
    header, cells = lines[0].split(separator), lines[row].split(separator)
    for name in names:
        cells[header.index(name)] = cell
    lines[row] = separator.join(cells)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("cell", ["-nan(ind)", "-1.#IND", "1.#QNAN", "nan(snan)", "", "none", "1e400", "99"])
def test_a_row_without_a_face_counts_for_nothing(tmp_path: Path, cell: str) -> None:
    whole = read_openface(write(tmp_path / "a.csv", table()))
    there = table()
    there["success"][2] = 0
    path = spoilt(write(tmp_path / "b.csv", there), cell, 3, *ACTION_UNITS, *GAZE, *POSE, "confidence")
    track = read_openface(spoilt(path, cell if cell != "99" else "", 3, "timestamp"))
    assert track.success.tolist() == [True, True, False, True, True, True]
    assert track.frame_numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert track.timestamps == pytest.approx(np.arange(6) / 30, abs=1e-5)
    assert np.array_equal(track.seen().features(), whole.rows(np.array([0, 1, 3, 4, 5])).features())
    gone = read_openface(spoilt(path, "", 3, "frame"))
    assert gone.frame_numbers.tolist() == track.frame_numbers.tolist()
    assert np.array_equal(gone.success, track.success)
    faced = spoilt(write(tmp_path / "c.csv", table()), cell, 3, "AU12_r")
    refused(faced, "AU12_r in the row of frame 3: expected")


@pytest.mark.parametrize("cell", ["nan", ""])
@pytest.mark.parametrize("gone", [range(4), range(2, 5), range(3, 6), [0, 2, 3, 5]])
def test_rows_of_which_nothing_is_known_count_as_rows_without_a_face(
    tmp_path: Path, cell: str, gone: Sequence[int]
) -> None:
    """Which picture they are of and when, their place says."""
    columns = table() | {"face_id": np.zeros(6)}
    path = write(tmp_path / "a.csv", columns)
    for row in gone:
        spoilt(path, cell, row + 1, *(name for name in columns if name != "success"))
        spoilt(path, "0", row + 1, "success")
    track = read_openface(path)
    assert np.flatnonzero(~track.success).tolist() == list(gone)
    assert track.frame_numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert track.timestamps == pytest.approx(np.arange(6) / 30, abs=1e-5)
    for row in gone:  # an empty cell is no face either
        spoilt(path, "", row + 1, "success")
        spoilt(path, "0.5", row + 1, "confidence")
    assert np.array_equal(read_openface(path).success, track.success)


def test_whether_there_is_a_face_in_words(tmp_path: Path) -> None:
    columns = table()
    columns["success"][[1, 4]] = 0
    path = write(tmp_path / "a.csv", columns)
    for row in range(6):
        spoilt(path, "False" if row in (1, 4) else "True", row + 1, "success")
    assert read_openface(path).success.tolist() == [True, False, True, True, False, True]
    refused(spoilt(path, "perhaps", 2, "success"), "'perhaps' as success in the row of frame 2")


def test_where_the_face_is_needs_no_more(tmp_path: Path) -> None:
    """What is not asked for may be anything, or not be there."""
    whole = read_openface(write(tmp_path / "a.csv", table()))
    path = spoilt(write(tmp_path / "b.csv", table()), "-nan(ind)", 3, "AU12_r", "gaze_0_x")
    refused(path, "AU12_r")
    without = write(tmp_path / "c.csv", {name: row for name, row in table().items() if "AU" not in name})
    refused(without, "lacks the columns AU01_r")
    for each in (path, without):
        track = read_openface(each, points_only=True)
        assert whole.landmarks is not None and track.landmarks is not None
        assert np.array_equal(track.landmarks, whole.landmarks)
        assert track.action_units.shape == (6, 0) and track.pose is None and track.gaze is None


@pytest.mark.parametrize(
    ("between", "encoding"), [(";", "utf-8"), ("\t", "utf-8-sig"), (";", "utf-8-sig"), ("\t", "utf-16")]
)
def test_a_table_as_spreadsheets_save_it(tmp_path: Path, between: str, encoding: str) -> None:
    whole = read_openface(write(tmp_path / "a.csv", table()))
    text = (tmp_path / "a.csv").read_text().replace(",", between).replace(".", ",")
    (tmp_path / "b.csv").write_text(text, encoding=encoding)
    track = read_openface(tmp_path / "b.csv")
    assert np.array_equal(track.features(), whole.features())
    assert np.array_equal(track.timestamps, whole.timestamps)
    path = means(tmp_path / "m.csv", ["a", "b"])
    before = read_means(path)
    path.write_text(path.read_text().replace(",", between).replace(".", ","), encoding=encoding)
    assert is_means(path)
    again = read_means(path)
    assert all(np.array_equal(again[name].features(), before[name].features()) for name in ("a", "b"))


def test_text_that_is_no_utf8_and_excels_first_line(tmp_path: Path) -> None:
    whole = read_openface(write(tmp_path / "a.csv", table()))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "b.csv").write_bytes("\n".join(f"{line},caf\xe9" for line in lines).encode("latin-1"))
    text = (tmp_path / "a.csv").read_text().replace(",", ";").replace(".", ",")
    (tmp_path / "c.csv").write_text("sep=;\n" + text)
    quoted = (",".join(f'"{cell.replace(".", ",")}"' for cell in line.split(",")) for line in lines)
    (tmp_path / "d.csv").write_text("\n".join(quoted))
    for name in ("b.csv", "c.csv", "d.csv"):
        assert np.array_equal(read_openface(tmp_path / name).features(), whole.features())
    path = means(tmp_path / "m.csv", ["a", "b"])
    path.write_bytes(path.read_bytes().replace(b",b\n", b",caf\xe9\n"))
    assert list(read_means(path)) == ["a", r"caf\xe9"]


def test_the_tables_that_people_have(cases: Path) -> None:
    """No-number as Windows writes it in rows without a face, two faces, a spreadsheet's semicolons."""
    lost = {}
    for path in sorted((cases / "openface").glob("*/*.csv")):
        track = read_openface(path)
        lost[path.stem] = int((~track.success).sum())
        assert np.isfinite(track.seen().features()).all() and np.isfinite(track.timestamps).all()
    assert lost == {
        "01-01-01-01-01-01-01": 0,
        "01-01-01-01-01-02-01": 5,
        "01-01-01-01-02-01-01": 5,
        "01-01-01-01-02-02-01": 5,
        "01-01-02-01-01-01-01": 0,
        "01-01-02-01-01-02-01": 0,
        "01-01-02-01-02-01-01": 0,
    }
