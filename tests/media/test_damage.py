"""Whole files that look cut, and cut files that are told all the same."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from cfnsr.media.container import scan_packets
from cfnsr.media.decode import decode
from cfnsr.media.errors import MediaError

Media = Callable[..., Path]
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 40_000))


def heard(path: Path) -> np.ndarray:
    found = decode(path, video=False).waveform
    assert found is not None
    return found


def refused(path: Path) -> None:
    with pytest.raises(MediaError, match="is truncated") as caught:
        scan_packets(path)
    assert caught.value.reason == "truncated"


def with_length(path: Path, size: str, change: Callable[[int], int]) -> None:
    """Write another length of the sound into a file of chunks."""
    content = bytearray(path.read_bytes())
    wide = 16 if size == "<q" else 4
    at = content.index(b"data") + wide
    (length,) = struct.unpack_from(size, content, at)
    struct.pack_into(size, content, at, change(length))
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [lambda _: 0, lambda _: 0x7FFFFFFF, lambda _: 0xFFFFFFFF, lambda _: 0x7FFFF000, lambda n: n + 36],
    ids=["zero", "largest", "minus one", "sox", "header counted"],
)
def test_a_length_that_is_none(media: Media, change: Callable[[int], int]) -> None:
    path = media("a.wav", video=None, audio="pcm_s16le", sound=SOUND, rate=8_000)
    whole = heard(path)
    with_length(path, "<I", change)
    np.testing.assert_array_equal(heard(path), whole)


@pytest.mark.parametrize(("name", "size"), [("a.wav", "<I"), ("a.caf", ">q"), ("a.w64", "<q")])
def test_a_few_bytes_less_and_many(media: Media, name: str, size: str) -> None:
    path = media(name, video=None, audio="pcm_s16le", sound=SOUND, rate=8_000)
    whole, content = heard(path), path.read_bytes()
    path.write_bytes(content[:-2])
    assert len(heard(path)) >= len(whole) - 1
    path.write_bytes(content[: round(0.6 * len(content)) // 2 * 2])
    refused(path)


def with_subtitles(source_path: Path, path: Path, end: float) -> Path:
    """A copy with a line of text until a second."""
    with av.open(str(source_path)) as source, av.open(str(path), "w") as target:
        tracks = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        text = target.add_mux_stream("subrip")
        packets = []
        for packet in source.demux():
            if packet.size:
                packet.stream = tracks[packet.stream_index]
                packets.append(packet)
        line = av.Packet(b"Hello")
        line.stream, line.pts, line.dts, line.duration = text, 500, 500, round(1000 * end) - 500
        target.mux(line)
        for packet in packets:
            target.mux(packet)
    return path


def test_subtitles_may_go_on_for_longer(media: Media, tmp_path: Path) -> None:
    source = media("a.mkv", sound=SOUND[:, :16_000], rate=8_000, audio="pcm_s16le", coding={"bf": "0"})
    path = with_subtitles(source, tmp_path / "text.mkv", 9.0)
    with av.open(str(path)) as file:
        assert file.duration == 9_000_000
    np.testing.assert_array_equal(heard(path), heard(source))
    assert scan_packets(path).duration == pytest.approx(2, abs=0.01)
    content = path.read_bytes()
    path.write_bytes(content[: round(0.6 * len(content))])
    refused(path)


def test_damage_of_real_files(shared: Path) -> None:
    folder = shared / "cases/damage-checks"
    if not folder.is_dir():
        pytest.skip("no shared cases")
    whole = heard(folder / "reference.wav")
    for path in folder.glob("*.wav"):
        found = heard(path)
        assert len(whole) - 1 <= len(found)
        np.testing.assert_array_equal(found, whole[: len(found)])
    lecture = decode(folder / "lecture.mkv")
    assert lecture.waveform is not None and lecture.frame_count == 99
    assert lecture.duration == pytest.approx(3.306, abs=0.01)


def test_a_real_lecture_that_is_cut(shared: Path, tmp_path: Path) -> None:
    source = shared / "cases/damage-checks/lecture.mkv"
    if not source.is_file():
        pytest.skip("no shared cases")
    path, content = tmp_path / "cut.mkv", source.read_bytes()
    path.write_bytes(content[: round(0.6 * len(content))])
    refused(path)
