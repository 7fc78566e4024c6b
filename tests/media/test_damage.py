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


BIG = dict.fromkeys(("a.aiff", "a.au"), "pcm_s16be")  # codecs of files that take no other


@pytest.mark.parametrize("name", ["a.wav", "a.caf", "a.w64", "a.aiff", "a.au"])
def test_a_few_bytes_less_and_many(media: Media, name: str) -> None:
    path = media(name, video=None, audio=BIG.get(name, "pcm_s16le"), sound=SOUND, rate=8_000)
    whole, content = heard(path), path.read_bytes()
    path.write_bytes(content[:-2])
    assert len(heard(path)) >= len(whole) - 1
    path.write_bytes(content[: round(0.6 * len(content)) // 2 * 2])
    refused(path)


@pytest.mark.parametrize(
    ("name", "at", "length"),
    [
        ("a.au", b".snd", (8, ">I", 0x7FFFFFFF)),
        ("a.au", b".snd", (8, ">I", 0xFFFFFFFF)),
        ("a.aiff", b"SSND", (4, ">I", 0xFFFFFFFF)),
        ("a.caf", b"data", (4, ">q", 0xFFFFFFFF)),
        ("a.caf", b"data", (4, ">q", -1)),
    ],
)
def test_other_lengths_that_are_none(
    media: Media, name: str, at: bytes, length: tuple[int, str, int]
) -> None:
    path = media(name, video=None, audio=BIG.get(name, "pcm_s16le"), sound=SOUND, rate=8_000)
    whole, content = heard(path), bytearray(path.read_bytes())
    place, size, told = length
    struct.pack_into(size, content, content.index(at) + place, told)
    path.write_bytes(content)
    np.testing.assert_array_equal(heard(path), whole)


def test_rf64_without_a_length(media: Media) -> None:
    """As a recorder leaves it that was cut off: all of the sound that is there is heard."""
    path = media("a.wav", video=None, audio="pcm_s16le", sound=SOUND, rate=8_000)
    whole, content = heard(path), path.read_bytes()
    at = content.index(b"data")
    for told in (0, len(content) - at - 8):
        lengths = b"ds64" + struct.pack("<IQQQI", 28, told, told, 0, 0)
        wide = b"RF64\xff\xff\xff\xffWAVE" + lengths + content[12:at] + b"data\xff\xff\xff\xff"
        path.write_bytes(wide + content[at + 8 :])
        np.testing.assert_array_equal(heard(path), whole)
    path.write_bytes((wide + content[at + 8 :])[: len(content) // 2])
    refused(path)


@pytest.mark.parametrize("title", ["", "A title that makes the front of the file longer" * 9])
@pytest.mark.parametrize("rate", [44_100, 22_050])
def test_an_mp3_file_whose_count_of_frames_is_told(tmp_path: Path, title: str, rate: int) -> None:
    """Without it nothing is told, however much the bit rate varies; two in one are longer than told."""
    path, quiet = tmp_path / "a.mp3", np.full((1, 6 * rate), 1e-4, np.float32)
    quiet[0, :rate] = np.random.default_rng(0).uniform(-0.5, 0.5, rate)
    with av.open(str(path), "w") as file:
        file.metadata["title"] = title
        stream = file.add_stream("mp3", rate=rate, options={"q": "4", "flags": "+qscale"})
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(quiet, "fltp", "mono")
        frame.sample_rate = rate
        file.mux([*stream.encode(frame), *stream.encode(None)])
    content = path.read_bytes()
    assert len(heard(path)) == pytest.approx(6 * rate, abs=2_000)
    cut = content[: round(0.6 * len(content))]
    path.write_bytes(cut)
    refused(path)
    at = max(content.find(b"Xing"), content.find(b"Info"))
    assert at > 0
    path.write_bytes(cut[:at] + b"Some" + cut[at + 4 :])
    assert len(heard(path)) < 6 * rate
    path.write_bytes(content + content)
    assert len(heard(path)) > 11 * rate


@pytest.mark.parametrize("size", [44, 36])
def test_a_header_alone_has_no_sound(media: Media, size: int) -> None:
    path = media("a.wav", video=None, audio="pcm_s16le", sound=SOUND, rate=8_000)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(MediaError, match="has no sound: nothing follows its header") as caught:
        decode(path, video=False)
    assert caught.value.reason == "no sound"


@pytest.mark.parametrize("name", ["a.aiff", "a.au", "a.caf", "a.w64"])
def test_what_begins_as_media_is_damaged_media(media: Media, name: str) -> None:
    path = media(name, video=None, audio=BIG.get(name, "pcm_s16le"), sound=SOUND, rate=8_000)
    path.write_bytes(path.read_bytes()[:16])
    with pytest.raises(MediaError, match="begins as media") as caught:
        scan_packets(path)
    assert caught.value.reason == "broken"


def test_a_real_header_alone(shared: Path) -> None:
    path = shared / "cases/silence/AudioWAV/1064_IEO_DIS_MD.wav"
    if not path.is_file():
        pytest.skip("no shared cases")
    with pytest.raises(MediaError, match="has no sound") as caught:
        scan_packets(path)
    assert caught.value.reason == "no sound"


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
