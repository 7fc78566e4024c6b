"""A take -> its clip: the tensors of its one window, and a header that says where they came from."""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cfnsr.corpus.take import Take
from cfnsr.data.preparer import read_track
from cfnsr.data.store import Header
from cfnsr.data.windows import Windows
from cfnsr.features.mel import PCM
from cfnsr.features.preparation import Preparation
from cfnsr.features.speech import encoder_of
from cfnsr.media import openface
from cfnsr.media.container import check_is_file
from cfnsr.media.errors import MediaError, Reason
from cfnsr.media.fingerprint import LONGEST, SOUND_MAP, sound_map
from cfnsr.processes import more_time

PATIENCE = 30.0  # seconds that a worker may take for each of a take

# File of a take -> reason why it cannot be prepared without, and what else to do than to leave it out.
WITHOUT: dict[str, tuple[Reason, str]] = {
    "video": ("no picture", ""),
    "audio": ("no sound", ""),
    "openface": ("missing", "give its CSV with --openface, or "),
}


@dataclass(frozen=True)
class Clip:
    """The tensors of one take, and their sources."""

    header: Header
    tensors: dict[str, np.ndarray]


def prepare_clip(take: Take, preparation: Preparation, *, threads: int = 0) -> Clip:
    """Make a take's clip: the single window of `Windows`, which is all of it.

    Tensors (those the modalities ask for):
        video: uint8 (frames, size, size, 3), RGB, the face cut out at full resolution;
        times: float64 (frames,), seconds in the file; face: bool (frames,), it was searched and one found;
        squares: float32 (frames, 3), centre x, centre y and side of the crop in pixels of the picture shown;
        audio: float32 (13, steps), MFCCs; log_mel: float32 (128, steps);
        waveform: int16 (N,), the sound these two are made of, 44.1 kHz;
        speech: float16 (layers, steps, width), hidden states of the speech encoder over the whole take, a
        step every 80 ms; speech_0.9 and the like: the same at another speed (see `speech_at`);
        sound_map: uint8 (128, 237), by which copies of a sound are found; zeros for a silent take;
        level: float32 (1,), loudness in dBFS of the seconds kept, for speech alone of the whole take;
        duration: float64 (1,), of the file;
        openface: float32 (T, F), the rows in which OpenFace found a face, as `OpenFaceTrack.features` returns
        them, or the take's one of a table of clip means;
        openface_times: float64 (T,), seconds; confidence: float32 (T,);
        expression: float32 (T, F), scores and features of an expression network, of the pictures with a face.

    Args:
        threads: of decoder, face detector and speech encoder; 0 lets them choose, 1 suits one process a core.

    Raises:
        MediaError: when the take cannot be prepared, with the reason.
        InputError: when the speech encoder or the expression network is not there or another one.
    """
    for feature in preparation.features:
        if getattr(take, feature.file) is None:
            reason, advice = WITHOUT[feature.file]
            raise MediaError(
                reason,
                f"{take.name} has no file for {feature.name}: "
                f"{advice}leave {feature.name} out of --modalities",
            )
    used = sources(take, preparation)
    prints = {role: fingerprint(path, take) for role, path in used.items()}
    whole = replace(take, video=used.get("video"), audio=used.get("audio"), openface=used.get("openface"))
    windows = Windows(whole, preparation, threads=threads, streams=preparation.streams)
    more_time(PATIENCE * windows.duration)
    (window,) = windows
    tensors = dict(window.tensors)
    facts: dict[str, Any] = {}
    if "face" in tensors:
        track = windows.preparer.track
        found_by = "openface" if track is not None and track.locates else "detector"
        facts = {"source": found_by}
    sound = windows.sound(window.span)
    if sound is not None:
        if "waveform" in tensors:  # a store keeps 16 bits
            tensors["waveform"] = np.round(np.clip(tensors["waveform"], -1, 1) * PCM).astype(np.int16)
        found = sound_map(sound.samples[: round(LONGEST * sound.rate)], sound.rate)
        tensors["sound_map"] = np.zeros(SOUND_MAP, np.uint8) if found is None else found
    if windows.scan is not None:
        tensors["duration"] = np.array([windows.duration])
    scans = {"video": windows.video, "audio": windows.audio}
    notes = {role: {"notes": list(scan.notes)} for role, scan in scans.items() if scan and scan.notes}
    for role, path in used.items():
        if prints[role] != fingerprint(path, take):
            raise MediaError("broken", f"{path} changed while it was read: run the same command again")
    header = Header(
        name=take.name,
        emotion=take.emotion,
        actor=take.actor,
        sex=take.sex,
        attributes=dict(take.attributes),
        sources={role: known | notes.get(role, {}) for role, known in prints.items()},
        preparation=preparation.as_json(),
        face=facts,
        speech_parameters=encoder_of(preparation).parameters if preparation.pretrained else 0,
    )
    return Clip(header, tensors)


def sources(take: Take, preparation: Preparation) -> dict[str, Path]:
    """The files a take is prepared from, by role."""
    files = {feature.file for feature in preparation.features}
    needed = {file: path for file in WITHOUT if file in files and (path := getattr(take, file)) is not None}
    if preparation.of_pictures and take.openface is not None and not openface.is_means(take.openface):
        needed["openface"] = take.openface  # its points say where the face is
    return needed


def fingerprint(path: Path, take: Take) -> dict[str, Any]:
    """Identify a file by name, size, modification time and SHA-256; of a table of clip means the take's row.

    Raises:
        MediaError: the table has no row for the take.
        InputError: the table is at fault.
    """
    if openface.is_means(path):
        row = read_track(take.name, path).features()
        return {"file": path.name, "sha256": hashlib.sha256(row.tobytes()).hexdigest()}
    check_is_file(path)
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
