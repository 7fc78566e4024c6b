"""Weights from elsewhere: the published names, both kinds of file, and what is refused."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.models import zoo
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.training import crossval as training
from cfnsr.training import fold
from cfnsr.training.config import find_recipe
from cfnsr.training.crossval import crossval, plan
from cfnsr.training.prepared import PreparedCorpus
from cfnsr.training.weights import find_weights, initialise_from, our_name, read_weights

WIDTH = 1 / 8
DEPTHS = (3, 4, 6, 3)


class Theirs(nn.Module):
    """A 3D ResNeXt as 3D-ResNets-PyTorch names and computes it, written anew from the paper."""

    def __init__(self, width: float = WIDTH, depths: tuple[int, ...] = DEPTHS, classes: int = 400) -> None:
        super().__init__()
        self.at = round(64 * width)
        self.conv1 = nn.Conv3d(3, self.at, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(self.at)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        for number, depth in enumerate(depths):
            planes, stride = round(128 * width) << number, 1 if number == 0 else 2
            blocks = [
                self.block(planes, stride if place == 0 else 1, round(32 * width)) for place in range(depth)
            ]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(self.at, classes)

    def block(self, planes: int, stride: int, groups: int) -> nn.Module:
        block = nn.Module()
        block.conv1, block.bn1 = nn.Conv3d(self.at, planes, 1, bias=False), nn.BatchNorm3d(planes)
        block.conv2 = nn.Conv3d(planes, planes, 3, stride, 1, groups=groups, bias=False)
        block.bn2 = nn.BatchNorm3d(planes)
        block.conv3, block.bn3 = nn.Conv3d(planes, 2 * planes, 1, bias=False), nn.BatchNorm3d(2 * planes)
        if stride != 1 or self.at != 2 * planes:
            short = nn.Conv3d(self.at, 2 * planes, 1, stride, bias=False)
            block.downsample = nn.Sequential(short, nn.BatchNorm3d(2 * planes))
        self.at = 2 * planes
        return block

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for number in range(1, 5):
            for block in getattr(self, f"layer{number}"):
                y = block.bn1(block.conv1(x)).relu()
                y = block.bn3(block.conv3(block.bn2(block.conv2(y)).relu()))
                x = (y + (block.downsample(x) if hasattr(block, "downsample") else x)).relu()
        return x.mean(dim=(2, 3, 4))


@pytest.fixture(scope="module")
def theirs() -> Theirs:
    """With statistics of batches that are not those of a fresh network."""
    torch.manual_seed(3)
    model = Theirs()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    return model.eval()


def published(model: nn.Module) -> dict[str, Tensor]:
    """As a network that was trained on several GPUs writes it."""
    return {f"module.{name}": value for name, value in model.state_dict().items()}


@pytest.fixture(params=["x.safetensors", "x.pth", "wrapped.pth", "old.pth"])
def file(request: pytest.FixtureRequest, theirs: Theirs, tmp_path: Path) -> Path:
    path, content = tmp_path / request.param, published(theirs)
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif request.param == "wrapped.pth":
        optimizer = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
        torch.save({"epoch": 200, "arch": "resnext-50", "state_dict": content, "optimizer": optimizer}, path)
    elif request.param == "old.pth":  # before batches were counted, and before the zip format
        old = {name: value for name, value in content.items() if "num_batches" not in name}
        torch.save(old, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(content, path)
    return path


def test_the_encoder_computes_what_theirs_does(
    file: Path, theirs: Theirs, pooled: Callable[..., Tensor]
) -> None:
    model = zoo.create_model("video", width=WIDTH)
    matched = initialise_from(model, find_weights(file))
    assert matched is not None and not matched.missing and not matched.misshapen
    assert set(matched.left_out) == {"module.fc.weight", "module.fc.bias"}
    assert matched.lines()[1] == "2 left out: module.fc.bias, module.fc.weight"
    video = torch.rand(2, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(pooled(model.encoder.eval(), video), theirs(video), atol=1e-5, rtol=1e-5)


def test_every_name_of_the_full_network_is_mapped_once() -> None:
    with torch.device("meta"):
        named, ours = published(Theirs(1)), ResNeXt3D().state_dict()
    mapped = {our_name(name): value.shape for name, value in named.items() if ".fc." not in name}
    assert mapped == {name: value.shape for name, value in ours.items()}


def test_our_own_runs_fit_too(tmp_path: Path) -> None:
    trained, other = (zoo.create_model(name, width=WIDTH) for name in ("cfn_sr", "video"))
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    matched = initialise_from(other, find_weights(tmp_path / "model.safetensors"))
    assert matched is not None and not matched.missing and len(matched.left_out) > 3
    for name, value in other.encoder.state_dict().items():
        assert torch.equal(value, trained.state_dict()[f"video.{name}"]), name


def test_models_without_pixels_are_left_alone(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    file = find_weights(tmp_path / "x.safetensors")
    for name in ("audio", "cfn_sr_features", "eranns"):
        assert initialise_from(zoo.create_model(name, width=WIDTH), file) is None


def refusal(path: Path, content: Any) -> str:
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError) as refused:
        initialise_from(zoo.create_model("video", width=WIDTH), find_weights(path))
    said = str(refused.value)
    assert path.name in said and "\n" not in said
    return said


def test_other_shapes(theirs: Theirs, tmp_path: Path) -> None:
    wide = refusal(tmp_path / "wide.safetensors", published(Theirs(2 * WIDTH)))
    assert "no tensor fits, they have other shapes (module.bn1.bias (16,), ours (8,)" in wide
    assert "full width" in wide
    some = published(theirs) | {"module.conv1.weight": torch.zeros(8, 2, 7, 7, 7)}
    del some["module.bn1.weight"]
    save_file(some, tmp_path / "some.safetensors")
    model = zoo.create_model("video", width=WIDTH)
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    matched = initialise_from(model, find_weights(tmp_path / "some.safetensors"))
    assert matched is not None
    assert matched.misshapen == ("module.conv1.weight (8, 2, 7, 7, 7), ours (8, 3, 7, 7, 7)",)
    assert matched.missing == ("stages.0.0.0.weight", "stages.0.0.1.weight")
    assert any("begin at random: stages.0.0.0.weight" in line for line in matched.lines())
    after = model.encoder.state_dict()
    kept = [name for name in before if name.endswith("weight") and torch.equal(before[name], after[name])]
    assert kept[:2] == ["stages.0.0.0.weight", "stages.0.0.1.weight"]


@pytest.mark.parametrize("value", [torch.full((8,), float("nan")), torch.ones(8, dtype=torch.int64)])
def test_weights_that_are_no_finite_numbers(theirs: Theirs, tmp_path: Path, value: Tensor) -> None:
    """Trained from, they would be a loss that is not finite, epochs later."""
    said = refusal(tmp_path / "odd.safetensors", published(theirs) | {"module.bn1.weight": value})
    assert "tensor module.bn1.weight is not all finite floating point" in said


def test_what_is_no_such_network_is_refused(tmp_path: Path) -> None:
    assert "other names (a, b)" in refusal(tmp_path / "a.pth", {"a": torch.zeros(2), "b": torch.ones(1)})
    deeper = refusal(tmp_path / "deep.pth", published(Theirs(WIDTH, (3, 4, 23, 3))))
    assert "ResNeXt-101 do not fit" in deeper and "module.layer3.10.bn1.bias" in deeper
    assert "holds a list" in refusal(tmp_path / "list.pth", [torch.zeros(2)])
    (tmp_path / "text.pth").write_text("hello")
    assert "damaged" in refusal(tmp_path / "text.pth", None)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(InputError, match=r"cut.safetensors cannot be read"):
        read_weights(find_weights(tmp_path / "cut.safetensors"))
    (tmp_path / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="git lfs pull"):
        find_weights(tmp_path / "lfs.pth")
    with pytest.raises(InputError, match=r"none.pth cannot be read \(No such file"):
        find_weights(tmp_path / "none.pth")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("by", ["pickle", "torch"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, by: str) -> None:
    content, path = {"module.conv1.weight": Hostile(tmp_path / "owned")}, tmp_path / "evil.pth"
    if by == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"evil.pth holds more than tensors.*pickled code is never run"):
        initialise_from(zoo.create_model("video", width=WIDTH), find_weights(path))
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(content))  # noqa: S301 - to show that it would have
    assert (tmp_path / "owned").exists()


@pytest.mark.long
def test_a_run_begins_with_them_and_is_resumed_with_no_others(
    store: Store, theirs: Theirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = PreparedCorpus(store)
    save_file(published(theirs), tmp_path / "one.safetensors")
    changed = published(theirs)
    changed["module.conv1.weight"] = 2 * changed["module.conv1.weight"]
    save_file(changed, tmp_path / "two.safetensors")
    one, two = (find_weights(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    recipe = find_recipe("small").changed(epochs=1, batch_size=8, video_weights=one)
    begun: dict[str, dict[str, Tensor]] = {}

    class Watched(fold.Trainer):
        def __init__(self, model: nn.Module, *args: Any, **options: Any) -> None:
            name = "video" if "encoder.stages.0.0.0.weight" in model.state_dict() else type(model).__name__
            begun[name] = {name: value.clone() for name, value in model.state_dict().items()}
            super().__init__(model, *args, **options)

    monkeypatch.setattr(fold, "Trainer", Watched)

    def run(recipe: Any, models: tuple[str, ...] = ("cfn_sr",), resume: bool = False) -> list[Path]:
        jobs = plan(models, corpus, protocol="nested", recipe=recipe, folds=[1])
        assert training.match_weights(jobs, corpus) is not None
        return crossval(jobs, corpus, tmp_path / "runs", accelerator=Accelerator(), resume=resume)

    video = run(recipe)[0]
    stem = theirs.conv1.weight
    assert torch.equal(begun["video"]["encoder.stages.0.0.0.weight"], stem)
    trained = load_file(video / "model.safetensors")["encoder.stages.0.0.0.weight"]
    assert torch.equal(begun["TwoStream"]["video.stages.0.0.0.weight"], trained), (
        "it starts from the video row"
    )
    assert 0 < (trained - stem).abs().max() < 0.02, "one epoch from theirs"
    assert json.loads((video / "run.json").read_text())["settings"]["video_weights"] == one.sha256
    moved = (tmp_path / "one.safetensors").rename(tmp_path / "moved.safetensors")
    run(replace(recipe, video_weights=find_weights(moved)), resume=True)  # the same, elsewhere
    for other in (two, None):
        jobs = plan(
            ["cfn_sr"], corpus, protocol="nested", recipe=replace(recipe, video_weights=other), folds=[1]
        )
        with pytest.raises(InputError, match=r"other settings: settings.video_weights"):
            crossval(jobs, corpus, tmp_path / "runs", accelerator=Accelerator(), resume=True)
    with pytest.raises(InputError, match="none of audio begins with a 3D ResNeXt"):
        run(replace(recipe, video_weights=two), ("audio",))
    run(replace(recipe, video_weights=two, pretrain=False), ("averaging",))
    assert torch.equal(begun["TwoStream"]["video.stages.0.0.0.weight"], changed["module.conv1.weight"])
    moved.write_bytes(b"")
    with pytest.raises(InputError, match="has changed since this began"):
        read_weights(replace(one, path=moved))
