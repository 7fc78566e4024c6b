"""Recipes: as files, by single settings, and the schedules of the learning rate."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from cfnsr.cli.train import _recipe
from cfnsr.errors import InputError
from cfnsr.training.config import PRESETS, Recipe, find_recipe, load_recipe, parse_settings

SMALL = find_recipe("small")


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_comes_back_from_its_file(preset: str, tmp_path: Path) -> None:
    """Also with each of its numbers and truths changed; a file of weights: test_weights.py."""
    first = PRESETS[preset]
    changed: dict[str, Any] = {}
    for name, value in vars(first).items():
        if isinstance(value, bool):
            changed[name] = not value
        elif isinstance(value, int | float):
            changed[name] = value + 1 if isinstance(value, int) else value / 2 + 1e-5
    words = {"schedule": "cosine", "keep": "last", "select_by": "uar", "precision": "bf16"}
    for recipe in (first, replace(first, **words), replace(first, schedule="cosine", **changed)):
        path = written(tmp_path, recipe.as_toml())
        assert load_recipe(path) == recipe
        assert set(tomllib.loads(path.read_text())) == {field.name for field in fields(Recipe)}


def test_a_part_of_a_recipe_changes_its_preset(tmp_path: Path) -> None:
    path = written(tmp_path, 'preset = "small"\naccumulate = 4\nwidth = 1\nclip_gradient = "none"\n')
    assert load_recipe(path) == replace(SMALL, accumulate=4, width=1.0)
    assert isinstance(load_recipe(path).width, float)
    assert load_recipe(path, "features") == replace(
        PRESETS["features"], accumulate=4, width=1.0, clip_gradient=None
    )
    assert load_recipe(written(tmp_path, "")) == PRESETS["paper"]


def test_epochs_are_those_of_all_models_unless_others_are_named(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, 'preset = "features"\nepochs = 7\n'))
    assert (recipe.epochs, recipe.fused_epochs, recipe.openface_epochs) == (7, 7, 7)
    recipe = load_recipe(written(tmp_path, 'preset = "features"\nepochs = 7\nfused_epochs = 2\n'))
    assert (recipe.epochs, recipe.fused_epochs, recipe.openface_epochs) == (7, 2, 7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", ("epoch is unknown", "expected some of preset, frames", "epochs", "frequency_mask")),
        ("epochs = 3.0", ("epochs is 3.0: expected a whole number",)),
        ("epochs = true", ("epochs is True: expected a whole number",)),
        ('refit = "yes"', ("refit is 'yes': expected true or false",)),
        ('learning_rate = "fast"', ("learning_rate is 'fast': expected a number",)),
        ('clip_gradient = "no"', ("clip_gradient is 'no': expected a number or \"none\"",)),
        ('width = "none"', ("width is 'none': expected a number",)),
        ("[schedule]\nname = 1", ("schedule is {'name': 1}: expected text",)),
        ("accumulate = 0", ("accumulate is 0: expected 1 to 1024",)),
        ("learning_rate = nan", ("learning rate is nan",)),
        ('schedule = "linear"', ("schedule is 'linear'", "constant, one_cycle, cosine or step")),
        ('schedule = "one_cycle"\nwarm_up = 0.1', ("warm_up is 0.1: one_cycle has its own of 0.2",)),
        ('preset = "huge"', ("preset 'huge' is unknown: expected one of paper",)),
        ("preset = 3", ("preset is 3: expected text",)),
        ("epochs 3", ("is no TOML",)),
    ],
)
def test_what_is_wrong_in_a_file_is_named_in_one_line(
    text: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(written(tmp_path, text))
    for word in ("recipe.toml", *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
        load_recipe(tmp_path / "nowhere.toml")
    (tmp_path / "latin.toml").write_bytes(b'preset = "\xe9"')
    with pytest.raises(InputError, match=r"latin\.toml is no TOML"):
        load_recipe(tmp_path / "latin.toml")


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'preset = "small"\nepochs = 7\nfused_epochs = 2\nbatch_size = 8\nmixup = 0.1\n')
    assert _recipe(config=path) == load_recipe(path)
    mine = _recipe(config=path, settings=["batch_size=4", "accumulate=2", "mixup=0.2"], epochs=3)
    assert mine == replace(load_recipe(path), batch_size=4, accumulate=2, mixup=0.2, epochs=3, fused_epochs=3)
    assert _recipe(config=path, preset="paper") == replace(
        PRESETS["paper"], epochs=7, fused_epochs=2, batch_size=8, mixup=0.1
    )
    assert _recipe(settings=["batch_size=4"], batch_size=6).batch_size == 6
    assert _recipe() == PRESETS["paper"]


def test_settings_as_they_are_typed() -> None:
    found = parse_settings(['schedule = "step"', "keep=last", "size=64"])
    assert found == {"schedule": "step", "keep": "last", "size": 64}
    for text, words in (
        ("schedule", "expected name=value"),
        ("=3", "expected name=value"),
        ("preset=small", "give --preset small"),
    ):
        with pytest.raises(InputError, match=words):
            parse_settings([text])
    with pytest.raises(InputError, match="--set: colour is unknown"):
        _recipe(settings=["colour=0.5"])


def test_the_recipe_of_the_page(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "recipe.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    recipe = load_recipe(written(tmp_path, block))
    found = recipe.preset, recipe.epochs, recipe.fused_epochs, recipe.clip_gradient
    assert found == ("small", 30, 30, None)
    listed = page[page.index("| setting |") : page.index("The other settings")]
    described = set(re.findall(r"`(\w+)`", listed))
    values = {"constant", "cosine", "one_cycle", "step", "accuracy", "uar"}
    assert described - values <= {field.name for field in fields(Recipe)}


def test_the_cosine_by_hand() -> None:
    recipe = replace(SMALL, schedule="cosine", warm_up=0.25, learning_rate=0.5)
    shares = [recipe.rate(progress) / 0.5 for progress in (0, 0.125, 0.25, 0.625, 1)]
    assert shares == pytest.approx([0.04, 0.52, 1, 0.5, 0])
    cycle = replace(SMALL, schedule="one_cycle")
    same = replace(SMALL, schedule="cosine", warm_up=0.2)
    assert [cycle.rate(step / 50) for step in range(51)] == [same.rate(step / 50) for step in range(51)]
    constant = replace(SMALL, warm_up=0.5)
    assert [constant.rate(progress) / 1e-3 for progress in (0.25, 0.5, 0.9)] == pytest.approx([0.52, 1, 1])


@pytest.mark.parametrize("steps", [30, 49, 90])
def test_schedules_against_torch(steps: int) -> None:
    """Step for step, where the parts end and where a share of them is no whole number in binary."""

    def theirs(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        scheduler: LRScheduler = make(optimizer)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return rates

    def ours(**settings: Any) -> list[float]:
        recipe = replace(SMALL, **settings)
        return [recipe.rate(step / steps) for step in range(steps)]

    cosine = theirs(lambda optimizer: CosineAnnealingLR(optimizer, steps))
    assert ours(schedule="cosine") == pytest.approx(cosine)
    for parts in (each for each in range(1, steps + 1) if steps % each == 0):
        stepped = theirs(lambda optimizer, each=steps // parts: StepLR(optimizer, each, 0.5))
        assert ours(schedule="step", step_parts=parts, step_factor=0.5) == pytest.approx(stepped)


def test_the_paper_preset_is_the_papers() -> None:
    """Section 3.2: Adam at 0.001, 30 pictures of 224 px, cropped, flipped; 16 and 70 of the released code."""
    paper = PRESETS["paper"]
    assert (paper.frames, paper.size, paper.width) == (30, 224, 1.0)
    assert (paper.learning_rate, paper.batch_size, paper.epochs, paper.fused_epochs) == (1e-3, 16, 70, 70)
    assert {paper.rate(progress) for progress in (0, 0.1, 0.5, 1)} == {1e-3} and paper.weight_decay == 0
    assert paper.crop < 1 and paper.flip and paper.pretrain and paper.plain_loss
    assert (paper.keep, paper.select_by, paper.residual_start) == ("best", "accuracy", 1.0)
    unused = (paper.modality_dropout, paper.average_weights, paper.colour_jitter, paper.time_mask)
    assert not any((*unused, paper.frequency_mask, paper.refit, paper.clip_gradient))
    assert paper.accumulate == 1
