"""Whole files that look cut, and cut files that are refused all the same."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import OutputContainer

from cfnsr.media.decode import decode
from cfnsr.media.errors import MediaError
from cfnsr.media.scan import scan_packets

Media = Callable[..., Path]
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 40_000))


def heard(path: Path) -> np.ndarray:
    found = decode(path, video=False).waveform
    assert found is not None
    return found


def refused(path: Path, content: bytes, message: str = "is truncated", reason: str = "truncated") -> None:
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message) as caught:
        scan_packets(path)
    assert caught.value.reason == reason


BIG = dict.fromkeys(("a.aiff", "a.au"), "pcm_s16be")  # codecs of files that take no other


@pytest.fixture
def sound(media: Media) -> Callable[[str], Path]:
    return lambda name: media(name, video=None, audio=BIG.get(name, "pcm_s16le"), sound=SOUND, rate=8_000)


@pytest.mark.parametrize(
    ("name", "at", "length"),
    [
        ("a.wav", b"data", (4, "<I", 0)),
        ("a.wav", b"data", (4, "<I", 0x7FFFFFFF)),
        ("a.wav", b"data", (4, "<I", 0xFFFFFFFF)),
        ("a.wav", b"data", (4, "<I", 0x7FFFF000)),  # SoX
        ("a.wav", b"data", (4, "<I", 80_036)),  # the header counted
        ("a.au", b".snd", (8, ">I", 0x7FFFFFFF)),
        ("a.au", b".snd", (8, ">I", 0xFFFFFFFF)),
        ("a.aiff", b"SSND", (4, ">I", 0xFFFFFFFF)),
        ("a.caf", b"data", (4, ">q", 0xFFFFFFFF)),
        ("a.caf", b"data", (4, ">q", -1)),
    ],
)
def test_a_length_that_is_none(
    sound: Callable[[str], Path], name: str, at: bytes, length: tuple[int, str, int]
) -> None:
    path = sound(name)
    whole, content = heard(path), bytearray(path.read_bytes())
    place, size, declared = length
    struct.pack_into(size, content, content.index(at) + place, declared)
    path.write_bytes(content)
    np.testing.assert_array_equal(heard(path), whole)


@pytest.mark.parametrize("name", ["a.wav", "a.caf", "a.w64", "a.aiff", "a.au"])
def test_a_few_bytes_less_and_many(sound: Callable[[str], Path], name: str) -> None:
    path = sound(name)
    whole, content = heard(path), path.read_bytes()
    path.write_bytes(content[:-2])
    assert len(heard(path)) >= len(whole) - 1
    refused(path, content[: round(0.6 * len(content)) // 2 * 2])


def test_rf64_without_a_length(sound: Callable[[str], Path]) -> None:
    """As a recorder leaves it that was cut off: all of the sound that is there is read."""
    path = sound("a.wav")
    whole, content = heard(path), path.read_bytes()
    at = content.index(b"data")
    for declared in (0, len(content) - at - 8):
        lengths = b"ds64" + struct.pack("<IQQQI", 28, declared, declared, 0, 0)
        wide = b"RF64\xff\xff\xff\xffWAVE" + lengths + content[12:at] + b"data\xff\xff\xff\xff"
        path.write_bytes(wide + content[at + 8 :])
        np.testing.assert_array_equal(heard(path), whole)
    refused(path, (wide + content[at + 8 :])[: len(content) // 2])


@pytest.mark.parametrize("title", ["", "A title that makes the front of the file longer" * 9])
@pytest.mark.parametrize("rate", [44_100, 22_050])
def test_an_mp3_file_whose_count_of_frames_is_told(tmp_path: Path, title: str, rate: int) -> None:
    """Without it nothing is declared, however much the bit rate varies; two in one are longer."""
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
    refused(path, cut)
    at = max(content.find(b"Xing"), content.find(b"Info"))
    assert at > 0
    path.write_bytes(cut[:at] + b"Some" + cut[at + 4 :])
    assert len(heard(path)) < 6 * rate
    path.write_bytes(content + content)
    assert len(heard(path)) > 11 * rate


@pytest.mark.parametrize("size", [44, 36])
def test_a_header_alone_has_no_sound(sound: Callable[[str], Path], size: int) -> None:
    path = sound("a.wav")
    refused(path, path.read_bytes()[:size], "has no sound: nothing follows its header", "no sound")


@pytest.mark.parametrize("name", ["a.aiff", "a.au", "a.caf", "a.w64"])
def test_what_begins_as_media_is_damaged_media(sound: Callable[[str], Path], name: str) -> None:
    path = sound(name)
    refused(path, path.read_bytes()[:16], "begins as media", "broken")


def test_a_real_header_alone(cases: Path) -> None:
    with pytest.raises(MediaError, match="has no sound") as caught:
        scan_packets(cases / "silence/AudioWAV/1064_IEO_DIS_MD.wav")
    assert caught.value.reason == "no sound"


def test_subtitles_may_go_on_for_longer(media: Media, remux: Media) -> None:
    def text(file: OutputContainer) -> list[av.Packet]:
        line = av.Packet(b"Hello")
        line.stream, line.pts, line.dts, line.duration = file.add_mux_stream("subrip"), 500, 500, 8_500
        line.time_base = Fraction(1, 1000)
        return [line]

    source = media("a.mkv", sound=SOUND[:, :16_000], rate=8_000, audio="pcm_s16le", coding={"bf": "0"})
    path = remux("text.mkv", source, first=text)
    with av.open(str(path)) as file:
        assert file.duration == 9_000_000
    np.testing.assert_array_equal(heard(path), heard(source))
    assert scan_packets(path).duration == pytest.approx(2, abs=0.01)
    content = path.read_bytes()
    refused(path, content[: round(0.6 * len(content))])


def test_damage_of_real_files(cases: Path, tmp_path: Path) -> None:
    folder = cases / "damage-checks"
    whole = heard(folder / "reference.wav")
    for path in folder.glob("*.wav"):
        found = heard(path)
        assert len(whole) - 1 <= len(found)
        np.testing.assert_array_equal(found, whole[: len(found)])
    lecture = decode(folder / "lecture.mkv")
    assert lecture.waveform is not None and lecture.frame_count == 99
    assert lecture.duration == pytest.approx(3.306, abs=0.01)
    content = (folder / "lecture.mkv").read_bytes()
    refused(tmp_path / "cut.mkv", content[: round(0.6 * len(content))])
