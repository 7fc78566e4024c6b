"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings: `CFNSR_SHARED`, else `../shared` beside the checkout."""
    folder = Path(os.environ.get("CFNSR_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no real recordings at {folder}: set CFNSR_SHARED to the folder that has them")
    return folder
