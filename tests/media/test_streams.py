"""Of several streams of one kind: the one that is asked for, else that marked default, else the first."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import OutputContainer
from av.stream import Disposition

from cfnsr.errors import InputError
from cfnsr.media.capture import Player
from cfnsr.media.container import USUAL, Streams
from cfnsr.media.decode import decode, stream_pictures, stream_sound
from cfnsr.media.errors import MediaError
from cfnsr.media.overlay import write_overlay
from cfnsr.media.scan import first_picture, scan_packets

Media = Callable[..., Path]
RATE = 8_000


def film(
    path: Path, *, pictures: Sequence[str] = ("",), sounds: Sequence[str] = ("", ""), seconds: float = 2.0
) -> Path:
    """Stream i of pictures is a grey of 60 i + 40, that of sound a square wave of 0.1 i + 0.1.

    Each is given the words that are said of it: "default", and its title.
    """
    with av.open(str(path), "w") as file:
        made: list[tuple[Any, list[Any]]] = []
        for place, words in enumerate(pictures):
            stream: Any = file.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64 + 32 * place, 48, "yuvj420p"
            grey = np.full((48, stream.width, 3), 60 * place + 40, np.uint8)
            made.append((stream, [av.VideoFrame.from_ndarray(grey, "rgb24")] * round(10 * seconds)))
            _say(stream, words)
        for place, words in enumerate(sounds):
            track: Any = file.add_stream("pcm_s16le", rate=RATE)
            track.layout = "mono"
            wave = np.where(np.arange(400) % 40 < 20, 1, -1) * (0.1 * place + 0.1)
            part = np.rint(wave * 32_767).astype(np.int16)[None]
            made.append((track, [part] * round(20 * seconds)))
            _say(track, words)
        packets = []
        for stream, parts in made:
            for at, part in enumerate(parts):
                if isinstance(part, np.ndarray):
                    frame: Any = av.AudioFrame.from_ndarray(part, "s16", "mono")
                    frame.sample_rate, frame.pts, frame.time_base = RATE, 400 * at, Fraction(1, RATE)
                else:
                    frame = part.reformat(format="yuvj420p")
                    frame.pts, frame.time_base = at, Fraction(1, 10)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            file.mux(packet)
    return path


def _say(stream: Any, words: str) -> None:
    default, _, title = words.partition(" ")
    stream.disposition = Disposition.default if default == "default" else Disposition(0)
    if title:
        stream.metadata["title"] = title


def loudness(path: Path, streams: Streams = USUAL) -> float:
    found = decode(path, video=False, streams=streams)
    assert found.waveform is not None
    return round(float(np.abs(found.waveform).mean()), 2)


@pytest.mark.parametrize(
    ("sounds", "streams", "expected", "note"),
    [
        (["", ""], Streams(), 0.1, "sound stream 1 of 2 is taken, none is marked default"),
        (["", "default Mic"], Streams(), 0.2, "sound stream 2 of 2 (Mic) is taken, marked default"),
        (["", "default", "default"], Streams(), 0.2, "sound stream 2 of 3 is taken, marked default"),
        (["default", ""], Streams(), 0.1, "sound stream 1 of 2 is taken, marked default"),
        (["default", "", ""], Streams(audio=3), 0.3, "sound stream 3 of 3 is taken, as asked for"),
        (["default"], Streams(audio=1), 0.1, None),
    ],
)
def test_the_stream_of_sound(
    sounds: list[str], streams: Streams, expected: float, note: str | None, tmp_path: Path
) -> None:
    path = film(tmp_path / "a.mkv", sounds=sounds)
    assert loudness(path, streams) == expected
    scan = scan_packets(path, streams)
    assert scan.notes == (() if note is None else (note,)) == decode(path, streams=streams).notes
    streamed = np.concatenate([part for _, part in stream_sound(path, scan)])
    assert round(float(np.abs(streamed).mean()), 2) == expected
    out = write_overlay(path, tmp_path / "out.mkv", lambda picture, second: None, streams=streams)
    assert loudness(out) == expected
    assert Player(path, streams).scan.notes == scan.notes


@pytest.mark.parametrize(
    ("pictures", "streams", "place"),
    [
        (["", ""], Streams(), 0),
        (["", "default"], Streams(), 1),
        (["default", ""], Streams(video=2), 1),
    ],
)
def test_the_stream_of_pictures(pictures: list[str], streams: Streams, place: int, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", pictures=pictures, sounds=[""])
    found = decode(path, frames=3, streams=streams)
    assert found.frames is not None and found.frames.mean() == pytest.approx(60 * place + 40, abs=3)
    assert found.frames.shape[2] == first_picture(path, streams)[1][1] == 64 + 32 * place
    scan = scan_packets(path, streams)
    assert [note.split(" is taken")[0] for note in scan.notes] == [f"picture stream {place + 1} of 2"]
    (streamed,) = stream_pictures(path, scan, np.array([5]))
    np.testing.assert_array_equal(streamed, found.frames[0])
    drawn = []
    write_overlay(
        path, tmp_path / "out.mp4", lambda picture, _: drawn.append(picture.copy()), streams=streams
    )
    np.testing.assert_array_equal(drawn[0], found.frames[0])


def test_cover_art_is_not_counted(media: Media, remux: Media) -> None:
    def cover(file: OutputContainer) -> list[av.Packet]:
        stream: Any = file.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        stream.disposition = Disposition.attached_pic
        return [*stream.encode(av.VideoFrame(32, 32, "yuvj420p")), *stream.encode(None)]

    path = remux("a.mp4", media("in.mp4"), first=cover)
    with av.open(str(path)) as file:
        assert len(file.streams.video) == 2, "the cover is among them"
    assert first_picture(path, Streams(video=1))[1] == (48, 64) and not scan_packets(path).notes


@pytest.mark.parametrize(
    ("streams", "reason", "message"),
    [
        (Streams(audio=3), "no sound", "no stream 3 of sound: expected a number up to 2; correct --audio"),
        (Streams(video=2), "no picture", "no stream 2 of pictures: expected a number up to 1; correct --vid"),
    ],
)
def test_a_stream_that_is_not_there(streams: Streams, reason: str, message: str, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv")
    for call in (first_picture, scan_packets, Player, lambda *given: decode(given[0], streams=given[1])):
        with pytest.raises(MediaError, match=message) as error:
            call(path, streams)
        assert error.value.reason == reason and str(path) in str(error.value)


def test_a_number_that_is_none() -> None:
    for given in ({"audio": 0}, {"video": -1}):
        with pytest.raises(InputError, match="expected 1 or more"):
            Streams(**given)


def test_the_given_film_of_two_tracks(cases: Path) -> None:
    path = cases / "streams/obs_two_tracks.mkv"
    first, second, usual = (
        decode(path, video=False, streams=streams).waveform
        for streams in (Streams(audio=1), Streams(audio=2), Streams())
    )
    assert first is not None and not first.any()
    assert usual is not None and np.abs(usual).max() > 0.03
    np.testing.assert_array_equal(usual, second)
    assert scan_packets(path).notes == ("sound stream 2 of 2 (Mic) is taken, marked default",)
