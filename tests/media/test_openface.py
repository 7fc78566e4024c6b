from pathlib import Path

import numpy as np
import pytest

from cfnsr.errors import InputError
from cfnsr.media.errors import MediaError
from cfnsr.media.openface import ACTION_UNITS, GAZE, LANDMARKS, POSE, read_openface

EVERYTHING = ("frame", "timestamp", "confidence", "success", *GAZE, *POSE, *LANDMARKS, *ACTION_UNITS)


def write(
    path: Path, columns: dict[str, np.ndarray], *, before: str = "", shuffle: int | None = None
) -> Path:
    """A table with `before` in front of each name; `shuffle` is the seed of a random order."""
    names = list(columns)
    if shuffle is not None:
        names = [names[i] for i in np.random.default_rng(shuffle).permutation(len(names))]
    rows = zip(*(columns[name].tolist() for name in names), strict=True)
    lines = [",".join(before + name for name in names)]
    lines += [",".join(f"{value:g}" for value in row) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def table(rows: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Each cell of a column is 10 times its place in `EVERYTHING` plus its row."""
    columns = {name: 10.0 * place + np.arange(rows) for place, name in enumerate(EVERYTHING)}
    return columns | {
        "frame": np.arange(1.0, rows + 1),
        "timestamp": np.arange(rows) / 30,
        "confidence": np.full(rows, 0.98),
        "success": np.ones(rows),
    }


def column(name: str, rows: int = 6) -> list[float]:
    return (10.0 * EVERYTHING.index(name) + np.arange(rows)).tolist()


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
    assert track.gaze[:, 4].tolist() == column("gaze_1_y") and track.gaze[:, 7].tolist() == column(
        "gaze_angle_y"
    )
    assert track.frame_numbers.tolist() == [0, 1, 2, 3, 4, 5]
    assert track.timestamps == pytest.approx(np.arange(6) / 30, abs=1e-6)
    assert track.success.all() and track.confidence == pytest.approx(0.98)


def test_landmarks_pose_and_gaze_may_be_absent(tmp_path: Path) -> None:
    columns = {name: values for name, values in table().items() if name not in (*LANDMARKS, *POSE, *GAZE)}
    track = read_openface(write(tmp_path / "a.csv", columns))
    assert track.landmarks is track.pose is track.gaze is None
    assert track.action_units.shape == (6, 35)


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
    assert chosen.action_units[:, 0].tolist() == [
        10.0 * EVERYTHING.index("AU01_r") + n for n in (0, 0, 1, 4, 5, 5)
    ]
    assert chosen.landmarks is not None and chosen.landmarks.shape == (6, 68, 2)


def test_one_row(tmp_path: Path) -> None:
    track = read_openface(write(tmp_path / "a.csv", table(1)))
    assert track.at(np.array([0, 7])).frame_numbers.tolist() == [0, 0]


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_openface(path)
    assert isinstance(caught.value, MediaError)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_missing_columns_are_named(tmp_path: Path) -> None:
    columns = table()
    del columns["AU12_r"], columns["AU28_c"]
    message = refused(write(tmp_path / "a.csv", columns))
    assert "AU12_r, AU28_c" in message
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    assert "and 33 more" in refused(tmp_path / "b.csv")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert "does not exist" in refused(path)
    path.write_text("")
    refused(path)
    write(path, table(0))
    assert "no rows" in refused(path)
    write(path, table())
    path.write_text(path.read_text().replace("0.98", "high"))
    assert "not a table of numbers" in refused(path)
    write(path, table() | {"AU01_r": np.full(6, np.nan)})
    assert "not finite" in refused(path)
    path.write_bytes(bytes(range(256)) * 10)
    refused(path)
    refused(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", table())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_openface(path).frame_numbers.tolist() == [0, 1, 2, 3, 4, 5]


def test_every_real_table(shared: Path) -> None:
    paths = sorted((shared / "ravdess/openface/frames").rglob("*.csv"))
    assert len(paths) == 240
    for path in paths:
        track = read_openface(path)
        assert track.landmarks is None and track.success.all()
        assert np.diff(track.frame_numbers).min() == 1
        assert track.timestamps == pytest.approx(track.frame_numbers / 29.97, abs=0.01)
        assert track.action_units.min() >= 0 and track.action_units[:, :17].max() <= 5
        assert set(np.unique(track.action_units[:, 17:])) <= {0.0, 1.0}
