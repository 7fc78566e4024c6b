"""Sound of other microphones, codecs and rooms: what happens to a voice on its way out of the studio.

A voice is faster or slower, stands in a room, has noise around it, and passes a microphone, a narrow band, an
overdriven amplifier and a codec, each with a chance; the table below says how likely and how strong.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.format import AudioFormat
from av.audio.frame import AudioFrame
from numpy.typing import NDArray
from scipy import fft, signal

from cfnsr.media.encode import AAC_OPTIONS, sound_frame
from cfnsr.media.mfcc import resample

Sound = NDArray[np.float32]  # samples (N,)


class Draw(NamedTuple):
    """Chance of a step, and the range that its strength is drawn from, evenly."""

    chance: float
    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float | None:
        """Draw a strength; None where the step is left out."""
        return rng.uniform(self.low, self.high) if rng.random() < self.chance else None


class Codec(NamedTuple):
    """An encoder of PyPI's PyAV, and the range that its bit rate is drawn from, evenly."""

    encoder: str
    sample_rate: int  # Hz
    low: float  # bits a second
    high: float
    options: dict[str, str]
    delay: int = 0  # samples that come out before the sound


# The steps in their order.
TEMPO = Draw(0.5, 0.9, 1.1)  # speed; the pitch stays
REVERBERATION = Draw(0.5, 0.15, 0.8)  # seconds in which the room's sound falls by 60 dB
SIDES = np.array([(2.5, 8.0), (2.5, 6.0), (2.4, 3.5)])  # the room: metres along x, y and z
DISTANCE = (0.3, 3.0)  # metres from the mouth to the microphone, as far as the room goes
NOISE = Draw(0.6, 0.0, 30.0)  # signal-to-noise ratio in dB
NOISES = ("white", "pink", "brown", "hum", "babble")  # alike likely
MICROPHONE = Draw(0.5, 1.0, 6.0)  # dB up or down that the response is off at most at each octave
BAND = 0.4  # chance of one of these, alike likely
BANDS = ((300, 3400), (50, 4000), (50, 7000), (500, 8000))  # Hz; telephones and a small loudspeaker
OVERDRIVE = Draw(0.15, 0.2, 0.8)  # fraction of the peak that it is clipped at
CODEC = 0.5  # chance of one of these, alike likely
CODECS = (
    Codec("libmp3lame", 16_000, 16_000, 32_000, {"compression_level": "7"}),
    Codec("aac", 16_000, 12_000, 32_000, AAC_OPTIONS, delay=1024),
    Codec("libopus", 16_000, 8_000, 24_000, {"compression_level": "0"}),
    Codec("g722", 16_000, 64_000, 64_000, {"trellis": "0"}),  # ITU-T G.722, wide-band telephone
    Codec("pcm_mulaw", 8_000, 64_000, 64_000, {}),  # ITU-T G.711, telephone
    Codec("pcm_alaw", 8_000, 64_000, 64_000, {}),
    Codec("libopencore_amrnb", 8_000, 4_750, 12_200, {}, delay=40),  # 3GPP TS 26.071, mobile telephone
)
GAIN = Draw(1.0, -12.0, 12.0)  # dB of the peak; what passes full scale is clipped

SPEED_OF_SOUND = 343.0  # m/s
EARLY = 0.05  # seconds after which reflections are so dense that they are noise
MARGIN = 0.2  # metres between a wall and a mouth or microphone, at least
SLOPES = {"white": 0.0, "pink": -0.5, "brown": -1.0}  # amplitudes go with the frequency to this power
OCTAVES = 62.5 * 2.0 ** np.arange(9)  # Hz: 62.5 to 16,000
ORDER = 8  # of the Butterworth filters: 48 dB an octave
LEAST = 1e-6  # peak below which there is no sound to degrade
HEADROOM = 0.5  # peak of what is encoded


def degrade(waveform: Sound, rate: int, seed: int | Sequence[int]) -> Sound:
    """Pass a voice through a random chain of tempo, room, noise, microphone, band, overdrive, codec and gain.

    The same take and seed give the same sound. It begins where the take begins, to 10 ms, and is not silent
    unless the take is.

    Args:
        waveform: mono, full scale 1.
        rate: in Hz.
        seed: the only source of chance.

    Returns:
        Samples (M,) in [-1, 1] at the same rate; M is N divided by the tempo.

    >>> degrade(np.ones(16_000, np.float32), 16_000, seed=2).shape
    (16672,)
    """
    rng = np.random.default_rng(seed)
    peak = np.abs(waveform).max(initial=0)
    if peak < LEAST:
        return waveform.copy()
    sound = _scaled(waveform, 1)
    if (speed := TEMPO.draw(rng)) is not None:
        sound = _unless_silent(change_tempo(sound, rate, speed), sound)
    if (seconds := REVERBERATION.draw(rng)) is not None:
        sound = reverberate(sound, rate, seconds, rng)
    if (decibels := NOISE.draw(rng)) is not None:
        sound = add_noise(sound, rate, rng.choice(NOISES), decibels, rng)
    if (off := MICROPHONE.draw(rng)) is not None:
        sound = equalise(sound, rate, rng.uniform(-off, off, len(OCTAVES)))
    if rng.random() < BAND:
        sound = _unless_silent(limit_band(sound, rate, *rng.choice(BANDS)), sound)
    if (fraction := OVERDRIVE.draw(rng)) is not None:
        top = fraction * np.abs(sound).max()
        sound = np.clip(sound, -top, top)
    if rng.random() < CODEC:
        codec = CODECS[rng.integers(len(CODECS))]
        bit_rate = rng.uniform(codec.low, codec.high)
        sound = _unless_silent(transcode(_scaled(sound, HEADROOM), rate, codec, bit_rate), sound)
    gain = 10 ** (cast(float, GAIN.draw(rng)) / 20)
    return np.asarray(np.clip(_scaled(sound, peak * gain), -1, 1), np.float32)


def change_tempo(waveform: Sound, rate: int, speed: float) -> Sound:
    """Change the speed of a waveform (N,), to N / speed samples of the same pitch, by FFmpeg's `atempo`.

    That is overlap-add of similar waveforms (Verhelst and Roelands, ICASSP 1993).
    """
    graph = av.filter.Graph()
    source = graph.add_abuffer(format="fltp", sample_rate=rate, layout="mono", time_base=Fraction(1, rate))
    sink = graph.add("abuffersink")
    graph.link_nodes(source, graph.add("atempo", str(speed)), sink).configure()
    graph.push(sound_frame(np.pad(waveform, (0, rate // 5))[None], rate))  # the last window is never put out
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(cast(AudioFrame, graph.pull()).to_ndarray()[0])
        except (av.EOFError, av.BlockingIOError):
            return _fitted(np.concatenate(parts), round(len(waveform) / speed))


def reverberate(waveform: Sound, rate: int, seconds: float, rng: np.random.Generator) -> Sound:
    """Put a waveform into a random room with a reverberation time; the direct sound stays where it was."""
    room = rng.uniform(*SIDES.T)
    mouth, ear = rng.uniform(MARGIN, room - MARGIN, (2, 3))
    away = (ear - mouth) / np.linalg.norm(ear - mouth)
    ear = np.clip(mouth + rng.uniform(*DISTANCE) * away, MARGIN, room - MARGIN)
    response = room_response(room, mouth, ear, seconds, rate, rng)
    return np.asarray(signal.oaconvolve(waveform, response)[: len(waveform)], np.float32)


def room_response(
    room: NDArray[np.float64],
    source: NDArray[np.float64],
    receiver: NDArray[np.float64],
    seconds: float,
    rate: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Compute the impulse response of a shoebox room, from the direct sound on, which has amplitude 1.

    Reflections of the first 50 ms come from image sources (Allen and Berkley, JASA 65(4), 1979). Those
    later are Gaussian noise of the power that all image sources together have on average, c / (4 pi V)
    a second, and fall by 60 dB in `seconds`, as Lehmann and Johansson do (IEEE TASLP 18(6), 2010).
    Walls and air treat all frequencies alike.

    Args:
        room, source, receiver: sides and places (3,) in metres; one corner is at 0.
        seconds: reverberation time; by Eyring's formula it fixes the walls, which are all alike.
    """
    volume = room.prod()
    surface = 2 * volume * (1 / room).sum()
    wall = np.exp(-12 * np.log(10) * volume / (SPEED_OF_SOUND * surface * seconds))  # factor of a reflection
    direct = float(np.linalg.norm(source - receiver))
    late = direct + SPEED_OF_SOUND * EARLY
    squares, reflections = np.zeros(1), np.zeros(1)
    for side, place, ear in zip(room, source, receiver, strict=True):
        turns = np.arange(-(span := int(late // (2 * side)) + 1), span + 1)
        along = np.concatenate([2 * turns * side + place, 2 * turns * side - place]) - ear
        hits = np.concatenate([np.abs(2 * turns), np.abs(2 * turns - 1)])
        squares = np.add.outer(squares, along**2).ravel()
        reflections = np.add.outer(reflections, hits).ravel()
    distances = np.sqrt(squares)
    early = distances < late
    delays = np.rint((distances[early] - direct) / SPEED_OF_SOUND * rate).astype(int)
    length = round(max(seconds, EARLY) * rate) + 1
    amplitudes = wall ** reflections[early] * direct / distances[early]
    response: NDArray[np.float64] = np.bincount(delays, amplitudes, length).astype(np.float64)
    times = direct / SPEED_OF_SOUND + np.arange(round(EARLY * rate) + 1, length) / rate
    power = SPEED_OF_SOUND / (4 * np.pi * volume * rate) * 10 ** (-6 * times / seconds)
    response[round(EARLY * rate) + 1 :] = 4 * np.pi * direct * np.sqrt(power) * rng.normal(size=len(times))
    return response


def add_noise(waveform: Sound, rate: int, kind: str, decibels: float, rng: np.random.Generator) -> Sound:
    """Add noise so many decibels below a waveform: white, pink, brown, hum of mains, or "babble".

    The power of pink noise falls by 3 dB an octave from 20 Hz on, that of brown noise by 6 dB. Babble is
    noise of the waveform's own spectrum.
    """
    length = len(waveform)
    if kind == "hum":
        mains, harmonics = rng.choice((50, 60)), np.arange(1, 9)[:, None]
        phases = 2 * np.pi * (mains * harmonics * np.arange(length) / rate + rng.random((8, 1)))
        noise = (np.cos(phases) / harmonics).sum(axis=0)
    else:
        hertz = np.maximum(fft.rfftfreq(length, 1 / rate), 20)
        gains = np.abs(fft.rfft(waveform)) if kind == "babble" else hertz ** SLOPES[kind]
        noise = _shaped(rng.standard_normal(length, np.float32), gains)
    level = np.sqrt(noise_power(waveform, decibels) / np.mean(np.square(noise)))
    return np.asarray(waveform + level * noise, np.float32)


def noise_power(waveform: NDArray[np.floating], decibels: float) -> float:
    """Compute the mean power of noise that is so many decibels below a waveform.

    >>> noise_power(np.ones(9), 10)
    0.1
    """
    return float(np.mean(np.square(waveform)) * 10 ** (-decibels / 10))


def equalise(waveform: Sound, rate: int, decibels: NDArray[np.float64]) -> Sound:
    """Raise the octaves 62.5 Hz to 16 kHz of a waveform by nine levels, straight lines in between."""
    hertz = np.maximum(fft.rfftfreq(len(waveform), 1 / rate), OCTAVES[0])
    return _shaped(waveform, 10 ** (np.interp(np.log2(hertz), np.log2(OCTAVES), decibels) / 20))


def limit_band(waveform: Sound, rate: int, low: float, high: float) -> Sound:
    """Limit a waveform to a band in Hz; above Nyquist's frequency there is nothing to limit."""
    filters = [signal.butter(ORDER, low, "highpass", fs=rate, output="sos")]
    if high < rate / 2:
        filters.append(signal.butter(ORDER, high, fs=rate, output="sos"))
    return np.asarray(signal.sosfilt(np.vstack(filters), waveform), np.float32)


def transcode(waveform: Sound, rate: int, codec: Codec, bit_rate: float) -> Sound:
    """Encode and decode a waveform in memory; what returns is as long and begins at the same time."""
    encoder = cast(AudioCodecContext, av.CodecContext.create(codec.encoder, "w"))
    encoder.sample_rate, encoder.layout, encoder.bit_rate = codec.sample_rate, "mono", round(bit_rate)
    encoder.format = cast("list[AudioFormat]", encoder.codec.audio_formats)[0]
    encoder.time_base, encoder.options = Fraction(1, codec.sample_rate), dict(codec.options)
    padded = np.pad(waveform, (0, rate // 20))  # flushes what is delayed; no encoder takes an empty frame
    frame = sound_frame(resample(padded, rate, codec.sample_rate)[None], codec.sample_rate)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = cast(AudioCodecContext, av.CodecContext.create(encoder.codec.canonical_name, "r"))
    decoder.sample_rate, decoder.layout = codec.sample_rate, "mono"
    decoder.extradata = encoder.extradata
    resampler = av.AudioResampler("fltp", "mono", codec.sample_rate)
    frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    parts = [part.to_ndarray()[0] for frame in (*frames, None) for part in resampler.resample(frame)]
    decoded = np.concatenate([np.zeros(0, np.float32), *parts])[codec.delay :]
    return _fitted(resample(decoded, codec.sample_rate, rate), len(waveform))


def _shaped(waveform: Sound, gains: NDArray[np.floating]) -> Sound:
    """Multiply the spectrum of a waveform (N,) by gains (N // 2 + 1,)."""
    return np.asarray(fft.irfft(fft.rfft(waveform) * gains, len(waveform)), np.float32)


def _scaled(waveform: Sound, peak: float) -> Sound:
    return np.asarray(waveform * (peak / np.abs(waveform).max()), np.float32)


def _unless_silent(waveform: Sound, before: Sound) -> Sound:
    """Leave a step out by which nothing remains, as of a whistle on the telephone."""
    return waveform if np.abs(waveform).max() > LEAST else before


def _fitted(waveform: Sound, length: int) -> Sound:
    """Cut a waveform at a length, or fill it up with zeros."""
    return np.pad(waveform[:length], (0, max(0, length - len(waveform))))
