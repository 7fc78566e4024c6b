"""Fixtures shared by all tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

# Tests run side by side, one a core: their threads would only wait for each other. Before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Openvino and nncf report their use as soon as they are imported, unless this package is not there.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Of cfnsr's own settings none comes from outside, so that tests find the same everywhere.
for setting in [name for name in os.environ if name.startswith("CFNSR_")]:
    if setting not in ("CFNSR_SHARED", "CFNSR_ALL_RECORDINGS"):  # the tests' own
        del os.environ[setting]

REPOSITORY = Path(__file__).resolve().parents[1]

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]
# Rows that stand for all in `make test`: one stream, a late rule, exchanges at each stage, CFN-SR.
ROWS = {"audio", "multiplication", "mmtm", "cfn_sr", "cfn_sr+openface+speech"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also every row of the zoo, and what takes long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, without --all, what is marked `long`, and of what is marked `every_row` all but `ROWS`."""
    if config.getoption("--all"):
        return

    def left_out(item: pytest.Item) -> bool:
        rows = item.get_closest_marker("every_row") is not None
        return item.get_closest_marker("long") is not None or (
            rows and item.callspec.params["name"] not in ROWS  # type: ignore[attr-defined]
        )

    out = [item for item in items if left_out(item)]
    items[:] = [item for item in items if item not in set(out)]
    config.hook.pytest_deselected(items=out)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings: `CFNSR_SHARED`, else `../shared` beside the checkout."""
    folder = Path(os.environ.get("CFNSR_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no real recordings at {folder}: set CFNSR_SHARED to the folder that has them")
    return folder


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A folder whose name is Latin-1, as an old zip leaves it."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no name that is no text")
    return folder


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic corpus: 3 actors x 4 takes (neutral, calm, happy, sad) with landmarks."""
    from cfnsr.synthesis import synthesize

    return synthesize(tmp_path_factory.mktemp("synthetic"), actors=3, takes=4, workers=1)


@pytest.fixture(scope="session")
def shell() -> Run:
    """Run `cfnsr` in a process of its own, as a shell would."""

    def run(*arguments: object, **environment: str) -> Done:
        command = [sys.executable, "-m", "cfnsr", *map(str, arguments)]
        settings = {**os.environ, "COLUMNS": "200", **environment}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=settings)

    return run


@pytest.fixture(scope="session")
def cfnsr(shell: Run) -> Run:
    """Run `cfnsr` in this process: another would import torch again. With an environment, in its own."""
    from cfnsr.cli import main

    def run(*arguments: object, **environment: str) -> Done:
        if environment:  # which libraries read as they are imported
            return shell(*arguments, **environment)
        command = ["cfnsr", *map(str, arguments)]
        out, messages = (TextIOWrapper(BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            patch.dict(os.environ, COLUMNS="200"),
            patch.object(sys, "argv", command),
            redirect_stdout(out),
            redirect_stderr(messages),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        printed, said = (stream.buffer.getvalue().decode() for stream in (out, messages))
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), printed, said)

    return run


@contextmanager
def leave_undrawn() -> Iterator[None]:
    """Plots are made and named, but not drawn: drawing costs most of a report's time."""
    from markupsafe import Markup

    def svg(figure: object, alt: str) -> Markup:
        return Markup('<svg role="img" aria-label="{}"></svg>').format(alt)

    with patch("cfnsr.evaluation.plots._svg", svg):
        yield


@pytest.fixture(scope="session")
def undrawn() -> Callable[[], AbstractContextManager[None]]:
    """Makes a context in which plots are left undrawn."""
    return leave_undrawn


@pytest.fixture
def quick() -> Iterator[None]:
    """The test's plots are left undrawn."""
    with leave_undrawn():
        yield


@pytest.fixture(scope="session")
def prepared(cfnsr: Run, synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "prepared"
    done = cfnsr("prepare", synthetic, out, "--size", 64, "--frames", 8, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "12 clips made, 0 kept, 0 failed" in done.stdout
    assert (out / "contact_sheet.png").stat().st_size > 10_000
    return out


@pytest.fixture(scope="session")
def runs(cfnsr: Run, prepared: Path) -> Path:
    out = prepared.parent / "runs"
    tiny = ("--preset", "small", "--epochs", 1, "--folds", 1)
    with leave_undrawn():
        done = cfnsr("crossval", "cfn_sr", "--data", prepared, "--out", out, *tiny)
    assert done.returncode == 0, done.stderr
    assert "cfn_sr: accuracy" in done.stdout and "nested protocol" in done.stdout
    return out


@pytest.fixture(scope="session")
def checkpoint(runs: Path) -> Path:
    return runs / "nested" / "cfn_sr" / "seed_0" / "fold_1"


@pytest.fixture
def yunet(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The face detector's weights, found as a user would have it: by CFNSR_YUNET."""
    weights = shared / "models" / "face_detection_yunet_640.onnx"
    monkeypatch.setenv("CFNSR_YUNET", str(weights))
    return weights


@pytest.fixture(scope="session")
def two_tracks() -> Callable[..., Path]:
    """`two_tracks(path, first, second, rate)` writes two streams of sound; default is the second."""

    def write(path: Path, first: Any, second: Any, rate: int) -> Path:
        import av
        import numpy as np

        with av.open(str(path), "w") as file:
            tracks: list[Any] = [file.add_stream("pcm_s16le", rate=rate, layout="mono") for _ in range(2)]
            for track, marks in zip(tracks, (0, av.stream.Disposition.default), strict=True):
                track.disposition = marks
            for begin in range(0, len(first), 400):
                for track, samples in zip(tracks, (first, second), strict=True):
                    piece = np.rint(32_767 * np.asarray(samples)[None, begin : begin + 400]).astype(np.int16)
                    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "s16", "mono")
                    frame.sample_rate, frame.pts = rate, begin
                    file.mux(track.encode(frame))
            for track in tracks:
                file.mux(track.encode(None))
        return path

    return write


@pytest.fixture(scope="session")
def through() -> Callable[[Any, Any], Any]:
    """Walks an encoder's stages: the map behind the last of them."""

    def walk(encoder: Any, given: Any) -> Any:
        mapped = encoder.check(given)
        for stage in encoder.stages:
            mapped = stage(mapped)
        return mapped

    return walk


@pytest.fixture(scope="session")
def pooled(through: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """What an encoder makes of a batch, from the first stage to the pooled vectors."""
    import torch

    def pool(encoder: Any, given: Any) -> Any:
        with torch.no_grad():
            return encoder.pool(through(encoder, given))

    return pool


@pytest.fixture(scope="session")
def write_whisper() -> Callable[..., Path]:
    """Writes the folder of a random Whisper encoder, as small as can be: 16 wide, of 2 layers."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    def write(folder: Path, seed: int = 0, **settings: object) -> Path:
        torch.manual_seed(seed)
        config = WhisperConfig(
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            vocab_size=8,
            num_mel_bins=40,
            pad_token_id=0,
            init_std=0.3,
            **settings,
        )
        model = WhisperEncoder(config)
        torch.nn.init.normal_(model.embed_positions.weight, std=0.5)
        model.save_pretrained(folder)
        return folder

    return write
