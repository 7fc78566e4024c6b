"""Where time goes: the operations of the network, and the parts of a preparation."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import PIXELS
from benchmarks.measure import Progress
from benchmarks.network import BATCH, FRAMES, SIZE, STEPS, step
from benchmarks.subjects import WIDTH, as_take
from cfnsr import create_model
from cfnsr.data.clip import prepare_clip
from cfnsr.data.preparer import Preparer, sound_tensors
from cfnsr.data.store import Store
from cfnsr.emotions import RAVDESS
from cfnsr.features.base import Sound
from cfnsr.media.decode import decode
from cfnsr.media.face import FaceDetector, crop
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
        "a preparation, its parts each alone on one core": preparation(clip),
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
    """Seconds of a core that a preparation takes, and those of its parts, each done alone."""

    def timed(task: Callable[[], object]) -> float:
        task()
        started = time.process_time()
        task()
        return time.process_time() - started

    def prepare() -> None:
        made = prepare_clip(as_take(clip), PIXELS, threads=1)
        with tempfile.TemporaryDirectory() as folder:
            Store.create(Path(folder), "one", RAVDESS, PIXELS.as_json()).write(made.header, made.tensors)

    shown = decode(clip, frames=PIXELS.frames)
    assert shown.frames is not None and shown.waveform is not None
    frames, searched = shown.frames, shown.frames[Preparer(PIXELS, None).due(shown.times)]
    height, width = frames.shape[1:3]
    squares = np.tile([width / 2, height / 2, height / 2], (len(frames), 1))
    detector, sound = FaceDetector(), Sound(shown.waveform, shown.sample_rate, PIXELS)
    one_thread()
    parts = {
        "scan of the packets": timed(lambda: scan_packets(clip)),
        f"decoding, and {len(frames)} pictures to RGB": timed(
            lambda: decode(clip, frames=PIXELS.frames, threads=1)
        ),
        f"face detection, {len(searched)} pictures": timed(
            lambda: [detector.detect(each) for each in searched]
        ),
        f"cutting out, {len(frames)} faces": timed(lambda: crop(frames, squares)),
        "sound: resampling, MFCCs": timed(lambda: sound_tensors(sound, PIXELS)),
    }
    rest = timed(prepare) - sum(parts.values())
    return [*sorted(parts.items(), key=lambda part: -part[1]), ("all others, and writing", max(0.0, rest))]
