"""Subjects of the benchmark: models of full size with random weights, a clip, and a long video of it."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfnsr.media.decode import decode
from cfnsr.media.encode import write_video
from cfnsr.media.scan import scan_packets

LONG = 60.0  # seconds of the long video
WIDTH = 1.0  # of the network of pictures: the paper's
Progress = Callable[[str], object]


@dataclass(frozen=True)
class Subjects:
    """Models and files that are measured.

    Args:
        pixels: the same `cfn_sr` at the paper's size, by how it runs: "torch", "onnx" and "int8".
        features: a checkpoint of `cfn_sr_features`; None where no speech encoder is at hand.
        clip: a video of a few seconds.
        long: a video of it again and again, of `LONG` seconds.
        track: an OpenFace track of that, made up.
    """

    pixels: dict[str, Path]
    features: Path | None
    clip: Path
    long: Path
    track: Path


def prepare(folder: Path, clip: Path, progress: Progress) -> Subjects:
    """Make all of it in a folder.

    A speech encoder is at hand where `CFNSR_SPEECH_ENCODER` names one.
    """
    from cfnsr.features.speech_encoder import VARIABLE

    progress("a model of the paper's size is exported")
    pixels = _pixels(folder, clip)
    features = None
    if os.environ.get(VARIABLE):
        features = _features(folder / "features")
    progress(f"the clip is repeated for {LONG:g} s")
    long = repeated(clip, folder / "long.mp4", LONG)
    return Subjects(pixels, features, clip, long, _track(folder / "long.csv", scan_packets(long).frame_count))


def _pixels(folder: Path, clip: Path) -> dict[str, Path]:
    import torch

    from cfnsr.corpus.take import Take
    from cfnsr.data.clip import prepare_clip
    from cfnsr.export.onnx import export_onnx
    from cfnsr.export.openvino import export_int8
    from cfnsr.features.preparation import Preparation
    from cfnsr.features.spec import ModelSpec
    from cfnsr.models.zoo import create_model
    from cfnsr.training.checkpoint import save_weights

    paths = {"torch": folder / "checkpoint", "onnx": folder / "model.onnx", "int8": folder / "int8.xml"}
    settings: dict[str, Any] = {"classes": 8, "mfcc_steps": 212, "width": WIDTH}
    paths["torch"].mkdir()
    torch.manual_seed(0)
    save_weights(create_model("cfn_sr", **settings), paths["torch"])
    ModelSpec("cfn_sr", settings).write(paths["torch"])
    prepared = prepare_clip(Take(clip.stem, "", 0, video=clip, audio=clip), Preparation()).tensors
    export_onnx(paths["torch"], paths["onnx"], [prepared])
    export_int8(paths["torch"], paths["int8"], [prepared])
    return paths


def _features(folder: Path) -> Path:
    import torch

    from cfnsr.features.preparation import Preparation
    from cfnsr.features.spec import ModelSpec
    from cfnsr.features.speech_encoder import find_encoder
    from cfnsr.media.openface import ACTION_UNITS
    from cfnsr.models.zoo import create_model
    from cfnsr.training.checkpoint import save_weights

    encoder = find_encoder("")
    preparation = Preparation(
        modalities=("openface", "speech"), speech_encoder=encoder.name, speech_sha256=encoder.sha256
    )
    heard = encoder.features(np.zeros(16_000, np.float32))
    settings = {
        "classes": 8,
        "mfcc_steps": preparation.mfcc_steps,
        "openface_features": len(ACTION_UNITS),
        "speech_layers": heard.shape[0],
        "speech_width": heard.shape[2],
    }
    folder.mkdir()
    torch.manual_seed(0)
    save_weights(create_model("cfn_sr_features", **settings), folder)
    ModelSpec("cfn_sr_features", settings, preparation=preparation).write(folder)
    return folder


def repeated(clip: Path, out: Path, seconds: float) -> Path:
    """Repeat a clip, as one video of some seconds."""
    scan = scan_packets(clip)
    whole = decode(clip, frames=scan.frame_count)
    assert whole.frames is not None and whole.waveform is not None  # noqa: S101 - asked for
    length = round(scan.frame_count / scan.fps * whole.sample_rate)
    sound = np.pad(whole.waveform, (0, max(0, length - len(whole.waveform))))[:length]
    height, width = (side // 2 * 2 for side in whole.frames.shape[1:3])
    pictures = itertools.islice(itertools.cycle(whole.frames[:, :height, :width]), round(seconds * scan.fps))
    times = int(seconds * scan.fps / scan.frame_count) + 1
    waveform = np.tile(sound, times)[: round(seconds * whole.sample_rate)]
    return write_video(out, pictures, scan.fps, waveform, whole.sample_rate)


def _track(path: Path, frames: int) -> Path:
    """Write a track with a moving face in every picture of a video."""
    from cfnsr.media.openface import ACTION_UNITS

    present = [name.endswith("_c") for name in ACTION_UNITS]
    values = np.random.default_rng(0).uniform(0, 3, (frames, len(ACTION_UNITS)))
    values[:, present] = values[:, present] > 2
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["frame", "timestamp", "confidence", "success", *ACTION_UNITS])
        for row, units in enumerate(values.round(2).tolist()):
            table.writerow([row + 1, round(row * LONG / frames, 3), 0.98, 1, *units])
    return path
