"""What time 0 is, and what becomes of sound whose time stamps and samples disagree."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.ndimage import median_filter
from scipy.signal import correlate

from cfnsr.media.clock import LONGEST_BACK, SLACK, SoundClock, StampFilter, in_order
from cfnsr.media.decode import LONGEST_SOUND, decode, stream_sound
from cfnsr.media.errors import MediaError
from cfnsr.media.overlay import write_overlay
from cfnsr.media.scan import scan_packets

Media = Callable[..., Path]
RATE = 8_000


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (1, round(seconds * rate)))


def written(sound: np.ndarray) -> np.ndarray:
    """As 16 bits keep it."""
    return np.rint(sound[0] * 32_767) / 32_768


def heard(path: Path) -> np.ndarray:
    found = decode(path, video=False).waveform
    assert found is not None
    streamed = np.concatenate([part for _, part in stream_sound(path, scan_packets(path))])
    np.testing.assert_array_equal(streamed, found)
    return found


def copied(path: Path) -> Path:
    """Drawn upon with nothing."""
    return write_overlay(path, path.with_name(f"drawn{path.suffix}"), lambda *_: None)


@pytest.mark.parametrize("name", ["a.mov", "a.mkv"])
def test_sound_before_the_first_picture_is_heard(media: Media, name: str) -> None:
    settings = {"audio": "pcm_s16le", "sound": noise(5), "rate": RATE}
    path = media(name, frames=30, video_delay=3.0, **settings)
    alone = heard(media("alone.wav", video=None, **settings))
    np.testing.assert_array_equal(heard(path), alone)
    scan, found = scan_packets(path), decode(path, frames=30)
    assert scan.times == pytest.approx(3 + np.arange(30) / 15, abs=0.002)
    np.testing.assert_array_equal(found.times, scan.times)
    np.testing.assert_array_equal(found.waveform, alone)
    assert found.duration == pytest.approx(5, abs=0.002) and scan.fps == pytest.approx(15, rel=0.01)
    # A part of it too, though whoever seeks a picture finds the first one three seconds in.
    part = decode(path, frames=3, start=2.5)
    np.testing.assert_array_equal(part.waveform, alone[round(2.5 * RATE) :])
    assert part.times == pytest.approx([3, 4, 3 + 29 / 15], abs=0.07)
    seconds: list[float] = []
    film = write_overlay(path, path.with_name("drawn.mkv"), lambda _, second: seconds.append(second))
    assert seconds == pytest.approx(scan.times)
    assert scan_packets(film).times == pytest.approx(scan.times, abs=0.002)
    np.testing.assert_array_equal(heard(film), alone)


def test_both_may_begin_late(media: Media) -> None:
    """Players show the earliest as 0."""
    sound = noise(2)
    path = media("a.mkv", sound=sound, rate=RATE, audio="pcm_s16le", video_delay=7.0, sound_delay=5.0)
    scan = scan_packets(path)
    assert (scan.zero, scan.sound_start, scan.times[0]) == pytest.approx((5, 0, 2), abs=0.002)
    assert scan.duration == pytest.approx(4, abs=0.01)
    np.testing.assert_allclose(heard(path), written(sound), atol=1e-6)


def test_another_track_may_be_the_earliest(media: Media, remux: Media) -> None:
    """The clock is the file's, whichever of its streams is taken."""
    late = media("late.mkv", sound=noise(1), rate=RATE, audio="pcm_s16le", sound_delay=2.0, video_delay=2.0)
    early = media("early.mkv", sound=noise(4, seed=1), rate=RATE, audio="pcm_s16le", video=None)
    scan = scan_packets(remux("both.mkv", late, early))
    assert (scan.zero, scan.sound_start, scan.times[0]) == pytest.approx((0, 2, 2), abs=0.002)


def test_what_an_edit_list_hides_is_no_time(media: Media) -> None:
    """The run-in of an AAC encoder stands before 0."""
    path = media("a.mp4", sound=noise(2, 44_100))
    with av.open(str(path)) as file:
        first = next(packet for packet in file.demux(audio=0) if packet.size)
        assert first.pts < 0 and first.is_discard
    scan = scan_packets(path)
    assert (scan.zero, scan.sound_start, scan.times[0]) == (0, 0, 0)


def test_a_call_whose_camera_comes_late(cases: Path, tmp_path: Path) -> None:
    call = cases / "late-camera/call.mp4"
    np.testing.assert_array_equal(heard(call), heard(cases / "late-camera/sound_alone.m4a"))
    scan = scan_packets(call)
    assert scan.times[0] == pytest.approx(8.0) and scan.sound_start == 0
    film = write_overlay(call, tmp_path / "call.mp4", lambda *_: None)
    drawn = scan_packets(film).times
    assert len(drawn) >= 98 and drawn[0] == pytest.approx(8.0)
    assert np.abs(scan.times[:, None] - drawn).min(axis=0).max() < 1e-3
    np.testing.assert_allclose(heard(film), heard(call), atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_are_laid_on_a_canvas(seed: int) -> None:
    """Against a canvas on which every second is painted once; stamps differ by nothing or by much."""
    dice = np.random.default_rng(seed)
    clock, laid, canvas, end = SoundClock(Path("x")), [], np.zeros(90_000), 0
    due = int(dice.integers(-900, 900))
    for number in range(30):
        samples = dice.uniform(1, 2, int(dice.integers(300, 900)))
        if number:
            due += int(dice.choice([0, 0, 0, 1, -1])) * int(dice.integers(SLACK * RATE + 1, 1500))
        for at, sample in enumerate(samples.tolist(), due):
            if at >= end:
                canvas[at] = sample
        end = max(end, due + len(samples))
        silence = clock.follow(due / RATE, RATE, start=0, earliest=0)
        rest = clock.cut(samples)
        laid += [np.zeros(silence), rest]
        assert clock.position is not None
        clock.position += silence + len(rest)
        due += len(samples)
    np.testing.assert_array_equal(np.concatenate(laid), canvas[:end])


def test_little_apart_and_what_has_no_stamp_follows_on() -> None:
    for earliest, silence, position in ((0.0, 2 * RATE, 0), (1.0, RATE, RATE), (None, 0, 2 * RATE)):
        clock = SoundClock(Path("x"))
        assert clock.follow(None, RATE, start=2.0, earliest=earliest) == silence
        assert clock.position == position and len(clock.cut(np.ones(7))) == 7
        clock.position = 2 * RATE + 7
        for second in (None, 2 + 7 / RATE + 0.04, 2 + 7 / RATE - 0.04):
            assert clock.follow(second, RATE, start=2.0) == 0 and len(clock.cut(np.ones(7))) == 7
        assert clock.follow(3.0, RATE, start=2.0) == RATE - 7


def filtered(apart: np.ndarray, lasts: int) -> np.ndarray:
    """Milliseconds from samples to filtered time stamps, of packets that last so many."""
    stamps, found = StampFilter(), []
    for number, late in enumerate(apart.tolist()):
        packet = av.Packet(b"sound")
        packet.time_base, packet.pts, packet.duration = Fraction(1, 1000), number * lasts + late, lasts
        found += [*stamps.add(packet)]
    found += [*stamps.finish(), *stamps.finish()]
    assert all(packet.dts in (None, packet.pts) for packet in found)
    return np.array([packet.pts for packet in found]) - lasts * np.arange(len(apart))


@pytest.mark.parametrize("lasts", [10, 20, 125])
@pytest.mark.parametrize("seed", range(5))
def test_time_stamps_that_differ_for_a_moment_follow_the_others(seed: int, lasts: int) -> None:
    """Against a running median over a second; what differs by less, or by more than half a second, stays."""
    dice = np.random.default_rng(seed)
    apart = np.rint(dice.standard_t(1, 400) * 20).astype(int) + 300 * (np.arange(400) > 150)
    usual = median_filter(apart, 2 * (500 // lasts) + 1, mode="nearest")
    moved = np.abs(apart - usual)
    expected = np.where((moved > 12.5) & (moved <= 500), usual, apart)
    assert (expected != apart).any() and (moved > 500).any()
    np.testing.assert_array_equal(filtered(apart, lasts), expected)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [3, 40, 400])
def test_holes_and_drifts_keep_their_time_stamps(sign: int, count: int) -> None:
    """However many and short they are; so do overlaps."""
    dice = np.random.default_rng(count)
    apart = sign * np.cumsum(dice.choice([0, 0, 0, 1, 60, 380, 7000], count))
    np.testing.assert_array_equal(filtered(apart, 20), apart)


def test_packets_that_come_late_change_nothing(media: Media, remux: Media) -> None:
    source = media("a.mkv", frames=60, sound=noise(4, 48_000), rate=48_000, audio="pcm_s16le")
    path = remux("late.mkv", source, sound=lambda second: 2.2 if 2 < second < 2.2 else second)
    late, even = scan_packets(path), scan_packets(source)
    assert late.duration == even.duration and late.steady
    np.testing.assert_array_equal(heard(path), heard(source))
    np.testing.assert_array_equal(heard(copied(path)), heard(source))


@pytest.mark.parametrize("burst", [0.1, 0.2])
def test_bursts_of_one_stamp_are_heard(media: Media, remux: Media, burst: float) -> None:
    """No sample is lost but at the ends, where nobody knows whether they came late or early."""
    source = media("a.mkv", frames=60, sound=noise(4, 48_000), rate=48_000, audio="pcm_s16le")
    path = remux("burst.mkv", source, sound=lambda second: second // burst * burst)
    whole, found = heard(source), heard(path)
    lost = len(whole) - len(found)
    assert lost <= burst * 48_000
    middle = found[48_000 : round(3.5 * 48_000)]
    assert any(np.array_equal(whole[at : at + len(middle)], middle) for at in range(48_000, 48_001 + lost))
    film = heard(copied(path))
    assert len(film) == pytest.approx(len(found), abs=2_048)
    assert alike(middle[:48_000], film, 1.0, 0.01) > 0.5


@pytest.mark.parametrize(("hole", "video"), [(7, None), (12, "h264"), (90, "h264")])
def test_a_hole_of_any_length_is_silence(media: Media, remux: Media, hole: int, video: str | None) -> None:
    """Also where the pictures ended long before."""
    sound = noise(4)
    source = media("a.mkv", video=video, sound=sound, rate=RATE, audio="pcm_s16le")
    path = remux("hole.mkv", source, sound=lambda second: second + hole * (second > 2))
    found, whole = heard(path), written(sound)
    assert len(found) == pytest.approx((4 + hole) * RATE, abs=RATE // 100)
    silent = 80 * np.flatnonzero(~found[: len(found) // 80 * 80].reshape(-1, 80).any(axis=1))
    begin, end = silent.min() - 80, silent.max() + 160
    assert len(silent) == (end - begin) // 80 - 2, "one hole"
    np.testing.assert_allclose(found[:begin], whole[:begin], atol=1e-6)
    np.testing.assert_allclose(found[end:], whole[end - len(found) :], atol=1e-6)


def test_sound_of_hours_is_no_take(media: Media, remux: Media) -> None:
    """A small file with a large hole would fill the memory; its parts are read, and it is streamed."""
    source = media("a.mkv", video=None, sound=noise(4), rate=RATE, audio="pcm_s16le")
    path = remux("hole.mkv", source, sound=lambda second: second + LONGEST_SOUND * (second > 2))
    message = r"has 15\.1 minutes of sound in one piece: expected at most 15"
    with pytest.raises(MediaError, match=message) as caught:
        decode(path, video=False)
    assert caught.value.reason == "too long"
    found = decode(path, video=False, start=LONGEST_SOUND, end=LONGEST_SOUND + 5).waveform
    assert found is not None and found[-RATE:].all()
    scan = scan_packets(path)
    assert sum(len(part) for _, part in stream_sound(path, scan)) == round(scan.duration * RATE)


def test_real_holes(cases: Path) -> None:
    short, long = heard(cases / "holes/hole_07s.webm"), heard(cases / "holes/hole_12s.webm")
    assert len(long) - len(short) == 5 * 48_000
    middle = 8 * 48_000
    assert not short[middle - 48_000 : middle + 48_000].any()
    np.testing.assert_array_equal(long[:middle], short[:middle])
    np.testing.assert_array_equal(long[middle + 5 * 48_000 :], short[middle:])


def test_samples_that_come_faster_than_time_are_left_out(media: Media, remux: Media) -> None:
    """A click of each second stays where its stamp says, for pictures and sound may not drift apart."""
    sound = np.zeros((1, 20 * RATE))
    sound[0, RATE // 2 :: RATE] = 0.9
    source = media("a.mkv", frames=100, fps=5, sound=sound, rate=RATE, audio="pcm_s16le")
    found = heard(remux("fast.mkv", source, sound=lambda second: 0.95 * second))
    clicks = np.flatnonzero(found > 0.5) / RATE
    assert len(found) / RATE == pytest.approx(19, abs=2 * SLACK) and len(clicks) >= 18
    apart = np.abs(clicks[:, None] - 0.95 * (0.5 + np.arange(20))).min(axis=1)
    assert apart.max() < 2 * SLACK + 1024 / RATE


def joined(media: Media, begin: float, seconds: float = 4.0) -> Path:
    """A stream of which the second part begins at `begin`, in the middle of the first."""
    parts = []
    for place, start in enumerate((0.0, begin)):
        delays = {"video_delay": start, "sound_delay": start}
        sound = noise(seconds, 48_000, place)
        parts.append(media(f"{place}.ts", frames=round(15 * seconds), sound=sound, rate=48_000, **delays))
    path = parts[0].with_name("joined.ts")
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def alike(part: np.ndarray, whole: np.ndarray, second: float, within: float = 0.1) -> float:
    """How well a part correlates with the whole where it fits best around a second."""
    begin = round((second - within) * 48_000)
    near = whole[begin : begin + len(part) + round(2 * within * 48_000)]
    norms = np.sqrt(correlate(near**2, np.ones(len(part)), "valid", method="fft") * (part**2).sum())
    return float((correlate(near, part, "valid", method="fft") / norms).max())


def test_what_comes_again_is_left_out(media: Media) -> None:
    """Half a second of the second part; what is behind it is where it belongs, in the annotated film too."""
    path = joined(media, 3.5)
    whole, first, second = heard(path), heard(path.with_name("0.ts")), heard(path.with_name("1.ts"))
    assert len(whole) / 48_000 == pytest.approx(7.4, abs=0.1)
    np.testing.assert_array_equal(whole[: 3 * 48_000], first[: 3 * 48_000])
    assert alike(second[48_000 : 3 * 48_000], whole, 4.4) > 0.7, "AAC makes some of its noise anew"
    film = heard(write_overlay(path, path.with_name("film.mkv"), lambda *_: None))
    assert len(film) == pytest.approx(len(whole), abs=4_000)
    for begin in (1, 5):  # before and behind it; the film's sound is compressed again
        assert alike(film[begin * 48_000 : (begin + 1) * 48_000], whole, begin, 0.004) > 0.5


def test_a_hole_stays_in_the_annotated_film(media: Media, remux: Media) -> None:
    """12 s of it, though MP4 tells of a hole by one packet that lasts: silence stands there."""
    source = media("a.mp4", frames=100, fps=5, sound=noise(20, 48_000), rate=48_000)
    path = remux("hole.mp4", source, sound=lambda second: None if 4 < second < 16 else second)
    assert not scan_packets(path).steady and scan_packets(source).steady
    film = copied(path)
    assert scan_packets(film).steady
    assert len(heard(film)) / 48_000 == pytest.approx(20, abs=0.1)
    for found in (heard(path), heard(film)):
        assert np.abs(found[round(4.2 * 48_000) : round(15.8 * 48_000)]).max() < 0.01
        assert found[3 * 48_000 : round(3.9 * 48_000)].std() > 0.1 < found[17 * 48_000 : 19 * 48_000].std()


def refused(path: Path, message: str) -> None:
    for read in (scan_packets, decode):
        with pytest.raises(MediaError, match=message) as caught:
            read(path)
        assert caught.value.reason == "broken"


def test_several_recordings_in_one_are_refused(media: Media) -> None:
    """The second begins at 0 again: nobody knows where it belongs."""
    refused(joined(media, 0.0, LONGEST_BACK + 2), "run back by .* convert it")


def test_too_much_that_comes_again_is_refused(media: Media) -> None:
    path = joined(media, 0.5)
    for read in (decode, lambda path: list(stream_sound(path, scan_packets(path)))):
        with pytest.raises(MediaError, match="cannot be reconciled, so convert it") as caught:
            read(path)
        assert caught.value.reason == "broken"


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        (3, r"has nothing for 3.0 hours: expected at most 2"),
        (101, "declares 101 hours: expected at most 100"),
    ],
)
def test_a_clock_that_leaps_by_hours_is_refused(media: Media, remux: Media, hours: int, message: str) -> None:
    source = media("a.mkv", sound=noise(2), rate=RATE, audio="pcm_s16le")
    refused(remux("leap.mkv", source, sound=lambda second: second + hours * 3600 * (second > 1)), message)


def test_pictures_that_others_come_before_are_in_order() -> None:
    stamps = np.array([0, 4, 2, 1, 3, 8, 6, 5, 7])  # a pyramid of three
    assert in_order(stamps).all()
    again = np.concatenate([np.arange(100), np.arange(50, 150)])
    late = [at for at in range(100, 200) if (again[:at] > again[at]).sum() > 16]
    assert np.flatnonzero(~in_order(again)).tolist() == pytest.approx(late, abs=50)
    assert in_order(again)[:100].all() and in_order(again)[-40:].all() and not in_order(again)[100]
