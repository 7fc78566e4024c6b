"""An account of everything that cfnsr needs: what is there, and what to do about what is missing."""

import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from cfnsr import __version__
from cfnsr.errors import InputError
from cfnsr.files import cache
from cfnsr.processes import cores

# FFmpeg's names of decoders of recordings, of which some builds lack a few.
DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "flv", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")
ENCODERS = {"libx264": "annotated films are then larger, in MPEG-4", "aac": "annotated films need it"}
LEAST_FREE = 2.0  # GB on the disk, below which a preparation may not end
EXTRAS = {
    "export": "cfnsr export, and exported models",
    "serve": "cfnsr serve",
    "pretrained": "speech encoders, and the Hugging Face hub",
    "live": "the microphone of cfnsr live",
    "ray": "--engine ray, several machines",
}
GIGABYTE = 1e9


@dataclass(frozen=True)
class Finding:
    """One line of the account."""

    name: str
    state: str
    well: bool = True  #: all that the usual work needs is there
    advice: str = ""  #: empty where nothing is to be done

    def line(self) -> str:
        """Format the finding in one line.

        >>> Finding("cache", "/c", well=False, advice="make room").line()
        'MISSING  cache           /c; make room'
        """
        mark = "ok" if self.well and not self.advice else "note" if self.well else "MISSING"
        return f"{mark:8} {self.name:15} {self.state}" + (f"; {self.advice}" if self.advice else "")


def examine() -> list[Finding]:
    """Examine everything; nothing is fetched, nothing written."""
    return [
        Finding("cfnsr", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
        _detector(),
        *_codecs(),
        *_torch(),
        *_extras(),
        _speech_encoder(),
        _expression_net(),
        *_disks(),
    ]


def _detector() -> Finding:
    from cfnsr.media.face import WITHOUT_NETWORK, YUNET_URL, FaceDetector, yunet_here

    name, named = "face detector", os.environ.get("CFNSR_YUNET")
    try:
        path = yunet_here()
        if path is None:
            advice = f"fetched from {YUNET_URL} when first needed; {WITHOUT_NETWORK}"
            return Finding(name, "no weights here yet", advice=advice)
        FaceDetector(path)
    except InputError as error:
        advice = "unset CFNSR_YUNET to have it fetched when first needed" if named else ""
        return Finding(name, str(error), False, advice)
    return Finding(name, f"YuNet, {'named by CFNSR_YUNET' if named else 'fetched before'}: {path}")


def _codecs() -> Iterator[Finding]:
    import av
    import cv2
    from av.codec import Codec

    def lacking(names: Iterable[str], mode: Literal["r", "w"]) -> Iterator[str]:
        for name in names:
            try:
                Codec(name, mode)
            except (av.FFmpegError, ValueError):
                yield name

    versions = ", ".join(
        f"{name} {'.'.join(map(str, numbers))}"
        for name, numbers in av.library_versions.items()
        if name in ("libavformat", "libavcodec", "libswscale")
    )
    yield Finding("media", f"PyAV {av.__version__} ({versions}), OpenCV {cv2.__version__}")
    none = list(lacking(DECODERS, "r"))
    advice = f"not {', '.join(none)}: run pip install --force-reinstall av" if none else ""
    yield Finding("decoders", ", ".join(name for name in DECODERS if name not in none), not none, advice)
    none = list(lacking(ENCODERS, "w"))
    advice = "; ".join(f"no {name}: {ENCODERS[name]}" for name in none)
    yield Finding("encoders", ", ".join(name for name in ENCODERS if name not in none), advice=advice)


def _torch() -> Iterator[Finding]:
    import torch

    from cfnsr.models.fast import has_bfloat16

    device = f"the CPU alone, {'with' if has_bfloat16() else 'without'} bfloat16"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    elif torch.backends.mps.is_available():
        device = "Apple's GPU"
    yield Finding("torch", f"{version('torch')}, {device}")
    threads, limit = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    few = f"OMP_NUM_THREADS is {limit}: unset it for a single run" if limit and threads < cores() else ""
    yield Finding("threads", f"{threads} of {cores()} cores", advice=few)


def _extras() -> Iterator[Finding]:
    for extra, what in EXTRAS.items():
        there, missing = [], []
        for package in _packages(extra):
            try:
                there.append(f"{package} {version(package)}")
            except PackageNotFoundError:
                missing.append(package)
        state = ", ".join([*there, *(f"no {package}" for package in missing)]) or "unknown"
        advice = f"for {what}: pip install 'cfnsr[{extra}]'" if missing else ""
        yield Finding(f"[{extra}]", state, advice=advice)


def _packages(extra: str) -> list[str]:
    """Packages of an extra, by cfnsr's own metadata."""
    try:
        needed = requires("cfnsr") or []
    except PackageNotFoundError:  # run from its sources
        return []
    names = (line.partition(";") for line in needed)
    mine = (name for name, _, marker in names if f"extra == '{extra}'" in marker.replace('"', "'"))
    return [re.split(r"[ <>=!~\[(]", name.strip())[0] for name in mine]


def _speech_encoder() -> Finding:
    from cfnsr.features.speech_encoder import VARIABLE

    name, named = "speech encoder", os.environ.get(VARIABLE)
    if not named:
        return Finding(name, f"none named by {VARIABLE}: one of the hub is fetched where asked for")
    if not Path(named).is_dir():
        return Finding(name, f"{VARIABLE} names {named}, which is no folder", False, "unset it")
    return Finding(name, f"named by {VARIABLE}: {named}")


def _expression_net() -> Finding:
    from cfnsr.features.expression_net import VARIABLE, WITHOUT_NETWORK, find_net, folder_here

    name, named = "expression net", os.environ.get(VARIABLE)
    if not named and folder_here() is None:
        return Finding(name, f"no weights here yet: fetched where asked for; {WITHOUT_NETWORK}")
    try:
        net = find_net()
    except InputError as error:
        return Finding(name, str(error), False, f"unset {VARIABLE} to have it fetched when first needed")
    return Finding(name, f"{'named by ' + VARIABLE if named else 'fetched before'}: {net.folder}")


def _disks() -> Iterator[Finding]:
    kept = cache()
    above = next(folder for folder in (kept, *kept.parents) if folder.exists())
    writable = above.is_dir() and os.access(above, os.W_OK)
    advice = "" if writable else "not writable: set XDG_CACHE_HOME to a folder that is"
    yield Finding("cache folder", str(kept), writable, advice)
    for name, folder in (("disk, here", Path.cwd()), ("disk, cache", above)):
        free = shutil.disk_usage(folder).free / GIGABYTE
        advice = "" if free >= LEAST_FREE else "make room before preparing or training"
        yield Finding(name, f"{free:.1f} GB free at {folder}", not advice, advice)
