"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

# Tests run side by side, one a core: their threads would only wait for each other. Before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings: `CFNSR_SHARED`, else `../shared` beside the checkout."""
    folder = Path(os.environ.get("CFNSR_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no real recordings at {folder}: set CFNSR_SHARED to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic corpus: 3 actors x 4 takes (neutral, calm, happy, sad) with landmarks."""
    from cfnsr.synthesis import synthesize

    return synthesize(tmp_path_factory.mktemp("synthetic"), actors=3, takes=4, workers=1)


@pytest.fixture
def yunet(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The face detector's weights, found as a user would have it: by CFNSR_YUNET."""
    weights = shared / "models" / "face_detection_yunet_640.onnx"
    monkeypatch.setenv("CFNSR_YUNET", str(weights))
    return weights
