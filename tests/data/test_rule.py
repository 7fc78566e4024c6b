"""What a prediction has no answer on is no training clip: one rule for silence and for faces."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from cfnsr.corpus.scan import scan
from cfnsr.corpus.take import Take
from cfnsr.data import preparer
from cfnsr.data.clip import prepare_clip
from cfnsr.data.prepare import prepare_corpus
from cfnsr.data.preparer import loud
from cfnsr.data.store import Store
from cfnsr.data.windows import Windows
from cfnsr.features.preparation import Preparation
from cfnsr.media import face
from cfnsr.media.encode import write_video
from cfnsr.media.errors import MediaError
from cfnsr.media.openface import ACTION_UNITS

HEARD = Preparation(modalities=("audio",))
RATE = 16_000


def film(path: Path, sound: np.ndarray, pictures: int = 5) -> Path:
    frames = iter([np.full((48, 64, 3), 90, np.uint8)] * pictures)
    write_video(path, frames, 25, sound.astype(np.float32), RATE)
    return path


def delayed(path: Path, late: Path, seconds: float) -> Path:
    """The same film whose pictures begin later."""
    with av.open(str(path)) as source, av.open(str(late), "w") as target:
        streams = [target.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.size and packet.pts is not None and packet.dts is not None:
                if packet.stream.type == "video":
                    packet.pts += round(seconds / packet.time_base)
                    packet.dts += round(seconds / packet.time_base)
                packet.stream = streams[packet.stream_index]
                target.mux(packet)
    return late


def noise(seconds: float, level: float, begin: float = 0.0, total: float = 4.0) -> np.ndarray:
    """Noise of a level in dBFS for some seconds of a silence."""
    sound = np.zeros(round(total * RATE))
    part = np.random.default_rng(0).standard_normal(round(seconds * RATE)) * 10 ** (level / 20)
    sound[round(begin * RATE) : round(begin * RATE) + len(part)] = part
    return np.clip(sound, -1, 1)


def prepared(path: Path, preparation: Preparation) -> str:
    """The reason of the refusal; empty for a clip."""
    try:
        prepare_clip(Take(path.stem, "calm", 1, video=path, audio=path), preparation)
    except MediaError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return error.reason
    return ""


@pytest.mark.parametrize(
    ("sound", "speaks"),
    [
        (noise(4, -200), False),
        (noise(4, -75), False),
        (0.05 + noise(4, -75), False),  # an offset of the sound card
        (noise(4, -40), True),
        (noise(0.4, -20), False),  # before anyone listens
        (noise(0.3, -20, begin=1), True),
        (noise(0.5, -20, begin=3.2), False),  # after
    ],
)
def test_a_silent_take_is_no_clip(tmp_path: Path, sound: np.ndarray, speaks: bool) -> None:
    path = film(tmp_path / "a.mkv", sound)
    assert prepared(path, HEARD) == ("" if speaks else "no speech")
    assert prepared(path, replace(HEARD, lenient=True)) == ""
    (window,) = Windows(path, HEARD, length=5.0)
    assert window.speech == speaks, "the same as a prediction"
    whole = replace(HEARD, modalities=("speech",), speech_sha256="0" * 64)
    assert loud(sound, RATE, whole) == (np.ptp(sound) > 2e-3)


def test_the_choice_is_told() -> None:
    lenient = replace(HEARD, lenient=True)
    assert Preparation.from_json(lenient.as_json()) == lenient != HEARD
    assert Preparation.from_json(HEARD.as_json()) == HEARD


def test_the_silent_take_of_cremad(shared: Path, tmp_path: Path) -> None:
    corpus = scan(shared / "cases" / "silence" / "AudioWAV")
    store = Store.create(tmp_path, corpus.name, corpus.labels, HEARD.as_json())
    outcome = prepare_corpus(corpus.takes, store, HEARD, workers=0)
    reasons = {failure.name: failure.reason for failure in outcome.failures}
    assert reasons.pop("1076_MTI_SAD_XX") == "no speech" and set(reasons) == {"1064_IEO_DIS_MD"}
    assert len(outcome.made) == 4
    (window,) = Windows(shared / "cases" / "silence" / "AudioWAV" / "1076_MTI_SAD_XX.wav", HEARD)
    assert window.speech is False


def test_the_pointers_of_cremad(shared: Path, tmp_path: Path) -> None:
    corpus = scan(shared / "cases" / "silence" / "lfs")
    store = Store.create(tmp_path, corpus.name, corpus.labels, HEARD.as_json())
    outcome = prepare_corpus(corpus.takes, store, HEARD, workers=0)
    assert len(outcome.failures) == 2 and all("git lfs pull" in each.message for each in outcome.failures)


def track(path: Path, found: list[int]) -> Path:
    """A track of action units of which some rows have a face."""
    lines: list[list[object]] = [["frame", "timestamp", "confidence", "success", *ACTION_UNITS]]
    for row, success in enumerate(found):
        lines.append([row + 1, row / 25, 0.9 * success, success, *[0.5] * len(ACTION_UNITS)])
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(("found", "well"), [([1, 1, 0, 0], True), ([1, 0, 0, 0], False)])
def test_a_track_needs_a_face_in_half_of_its_rows(tmp_path: Path, found: list[int], well: bool) -> None:
    seen = Preparation(modalities=("openface",))
    take = Take("a", "calm", 1, openface=track(tmp_path / "a.csv", found))
    lenient = prepare_clip(take, replace(seen, lenient=True)).tensors["openface"]
    assert len(lenient) == sum(found)
    if well:
        assert len(prepare_clip(take, seen).tensors["openface"]) == sum(found)
    else:
        with pytest.raises(MediaError, match=r"a face in only 1 of 4 rows") as caught:
            prepare_clip(take, seen)
        assert caught.value.reason == "no face"
    path = film(tmp_path / "a.mp4", noise(1, -20, total=1), pictures=4)
    (window,) = Windows(path, seen, openface=take.openface)
    assert window.face == well, "the same as a prediction"


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face in every picture."""

    class Everywhere:
        def detect(self, frame: np.ndarray) -> np.ndarray:
            return np.array([[16, 8, 24, 30, 0.9]], np.float32)

    monkeypatch.setattr(preparer, "detector", Everywhere)
    monkeypatch.setattr(face, "FaceDetector", Everywhere)


@pytest.mark.parametrize(
    ("begin", "end", "total", "well"),
    [
        (0.0, 0.8, 4.0, False),
        (0.0, 3.6, 4.0, True),
        (2.2, 3.8, 3.8, False),
        (1.6, 2.8, 3.7, False),
        (1.6, 3.7, 3.7, True),
        (1.0, 1.04, 3.7, False),  # a single picture
    ],
)
@pytest.mark.usefixtures("everywhere")
def test_pictures_of_less_than_half_of_a_take_show_nobody(
    tmp_path: Path, begin: float, end: float, total: float, well: bool
) -> None:
    early = film(tmp_path / "early.mkv", noise(total, -20, total=total), round((end - begin) * 25))
    path = delayed(early, tmp_path / "a.mkv", begin)
    for sampling in ("even", "consecutive"):
        both = Preparation(frames=8, size=32, sampling=sampling)
        assert prepared(path, both) == ("" if well else "no face")
        assert prepared(path, replace(both, lenient=True)) == ""
        (window,) = Windows(path, both)
        assert window.face == well, "the same as a prediction"


@pytest.mark.usefixtures("everywhere")
def test_a_camera_that_is_switched_on_late(shared: Path) -> None:
    path = shared / "cases" / "late-camera" / "call.mp4"
    both = Preparation(frames=8, size=32)
    assert prepared(path, both) == "no face" and prepared(path, replace(both, lenient=True)) == ""
    (window,) = Windows(path, both, length=12.0)
    assert window.face is False


def test_the_largest_who_is_seen_long_enough_is_the_person() -> None:
    """Somebody large who passes by hides nobody, as in a window."""
    small, large = np.float32([[0, 0, 20, 20, 0.9]]), np.float32([[50, 0, 90, 90, 0.9]])

    def people(*detections: np.ndarray) -> list[tuple[int, face.Track]]:
        follower, picture = face.Follower(), np.zeros((90, 140, 3), np.uint8)
        seen = [preparer.Picture(at / 10, picture, follower.add(each)) for at, each in enumerate(detections)]
        return preparer.Preparer(Preparation(frames=8, size=32), None)._people(seen)

    ((_, person),) = people(*[np.concatenate([small, large])] * 4, *[small] * 6)
    assert person.found.all() and person.boxes[0, 2] == 20
    with pytest.raises(MediaError, match="a face in only 4 of 10 frames"):
        people(*[large] * 4, *[np.empty((0, 5), np.float32)] * 6)
