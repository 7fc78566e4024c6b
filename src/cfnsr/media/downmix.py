"""Sound of any number of channels -> one."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

# ITU-R BS.775-3, annex 4, table 2: one channel out of 3/2, without the low-frequency one. A lone
# channel behind stands for the two of that table; whatever else there is counts as one of them.
HALF_POWER = math.sqrt(0.5)
LEVELS = dict.fromkeys(("FL", "FR", "FLC", "FRC", "BC"), HALF_POWER) | {"FC": 1.0, "LFE": 0.0, "LFE2": 0.0}
AROUND = 0.5
PLANES = 7  # PyAV 18 counts one too many where there are more, and reads beyond the sound
ASSUMED = {6: "5.1", 8: "7.1"}  # layouts that players assume for so many channels where the file has none
MEMORY = 1.0  # second after which sound counts 1/e
# Seconds between samples whose difference is taken, twice: a high-pass by which 50 Hz lose 44 dB and 500 Hz
# lose 5, so that neither an offset nor the hum of mains hides what voices do.
LAG = 0.00025
CANCELLED = 0.1  # of the way from as little as their sum can be to what it is of independent channels
NOTABLE = 0.5  # of the power side by side, by which the sum can fall; with less they hardly cancel
ALIKE = 0.8  # of the loudest channel's power, from which another is as loud: then the first of them is taken
RESTORED = 0.2  # from which on they are summed again


class Mono:
    """Mix each frame of a stream to one channel; give it the frames in their order.

    One channel stays as it is. Of two it is the mean. Of more it is their sum by the levels of ITU-R BS.775,
    by which speech in the centre keeps its level; of channels without places it is the mean. Where the
    channels cancel each other, as a balanced microphone's that is plugged in as stereo, it is the loudest.
    Independent channels keep their power in a sum; of two that cancel, both as loud or not, the correlation
    is below -0.9 over about a second, unlike any usual stereo. Offsets and hum count for little.
    """

    def __init__(self) -> None:
        # Of each channel at its level, and of their sum; without what is steady.
        self._power: NDArray[np.float64] = np.zeros(0)
        self._taken: int | None = None  # the channel that stands for all
        self._packer: tuple[object, AudioResampler] | None = None

    def __call__(self, frame: AudioFrame) -> NDArray[np.float32]:
        """Mix a frame to samples (N,), full scale 1."""
        samples = self._samples(frame)
        levels = _levels(frame, len(samples))
        if len(samples) == 1:
            return np.asarray(samples[0], np.float32)
        if levels is None:
            mono: NDArray[np.float64] = samples.mean(axis=0, dtype=np.float64)
            levels = np.full(len(samples), 1 / len(samples))
        else:
            used = levels > 0  # what has no part may hold anything
            samples, levels = samples[used], levels[used]
            mono = levels @ samples.astype(np.float64)
        self._follow(samples, levels, frame.sample_rate)
        return np.asarray(mono if self._taken is None else samples[self._taken], np.float32)

    def _samples(self, frame: AudioFrame) -> NDArray[np.floating]:
        """The channels (C, N), full scale 1."""
        if frame.format.is_planar and frame.layout.nb_channels > PLANES:
            samples = self._packed(frame)
        else:
            samples = frame.to_ndarray()
            if not frame.format.is_planar:
                samples = samples.reshape(-1, frame.layout.nb_channels).T
        if samples.dtype == np.uint8:
            return np.asarray(samples / 128 - 1)
        if samples.dtype.kind == "i":
            return np.asarray(samples / 2.0 ** (8 * samples.dtype.itemsize - 1))
        return cast("NDArray[np.floating]", samples)

    def _packed(self, frame: AudioFrame) -> NDArray[Any]:
        """Repack the channels (C, N) of a frame of so many planes that PyAV would crash over them."""
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if self._packer is None or self._packer[0] != form:
            self._packer = form, AudioResampler(format=frame.format.packed.name)
        frame.pts = None  # samples alone are asked for
        parts = [part.to_ndarray() for part in self._packer[1].resample(frame)]
        return np.concatenate(parts, axis=1).reshape(-1, frame.layout.nb_channels).T

    def _follow(self, samples: NDArray[np.floating], levels: NDArray[np.float64], rate: int) -> None:
        """Follow the power of the channels, and note where they cancel."""
        length, lag = samples.shape[1], max(1, round(LAG * rate))
        moving = samples * levels[:, None]
        for _ in range(2):
            moving = moving[:, lag:] - moving[:, :-lag]
        energy = np.square(np.vstack([moving, moving.sum(axis=0)])).sum(axis=1)
        if not np.isfinite(energy).all():
            return  # damaged
        if len(energy) != len(self._power):
            self._power, self._taken = np.zeros(len(energy)), None
        self._power = self._power * math.exp(-length / (MEMORY * rate)) + energy
        powers, together = self._power[:-1], self._power[-1]
        loudness = np.sqrt(powers)
        apart, least = powers.sum(), max(0.0, 2 * loudness.max() - loudness.sum()) ** 2
        left = (together - least) / (apart - least) if apart - least > NOTABLE * apart else 1.0
        if self._taken is None and left < CANCELLED:
            self._taken = int((powers > ALIKE * powers.max()).argmax())
        elif self._taken is not None and left > RESTORED:
            self._taken = None


def _levels(frame: AudioFrame, count: int) -> NDArray[np.float64] | None:
    """Level of each channel in the sum; None for a mean."""
    if count <= 2:
        return None
    names = [channel.name for channel in frame.layout.channels]
    if not any(name in LEVELS for name in names):
        if count not in ASSUMED:
            return None
        names = [channel.name for channel in AudioLayout(ASSUMED[count]).channels]
    return np.array([LEVELS.get(name, AROUND) for name in names])
