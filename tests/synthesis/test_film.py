"""What a take's files hold: pictures, landmarks and sound that belong together."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cfnsr.synthesis import plan
from cfnsr.synthesis.acting import ACTION_UNITS
from cfnsr.synthesis.corpus import act, play

Table = dict[str, NDArray[np.float64]]


def read(path: Path) -> Table:
    names = path.read_text().splitlines()[0].split(", ")
    return dict(zip(names, np.loadtxt(path, delimiter=",", skiprows=1).T, strict=True))


def points(table: Table) -> NDArray[np.float64]:
    """Landmarks (frames, 68, 2)."""
    return np.stack([[table[f"{axis}_{point}"] for axis in "xy"] for point in range(68)]).transpose(2, 0, 1)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def take_of(corpus: Path, emotion: int, actor: int) -> tuple[Path, Table]:
    video = next(corpus.glob(f"Actor_{actor:02d}/01-01-{emotion:02d}-*.mp4"))
    return video, read(corpus / "landmarks" / f"{video.stem}.csv")


def test_one_row_a_frame(synthetic_corpus: Path) -> None:
    for video in synthetic_corpus.glob("Actor_*/*.mp4"):
        with av.open(str(video)) as container:
            frames = sum(1 for _ in container.demux(video=0) if _.size)
            sound = container.streams.audio[0]
            assert sound.rate == 48_000
            assert float(sound.duration * sound.time_base) == pytest.approx(frames / 30, abs=0.05)
        table = read(synthetic_corpus / "landmarks" / f"{video.stem}.csv")
        np.testing.assert_array_equal(table["frame"], np.arange(1, frames + 1))
        np.testing.assert_allclose(table["timestamp"], np.arange(frames) / 30, atol=6e-4)
        assert 3.0 <= frames / 30 <= 3.35


def test_columns_are_openfaces(synthetic_corpus: Path, shared: Path) -> None:
    header = next(synthetic_corpus.glob("landmarks/*.csv")).read_text().splitlines()[0]
    assert header.startswith("frame, face_id, timestamp, confidence, success, ")
    ours = header.split(", ")
    real = next((shared / "ravdess" / "openface" / "frames" / "Actor_01").glob("*.csv"))
    theirs = real.read_text().splitlines()[0].split(",")
    units = [[name for name in names if name.startswith("AU")] for names in (ours, theirs)]
    assert units[0] == units[1]
    assert {f"{axis}_{point}" for axis in "xy" for point in range(68)} < set(ours)


@pytest.mark.parametrize("actor", [1, 2])
@pytest.mark.parametrize("emotion", [1, 3, 8])
def test_landmarks_lie_on_the_drawn_face(synthetic_corpus: Path, actor: int, emotion: int) -> None:
    video, table = take_of(synthetic_corpus, emotion, actor)
    film, landmarks = pictures(video), points(table)
    height, width = film[0].shape[:2]
    assert (landmarks > 0).all() and (landmarks < (width, height)).all()
    assert 80 < np.ptp(landmarks[..., 1], axis=1).mean() < 150
    x, y = np.round(landmarks[45]).astype(int).T
    colours = film[45][y, x].astype(float)  # at each landmark
    brow, tip = colours[[18, 19, 20, 23, 24, 25]].mean(), colours[30].mean()
    assert brow < 0.85 * tip, "the brows' points are on dark hair, the nose's on skin"
    lips, nose = colours[[50, 52, 56, 58]].mean(axis=0), colours[[28, 29]].mean(axis=0)
    assert lips[0] / lips[1] > 1.1 * nose[0] / nose[1], "lips are redder than skin"


def test_expressions_are_in_the_units_and_in_the_points(synthetic_corpus: Path) -> None:
    neutral, happy, sad, surprised = (take_of(synthetic_corpus, each, 2)[1] for each in (1, 3, 4, 8))
    assert happy["AU12_r"].mean() > 2 > 0.9 > sad["AU12_r"].mean()
    assert sad["AU15_r"].mean() > 2 > 0.9 > happy["AU15_r"].mean()
    assert surprised["AU01_c"].mean() > 0.8 > 0.2 > neutral["AU01_c"].mean()
    wide = [np.median(table["x_54"] - table["x_48"]) for table in (happy, neutral)]
    assert wide[0] > 1.2 * wide[1], "a smile is wider"


def test_a_masked_take_passes_through_the_files(tmp_path: Path) -> None:
    """Its landmarks' table has one emotion's units above and another's below."""
    masked = next(part for part in plan(actors=1) if part.masked)
    play(masked, tmp_path, seed=5, size=(96, 96))
    table = read(masked.files(tmp_path)[1])
    for unit, column in zip(ACTION_UNITS, act(masked, seed=5).performance.units.T, strict=True):
        assert table[f"AU{unit:02d}_r"].mean() == pytest.approx(column.mean(), abs=0.15)


@pytest.mark.parametrize(("actor", "emotion"), [(1, 1), (2, 8), (1, 7), (2, 3)])
def test_a_detector_finds_the_face_where_the_landmarks_are(
    synthetic_corpus: Path, shared: Path, actor: int, emotion: int
) -> None:
    model = shared / "models" / "face_detection_yunet_640.onnx"
    detector = cv2.FaceDetectorYN.create(str(model), "", (320, 240), 0.7)
    video, table = take_of(synthetic_corpus, emotion, actor)
    for picture, landmarks in zip(pictures(video)[::30], points(table)[::30], strict=True):
        _, faces = detector.detect(np.ascontiguousarray(picture[..., ::-1]))
        assert faces is not None and len(faces) == 1
        eyes = landmarks[36:48].reshape(2, 6, 2).mean(axis=1)
        assert (np.linalg.norm(faces[0, 4:8].reshape(2, 2) - eyes, axis=1) < 8).all()


def test_sound_is_quiet_then_spoken_then_quiet(synthetic_corpus: Path) -> None:
    levels = {}
    for video in synthetic_corpus.glob("Actor_*/*.mp4"):
        with av.open(str(video)) as container:
            blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        samples = np.concatenate(blocks, axis=1)[0].astype(float)
        assert np.sqrt(np.mean(samples[:24_000] ** 2)) < 10 ** (-65 / 20)
        assert np.abs(samples).max() < 0.99
        levels[video.stem[6:8], video.stem[-2:]] = 10 * np.log10(np.mean(samples[33_000:90_000] ** 2))
    assert -55 < min(levels.values()) < max(levels.values()) < -12
    for actor in ("01", "02"):
        assert levels["05", actor] > levels["01", actor] + 3 > levels["04", actor] + 6
