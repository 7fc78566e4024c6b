"""Where time goes: the operations of the network, and the parts of a preparation."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import plain
from benchmarks.data import PIXELS
from benchmarks.measure import Progress
from benchmarks.network import BATCH, FRAMES, SIZE, STEPS, step
from benchmarks.subjects import WIDTH
from cfnsr import create_model
from cfnsr.data.preparer import Preparer
from cfnsr.media.decode import decode
from cfnsr.media.face import FaceDetector, crop
from cfnsr.media.mfcc import N_SAMPLES, mfcc
from cfnsr.media.scan import scan_packets
from cfnsr.models.fast import fast
from cfnsr.processes import one_thread

LINES = 8
Parts = list[tuple[str, float]]  # with seconds, the longest first


def profiles(clip: Path, progress: Progress) -> dict[str, Parts]:
    """Measure all of it."""
    progress("profiles")
    model = fast(create_model("cfn_sr", width=WIDTH).eval())
    video, audio = torch.randn(1, 3, FRAMES, SIZE, SIZE), torch.randn(1, 13, STEPS)
    video = video.contiguous(memory_format=torch.channels_last_3d)

    def forward() -> None:
        with torch.inference_mode():
            model(video, audio)

    return {
        "forward, one clip, PyTorch": operations(forward),
        f"training step, batch {BATCH}": operations(step("ours")),
        "parts of a preparation, each alone on one core": preparation(clip),
    }


def operations(task: Callable[[], object]) -> Parts:
    """Seconds of PyTorch's operations, without what they call."""
    task()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        task()
    seconds = Counter({each.key: each.self_cpu_time_total / 1e6 for each in profiled.key_averages()})
    longest = seconds.most_common(LINES)
    return [*longest, ("all others", sum(seconds.values()) - sum(each for _, each in longest))]


def preparation(clip: Path) -> Parts:
    """Seconds of the parts of a preparation, each done alone."""

    def timed(task: Callable[[], object]) -> float:
        task()
        started = time.perf_counter()
        task()
        return time.perf_counter() - started

    shown = decode(clip, frames=PIXELS.frames)
    assert shown.frames is not None
    frames, searched = shown.frames, shown.frames[Preparer(PIXELS, None).due(shown.times)]
    height, width = frames.shape[1:3]
    squares = np.tile([width / 2, height / 2, height / 2], (len(frames), 1))
    detector, sound = FaceDetector(), np.zeros(N_SAMPLES, np.float32)
    one_thread()
    parts = {
        "scan of the packets": timed(lambda: scan_packets(clip)),
        "decoding": timed(lambda: plain.decode(clip)),
        f"face detection, {len(searched)} pictures": timed(
            lambda: [detector.detect(each) for each in searched]
        ),
        f"cutting out, {len(frames)} faces": timed(lambda: crop(frames, squares)),
        "MFCCs": timed(lambda: mfcc(sound)),
        "SHA-256": timed(lambda: hashlib.sha256(clip.read_bytes())),
    }
    return sorted(parts.items(), key=lambda part: -part[1])
