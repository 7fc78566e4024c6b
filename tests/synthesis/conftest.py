"""One small synthetic corpus for all tests of this folder."""

from pathlib import Path

import pytest

from cfnsr.synthesis import synthesize


@pytest.fixture(scope="session")
def synthetic_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two actors, a man and a woman, and all eight emotions of each, at the full size."""
    return synthesize(tmp_path_factory.mktemp("synthetic"), actors=2, takes=8, seed=7, workers=1)
