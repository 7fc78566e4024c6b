"""Prepare a clip as an exported graph takes it: `cfnsr.data.dataset.as_tensor` without PyTorch."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cfnsr.data.clip import PCM
from cfnsr.errors import InputError
from cfnsr.inference.manifest import INPUTS, Manifest, tensors
from cfnsr.media.decode import spread

Clip = Mapping[str, NDArray[np.generic]]


def batch(clips: Sequence[Clip], manifest: Manifest) -> dict[str, NDArray[np.generic]]:
    """Arrange clips side by side as the graph's inputs.

    Args:
        clips: tensors of prepared clips, those that `manifest.needed` names.

    Raises:
        InputError: for a clip that lacks a tensor, or has one of another shape.
    """
    made: dict[str, NDArray[np.generic]] = {}
    for name in manifest.reads.values():
        entry, _ = INPUTS[name]
        each = [_one(name, clip, manifest) for clip in clips]
        for array in each:
            if array.shape != manifest.shapes[entry]:
                raise InputError(
                    f"{entry} of a clip is {array.shape}: model {manifest.name} expects "
                    f"{manifest.shapes[entry]}; prepare it as the model's clips were"
                )
        made[entry] = np.stack(each)
    return made


def _one(name: str, clip: Clip, manifest: Manifest) -> NDArray[np.generic]:
    """Prepare one input of one clip."""
    needed = tensors(name, manifest.preparation)
    missing = [tensor for tensor in needed if tensor not in clip]
    if missing:
        raise InputError(
            f"the clip has no {', '.join(missing)}: model {manifest.name} reads {', '.join(manifest.needed)}"
        )
    if name == "video":
        return pictures(clip[name], manifest.frames, manifest.size)
    if name == "openface":
        features = manifest.shapes["openface"][0]
        return evened(clip[name][:, :features].T, manifest.openface_steps).astype(np.float32)
    if name == "speech":
        layers = [clip[tensor].swapaxes(1, 2) for tensor in needed]  # (layers, width, steps)
        states = [evened(each, manifest.speech_steps).swapaxes(1, 2) for each in layers]
        return np.stack(states).astype(np.float16).astype(np.float32)  # a model saw them in 16 bits
    return waveform(clip["waveform"])


def waveform(sound: NDArray[np.generic]) -> NDArray[np.float32]:
    """Scale a clip's sound to -1..1, from 16 bits as a store keeps it or from floating-point numbers.

    >>> waveform(np.array([-32767, 0, 32767], np.int16))
    array([-1.,  0.,  1.], dtype=float32)
    """
    if np.issubdtype(sound.dtype, np.integer):
        return sound.astype(np.float32) / np.float32(PCM)
    return sound.astype(np.float32, copy=False)


def evened(sequence: NDArray[np.generic], steps: int) -> NDArray[np.float64]:
    """Resample a sequence (..., T) to a number of steps: means of equal parts, or steps repeated.

    >>> evened(np.array([[1.0, 3.0, 5.0, 7.0]]), 2), evened(np.array([[1.0]]), 2)
    (array([[2., 6.]]), array([[1., 1.]]))
    """
    first, last = _parts(sequence.shape[-1], steps)
    sums = np.cumsum(sequence, axis=-1, dtype=np.float64)
    sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)
    means: NDArray[np.float64] = (sums[..., last] - sums[..., first]) / (last - first)
    return means


def pictures(video: NDArray[np.generic], frames: int, size: int) -> NDArray[np.generic]:
    """Bring a prepared clip's pictures to the number of frames and the size of a model.

    Args:
        video: uint8 (frames, height, width, 3).
        frames: evenly spaced among those there are.
        size: side in pixels; shrunk by averaging areas, the same to the last bit as with PyTorch.
    """
    chosen = video[spread(len(video), frames)]
    if chosen.shape[2] == size:
        return chosen
    # Sums of bytes are whole numbers, which float32 holds exactly; so nothing depends on their order.
    down, across = (_members(side, size) for side in chosen.shape[1:3])
    count, height, width, colours = chosen.shape
    rows = down @ chosen.astype(np.float32).reshape(count, height, width * colours)
    sums = rows.reshape(count, size, width, colours).swapaxes(2, 3) @ across.T
    areas = np.outer(down.sum(axis=1), across.sum(axis=1))[:, None]
    return np.rint(sums / areas).astype(np.uint8).swapaxes(2, 3)


def _members(length: int, parts: int) -> NDArray[np.float32]:
    """Matrix (parts, length): 1 where a place lies in a part."""
    first, last = _parts(length, parts)
    place = np.arange(length)
    return ((place >= first[:, None]) & (place < last[:, None])).astype(np.float32)


def _parts(length: int, parts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Begin and end of equal parts; neighbours overlap in a place that lies in both."""
    part = np.arange(parts)
    return part * length // parts, -(-(part + 1) * length // parts)
