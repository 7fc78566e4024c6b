"""Subjects of the benchmark: models of full size with random weights, a clip, a long video, and a server."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.measure import Progress
from cfnsr.errors import InputError
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_video
from cfnsr.media.scan import scan_packets

if TYPE_CHECKING:
    from cfnsr.corpus.take import Take
    from cfnsr.data.preparer import Tensors
    from cfnsr.features.spec import ModelSpec
    from cfnsr.models.entries import Model

CFNSR = (sys.executable, "-m", "cfnsr")
LONG = 60.0  # seconds of the long video
WIDTH = 1.0  # of the network of pictures: the paper's
PATIENCE = 120  # seconds until a server has to answer


@dataclass(frozen=True)
class Subjects:
    """Models and files that are measured.

    Args:
        pixels: the same `cfn_sr` at the paper's size, by how it runs: "torch", "onnx" and "int8".
        bf16: the same, exported for OpenVINO in bfloat16.
        features: a checkpoint of `cfn_sr_features`; None where no speech encoder is at hand.
        long, track: the clip again and again, and an OpenFace track of that, made up.
    """

    pixels: dict[str, Path]
    bf16: Path
    features: Path | None
    clip: Path
    long: Path
    track: Path

    @property
    def exported(self) -> dict[str, Path]:
        """Exported files by their kind."""
        return {"onnx": self.pixels["onnx"], "int8": self.pixels["int8"], "bf16": self.bf16}

    def network(self) -> "tuple[Model, Tensors]":
        """Load the checkpoint, and prepare the clip for it."""
        from cfnsr.data.clip import prepare_clip
        from cfnsr.features.preparation import Preparation
        from cfnsr.training.checkpoint import load_model

        return load_model(self.pixels["torch"]), prepare_clip(as_take(self.clip), Preparation()).tensors


def as_take(clip: Path) -> "Take":
    """A recording as a take of nobody."""
    from cfnsr.corpus.take import Take

    return Take(clip.stem, "", 0, video=clip, audio=clip)


def prepare(folder: Path, clip: Path, progress: Progress) -> Subjects:
    """Make all of it in a folder."""
    from cfnsr.features.speech_encoder import VARIABLE

    progress("a model of the paper's size is exported")
    pixels = _export(folder, clip)
    bf16 = pixels.pop("bf16")
    features = _features(folder / "features") if os.environ.get(VARIABLE) else None
    progress(f"the clip is repeated for {LONG:g} s")
    long = repeat(clip, folder / "long.mp4", LONG)
    return Subjects(
        pixels, bf16, features, clip, long, _track(folder / "long.csv", scan_packets(long).frame_count)
    )


def _export(folder: Path, clip: Path) -> dict[str, Path]:
    from cfnsr.data.clip import prepare_clip
    from cfnsr.export.onnx import export_onnx
    from cfnsr.export.openvino import export_int8, export_openvino
    from cfnsr.features.preparation import Preparation
    from cfnsr.features.spec import ModelSpec

    spec = ModelSpec("cfn_sr", {"classes": 8, "mfcc_steps": 212, "width": WIDTH})
    checkpoint = _checkpoint(folder / "checkpoint", spec)
    prepared = [prepare_clip(as_take(clip), Preparation()).tensors]
    onnx = export_onnx(checkpoint, folder / "model.onnx", prepared).path
    return {
        "torch": checkpoint,
        "onnx": onnx,
        "int8": export_int8(checkpoint, folder / "int8.xml", prepared).path,
        "bf16": export_openvino(checkpoint, folder / "bf16.xml", prepared, precision="bf16").path,
    }


def _features(folder: Path) -> Path:
    from cfnsr.features.preparation import Preparation
    from cfnsr.features.spec import ModelSpec
    from cfnsr.features.speech_encoder import find_encoder
    from cfnsr.media.openface import ACTION_UNITS

    encoder = find_encoder("")
    preparation = Preparation(
        modalities=("openface", "speech"), speech_encoder=encoder.name, speech_sha256=encoder.sha256
    )
    layers, _, width = encoder.features(np.zeros(16_000, np.float32)).shape
    settings = {
        "classes": 8,
        "mfcc_steps": preparation.mfcc_steps,
        "openface_features": len(ACTION_UNITS),
        "speech_layers": layers,
        "speech_width": width,
    }
    return _checkpoint(folder, ModelSpec("cfn_sr_features", settings, preparation=preparation))


def _checkpoint(folder: Path, spec: "ModelSpec") -> Path:
    """Write a model with random weights."""
    import torch

    from cfnsr.models.zoo import create_model
    from cfnsr.training.checkpoint import save_weights

    folder.mkdir()
    torch.manual_seed(0)
    save_weights(create_model(spec.model, **spec.settings), folder)
    spec.write(folder)
    return folder


def repeat(clip: Path, out: Path, seconds: float) -> Path:
    """Repeat a clip, as one video of some seconds."""
    scan = scan_packets(clip)
    whole = decode(clip, frames=scan.frame_count)
    assert whole.frames is not None and whole.waveform is not None
    length = round(scan.frame_count / scan.fps * whole.sample_rate)
    sound = np.pad(whole.waveform, (0, max(0, length - len(whole.waveform))))[:length]
    height, width = (side // 2 * 2 for side in whole.frames.shape[1:3])
    pictures = itertools.islice(itertools.cycle(whole.frames[:, :height, :width]), round(seconds * scan.fps))
    waveform = np.resize(sound, round(seconds * whole.sample_rate))
    return write_video(out, pictures, scan.fps, waveform, whole.sample_rate)


def _track(path: Path, frames: int) -> Path:
    """Write a track with a moving face in every picture of a video."""
    from cfnsr.media.openface import ACTION_UNITS

    present = [name.endswith("_c") for name in ACTION_UNITS]
    values = np.random.default_rng(0).uniform(0, 3, (frames, len(ACTION_UNITS)))
    values[:, present] = values[:, present] > 2
    number, sure = np.arange(frames), np.ones(frames)
    table = np.column_stack([number + 1, number * LONG / frames, 0.98 * sure, sure, values])
    header = ",".join(["frame", "timestamp", "confidence", "success", *ACTION_UNITS])
    np.savetxt(path, table, "%.10g", ",", header=header, comments="")
    return path


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Run a server of a model inside, and yield its address; raise `InputError` where it does not start."""
    command = [*CFNSR, "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None and server.stderr is not None
            address = server.stdout.readline().split(" ")[0].strip()
            if not address.startswith("http"):
                server.terminate()
                raise InputError(f"`cfnsr serve` does not start: {server.stderr.read().strip()[-300:]}")
            yield address.rstrip("/")
        finally:
            server.terminate()


def ask(address: str, file: Path) -> None:
    """Have a file recognised by `POST /predict`; raise `InputError` where that is refused."""
    import requests

    form = {"file": (f"clip{file.suffix}", file.read_bytes(), "application/octet-stream")}
    answer = requests.post(f"{address}/predict", files=form, timeout=PATIENCE)
    if not answer.ok:
        raise InputError(f"the server answers {answer.status_code}: {answer.text[:300]}")
