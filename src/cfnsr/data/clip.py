"""One take -> the tensors of its clip: the one way from a file to a model's input."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cfnsr.corpus.scan import performance_key
from cfnsr.corpus.take import Take
from cfnsr.data.store import Header
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Feature, Sound
from cfnsr.features.mel import PCM
from cfnsr.features.preparation import Preparation
from cfnsr.features.speech import encoder_of
from cfnsr.media import face, openface
from cfnsr.media.container import Scan, Streams, scan_packets
from cfnsr.media.decode import Decoded, decode
from cfnsr.media.errors import MediaError, Reason
from cfnsr.media.fingerprint import LONGEST, SOUND_MAP, sound_map
from cfnsr.media.shown import stretch

REASON_WITHOUT: dict[str, Reason] = {"video": "no picture", "audio": "no sound", "openface": "missing"}
SILENCE = 1e-12  # -120 dBFS, so that the logarithm of no sound is finite
# dBFS of the loudest tenth of a second; sound below it counts as silent. The quietest of
# RAVDESS's 1440 takes reaches -56.1.
SPEECH_LEVEL = -60.0
LOUDEST_FOR = 0.1  # seconds


@dataclass(frozen=True)
class Clip:
    """The tensors of one take, and their sources."""

    header: Header
    tensors: dict[str, np.ndarray]


def fingerprint(path: Path, take: Take) -> dict[str, Any]:
    """Identify a file by name, size, modification time and SHA-256; of a table of clip means the take's row.

    Raises:
        MediaError: the table has no row for the take.
        InputError: the table is at fault.
    """
    if openface.is_means(path):
        row = read_track(take, path).features()
        return {"file": path.name, "sha256": hashlib.sha256(row.tobytes()).hexdigest()}
    status = path.stat()
    return {
        "file": path.name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": _sha256(path, status.st_size, status.st_mtime_ns),
    }


@lru_cache(maxsize=8)  # one file may be a take's pictures and its sound
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources(take: Take, modalities: tuple[str, ...]) -> dict[str, Path]:
    """The files a take is prepared from, by role."""
    files = {FEATURES[modality].file for modality in modalities}
    needed = {
        file: path for file in REASON_WITHOUT if file in files and (path := getattr(take, file)) is not None
    }
    points = _points(take)
    if "video" in needed and points is not None:
        needed["openface"] = points
    return needed


def _points(take: Take) -> Path | None:
    """OpenFace CSV of the take if it has a row for each picture, and so locates the face."""
    if take.openface is None or openface.is_means(take.openface):
        return None
    return take.openface


def prepare_clip(take: Take, preparation: Preparation, *, threads: int = 0) -> Clip:
    """Decode a take once and make its clip.

    Tensors (those the modalities ask for):
        video: uint8 (frames, size, size, 3), RGB, the face cut out at full resolution;
        times: float64 (frames,), seconds in the file; face: bool (frames,), whether one was found there;
        squares: float32 (frames, 3), centre x, centre y and side of the crop in pixels of the picture shown;
        audio: float32 (13, steps), MFCCs; log_mel: float32 (128, steps);
        waveform: int16 (N,), the sound these two are made of, 44.1 kHz;
        speech: float16 (layers, steps, width), hidden states of the speech encoder over the whole take,
        a step every 80 ms; speech_0.9 and the like: the same at another speed (see `speech_at`);
        sound_map: uint8 (128, 237), by which copies of a sound are found, of the whole take; zeros for one
        that is silent;
        level: float32 (1,), loudness in dBFS of the seconds kept, for speech alone of the whole take;
        duration: float64 (1,), of the file;
        openface: float32 (T, F), the rows in which OpenFace found a face, with F features as
        `OpenFaceTrack.features` returns; T is 1 where the take stands in a table of clip means;
        openface_times: float64 (T,), seconds; confidence: float32 (T,).

    Args:
        threads: of the video decoder and the speech encoder; 0 lets them choose, 1 suits one process a core.

    Raises:
        MediaError: when the take cannot be prepared, with the reason.
        InputError: when the speech encoder is not there or another one.
    """
    for feature in preparation.features:
        if getattr(take, feature.file) is None:
            raise MediaError(
                REASON_WITHOUT[feature.file],
                f"{take.name} has no file for {feature.name}: "
                + ("give its CSV with --openface, or " if feature.file == "openface" else "")
                + f"leave {feature.name} out of --modalities",
            )
    tensors: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    used = sources(take, preparation.modalities)
    tracked = bool(preparation.of_file("openface"))
    track = None
    if "openface" in used:
        track = read_track(take, used["openface"], points_only=not tracked)
    pictures, sound = _decode(take, preparation, threads)
    if pictures is not None:
        source = _face_source(track, _points(take), pictures)
        assert pictures.frames is not None  # noqa: S101 - asked for
        with _naming(take.video):
            faces = face.cut_faces(
                pictures.frames,
                pictures.times,
                source,
                margin=preparation.margin,
                size=preparation.size,
                least_found=preparation.least_found,
            )
        tensors |= picture_tensors(faces, pictures.times, preparation)
        tensors["duration"] = np.array([pictures.duration])
        found_by = "detector" if isinstance(source, face.FaceDetector) else "openface"
        facts = {"source": found_by, "found": int(faces.found.sum()), "frames": preparation.frames}
    if sound is not None:
        with _naming(take.audio):
            assert sound.waveform is not None  # noqa: S101 - asked for
            tensors |= sound_tensors(sound.waveform, sound.sample_rate, preparation, threads)
            if "waveform" in tensors:  # a store keeps 16 bits
                tensors["waveform"] = np.round(np.clip(tensors["waveform"], -1, 1) * PCM).astype(np.int16)
            tensors["sound_map"] = _sound_map(sound)
            if not preparation.lenient:
                _check_heard(sound.waveform, sound.sample_rate, preparation)
        tensors["duration"] = np.array([sound.duration])
    if tracked and track is not None:
        with _naming(take.openface):
            tensors |= track_tensors(track, preparation)
            face.check_found(track.success, preparation.least_found, "rows")
    notes = {
        role: {"notes": list(decoded.notes)}
        for role, decoded in (("video", pictures), ("audio", sound))
        if decoded is not None and decoded.notes
    }
    header = Header(
        name=take.name,
        emotion=take.emotion,
        actor=take.actor,
        sex=take.sex,
        attributes=dict(take.attributes),
        sources={role: fingerprint(path, take) | notes.get(role, {}) for role, path in used.items()},
        preparation=preparation.as_json(),
        face=facts,
        speech_parameters=encoder_of(preparation).parameters if preparation.pretrained else 0,
    )
    return Clip(header, tensors)


@contextmanager
def _naming(path: Path | None) -> Iterator[None]:
    """Put the file's name before what is wrong with its pictures or sound."""
    try:
        yield
    except MediaError as error:
        raise MediaError(error.reason, f"{path}: {error}") from None


def _decode(take: Take, preparation: Preparation, threads: int) -> tuple[Decoded | None, Decoded | None]:
    """Pictures and sound as far as they are wanted; one decoding where one file has both."""
    sees, hears = preparation.of_file("video"), preparation.of_file("audio")
    together = bool(sees and hears) and take.video == take.audio
    pictures = sound = None
    if sees and take.video is not None:
        streams = preparation.streams if together else Streams(video=preparation.video_stream)
        scan = scan_packets(take.video, streams)
        if not preparation.lenient:
            _check_shown(take.video, scan)
        pictures = decode(
            take.video,
            frames=preparation.frames,
            sampling=preparation.sampling,
            audio=together,
            threads=threads,
            scan=scan,
        )
    if hears and take.audio is not None:
        sound = pictures
        if not together:
            sound = decode(
                take.audio, video=False, threads=threads, streams=Streams(audio=preparation.audio_stream)
            )
    return pictures, sound


def loud(sound: np.ndarray, sample_rate: int, preparation: Preparation) -> bool:
    """True if the part of a recording or window (N,) that a model reads is not silent.

    One rule for all: takes that are silent are not prepared, windows that are have no answer. A constant
    offset, as cheap sound cards add, is no sound.
    """
    start, end = preparation.listens(0.0, len(sound) / sample_rate)
    part = sound[round(start * sample_rate) : round(end * sample_rate)]
    if not len(part):
        return False
    size = max(1, round(LOUDEST_FOR * sample_rate))
    begins = np.arange(0, len(part), size)
    sums, squares = (np.add.reduceat(part.astype(np.float64) ** power, begins) for power in (1, 2))
    energies = squares - sums**2 / np.diff(begins, append=len(part))
    return bool(energies.max() / size > 10 ** (SPEECH_LEVEL / 10))


def _check_heard(sound: np.ndarray, sample_rate: int, preparation: Preparation) -> None:
    """Refuse a take that is silent for one of the audio inputs.

    Raises:
        MediaError: it is silent there ("no speech").
    """
    for feature in preparation.of_file("audio"):
        alone = replace(preparation, modalities=(feature.name,))
        if not loud(sound, sample_rate, alone):
            seconds = len(sound) / sample_rate
            start, end = alone.listens(0.0, seconds)
            raise MediaError(
                "no speech",
                f"silent from {start:g} to {min(end, seconds):.2f} s, where a model listens: "
                f"expected sound above {SPEECH_LEVEL:g} dBFS; leave the take out, or give --lenient",
            )


def usual_step(times: np.ndarray) -> float:
    """Usual seconds from one of the pictures at `times` (N,) to the next."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def shown(times: np.ndarray) -> float:
    """Seconds from the beginning of the first of the pictures at `times` (N,) to the end of the last.

    One rule for all: takes of which pictures show less than half are not prepared, windows have no answer.

    >>> shown(np.array([2.0, 2.5, 3.0]))
    1.5
    """
    return float(times[-1] - times[0]) + usual_step(times)


def _check_shown(path: Path, scan: Scan) -> None:
    """Refuse a take most of which its pictures do not show.

    Raises:
        MediaError: they show less than half of it ("no face").
    """
    if scan.frame_count and shown(scan.times) < face.LEAST_FOUND * scan.duration:
        raise MediaError(
            "no face",
            f"{path}: its pictures show {shown(scan.times):.2f} of {scan.duration:.2f} s: expected a face in "
            f"at least {face.LEAST_FOUND:.0%} of the take; leave it out, or give --lenient",
        )


def _sound_map(sound: Decoded) -> np.ndarray:
    """Fingerprint of a whole take's sound, as `cfnsr check-split` makes it."""
    assert sound.waveform is not None  # noqa: S101 - asked for
    found = sound_map(sound.waveform[: round(LONGEST * sound.sample_rate)], sound.sample_rate)
    return np.zeros(SOUND_MAP, np.uint8) if found is None else found


def picture_tensors(faces: face.Faces, times: np.ndarray, preparation: Preparation) -> dict[str, np.ndarray]:
    """Tensors of pictures at `times`, seconds, whose faces are cut out."""
    tensors = {"times": times, "face": faces.found, "squares": faces.squares.astype(np.float32)}
    return tensors | _extracted(preparation.of_file("video"), faces, preparation)


def track_tensors(track: openface.OpenFaceTrack, preparation: Preparation) -> dict[str, np.ndarray]:
    """Tensors of an OpenFace track.

    Raises:
        MediaError: no row has a face ("no face").
    """
    return _extracted(preparation.of_file("openface"), track.seen(), preparation)


def sound_tensors(
    sound: np.ndarray, sample_rate: int, preparation: Preparation, threads: int = 0
) -> dict[str, np.ndarray]:
    """Tensors of a sound; the waveform is float32, as all else is made of.

    Args:
        sound: mono, full scale 1, (N,).
        sample_rate: in Hz.
        threads: of the speech encoder; 0 lets it choose.

    Raises:
        MediaError: it is too short.
        InputError: the speech encoder is not there or another one.
    """
    features, source = preparation.of_file("audio"), Sound(sound, sample_rate, preparation)
    tensors = _extracted(features, source, preparation, threads)
    kept = sound if all(each.whole_take for each in features) else source.waveform
    level = 10 * np.log10(np.mean(np.square(kept), dtype=np.float64) + SILENCE)
    return {**tensors, "level": np.array([level], np.float32)}


def _extracted(
    features: Sequence[Feature], source: object, preparation: Preparation, threads: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of some inputs that are made of one kind of file."""
    tensors: dict[str, np.ndarray] = {}
    for feature in features:
        tensors |= feature.extract(source, preparation, threads)
    return tensors


def read_track(take: Take, path: Path, *, points_only: bool = False) -> openface.OpenFaceTrack:
    """Read the take's own track, or its row of a table of clip means.

    Args:
        path: of the track, or of the table.
        points_only: of a track no more than where the face is (see `read_openface`).

    Raises:
        InputError: the table of means is at fault, and so every take of it.
    """
    if not openface.is_means(path):
        return openface.read_openface(path, points_only=points_only)
    status = path.stat()
    means = _means(path, status.st_size, status.st_mtime_ns)
    track = means.get(take.name) or means.get(performance_key(take.name))
    if track is None:
        raise MediaError("missing", f"{path} has no row for {take.name}: add one, or leave the take out")
    return track


@lru_cache(maxsize=2)
def _means(path: Path, size: int, mtime_ns: int) -> dict[str, openface.OpenFaceTrack]:
    """Rows of a table of clip means by name and by performance; of several forms of one, the first."""
    try:
        means = openface.read_means(path)
    except MediaError as error:
        raise InputError(str(error)) from None
    return {performance_key(name): means[name] for name in sorted(means, reverse=True)} | means


def _face_source(
    track: openface.OpenFaceTrack | None, path: Path | None, pictures: Decoded
) -> face.FaceDetector | openface.OpenFaceTrack:
    """Return OpenFace's points of the sampled pictures where there are some, else the detector."""
    if track is None or path is None or track.landmarks is None:
        return detector()
    assert pictures.frames is not None  # noqa: S101 - asked for
    points = shown_points(track.at(pictures.frame_numbers), pictures.pixel)
    check_points(path, points, track, (*pictures.frames.shape[1:3], pictures.frame_count))
    return points


def shown_points(points: openface.OpenFaceTrack, pixel: float) -> openface.OpenFaceTrack:
    """Move points to the picture as shown, where OpenFace measured them in pixels that are not square."""
    if points.landmarks is None or pixel == 1:
        return points
    return replace(points, landmarks=points.landmarks * np.array(stretch(pixel), np.float32))


def check_points(
    path: Path, points: openface.OpenFaceTrack, track: openface.OpenFaceTrack, shape: tuple[int, int, int]
) -> None:
    """Refuse the points of another video.

    Args:
        points: rows of it that have landmarks.
        shape: height, width and number of pictures of the video.

    Raises:
        MediaError: a face lies outside the picture, or the track ends long before the video ("broken").
    """
    assert points.landmarks is not None  # noqa: S101
    height, width, count = shape
    centres = points.landmarks[points.success].mean(axis=1)
    inside = ((centres >= 0) & (centres <= (width, height))).all(axis=1)
    if not inside.all() or track.frame_numbers[-1] < 0.9 * (count - 1):
        raise MediaError(
            "broken",
            f"{path} is no track of this video ({width} x {height}, {count} pictures): "
            "expected points inside the picture and a row for each; leave it out to use the face detector",
        )


@cache
def detector() -> face.FaceDetector:
    """Return the face detector, one object a process."""
    return face.FaceDetector()
