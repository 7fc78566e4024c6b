"""Expression of face crops: the network against PyTorch's layers, real faces, files, and on to a model."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cfnsr import load_model, predict
from cfnsr.corpus.take import Take
from cfnsr.data.clip import prepare_clip
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features import FEATURES
from cfnsr.features import expression_net as nets
from cfnsr.features.base import Look
from cfnsr.features.expression import STEPS, tight
from cfnsr.features.expression_net import EMOTIONS, MANIFEST, ONNX, SETTINGS, WEIGHTS, SmallNet, find_net
from cfnsr.features.preparation import Preparation
from cfnsr.inference.exported import load_exported
from cfnsr.media.face import Faces

Run = Callable[..., CompletedProcess[str]]

LABELS = [*reversed(EMOTIONS[:6]), "contempt", EMOTIONS[6]]  # in no order, and one more
SIDE = 20  # pixels of the stand-in's input


def write_small(folder: Path, seed: int = 0) -> Path:
    """A network of face-api.js's layers with weights at random, of 8 bits but for the biases."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    entries: list[dict[str, Any]] = []
    data = b""
    for name, shape in nets.shapes().items():
        entry: dict[str, Any] = {"name": name, "shape": list(shape), "dtype": "float32"}
        if name.endswith("bias"):
            data += (0.1 * rng.standard_normal(shape)).astype("<f4").tobytes()
        else:
            inputs = 9 if "depthwise" in name else np.prod(shape[:-1])
            entry["quantization"] = {
                "dtype": "uint8",
                "scale": 0.02 * inputs**-0.5,
                "min": -2.6 * inputs**-0.5,
            }
            data += rng.integers(0, 256, shape, dtype=np.uint8).tobytes()
        entries.append(entry)
    (folder / MANIFEST).write_text(json.dumps([{"weights": entries, "paths": [WEIGHTS]}]))
    (folder / WEIGHTS).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("expression") / "small")


@pytest.fixture(autouse=True)
def named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nets.VARIABLE, str(small))


@pytest.fixture
def published(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights that are fetched, as the shared folder has them."""
    folder = shared / "models" / "face-expression"
    if not folder.is_dir():
        pytest.skip(f"no expression network in {folder}")
    monkeypatch.setenv(nets.VARIABLE, str(folder))
    return folder


def crops(count: int, size: int = 112, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def layer(maps: Tensor, weights: dict[str, Tensor], name: str, stride: int) -> Tensor:
    """A layer of maps (T, C, H, W), by PyTorch: TensorFlow's filters are (height, width, in, out)."""
    before = 0 if stride == 2 else 1
    maps = functional.pad(maps, (before, 1, before, 1))
    bias = weights[f"{name}/bias"]
    if name == "dense0/conv0":
        return functional.conv2d(maps, weights[f"{name}/filters"].permute(3, 2, 0, 1), bias, stride)
    each = weights[f"{name}/depthwise_filter"].permute(2, 3, 0, 1)
    maps = functional.conv2d(maps, each, stride=stride, groups=len(each))
    return functional.conv2d(maps, weights[f"{name}/pointwise_filter"].permute(3, 2, 0, 1), bias)


def by_pytorch(folder: Path, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and probabilities, straight from the files and the layers."""
    ((group,), data) = json.loads((folder / MANIFEST).read_text()), (folder / WEIGHTS).read_bytes()
    weights, begin = {}, 0
    for entry in group["weights"]:
        count = int(np.prod(entry["shape"]))
        if "quantization" in entry:
            how = entry["quantization"]
            values = how["min"] + how["scale"] * np.frombuffer(data, "u1", count, begin).astype(np.float64)
            begin += count
        else:
            values = np.frombuffer(data, "<f4", count, begin).astype(np.float64)
            begin += 4 * count
        weights[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
    assert begin == len(data)
    mean = torch.tensor([122.782, 117.001, 104.298], dtype=torch.float64)
    maps = ((torch.from_numpy(pictures).double() - mean) / 255).permute(0, 3, 1, 2)
    for block in range(4):
        name = f"dense{block}/conv"
        first = layer(maps, weights, f"{name}0", 2).relu()
        second = layer(first, weights, f"{name}1", 1)
        third = layer((first + second).relu(), weights, f"{name}2", 1)
        fourth = layer((first + second + third).relu(), weights, f"{name}3", 1)
        maps = (first + second + third + fourth).relu()
    assert maps.shape[1:] == (256, 7, 7)
    features = functional.avg_pool2d(maps, 7, stride=2)[:, :, 0, 0]
    scores = features @ weights["fc/weights"] + weights["fc/bias"]
    return features.numpy(), scores.softmax(dim=1).numpy()


def test_the_network_is_its_layers(small: Path) -> None:
    """More crops than go at once; each one's values are its own."""
    pictures, net = crops(6), SmallNet(small)
    features, probabilities = by_pytorch(small, pictures)
    values = net.values(pictures)
    assert values.shape == (6, 7 + 256) and values.dtype == np.float32
    assert features.std(axis=0).max() > 1e-3, "the crops must differ for this to prove anything"
    np.testing.assert_allclose(values[:, 7:], features, rtol=1e-3, atol=1e-4 * features.max())
    np.testing.assert_allclose(np.exp(values[:, :7]), probabilities, atol=1e-4)
    alone = np.concatenate([net.values(picture[None]) for picture in pictures])
    np.testing.assert_allclose(values, alone, rtol=1e-3, atol=1e-5 * features.max())


def test_a_quantised_weight_is_its_least_and_steps(small: Path, tmp_path: Path) -> None:
    """The first filter's bytes and the last bias, by hand."""
    (group,) = json.loads((small / MANIFEST).read_text())
    group["weights"][0]["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -3}
    (tmp_path / MANIFEST).write_text(json.dumps([group]))
    data = bytearray((small / WEIGHTS).read_bytes())
    data[:3] = bytes([0, 1, 255])
    data[-8:] = np.array([1.5, -2], "<f4").tobytes()
    (tmp_path / WEIGHTS).write_bytes(data)
    weights = SmallNet(tmp_path).weights
    assert weights["dense0/conv0/filters"][0, 0, 0, :3].tolist() == [-3, -2.5, 124.5]
    assert weights["fc/bias"][-2:].tolist() == [1.5, -2]


def test_what_is_published_is_what_is_fetched(published: Path) -> None:
    for name, known in nets.SHA256.items():
        assert hashlib.sha256((published / name).read_bytes()).hexdigest() == known
    pictures = crops(2)
    features, probabilities = by_pytorch(published, pictures)
    values = find_net().values(pictures)
    np.testing.assert_allclose(values[:, 7:], features, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.exp(values[:, :7]), probabilities, atol=1e-4)


def test_real_faces(published: Path, yunet: Path, shared: Path) -> None:
    """The happy face is happy, the calm one neutral, and the surprised ones are more so than all others."""
    preparation = Preparation(("expression",), frames=12, expression_sha256=find_net().sha256)
    found = {}
    for path in sorted((shared / "clips").rglob("*.*")):
        clip = prepare_clip(Take(path.stem, "", 0, video=path), preparation, threads=1)
        values = clip.tensors["expression"]
        assert values.shape == (clip.tensors["face"].sum(), 263) and "video" not in clip.tensors
        found[path.stem] = dict(zip(EMOTIONS, np.exp(values[:, :7]).mean(axis=0).tolist(), strict=True))
    happy, neutral = found["1001_DFA_HAP_XX"], found["01-01-01-01-01-01-01"]
    assert max(happy, key=happy.__getitem__) == "happy" and happy["happy"] > 0.5
    assert max(neutral, key=neutral.__getitem__) == "neutral" and neutral["neutral"] > 0.8
    surprised = {name: each["surprised"] for name, each in found.items()}
    others = [share for name, share in surprised.items() if not name.startswith("01-01-08")]
    assert all(share > max(others) for name, share in surprised.items() if name.startswith("01-01-08"))


def test_the_crop_is_the_face_without_its_forehead() -> None:
    """Of a face of 100 pixels 87, from 31 below the top; a crop that ends before gives what it has."""
    rows = np.broadcast_to(np.arange(150, dtype=np.uint8)[:, None, None], (1, 150, 150, 3))
    for size, margin, first, last in ((120, 0.2, 31, 117), (100, 0.0, 13, 99), (150, 0.5, 46, 132)):
        found = tight(rows[:, :size, :size], margin)
        assert found.shape == (1, 87, 87, 3)
        assert (found[0, 0, 0, 0], found[0, -1, 0, 0]) == (first, last)
    columns = tight(rows.swapaxes(1, 2)[:, :120, :120], 0.2)
    assert (columns[0, 0, 0, 0], columns[0, 0, -1, 0]) == (16, 102)


def test_pictures_without_the_face_are_left_out(small: Path) -> None:
    pictures = crops(3, 120)
    found = np.array([True, False, True])
    faces = Faces(pictures, np.zeros((3, 3)), found, np.ones(3, np.float32))
    preparation = Preparation(("expression",), expression_sha256=find_net().sha256)
    arrays = FEATURES["expression"].extract(faces, preparation)
    np.testing.assert_array_equal(
        arrays["expression"], find_net().values(tight(pictures, preparation.margin)[found])
    )
    read = FEATURES["expression"].to_model(arrays, Look(8, 64))
    assert read.shape == (263, STEPS)
    np.testing.assert_array_equal(read[:, 0], arrays["expression"][0])
    np.testing.assert_array_equal(read[:, -1], arrays["expression"][1])


def spoilt(folder: Path, change: Callable[[list[Any]], object]) -> None:
    """Change a manifest."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def entry(number: int, **values: object) -> Callable[[Path], None]:
    """Change a weight's line in a manifest."""
    return partial(spoilt, change=lambda manifest: manifest[0]["weights"][number].update(values))


def quantised(**values: object) -> Callable[[Path], None]:
    how = {"dtype": "uint8", "scale": 1, "min": 0, **values}
    return entry(0, quantization=how)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "expected a folder that holds"),
        (lambda folder: (folder / WEIGHTS).unlink(), r"model\.bin cannot be read \(No such file"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"1"), r"has 1 bytes, not the \d+ of its manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "is no manifest of weights"),
        (lambda folder: (folder / MANIFEST).write_text('{"weights": []}'), "is no manifest of weights"),
        (lambda folder: (folder / MANIFEST).write_text('[{"weights": [7]}]'), "is no manifest of weights"),
        (
            lambda folder: (folder / MANIFEST).write_text("version https://git-lfs.github.com/spec/v1\n"),
            "git lfs pull",
        ),
        (partial(spoilt, change=lambda manifest: manifest.append(manifest[0])), "is no manifest of weights"),
        (
            partial(spoilt, change=lambda manifest: manifest[0]["weights"].pop()),
            "'fc/bias' the shape None, not",
        ),
        (
            entry(0, shape=[3, 3, 3, 2**40]),
            r"conv0/filters' the shape \(3, 3, 3, 1099511627776\), not",
        ),
        (entry(0, shape=[3, -3, -3, 32]), r"the shape \(3, -3, -3, 32\), not \(3, 3, 3, 32\)"),
        (entry(0, name="../other"), "'dense0/conv0/filters' the shape None"),
        (entry(0, quantization=None), "is no manifest of weights"),
        (quantised(dtype="object"), "object, not uint8 or float32"),
        (quantised(scale="1e999"), "conv0/filters in .* is not finite"),
        (quantised(min=1e300), "conv0/filters in .* is not finite"),
    ],
)
def test_files_that_are_not_the_networks(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    for name in (MANIFEST, WEIGHTS):
        (tmp_path / name).write_bytes((small / name).read_bytes())
    spoil(tmp_path)
    monkeypatch.setenv(nets.VARIABLE, str(tmp_path))
    with pytest.raises(InputError, match=message) as caught:
        find_net()
    assert "\n" not in str(caught.value)


def test_another_network_than_that_of_the_clips(small: Path, tmp_path: Path) -> None:
    sha256 = find_net().sha256
    assert find_net(sha256) is find_net(), "read once"
    other = SmallNet(write_small(tmp_path, seed=1)).sha256
    with pytest.raises(InputError, match=f"has the SHA-256 {sha256}: expected {other}, with which"):
        find_net(other)


def test_the_identity_is_kept_with_the_settings() -> None:
    """Those of clips without expression are written as before there was any."""
    with pytest.raises(InputError, match="expression_sha256 is '': expected the 64 hexadecimal digits"):
        Preparation(("expression",))
    preparation = Preparation(("expression",), expression_sha256="0" * 64)
    assert Preparation.from_json(preparation.as_json()) == preparation
    assert "expression_sha256" not in Preparation().as_json()
    assert Preparation.from_json(Preparation().as_json()) == Preparation()


@pytest.fixture
def server(small: Path) -> Iterator[str]:
    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(small))) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


def test_it_is_fetched_once_and_checked(
    server: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cfnsr.doctor import examine

    def finding() -> str:
        return next(each.line() for each in examine() if each.name == "expression net")

    known = {name: hashlib.sha256((small / name).read_bytes()).hexdigest() for name in (MANIFEST, WEIGHTS)}
    assert finding().startswith("ok") and str(small) in finding()
    monkeypatch.delenv(nets.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(nets, "URL", server)
    assert "no weights here yet" in finding() and f"set {nets.VARIABLE}" in finding()
    with pytest.raises(InputError, match=r"cannot be fetched .*without a network, download"):
        find_net()  # these are not the published ones
    monkeypatch.setattr(nets, "SHA256", known)
    net = find_net()
    assert net.sha256 == SmallNet(small).sha256 and tmp_path in net.folder.parents
    monkeypatch.setattr(nets, "URL", "http://127.0.0.1:9/")
    assert find_net() is net and "fetched before" in finding()
    monkeypatch.setenv(nets.VARIABLE, str(tmp_path / "nowhere"))
    assert finding().startswith("MISSING") and "nowhere" in finding()


def write_onnx(folder: Path, **changes: object) -> Path:
    """A stand-in for a large network: the mean of each colour as features, and a linear layer of them."""
    import onnx
    from onnx import helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    weight = np.random.default_rng(5).standard_normal((3, len(LABELS))).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["picture", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
    ]
    arrays = {"axes": np.array([2, 3], np.int64), "weight": weight}
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info("picture", kind, ["N", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("means", kind, ["N", 3]),
            helper.make_tensor_value_info("logits", kind, ["N", len(LABELS)]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / ONNX).write_bytes(model.SerializeToString())
    settings = {
        "size": SIDE,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "colours": "bgr",
        "labels": LABELS,
        "features": "means",
        "scores": "logits",
    }
    (folder / SETTINGS).write_text(json.dumps({**settings, **changes}))
    return folder


def test_a_larger_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its input and its labels are as its JSON says: colours reversed, contempt left out."""
    monkeypatch.setenv(nets.VARIABLE, str(write_onnx(tmp_path)))
    pictures, net = crops(6, SIDE), find_net()
    values = net.values(pictures)
    given = (pictures[..., ::-1] / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    weight = np.random.default_rng(5).standard_normal((3, len(LABELS))).astype(np.float32)
    means = given.mean(axis=(1, 2))
    scores = np.exp(means @ weight)
    scores /= scores.sum(axis=1, keepdims=True)
    assert values.shape == (6, 7 + 3)
    np.testing.assert_allclose(values[:, 7:], means, atol=1e-5)
    for column, emotion in enumerate(EMOTIONS):
        expected = scores[:, LABELS.index(emotion)]
        np.testing.assert_allclose(np.exp(values[:, column]), expected, rtol=1e-4)
    before = net.sha256
    (tmp_path / SETTINGS).write_text((tmp_path / SETTINGS).read_text() + "\n")
    assert net.sha256 != before, "the JSON belongs to it"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "large"}, "expression.json is damaged"),
        ({"size": 10**9}, "expression.json is damaged"),
        ({"std": [0, 1, 1]}, "expression.json is damaged"),
        ({"mean": [0.5]}, "expression.json is damaged"),
        ({"colours": "grey"}, "damaged.*expected what expression.onnx reads and gives, such as"),
        ({"labels": LABELS[1:]}, "labels without some of neutral, happy"),
        ({"labels": [*LABELS, "calm"]}, r"cannot be run as expression.json describes it .*\(N, 9\)"),
        ({"features": "hidden"}, "cannot be run .*the outputs hidden and logits"),
        ({"features": "picture"}, "cannot be run"),
        ({"size": SIDE + 1}, r"cannot be run .*an input \(N, 3, 21, 21\)"),
    ],
)
def test_a_larger_network_that_is_described_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    monkeypatch.setenv(nets.VARIABLE, str(write_onnx(tmp_path, **changes)))
    with pytest.raises(InputError, match=message) as caught:
        find_net()
    assert "\n" not in str(caught.value)


def test_a_larger_network_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_onnx(tmp_path)
    monkeypatch.setenv(nets.VARIABLE, str(tmp_path))
    with monkeypatch.context() as without:
        without.setattr("cfnsr.errors.is_installed", lambda package: package != "onnxruntime")
        with pytest.raises(InputError, match=r"onnxruntime is not installed: .*'cfnsr\[export\]'"):
            find_net()
    (tmp_path / ONNX).write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"expression\.onnx cannot be run"):
        find_net()
    (tmp_path / SETTINGS).unlink()
    with pytest.raises(InputError, match=r"expression.json is missing: expected what expression.onnx reads"):
        find_net()


@pytest.fixture(scope="module")
def corpus(small: Path, synthetic: Path, cfnsr: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("expression") / "prepared"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(nets.VARIABLE, str(small))
        options = ("--modalities", "expression,audio", "--frames", 6, "--size", 48, "--workers", 1)
        done = cfnsr("prepare", synthetic, out, *options)
    assert "12 clips made, 0 kept, 0 failed" in done.stdout, done.stderr
    return out


@pytest.mark.usefixtures("quick")
def test_from_a_corpus_to_a_prediction(
    corpus: Path, synthetic: Path, small: Path, cfnsr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is read as the clips were, by an exported model too; another network is refused."""
    store = Store(corpus)
    assert store.headers()[0].preparation["expression_sha256"] == find_net().sha256
    options = ("--video", "expression", "--preset", "features", "--folds", 1, "--epochs", 1, "--workers", 1)
    trained = cfnsr("crossval", "video", "--data", corpus, "--out", tmp_path / "runs", *options)
    assert trained.returncode == 0, trained.stderr
    folder = tmp_path / "runs" / "nested" / "video+expression" / "seed_0" / "fold_1"
    model, take = load_model(folder), min(synthetic.glob("Actor_01/*.mp4"))
    points = synthetic / "landmarks" / f"{take.stem}.csv"
    result = predict(model, take, openface=points)
    assert result.probabilities is not None and sum(result.probabilities.values()) == pytest.approx(1)

    exported = tmp_path / "model.onnx"
    done = cfnsr("export", folder, exported, "--data", corpus)
    assert done.returncode == 0, done.stderr
    found = predict(load_exported(exported, runtime="onnxruntime"), take, openface=points).probabilities
    assert found == pytest.approx(result.probabilities, abs=1e-4)

    explained = cfnsr("explain", folder, take, tmp_path / "why.png", "--openface", points)
    assert explained.returncode == 0, explained.stderr
    monkeypatch.setenv(nets.VARIABLE, str(write_small(tmp_path / "other", seed=1)))
    with pytest.raises(InputError, match="with which the features were made"):
        predict(model, take, openface=points)
    again = cfnsr(
        "prepare", synthetic, corpus, "--modalities", "expression,audio", "--frames", 6, "--size", 48
    )
    assert again.returncode == 2 and "holds clips made with expression_sha256" in again.stderr


def test_it_needs_no_pytorch(small: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy; from cfnsr.features.expression_net import find_net\n"
        "print(find_net().values(numpy.zeros((1, 64, 64, 3), 'uint8')).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "(1, 263)\n"
