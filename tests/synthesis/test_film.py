"""What a take's files hold: pictures, landmarks and sound that belong together."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

Table = dict[str, NDArray[np.float64]]


def read(path: Path) -> Table:
    names = path.read_text().splitlines()[0].split(", ")
    return dict(zip(names, np.loadtxt(path, delimiter=",", skiprows=1).T, strict=True))


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def take_of(corpus: Path, emotion: int, actor: int) -> tuple[Path, Path]:
    video = next(corpus.glob(f"Actor_{actor:02d}/01-01-{emotion:02d}-*.mp4"))
    return video, corpus / "landmarks" / f"{video.stem}.csv"


def test_one_row_a_frame(corpus: Path) -> None:
    for video in corpus.glob("Actor_*/*.mp4"):
        with av.open(str(video)) as container:
            frames = sum(1 for _ in container.demux(video=0) if _.size)
            sound = container.streams.audio[0]
            assert sound.rate == 48_000
            assert float(sound.duration * sound.time_base) == pytest.approx(frames / 30, abs=0.05)
        table = read(corpus / "landmarks" / f"{video.stem}.csv")
        np.testing.assert_array_equal(table["frame"], np.arange(1, frames + 1))
        np.testing.assert_allclose(table["timestamp"], np.arange(frames) / 30, atol=6e-4)
        assert 3.0 <= frames / 30 <= 3.35


def test_columns_are_openfaces(corpus: Path, shared: Path) -> None:
    header = next(corpus.glob("landmarks/*.csv")).read_text().splitlines()[0]
    assert header.startswith("frame, face_id, timestamp, confidence, success, ")
    names = header.split(", ")
    real = next((shared / "ravdess" / "openface" / "frames" / "Actor_01").glob("*.csv"))
    theirs = real.read_text().splitlines()[0].split(",")
    assert [name for name in names if name.startswith("AU")] == [
        name for name in theirs if name.startswith("AU")
    ]
    assert {f"{axis}_{point}" for axis in "xy" for point in range(68)} < set(names)


def test_landmarks_lie_on_the_drawn_face(corpus: Path) -> None:
    for actor in (1, 2):
        for emotion in (1, 3, 8):
            video, csv = take_of(corpus, emotion, actor)
            table, film = read(csv), pictures(video)
            height, width = film[0].shape[:2]
            x = np.stack([table[f"x_{point}"] for point in range(68)], axis=1)
            y = np.stack([table[f"y_{point}"] for point in range(68)], axis=1)
            assert (x > 0).all() and (x < width).all() and (y > 0).all() and (y < height).all()
            assert 80 < np.mean(y.max(axis=1) - y.min(axis=1)) < 150
            picture = film[45].astype(float)
            colours = picture[np.round(y[45]).astype(int), np.round(x[45]).astype(int)]  # at each landmark
            brow, tip = colours[[18, 19, 20, 23, 24, 25]].mean(), colours[30].mean()
            assert brow < 0.85 * tip, "the brows' points are on dark hair, the nose's on skin"
            lips = colours[[50, 52, 56, 58]].mean(axis=0)
            nose = colours[[28, 29]].mean(axis=0)
            assert lips[0] / lips[1] > 1.1 * nose[0] / nose[1], "lips are redder than skin"


def test_expressions_are_in_the_units_and_in_the_points(corpus: Path) -> None:
    def mean(emotion: int, column: str, actor: int = 2) -> float:
        return float(read(take_of(corpus, emotion, actor)[1])[column].mean())

    assert mean(3, "AU12_r") > 2 > 0.9 > mean(4, "AU12_r")
    assert mean(4, "AU15_r") > 2 > 0.9 > mean(3, "AU15_r")
    assert mean(8, "AU01_c") > 0.8 > 0.2 > mean(1, "AU01_c")
    table = {emotion: read(take_of(corpus, emotion, 2)[1]) for emotion in (1, 3)}
    wide = {emotion: np.median(t["x_54"] - t["x_48"]) for emotion, t in table.items()}
    assert wide[3] > 1.2 * wide[1], "a smile is wider"


def test_a_detector_finds_the_face_where_the_landmarks_are(corpus: Path, shared: Path) -> None:
    import cv2

    model = shared / "models" / "face_detection_yunet_640.onnx"
    detector = cv2.FaceDetectorYN.create(str(model), "", (320, 240), 0.7)
    for actor, emotion in ((1, 1), (2, 8), (1, 7), (2, 3)):
        video, csv = take_of(corpus, emotion, actor)
        table = read(csv)
        for index, picture in enumerate(pictures(video)):
            if index % 30:
                continue
            _, faces = detector.detect(np.ascontiguousarray(picture[..., ::-1]))
            assert faces is not None and len(faces) == 1
            right_eye, left_eye = faces[0, 4:6], faces[0, 6:8]
            for eye, points in ((right_eye, range(36, 42)), (left_eye, range(42, 48))):
                drawn = [np.mean([table[f"{axis}_{p}"][index] for p in points]) for axis in "xy"]
                assert np.hypot(*(eye - drawn)) < 8


def test_sound_is_quiet_then_spoken_then_quiet(corpus: Path) -> None:
    levels = {}
    for video in corpus.glob("Actor_*/*.mp4"):
        with av.open(str(video)) as container:
            blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
        samples = np.concatenate(blocks, axis=1)[0].astype(float)
        assert np.sqrt(np.mean(samples[:24_000] ** 2)) < 10 ** (-65 / 20)
        assert np.abs(samples).max() < 0.99
        spoken = 10 * np.log10(np.mean(samples[33_000:90_000] ** 2))
        assert -55 < spoken < -12
        levels[video.stem[6:8], video.stem[-2:]] = spoken
    for actor in ("01", "02"):
        assert levels["05", actor] > levels["01", actor] + 3 > levels["04", actor] + 6
