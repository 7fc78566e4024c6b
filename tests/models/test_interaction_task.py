"""A task that only an interaction of the two modalities solves: who learns it, and who cannot."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs" / "interaction.py"


@pytest.fixture(scope="module")
def task() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interaction", DOCS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_neither_modality_alone_tells_the_class(task: ModuleType) -> None:
    """Every class is as likely whichever key is named, and each place of a map is as likely the answer."""
    features, named, labels = task.draw(2_000, 12, torch.Generator().manual_seed(0))
    key = named.mean(dim=2)[:, : task.KEYS].argmax(dim=1)
    marked = features[:, : task.KEYS].transpose(1, 2) > 0.5  # (clips, places, keys)
    assert (marked.sum(dim=1) == 1).all(), "every key stands once"
    for one in range(task.KEYS):
        assert labels[key == one].bincount().max() < 0.32 * (key == one).sum()
    place = marked[torch.arange(len(key)), :, key].int().argmax(dim=1)
    classes = features[torch.arange(len(key)), task.KEYS : task.KEYS + task.CLASSES, place]
    assert torch.equal(classes.argmax(dim=1), labels), "the label stands at the named key's place"


@pytest.mark.parametrize("name", ["cfn_sr", "cfn_sr_video_to_audio"])
@pytest.mark.long
def test_the_block_and_its_mirror_learn_it_among_98_places(task: ModuleType, name: str) -> None:
    side = "audio" if name == "cfn_sr_video_to_audio" else "video"
    assert task.accuracy(name, 98, answer_in=side, clips=5_000, epochs=8) > 0.95


@pytest.mark.parametrize("name", ["multiplication", "cfn_sr_no_cross_modal", "concat_fc", "cfn_sr_map"])
@pytest.mark.long
def test_others_do_not(task: ModuleType, name: str) -> None:
    """Who sees the shares of the classes can guess the most frequent one, which is right half the time."""
    assert task.accuracy(name, 98, clips=5_000, epochs=8) < 0.7
