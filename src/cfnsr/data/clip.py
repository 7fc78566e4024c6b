"""One take -> the tensors of its clip: the one way from a file to a model's input."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cfnsr.corpus.scan import performance_key
from cfnsr.corpus.take import Take
from cfnsr.data import speech
from cfnsr.data.store import Header
from cfnsr.errors import InputError
from cfnsr.media import face, mfcc, openface
from cfnsr.media.container import Scan, Streams, scan_packets
from cfnsr.media.decode import Decoded, decode
from cfnsr.media.errors import MediaError, Reason
from cfnsr.media.fingerprint import LONGEST, SOUND_MAP, sound_map
from cfnsr.media.log_mel import log_mel
from cfnsr.media.shown import stretch

# Modalities that can be made of a take, and the files each is made of.
MODALITIES = {
    "video": "video",
    "audio": "audio",
    "log_mel": "audio",
    "speech": "audio",
    "openface": "openface",
}
# Input of an audio encoder by its name: MFCCs, or the log-mel spectrogram of ERANNs.
SOUND_FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"audio": mfcc.mfcc, "log_mel": log_mel}
PCM = 32_767  # of a sample at full scale, in 16 bits
RECIPE = 4  # of a clip: raise it when the same file and settings give other tensors
SPEEDS = (0.5, 2.0)  # a take may be played at
MOST_SPEEDS = 4
SHA256 = re.compile("[0-9a-f]{64}")
SILENCE = 1e-12  # -120 dBFS, so that the logarithm of no sound is finite
# dBFS of the loudest tenth of a second; sound below it counts as silent. The quietest of
# RAVDESS's 1440 takes reaches -56.1.
SPEECH_LEVEL = -60.0
LOUDEST_FOR = 0.1  # seconds
REASON_WITHOUT: dict[str, Reason] = {"video": "no picture", "audio": "no sound", "openface": "missing"}


@dataclass(frozen=True)
class Preparation:
    """Settings by which clips are made; the defaults are the paper's (section 3.2).

    Args:
        modalities: which of "video", "audio" (MFCCs), "log_mel", "speech" and "openface" are made.
        frames: pictures a clip.
        sampling: "even" spreads them over the take, "consecutive" takes its middle run.
        size: side of the face crop in pixels.
        margin: room around the face, as a part of its height.
        skip: seconds of sound left out at the start.
        keep: seconds of sound kept after that; shorter takes are padded with silence.
        speech_encoder: name of the pretrained speech encoder: on the hub, or its folder's own.
        speech_sha256: of its files, `SpeechEncoder.sha256`; "speech" cannot be made without.
        speech_speeds: further speeds of the audio: training draws one for each clip and epoch, a prediction
            is the mean over all.
        video_stream, audio_stream: of files that have several, see `Streams`; a prediction has its own.
        lenient: keep takes on which a prediction would give no answer: silent ones, and those with a face in
            fewer than half of the pictures, as long as there is one.
    """

    modalities: tuple[str, ...] = ("video", "audio")
    frames: int = 30
    sampling: Literal["even", "consecutive"] = "even"
    size: int = 224
    margin: float = face.MARGIN
    skip: float = mfcc.SKIP
    keep: float = mfcc.KEEP
    speech_encoder: str = ""
    speech_sha256: str = ""
    speech_speeds: tuple[float, ...] = (0.9, 1.1)
    video_stream: int | None = None
    audio_stream: int | None = None
    lenient: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.modalities) - set(MODALITIES))
        if unknown or not self.modalities:
            given = ", ".join(unknown) or "none"
            raise InputError(f"modalities {given}: expected some of {', '.join(MODALITIES)}")
        if self.sampling not in ("even", "consecutive"):
            raise InputError(f"sampling is {self.sampling!r}: expected even or consecutive")
        for name, value, low, high in (
            ("frames", self.frames, 1, 1000),
            ("size", self.size, 16, 1024),
            ("margin", self.margin, 0, 2),
            ("skip", self.skip, 0, 60),
            ("keep", self.keep, 0.5, 60),
        ):
            if not low <= value <= high:
                raise InputError(f"{name} is {value}: expected {low} to {high}")
        slowest, fastest = SPEEDS
        Streams(self.video_stream, self.audio_stream)  # raises for a number that is none
        speeds = self.speech_speeds
        if len(speeds) > MOST_SPEEDS or not all(slowest <= speed <= fastest for speed in speeds):
            given = ", ".join(map(str, speeds))
            raise InputError(
                f"speech_speeds is {given}: expected at most {MOST_SPEEDS} from {slowest:g} to {fastest:g}"
            )
        if "speech" in self.modalities and not SHA256.fullmatch(self.speech_sha256):
            raise InputError(
                f"speech_sha256 is {self.speech_sha256!r}: expected the 64 hexadecimal digits of the speech "
                "encoder's files, because speech is among the modalities"
            )

    @property
    def streams(self) -> Streams:
        """Streams of a take's files that are read."""
        return Streams(self.video_stream, self.audio_stream)

    @property
    def samples(self) -> int:
        """Samples of a clip's waveform."""
        return round(self.keep * mfcc.SAMPLE_RATE)

    @property
    def mfcc_steps(self) -> int:
        """MFCC columns a clip has."""
        return 1 + self.samples // mfcc.HOP

    @property
    def least_found(self) -> float:
        """Fraction of a take's pictures, or rows of its track, that must show a face."""
        return 0.0 if self.lenient else face.LEAST_FOUND

    def listens(self, start: float, end: float) -> tuple[float, float]:
        """Begin and end, in seconds, of a clip's sound in a recording from `start` to `end`.

        >>> Preparation().listens(3.0, 9.0)
        (3.5, 5.95)
        """
        if "speech" in self.modalities:
            return start, end
        return start + self.skip, start + self.skip + self.keep

    def as_json(self) -> dict[str, Any]:
        """Return the settings for JSON, with the number of the recipe."""
        lists = {"modalities": list(self.modalities), "speech_speeds": list(self.speech_speeds)}
        return {**asdict(self), **lists, "recipe": RECIPE}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Preparation":
        """Read the settings of a prepared clip or a checkpoint; raise `InputError` for another recipe."""
        if value["recipe"] != RECIPE:
            raise InputError(
                f"clips were prepared by recipe {value['recipe']}: this version prepares by recipe {RECIPE}; "
                "prepare and train again, or install the version they were made with"
            )
        settings = {field.name: value[field.name] for field in fields(cls)}
        tuples = {name: tuple(value[name]) for name in ("modalities", "speech_speeds")}
        return cls(**{**settings, **tuples})


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
    """Files a take is prepared from, by role."""
    files = {"video": take.video, "audio": take.audio, "openface": take.openface}
    roles = {MODALITIES[modality] for modality in modalities}
    needed = {role: path for role, path in files.items() if role in roles and path is not None}
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
    wanted = preparation.modalities
    for modality in wanted:
        role = MODALITIES[modality]
        if getattr(take, role) is None:
            raise MediaError(
                REASON_WITHOUT[role],
                f"{take.name} has no file for {modality}: "
                + ("give its CSV with --openface, or " if role == "openface" else "")
                + f"leave {modality} out of --modalities",
            )
    tensors: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    used = sources(take, wanted)
    track = None
    if "openface" in used:
        track = read_track(take, used["openface"], points_only="openface" not in wanted)
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
        tensors |= picture_tensors(faces, pictures.times)
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
    if "openface" in wanted and track is not None:
        with _naming(take.openface):
            tensors |= track_tensors(track)
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
        speech_parameters=_encoder(preparation).parameters if "speech" in wanted else 0,
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
    """Decode pictures and sound as far as they are wanted, once where one file has both."""
    roles = {MODALITIES[modality] for modality in preparation.modalities}
    see, hear = "video" in roles, "audio" in roles
    together = see and hear and take.video == take.audio
    pictures = sound = None
    if see and take.video is not None:
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
    if hear and take.audio is not None:
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
    for modality in preparation.modalities:
        alone = replace(preparation, modalities=(modality,))
        if MODALITIES[modality] == "audio" and not loud(sound, sample_rate, alone):
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


def speech_at(speed: float) -> str:
    """Name of the tensor of hidden states of a take that is played at a speed.

    >>> speech_at(1), speech_at(0.9)
    ('speech', 'speech_0.9')
    """
    return "speech" if speed == 1 else f"speech_{speed:g}"


def picture_tensors(faces: face.Faces, times: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors by `prepare_clip` of pictures at `times`, seconds, whose faces are cut out."""
    return {
        "video": faces.crops,
        "times": times,
        "face": faces.found,
        "squares": faces.squares.astype(np.float32),
    }


def track_tensors(track: openface.OpenFaceTrack) -> dict[str, np.ndarray]:
    """Tensors by `prepare_clip` of an OpenFace track.

    Raises:
        MediaError: no row has a face ("no face").
    """
    seen = track.seen()
    return {
        "openface": seen.features(),
        "openface_times": seen.timestamps,
        "confidence": seen.confidence,
    }


def sound_tensors(
    sound: np.ndarray, sample_rate: int, preparation: Preparation, threads: int = 0
) -> dict[str, np.ndarray]:
    """Tensors by `prepare_clip` of a sound; the waveform here is float32.

    Args:
        sound: mono, full scale 1, (N,).
        sample_rate: in Hz.
        threads: of the speech encoder; 0 lets it choose.

    Raises:
        MediaError: it is too short.
        InputError: the speech encoder is not there or another one.
    """
    tensors: dict[str, np.ndarray] = {}
    heard = sound  # speech is the whole take, however short
    if wanted := set(SOUND_FEATURES).intersection(preparation.modalities):
        waveform = mfcc.resample(sound, sample_rate)
        heard, _ = mfcc.window(waveform, skip=preparation.skip, keep=preparation.keep)
        tensors |= {name: SOUND_FEATURES[name](heard) for name in sorted(wanted)}
        tensors["waveform"] = heard
    level = 10 * np.log10(np.mean(np.square(heard), dtype=np.float64) + SILENCE)
    tensors["level"] = np.array([level], np.float32)
    if "speech" in preparation.modalities:
        tensors |= _speech_tensors(sound, sample_rate, preparation, threads)
    return tensors


def _speech_tensors(
    sound: np.ndarray, sample_rate: int, preparation: Preparation, threads: int
) -> dict[str, np.ndarray]:
    """States of the whole take, as it is and at the further speeds; a faster one is higher too."""
    encoder = _encoder(preparation)
    tensors = {}
    for speed in (1.0, *preparation.speech_speeds):
        heard = mfcc.resample(sound, round(sample_rate * speed), speech.SAMPLE_RATE)
        tensors[speech_at(speed)] = encoder.features(heard, threads=threads)
    return tensors


def _encoder(preparation: Preparation) -> speech.SpeechEncoder:
    return speech.find_encoder(preparation.speech_encoder, preparation.speech_sha256)


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
