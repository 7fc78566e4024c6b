"""Damaged and hostile files of every kind that the program reads: each ends loaded, or with a line of reason.

`python tests/reliability/fuzz.py --seed 0 --cases 5000`; a case that fails is printed with its number, and
`--case N` repeats it alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cfnsr import processes
from cfnsr.corpus.take import Take
from cfnsr.data import clip
from cfnsr.errors import InputError
from cfnsr.features.preparation import Preparation
from cfnsr.files import visible
from cfnsr.processes import WorkerDied, map_surviving, time_limit

MEMORY = 2 << 30  # bytes that a case may take; the process itself, with all libraries, has about 0.7 GiB
SECONDS = 120.0  # that a case may take by the clock, on a machine that has other work too
LONGEST_LINE = 6_000  # characters of a reason, after control characters were escaped
OURS = (
    "TypeError",
    "KeyError",
    "IndexError",
    "AttributeError",
    "ValueError",
    "OverflowError",
    "RecursionError",
)
OURS += ("ZeroDivisionError", "AssertionError", "UnboundLocalError", "UnicodeEncodeError", "struct.error")
LABELS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

Random = random.Random
Make = Callable[[Random, Path, Path], Any]  # (rng, seeds, empty folder) -> what `Check` is given
Check = Callable[[Any], str]  # returns "" where it is loaded, a reason where it is refused


# --- mutations of bytes


def flip(rng: Random, data: bytes) -> bytes:
    """Flip some bits, often near the beginning, where headers are."""
    changed = bytearray(data)
    end = rng.choice([64, 1024, len(data)])
    for _ in range(rng.choice([1, 3, 30, 300])):
        place = rng.randrange(min(end, len(data)) or 1)
        changed[place : place + 1] = bytes([changed[place] ^ 1 << rng.randrange(8)])
    return bytes(changed)


def cut(rng: Random, data: bytes) -> bytes:
    """Lose the end, or a part in the middle."""
    first, second = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + (data[second:] if rng.random() < 0.5 else b"")


def repeat(rng: Random, data: bytes) -> bytes:
    """Have a part twice, in another place."""
    first, second = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    place = rng.randrange(len(data) + 1)
    return data[:place] + data[first : min(second, first + 100_000)] + data[place:]


def noise(rng: Random, data: bytes) -> bytes:
    """Overwrite a part with noise or zeros."""
    place, length = rng.randrange(len(data)), rng.choice([4, 100, 10_000])
    return (
        data[:place]
        + (rng.randbytes(length) if rng.random() < 0.5 else bytes(length))
        + data[place + length :]
    )


EXTREMES = (0, 1, -1, 2**7, 2**15 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 10**9, 3600 * 10**6)
TAGS = (
    *(
        b"moov",
        b"mvhd",
        b"tkhd",
        b"mdhd",
        b"stsz",
        b"stts",
        b"stsc",
        b"stco",
        b"ctts",
        b"elst",
        b"avc1",
        b"mp4a",
    ),
    *(
        b"trun",
        b"tfhd",
        b"mdat",
        b"RIFF",
        b"avih",
        b"strh",
        b"strf",
        b"fmt ",
        b"data",
        b"LIST",
        b"idx1",
        b"fLaC",
    ),
    *(
        b"OggS",
        b"\x1aE\xdf\xa3",
        b"\x15I\xa9f",
        b"\x16T\xaek",
        b"D\x89",
        b"\xb0",
        b"\xba",
        b"FLV",
        b"onMetaData",
    ),
    *(
        b"width",
        b"duration",
        b"desc",
        b"COMM",
        b"SSND",
        b".snd",
        b"ID3",
        b"Xing",
        b"\xff\xc0",
        b"\0\0\0\1g",
        b"\xff\xfb",
    ),
)


def lie(rng: Random, data: bytes) -> bytes:
    """Write extreme numbers where lengths, sizes, rates and times are: near the names of boxes and chunks."""
    changed = bytearray(data)
    present = [tag for tag in TAGS if tag in data]
    for _ in range(rng.choice([1, 1, 2, 5])):
        tag = rng.choice(present or [data[:4]])
        places = [found.start() for found in islice(re.finditer(re.escape(tag), data), 500)]
        place = rng.choice(places or [0]) + rng.choice(
            [-4, len(tag), len(tag) + 4 * rng.randrange(25), rng.randrange(100)]
        )
        size = rng.choice([1, 2, 4, 8])
        value = (rng.choice(EXTREMES) % 2 ** (8 * size)).to_bytes(size, rng.choice(["little", "big"]))
        changed[max(0, place) : max(0, place) + size] = value
    return bytes(changed)


def swell(rng: Random, data: bytes) -> bytes:
    """Put giant metadata in: a box, a chunk, a comment, or just bytes that nobody declared."""
    size = rng.choice([10**5, 5 * 10**6])
    filler = rng.choice([bytes(size), b"\xff" * size, b"A" * size])
    box = struct.pack(">I", size + 8) + rng.choice([b"free", b"udta", b"meta", b"uuid"]) + filler
    chunk = rng.choice([b"LIST", b"JUNK", b"id3 "]) + struct.pack("<I", size) + filler
    tag = b"ID3\4\0\0" + bytes(size >> 7 * shift & 127 for shift in (3, 2, 1, 0)) + filler
    return rng.choice(
        [tag + data, box + data, data[:12] + chunk + data[12:], data + box, data[:28] + box + data[28:]]
    )


MUTATIONS: tuple[Callable[[Random, bytes], bytes], ...] = (flip, cut, repeat, noise, lie, lie, lie, swell)


def mutated(rng: Random, data: bytes, others: Sequence[Path] = ()) -> bytes:
    """Mutate bytes once or a few times; with others also by their headers before what follows one's own."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        if others and rng.random() < 0.15:
            other = rng.choice(others).read_bytes()
            head = rng.choice([16, 64, 1024, 50_000])
            data = other[:head] + data[rng.choice([0, head]) :]
        else:
            data = rng.choice(MUTATIONS)(rng, data) if data else rng.randbytes(100)
    return data


# --- mutations of text


CELLS = (
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "1e-320",
        "9" * 5_000,
        "=cmd()",
        "<script>alert(1)</script>",
    ),
    *(
        "\x1b[2J",
        "\0",
        "../../../etc/passwd",
        '"',
        '""',
        ",",
        ";",
        "\r",
        "\u202e",
        "\ud800",
        "𝔘" * 50,
        "x" * 10**6,
    ),
    *("/dev/zero", "/dev/stdin", ".", "|", "{{7*7}}", "%s%n", "٣", "1_000", "0x10", "١٢", "True"),
)


def retold(rng: Random, data: bytes) -> bytes:
    """Mutate a table or another text, by its cells, rows and encoding; sometimes by its bytes."""
    if rng.random() < 0.25:
        return mutated(rng, data)
    between = rng.choice(",,,;\n=") if b"," in data else " "
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for _ in range(rng.choice([1, 1, 3, 10])):
        row = rng.choice([0, rng.randrange(len(lines))])
        cells = lines[row].split(between)
        place = rng.randrange(len(cells))
        kind = rng.randrange(7)
        if kind < 3:
            cells[place] = rng.choice(CELLS)
        elif kind == 3:
            del cells[place]
        elif kind == 4:
            cells += cells * rng.choice([1, 1, 1000 if len(lines[row]) < 5_000 else 1])
        elif kind == 5:
            cells.insert(place, rng.choice(cells))
        lines[row] = between.join(cells)
        if kind == 6:
            again = lines[rng.randrange(len(lines))]
            lines[row : row + rng.choice([0, 1])] = [again] * rng.choice(
                [0, 2, 1000 if len(again) < 5_000 else 2]
            )
        if not lines:
            break
    text = rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines)
    encoding = rng.choice(["utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig", "utf-32"])
    with suppress(UnicodeEncodeError):
        return text.encode(encoding, "surrogateescape")
    return text.encode("utf-8", "surrogatepass")


VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1.5,
        10**6,
        10**9,
        10**12,
        10**30,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "0",
    ),
    *(
        "x" * 10**5,
        "\0",
        "\x1b[2J",
        "\ud800",
        "../../x",
        "<script>",
        "nan",
        [],
        {},
        [[]],
        [None],
        ["", ""],
        {"": None},
    ),
    *(
        [0] * 10**5,
        {"a": {"a": {}}},
        [1, 2, 3],
        ["video"],
        "cfn_sr",
        "audio",
        "openface",
        "logistic_audio+speech",
    ),
)


def reworded(rng: Random, data: bytes) -> bytes:
    """Mutate JSON: other values, keys lost, renamed or added, nesting without end; sometimes its bytes."""
    if rng.random() < 0.2:
        return rng.choice(
            [b"[" * 10**5, b'{"a":' * 10**5, b"9" * 10**4, b"", b"null", b"\xff\xfe", mutated(rng, data)]
        )
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        holders = [node for node in _nodes(value) if isinstance(node, dict | list) and node]
        if not holders:
            break
        node: Any = rng.choice(holders)
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        kind = rng.randrange(6)
        if kind < 3:
            node[key] = deepcopy(rng.choice(VALUES))
        elif kind == 3:
            del node[key]
        elif kind == 4 and isinstance(node[key], int | float):
            node[key] = node[key] * rng.choice([-1, 0, 1000, 10**9, 0.5])
        elif isinstance(node, dict):
            node[
                rng.choice(["", "a", "width", "depth", "classes", "__class__", "format", str(key) + " "])
            ] = deepcopy(rng.choice(VALUES))
        else:
            node.append(deepcopy(rng.choice(VALUES)))
    return json.dumps(value).encode()


def _nodes(value: Any) -> Iterator[Any]:
    yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(each)


# --- what is mutated: made once, in a folder


def make_seeds(folder: Path) -> None:
    """Make small files of every kind; real ones too, where CFNSR_SHARED names their folder."""
    import torch

    import cfnsr
    from cfnsr.data.prepare import Failure, _prepare_one
    from cfnsr.data.store import Store
    from cfnsr.emotions import RAVDESS
    from cfnsr.features.spec import ModelSpec
    from cfnsr.media.encode import write_audio
    from cfnsr.sharing.shipped import PRETRAINED
    from cfnsr.synthesis import synthesize
    from cfnsr.training.config import find_recipe

    corpus = synthesize(folder / "corpus", actors=1, takes=2, size=(96, 96), workers=1)
    film = min(corpus.glob("Actor_01/*.mp4"))
    for name, video, audio in (
        *(("a.mp4", "h264", "aac"), ("a.mkv", "h264", "flac"), ("a.avi", "mjpeg", "pcm_s16le")),
        *(("a.flv", "flv1", "mp3"), ("a.ts", "mpeg2video", "mp2"), ("a.webm", "libvpx", "libopus")),
        *(("b.avi", "mpeg4", "mp3"), ("b.mov", "png", "pcm_s16le"), ("frag.mp4", "h264", "aac")),
    ):
        transcode(film, folder / "video" / name, video, audio)
    for name, codec in (
        *(
            ("a.flac", "flac"),
            ("a.mp3", "mp3"),
            ("a.m4a", "aac"),
            ("a.ogg", "libopus"),
            ("a.w64", "pcm_s16le"),
        ),
        *(("a.caf", "pcm_s16le"), ("a.aiff", "pcm_s16be"), ("a.au", "pcm_s16be"), ("b.wav", "adpcm_ms")),
    ):
        transcode(film, folder / "sound" / name, None, codec)
    tone = np.sin(np.arange(48_000) / 20).astype(np.float32)
    write_audio(folder / "sound" / "a.wav", tone, 16_000)
    shared = Path(os.environ.get("CFNSR_SHARED", "nowhere"))
    real = [*shared.glob("clips/cremad/*_ANG_*.flv"), *shared.glob("clips/ravdess/Actor_06/*01-01-06.mp4")]
    for path in [*real, *shared.glob("cases/holes/*.webm")]:
        shutil.copy(path, folder / "video" / f"real-{path.name}")
    for path in shared.glob("cases/silence/AudioWAV/1001_DFA_NEU_XX.wav"):
        shutil.copy(path, folder / "sound" / f"real-{path.name}")
    (folder / "tracks").mkdir()
    for path in [*corpus.glob("landmarks/*.csv"), *sorted(shared.glob("cases/openface/csv/*.csv"))[:2]]:
        lines = path.read_bytes().splitlines(keepends=True)[:30]  # rows cost time, and are alike
        (folder / "tracks" / path.name).write_bytes(b"".join(lines))
    tables = folder / "tables"
    tables.mkdir()
    (tables / "takes.csv").write_text(
        "path,label,speaker,sex,audio\n"
        + "".join(f"{film},{label},{n % 3},f,\n" for n, label in enumerate(LABELS))
    )
    parts = ("train", "validation", "test")
    (tables / "split.csv").write_text(
        "path,split,fold,actor\n" + "".join(f"{n}.wav,{parts[n % 3]},{n // 3},{n % 3}\n" for n in range(12))
    )
    (tables / "demographics.csv").write_text(
        "ActorID,Age,Sex\n" + "".join(f"{n},2{n % 9},Male\n" for n in range(1001, 1020))
    )
    (tables / "recipe.toml").write_text(find_recipe("small").as_toml())
    shutil.copytree(PRETRAINED / "everyday", folder / "models" / "everyday")
    for name in ("audio", "cfn_sr"):
        torch.manual_seed(0)
        model = cfnsr.create_model(name, width=1 / 16)
        model.config = ModelSpec(name, {"classes": 8, "width": 1 / 16}, RAVDESS)  # type: ignore[assignment]
        cfnsr.save_pretrained(model, folder / "models" / name)
    torch.save(model.state_dict(), folder / "weights.pth")
    encoder = os.environ.get("CFNSR_SPEECH_ENCODER", folder / "models" / "audio")  # which is none
    (folder / "encoder").symlink_to(encoder)
    with suppress(InputError):  # where they are not installed
        from cfnsr.export.onnx import export_onnx
        from cfnsr.export.openvino import export_openvino

        (folder / "exports").mkdir()
        export_onnx(folder / "models" / "audio", folder / "exports" / "model.onnx")
        export_openvino(folder / "models" / "audio", folder / "exports" / "model.xml")
    store = new_store(folder / "store", SOUND)
    made = _prepare_one(Take("take", "happy", 1, None, folder / "sound" / "a.wav"), Store(store), SOUND)
    assert not isinstance(made, Failure), made
    _fabricate(folder / "runs")
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"Actor_01/03-01-0{number + 1}-01-01-01-01.wav", bytes(1000) + b"x" * number)


def _fabricate(folder: Path) -> None:
    """One finished run, made up as the tests of the report do."""
    spec = importlib.util.spec_from_file_location(
        "runs", Path(__file__).parents[1] / "evaluation" / "conftest.py"
    )
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.fabricate(folder, "cfn_sr", takes=3, epochs=4, conditions=True)


def transcode(source: Path, path: Path, video: str | None, audio: str) -> None:
    """Write a file's first pictures and seconds by other codecs, in another container."""
    import av

    path.parent.mkdir(exist_ok=True)
    options = {"movflags": "frag_keyframe+empty_moov"} if path.name == "frag.mp4" else {}
    with av.open(str(source)) as given, av.open(str(path), "w", options=options) as made:
        rate = 48_000 if audio == "libopus" else 22_050
        sound: Any = made.add_stream(audio, rate=rate, layout="mono")
        resampler = av.AudioResampler(sound.format, "mono", rate)
        pictures: Any = made.add_stream(video, rate=25) if video else None
        if pictures is not None:
            pictures.width = pictures.height = 96
            pictures.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(video or "", "yuv420p")
            for number, frame in enumerate(given.decode(video=0)):
                if number < 60:
                    picture = frame.reformat(format=pictures.pix_fmt)
                    picture.pts, picture.time_base = number, Fraction(1, 25)
                    made.mux(pictures.encode(picture))
            made.mux(pictures.encode(None))
            given.seek(0)
        fifo = av.AudioFifo()
        for frame in given.decode(audio=0):
            for each in resampler.resample(frame):
                each.pts = None
                fifo.write(each)
        block, written = sound.codec_context.frame_size or 1024, 0
        while (frame := fifo.read(block)) is not None and written < 3 * rate:
            frame.pts, written = written, written + block
            made.mux(sound.encode(frame))
        made.mux(sound.encode(None))


# --- the kinds of case: how one is made, and what the program does with it


FILM = Preparation(modalities=("video", "audio"), frames=3, size=32, lenient=True)
SOUND = Preparation(modalities=("audio",), lenient=True)
TRACK = Preparation(modalities=("openface",), lenient=True)


def new_store(folder: Path, preparation: Preparation) -> Path:
    from cfnsr.data.store import Store
    from cfnsr.emotions import RAVDESS

    return Store.create(folder, "fuzz", RAVDESS, preparation.as_json()).folder


def prepare(take: Take, preparation: Preparation, store: Path) -> str:
    """Prepare a take as `cfnsr prepare` does in its workers, and look at what was made."""
    from cfnsr.data.prepare import Failure, _prepare_one
    from cfnsr.data.store import Store

    made = _prepare_one(take, Store(new_store(store, preparation)), preparation)
    if isinstance(made, Failure):
        assert not [name for name in OURS if f": {name}: " in made.message], made.message
        return f"{made.reason}: {made.message}"
    for name, value in Store(store).load(take.name).items():
        assert np.isfinite(value).all(), f"{name} is not finite"
    return ""


def pick(rng: Random, folder: Path) -> tuple[Path, list[Path]]:
    files = sorted(folder.iterdir())
    return rng.choice(files), files


def make_media(rng: Random, seeds: Path, folder: Path, kind: str) -> Path:
    source, others = pick(rng, seeds / kind)
    path = folder / ("upload" + rng.choice([source.suffix, source.suffix, rng.choice(others).suffix]))
    path.write_bytes(mutated(rng, source.read_bytes(), others))
    return path


def check_film(path: Path) -> str:
    return prepare(Take("take", "happy", 1, path, path), FILM, path.parent / "out")


def check_sound(path: Path) -> str:
    return prepare(Take("take", "happy", 1, None, path), SOUND, path.parent / "out")


@cache
def _listener() -> Any:
    import cfnsr

    return cfnsr.create_model("audio").eval()


def check_predicted(path: Path) -> str:
    """Predict a file: its windows, of any length."""
    import cfnsr

    cfnsr.predict(_listener(), path)
    return ""


def make_endless(rng: Random, seeds: Path, folder: Path) -> Path:
    """What has no end, or says so: a FIFO, a device, a sparse file, hours between two pictures."""
    import av

    path = folder / rng.choice(["upload.mp4", "upload.wav", "upload.mkv"])
    kind = rng.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(
            rng.choice(["/dev/zero", "/dev/tty", "/dev/random", ".", path.name, "/proc/self/mem"])
        )
    elif kind == 2:
        path.write_bytes(rng.choice(sorted((seeds / "sound").iterdir())).read_bytes())
        os.truncate(path, rng.choice([2**22, 2**23, 2**24, 2**24, 2**24, 2**24, 2**24, 2**31]))
    else:
        path = path.with_suffix(".mkv")
        with av.open(str(path), "w") as made:
            sound: Any = made.add_stream("pcm_s16le", rate=rng.choice([1, 8_000, 768_000]), layout="mono")
            step = rng.choice([1, 60, 3600, 10**6])
            for number in range(rng.choice([2, 50])):
                frame = av.AudioFrame.from_ndarray(np.full((1, 1000), 999, np.int16), "s16", "mono")
                frame.sample_rate, frame.pts = sound.rate, number * step * sound.rate
                made.mux(sound.encode(frame))
    return path


def make_track(rng: Random, seeds: Path, folder: Path) -> Path:
    path = folder / "track.csv"
    path.write_bytes(retold(rng, pick(rng, seeds / "tracks")[0].read_bytes()))
    return path


def check_track(path: Path) -> str:
    return prepare(Take("take", "happy", 1, openface=path), TRACK, path.parent / "out")


def make_table(rng: Random, seeds: Path, folder: Path) -> Path:
    source, _ = pick(rng, seeds / "tables")
    (folder / source.name).write_bytes(retold(rng, source.read_bytes()))
    return folder / source.name


def check_table(path: Path) -> str:
    from cfnsr.corpus.cremad import DEMOGRAPHICS, read_sexes
    from cfnsr.corpus.table import read_table
    from cfnsr.data.split import read_split
    from cfnsr.training.config import load_recipe

    if path.name == "demographics.csv":
        path = path.rename(path.with_name(DEMOGRAPHICS))
        read_sexes([path])
    else:
        {"takes.csv": read_table, "split.csv": read_split, "recipe.toml": load_recipe}[path.name](path)
    return ""


def make_model(rng: Random, seeds: Path, folder: Path) -> Path:
    """A folder of a model, with another config.json, other weights, or both."""
    source, _ = pick(rng, seeds / "models")
    folder = Path(shutil.copytree(source, folder / "model"))
    config, weights = folder / "config.json", folder / "model.safetensors"
    kind = rng.randrange(4)
    if kind < 3:
        config.write_bytes(reworded(rng, config.read_bytes()))
    if kind == 3 or rng.random() < 0.1:
        weights.write_bytes(remodelled(rng, weights.read_bytes()))
    return folder


def remodelled(rng: Random, data: bytes) -> bytes:
    """Mutate safetensors: its header as JSON, under a right or a wrong length, or its bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        return mutated(rng, data)
    header = reworded(rng, data[8 : 8 + length])
    size = len(header) if rng.random() < 0.7 else rng.choice(EXTREMES) % 2**64
    return size.to_bytes(8, "little") + header + data[8 + length :]


def check_model(folder: Path) -> str:
    """Load a folder as `cfnsr predict FOLDER` does, and use it once."""
    import cfnsr
    from cfnsr.sharing.pretrained import from_pretrained

    model = cfnsr.load(folder)
    from_pretrained(folder)
    try_once(model)
    return ""


def try_once(model: Any) -> None:
    """Ask a loaded model about a clip in which there is nothing, if it has a word for that."""
    from cfnsr.features.base import FEATURES
    from cfnsr.inference.recogniser import as_recogniser

    recogniser = as_recogniser(model)
    nothing: dict[str, np.ndarray] = {}
    for name in recogniser.reads.values():
        if not FEATURES[name].replaceable:
            return
        nothing |= FEATURES[name].absent(recogniser.preparation, recogniser.settings)
    assert recogniser.probabilities([nothing]).shape == (1, len(recogniser.labels))


def make_clip(rng: Random, seeds: Path, folder: Path) -> Path:
    """A store of prepared clips, with another clip or another corpus.json."""
    folder = Path(shutil.copytree(seeds / "store", folder / "store"))
    path = folder / ("corpus.json" if rng.random() < 0.3 else "clips/take.safetensors")
    change = reworded if path.suffix == ".json" else remodelled
    path.write_bytes(change(rng, path.read_bytes()))
    return folder


def check_clip(folder: Path) -> str:
    from cfnsr.data.store import Store
    from cfnsr.training.prepared import PreparedCorpus

    store = Store(folder)
    for header in store.headers():
        store.load(header.name)
    PreparedCorpus(store)
    return ""


def make_export(rng: Random, seeds: Path, folder: Path) -> Path:
    """An exported file with other metadata or other bytes; mostly under a checksum that is right again."""
    from cfnsr.inference import checksum

    name = rng.choice([path.name for path in sorted((seeds / "exports").glob("model.[ox]*"))])
    for path in (seeds / "exports").iterdir():
        shutil.copy(path, folder)
    path = folder / name
    data = path.read_bytes()[: -len(checksum.tail(b"", path.suffix))]
    if path.suffix == ".onnx" and rng.random() < 0.6:
        import onnx

        model = onnx.load_model_from_string(data)
        for entry in model.metadata_props:
            if entry.key == "cfnsr":
                entry.value = reworded(rng, entry.value.encode()).decode("utf-8", "replace")
        data = model.SerializeToString()
    elif path.suffix == ".xml" and rng.random() < 0.6:
        data = retold(rng, data)
    else:
        data = mutated(rng, data)
    path.write_bytes(data + (checksum.tail(data, path.suffix) if rng.random() < 0.9 else b""))
    return path


def check_export(path: Path) -> str:
    import cfnsr

    try_once(cfnsr.load(path))
    return ""


def make_run(rng: Random, seeds: Path, folder: Path) -> Path:
    """A folder of runs, one of whose files is another."""
    folder = Path(shutil.copytree(seeds / "runs", folder / "runs"))
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    data = path.read_bytes()
    if path.suffix == ".jsonl" and rng.random() < 0.7:
        lines = data.splitlines()
        lines[rng.randrange(len(lines))] = reworded(rng, lines[0])
        path.write_bytes(b"\n".join(lines))
    else:
        path.write_bytes((reworded if path.suffix == ".json" else retold)(rng, data))
    return folder


def check_run(folder: Path) -> str:
    """All that `cfnsr report` does, but for drawing."""
    from unittest.mock import patch

    from cfnsr.evaluation.report import report

    with patch("cfnsr.evaluation.plots._svg", lambda figure, alt: ""):
        written = report(folder, folder.parent / "out")
    json.loads(written.results.read_text(encoding="utf-8"), parse_constant=_not_json)
    assert "<script>alert" not in written.html.read_text(encoding="utf-8")
    return ""


def _not_json(name: str) -> None:
    raise AssertionError(f"results.json holds {name}, which is no JSON")


def make_encoder(rng: Random, seeds: Path, folder: Path) -> Path:
    """The folder of a speech encoder that says other things of itself."""
    for path in (seeds / "encoder").iterdir():
        (folder / path.name).symlink_to(path)
    config = rng.choice(sorted(folder.glob("*config.json")))
    data = reworded(rng, config.read_bytes())
    config.unlink()
    config.write_bytes(data)
    return folder


def check_encoder(folder: Path) -> str:
    from cfnsr.features.speech_encoder import SpeechEncoder

    encoder = SpeechEncoder(folder)
    assert encoder.parameters
    try:
        encoder.features(np.zeros(8_000, np.float32), threads=1)
    except (RuntimeError, ValueError, TypeError) as error:  # `prepare` counts it as a failure of the take
        return str(error)
    return ""


def make_weights(rng: Random, seeds: Path, folder: Path) -> Path:
    """A file of weights by PyTorch, which is a zip archive with a pickle inside."""
    path = folder / "weights.pth"
    path.write_bytes(mutated(rng, (seeds / "weights.pth").read_bytes()))
    return path


def check_weights(path: Path) -> str:
    from cfnsr.training.weights import find_weights, read_weights

    read_weights(find_weights(path))
    return ""


def make_archive(rng: Random, seeds: Path, folder: Path) -> Path:
    """An archive that leads out of its folder, explodes, or is damaged."""
    path = folder / "archive.zip"
    if rng.random() < 0.4:
        path.write_bytes(mutated(rng, (seeds / "archive.zip").read_bytes()))
        return path
    name = f"03-01-0{rng.randrange(1, 9)}-01-01-01-01.wav"
    places = (
        "",
        "../",
        "../../../",
        f"{folder.parent}/",
        "a/../../../",
        "..\\",
        "C:\\",
        "./" * 500,
        "\x1b[2J/",
        "a\0/",
    )
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:
        for _ in range(rng.choice([1, 3, 300])):
            member = zipfile.ZipInfo(
                rng.choice(places) + rng.choice([name, name.upper(), "evil.wav", name + "/"])
            )
            member.compress_type = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            member.external_attr = rng.choice(
                [0, 0o120777 << 16, 0o4777 << 16, 0o10777 << 16, 0x10]
            )  # a link, a FIFO
            with suppress(ValueError):
                archive.writestr(member, rng.choice([b"", b"/etc/passwd", bytes(1000)]))
        if rng.random() < 0.3:
            large = zipfile.ZipInfo(name)
            large.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(large, "w", force_zip64=True) as bomb:
                for _ in range(100):
                    bomb.write(bytes(2**20))
    if rng.random() < 0.3:
        path.write_bytes(lie_of_sizes(rng, path.read_bytes()))
    return path


def lie_of_sizes(rng: Random, data: bytes) -> bytes:
    """Change the declared sizes in a zip's directory."""
    changed = bytearray(data)
    place = data.rfind(b"PK\1\2")
    changed[place + 20 : place + 28] = struct.pack("<II", *(rng.choice(EXTREMES) % 2**32 for _ in range(2)))
    return bytes(changed)


def check_archive(path: Path) -> str:
    from cfnsr.corpus.download import KINDS, Archive, unpack
    from cfnsr.corpus.zenodo import RemoteFile

    job = Archive(KINDS["audio"], RemoteFile(path.name, path.stat().st_size, "0" * 32, ""), (1,))
    try:
        unpack(path, path.parent / "out", job, lambda what, done, total: None)
    finally:  # as `download` does the next time
        held = [each for each in path.parent.rglob("*") if each.is_symlink()]
        total = sum(each.stat().st_size for each in (path.parent / "out").rglob("*"))
        assert not held and total < 200 << 20, f"{held} {total} bytes"
    return ""


SIGNS = "abcé𝔘\u202e\x1b\x07\n\t\r'\"<>&|;$`*?[]{}()#%~= \\:\udce9\udcff-_.,+\0/"


def make_names(rng: Random, seeds: Path, folder: Path) -> Path:
    """A folder of recordings of hostile names."""
    corpus = folder / "corpus"
    corpus.mkdir()
    for number in range(3):
        odd = "".join(rng.choice(SIGNS) for _ in range(rng.choice([1, 5, 40, 120])))
        odd = odd.replace("\0", "").replace("/", "")
        usual = f"01-01-0{number + 1}-01-01-01-0{number + 1}"
        name = rng.choice([odd, usual + odd, odd + usual, usual]) + rng.choice(
            [".wav", ".mp4", ".csv", ".WAV", ""]
        )
        with suppress(OSError):
            (corpus / name).write_bytes((seeds / "sound" / "a.wav").read_bytes()[: rng.choice([0, 10**6])])
    return corpus


def check_names(corpus: Path) -> str:
    from cfnsr.corpus.scan import scan

    found = scan(corpus)
    for line in found.notes():
        assert line.isprintable(), line
    said = [prepare(take, SOUND, corpus.parent / "out") for take in found.takes]
    return "; ".join(filter(None, said))


@dataclass(frozen=True)
class Kind:
    """One kind of case.

    Args:
        weight: of 100 cases as many are of this kind; in the short form `short`.
        may_die: the program does this in a process of its own, and goes on if that dies.
    """

    make: Make
    check: Check
    weight: int
    short: int
    may_die: bool = False


KINDS = {
    "film": Kind(partial(make_media, kind="video"), check_film, 22, 10, may_die=True),
    "sound": Kind(partial(make_media, kind="sound"), check_sound, 20, 14, may_die=True),
    "predicted": Kind(partial(make_media, kind="sound"), check_predicted, 6, 6),
    "endless": Kind(make_endless, check_sound, 3, 3, may_die=True),
    "track": Kind(make_track, check_track, 8, 10),
    "table": Kind(make_table, check_table, 8, 15),
    "model": Kind(make_model, check_model, 10, 10),
    "clip": Kind(make_clip, check_clip, 6, 10),
    "export": Kind(make_export, check_export, 5, 4),
    "run": Kind(make_run, check_run, 5, 7),
    "encoder": Kind(make_encoder, check_encoder, 1, 1),
    "weights": Kind(make_weights, check_weights, 2, 2),
    "archive": Kind(make_archive, check_archive, 4, 6),
    "names": Kind(make_names, check_names, 3, 5),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "loaded", "refused" or "fault", and why."""

    number: int
    kind: str
    ended: str
    reason: str
    seconds: float = 0.0  # of the processor
    memory: int = 0  # bytes, at the most


def kind_of(number: int, short: bool) -> str:
    """The kind of a case: all kinds in turn, as often as they weigh."""
    turns = [name for name, kind in KINDS.items() for _ in range(kind.short if short else kind.weight)]
    return Random(7).sample(turns, len(turns))[number % len(turns)]


def run_case(number: int, seed: int, short: bool, seeds: Path, work: Path) -> Outcome:
    """Make a case and let the program have it, within limits on time and memory."""
    kind = kind_of(number, short)
    limit_memory()
    folder = work / str(number)
    before_this, tempfile.tempdir = tempfile.tempdir, str(folder / "temporary")
    (folder / "temporary").mkdir(parents=True)
    before: set[Path] = set()
    began = time.process_time()
    try:
        with time_limit():
            given = KINDS[kind].make(Random(f"{seed} {number}"), seeds, folder)
        before = {*folder.rglob("*")}
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        began = time.process_time()
        with time_limit():
            reason = KINDS[kind].check(given)
        ended = "refused" if reason else "loaded"
    except (InputError, OSError) as error:  # either is one line at the command line, and exit code 2
        ended, reason = "refused", visible(str(error))
        if len(reason) > LONGEST_LINE:
            ended = "fault"
    except Exception as error:
        ended, reason = "fault", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    seconds, memory = time.process_time() - began, _most_memory()
    left = [path for path in {*folder.rglob("*")} - before if folder / "out" not in (path, *path.parents)]
    left += [path for path in folder.rglob("*.tmp") if path not in before]
    left = [path for path in left if path.name != "VideoDemographics.csv"]
    shutil.rmtree(folder)
    tempfile.tempdir = before_this
    if left and ended != "fault":
        ended, reason = "fault", f"left behind: {left}"
    return Outcome(number, kind, ended, reason, seconds, memory)


def limit_memory() -> None:
    """Limit this process, which is a worker's, as a case needs it."""
    processes.PATIENCE, processes.LEAST_SPEED, clip.PATIENCE = SECONDS, 1e12, 0.0
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _most_memory() -> int:
    """Bytes that this process had at the most, since it was asked to count anew."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def died(number: int, death: WorkerDied, short: bool, work: Path) -> Outcome:
    """What a case is that ended its process: the program may do without where it works in one of its own."""
    kind = kind_of(number, short)
    shutil.rmtree(work / str(number), ignore_errors=True)
    ended = "refused" if KINDS[kind].may_die else "fault"
    return Outcome(
        number, kind, ended, f"{'timeout' if death.late else 'crash'}: {death}", SECONDS * death.late
    )


def fuzz(numbers: Sequence[int], seed: int, *, short: bool = False, workers: int = 2) -> list[Outcome]:
    """Run some cases of a seed in worker processes."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        seeds, work = Path(place, "seeds"), Path(place, "work")
        seeds.mkdir()
        work.mkdir()
        make_seeds(seeds)
        one = partial(run_case, seed=seed, short=short, seeds=seeds, work=work)
        outcomes = []
        for _, outcome in map_surviving(one, numbers, workers, partial(died, short=short, work=work)):
            outcomes.append(outcome)
            if outcome.ended == "fault":
                print(f"--case {outcome.number}: {outcome.kind}: {outcome.reason}", file=sys.stderr)
        left = [*work.rglob("*"), *(path for path in Path(place).iterdir() if path not in (seeds, work))]
        if left:
            outcomes.append(Outcome(-1, "all", "fault", f"left behind: {left}"))
    return sorted(outcomes, key=lambda outcome: outcome.number)


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each kind, and one for all."""
    rows = []
    kinds = sorted({outcome.kind for outcome in outcomes})
    for name in [*kinds, "all"] if "all" not in kinds else kinds:
        some = [outcome for outcome in outcomes if name in ("all", outcome.kind)]
        count = Counter(outcome.ended for outcome in some)
        rows.append(
            {
                "kind": name,
                "cases": len(some),
                "loaded": count["loaded"],
                "refused": count["refused"],
                "ended": sum(outcome.reason.startswith(("timeout: ", "crash: ")) for outcome in some),
                "faults": count["fault"],
                "slowest_seconds": round(max(outcome.seconds for outcome in some), 1),
                "most_mebibytes": max(outcome.memory for outcome in some) >> 20,
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--case", type=int, help="this one alone, in full")
    parser.add_argument(
        "--short", action="store_true", help="more of what is cheap, as `make test-all` has it"
    )
    parser.add_argument("--kind", choices=KINDS, help="those of a kind alone")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="summary as JSON")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    numbers = list(range(chosen.cases)) if chosen.case is None else [chosen.case]
    if chosen.kind is not None:
        numbers = [number for number in numbers if kind_of(number, chosen.short) == chosen.kind]
    outcomes = fuzz(numbers, chosen.seed, short=chosen.short, workers=min(chosen.workers, len(numbers)))
    rows = summary(outcomes)
    columns = list(rows[0])
    print(" ".join(f"{column:>15}" for column in columns))
    for row in rows:
        print(" ".join(f"{row[column]:>15}" for column in columns))
    print(f"seed {chosen.seed}, {len(numbers)} cases in {time.monotonic() - began:.0f} s")
    if chosen.case is not None:
        print(json.dumps(asdict(outcomes[0]), indent=2))
    if chosen.out is not None:
        faults = [asdict(outcome) for outcome in outcomes if outcome.ended == "fault"]
        result = {
            "seed": chosen.seed,
            "cases": len(numbers),
            "seconds": round(time.monotonic() - began),
            "kinds": rows,
        }
        chosen.out.write_text(json.dumps({**result, "faults": faults}, indent=2) + "\n", encoding="utf-8")
    return 1 if rows[-1]["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
