"""Networks that score the expression of face crops: one in NumPy, and larger ones from ONNX files.

Neither needs PyTorch.
"""

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from cfnsr.emotions import RAVDESS
from cfnsr.errors import InputError, require
from cfnsr.features.pictures import shrink
from cfnsr.files import fetch, find_fetched, read_bytes, read_json
from cfnsr.processes import cores

VARIABLE = "CFNSR_EXPRESSION"
EMOTIONS = tuple(emotion for emotion in RAVDESS.emotions if emotion != "calm")  # in the order of the scores
BATCH = 4  # crops at once: 8 ms a crop on one core, 10 with 8 or more, whose maps do not stay in its cache

MANIFEST = "face_expression_model-weights_manifest.json"
WEIGHTS = "face_expression_model.bin"
URL = "https://raw.githubusercontent.com/vladmandic/face-api/master/model/"
SHA256 = {
    MANIFEST: "5b349c17c7836da506e03422cd6461c74085d8bb2713ad4114647dc5d28174c8",
    WEIGHTS: "9a9840f2cf1f4c7eab95f197512569345c00d2426754d4608b92af30e0300f3d",
}
WITHOUT_NETWORK = (
    f"without a network, download {MANIFEST} and {WEIGHTS} (340 kB) elsewhere, copy them here and set "
    f"{VARIABLE} to their folder"
)

CHANNELS = (32, 64, 128, 256)  # of the dense blocks
CONVOLUTIONS = 4  # of a block
SIZES = {"uint8": 1, "float32": 4}  # bytes of a weight

ONNX = "expression.onnx"
SETTINGS = "expression.json"
EXAMPLE = (
    '{"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "colours": "rgb", "labels": '
    '["angry", ...], "features": NAME, "scores": NAME}'
)


class ExpressionNet(ABC):
    """A network that gives features and scores of face crops.

    Attributes:
        folder: its files.
        size: pixels of its input's side.
        mean, std: of its input's colours, from 0 to 1.
        labels: of its scores, in their order: `EMOTIONS`, and maybe others, which are left out.
        files: names of its files, which identify it.
        bgr: its input's colours stand in this order, and not as RGB.
    """

    folder: Path
    size: int
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    labels: tuple[str, ...]
    files: tuple[str, ...]
    bgr = False

    @abstractmethod
    def run(self, pictures: Float[np.ndarray, "T size size 3"]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compute features (T, F), and scores (T, labels) before the softmax, of standardised pictures."""

    @property
    def sha256(self) -> str:
        """SHA-256 over the names and contents of its files."""
        digest = hashlib.sha256()
        for name in self.files:
            digest.update(name.encode() + hashlib.sha256((self.folder / name).read_bytes()).digest())
        return digest.hexdigest()

    def values(self, crops: UInt8[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T 7+F"]:
        """Compute log-probabilities of `EMOTIONS`, and behind them the features, of RGB crops of any size."""
        order = [self.labels.index(emotion) for emotion in EMOTIONS]
        pictures = shrink(crops[..., ::-1] if self.bgr else crops, self.size)
        found = []
        for begin in range(0, len(pictures), BATCH):
            part = pictures[begin : begin + BATCH].astype(np.float32) / 255
            features, scores = self.run((part - self.mean) / self.std)
            scores = scores - scores.max(axis=1, keepdims=True)
            scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
            found.append(np.concatenate([scores[:, order], features], axis=1, dtype=np.float32))
        return np.concatenate(found)


class SmallNet(ExpressionNet):
    """The expression network of face-api.js, in NumPy: 324,000 weights, of 8 bits most of them.

    An input of 112 pixels a side goes through four densely connected blocks of four 3 x 3 convolutions each,
    depthwise separable but for the first; each block halves the side. The means of the last map are the
    features, and a linear layer gives the scores.

    Source: face-api.js by Vincent Mühler (MIT), faceFeatureExtractor and faceExpressionNet; its weights as
    published with Vladimir Mandic's edition.

    Args:
        folder: `MANIFEST` and `WEIGHTS`.

    Raises:
        InputError: a file is missing, or is not this network's.
    """

    size = 112
    mean = np.array([122.782 / 255, 117.001 / 255, 104.298 / 255], np.float32)
    std = np.ones(3, np.float32)
    labels = EMOTIONS
    files = (MANIFEST, WEIGHTS)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = read_weights(folder / MANIFEST, folder / WEIGHTS)

    def run(self, pictures: Float[np.ndarray, "T 112 112 3"]) -> tuple[NDArray[Any], NDArray[Any]]:
        maps = pictures
        for block in range(len(CHANNELS)):
            total = relu(self._convolve(maps, f"dense{block}/conv0", 2))
            for layer in range(1, CONVOLUTIONS):  # each reads the sum of all before it
                total = total + self._convolve(relu(total), f"dense{block}/conv{layer}", 1)
            maps = relu(total)
        features = maps.mean(axis=(1, 2))
        return features, features @ self.weights["fc/weights"] + self.weights["fc/bias"]

    def _convolve(self, maps: NDArray[np.float32], name: str, stride: int) -> NDArray[np.float32]:
        """Convolve maps (T, H, W, C) by one of the layers."""
        around, weights = places(maps, stride), self.weights
        if (filters := weights.get(f"{name}/filters")) is not None:
            each = filters.reshape(9, *filters.shape[2:])
            convolved: Any = sum(place @ weight for place, weight in zip(around, each, strict=True))
        else:
            # A row's width of each weight, so that NumPy's innermost loop is over a row and not its channels.
            filters = weights[f"{name}/depthwise_filter"].reshape(9, 1, -1)
            each = np.repeat(filters, maps.shape[2] // stride, axis=1)
            convolved = sum(place * weight for place, weight in zip(around, each, strict=True))
            convolved = convolved @ weights[f"{name}/pointwise_filter"][0, 0]
        biased: NDArray[np.float32] = convolved + weights[f"{name}/bias"]
        return biased


def relu(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Set what is negative to 0."""
    return np.maximum(maps, 0)


def places(maps: NDArray[np.float32], stride: int) -> Iterator[NDArray[np.float32]]:
    """Yield what each of a 3 x 3 filter's nine weights meets in maps (T, H, W, C).

    Zeros around the maps keep the side, or halve it, as TensorFlow's "same": at stride 2 they stand after the
    maps alone, whose sides are even.
    """
    height, width = maps.shape[1:3]
    around = (2 - stride, 1)
    padded = np.pad(maps, ((0, 0), around, around, (0, 0)))
    for row, column in np.ndindex(3, 3):
        yield padded[:, row : row + height : stride, column : column + width : stride]


def shapes() -> dict[str, tuple[int, ...]]:
    """List the weights of face-api.js's network, with the shape of each."""
    found: dict[str, tuple[int, ...]] = {}
    for block, (before, channels) in enumerate(pairwise((3, *CHANNELS))):
        for layer in range(CONVOLUTIONS):
            name, read = f"dense{block}/conv{layer}", channels if layer else before
            if block == layer == 0:
                found[f"{name}/filters"] = 3, 3, read, channels
            else:
                found[f"{name}/depthwise_filter"] = 3, 3, read, 1
                found[f"{name}/pointwise_filter"] = 1, 1, read, channels
            found[f"{name}/bias"] = (channels,)
    return {**found, "fc/weights": (CHANNELS[-1], len(EMOTIONS)), "fc/bias": (len(EMOTIONS),)}


def read_weights(manifest: Path, weights: Path) -> dict[str, NDArray[np.float32]]:
    """Read a network's weights by their manifest, as TensorFlow.js keeps them: a quantised one is
    `min + scale * byte`.

    Raises:
        InputError: a file is missing, the manifest is not that of face-api.js's network, or the weights are
            not as many as it says.
    """
    again = f"expected {MANIFEST} and {WEIGHTS} of face-api.js; copy both again"
    try:
        (group,) = json.loads(_read(manifest, again))
        entries = [_Entry(each) for each in group["weights"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{manifest} is no manifest of weights ({error!r}): {again}") from None
    expected = shapes()
    found = {entry.name: entry.shape for entry in entries}
    if wrong := [name for name in {**expected, **found} if found.get(name) != expected.get(name)]:
        given, wanted = found.get(wrong[0]), expected.get(wrong[0])
        raise InputError(f"{manifest} gives {wrong[0]!r} the shape {given}, not {wanted}: {again}")
    data = _read(weights, again)
    sizes = [math.prod(entry.shape) * SIZES[entry.dtype] for entry in entries]
    if len(data) != sum(sizes):
        raise InputError(f"{weights} has {len(data)} bytes, not the {sum(sizes)} of its manifest: {again}")
    read, begin = {}, 0
    for entry, size in zip(entries, sizes, strict=True):
        stored = np.frombuffer(data[begin : begin + size], np.dtype(entry.dtype).newbyteorder("<"))
        with np.errstate(all="ignore"):
            values = (entry.least + entry.scale * stored).astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{entry.name} in {weights} is not finite: {again}")
        read[entry.name] = values.reshape(entry.shape)
        begin += size
    return read


class _Entry:
    """A weight in a manifest."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.name, self.shape = str(value["name"]), tuple(map(int, value["shape"]))
        how = value.get("quantization", {})
        self.dtype = str(how.get("dtype", value["dtype"]))
        self.least, self.scale = float(how.get("min", 0)), float(how.get("scale", 1))
        if self.dtype not in SIZES:
            raise ValueError(f"{self.name} is {self.dtype}, not {' or '.join(SIZES)}")


def _read(path: Path, expected: str) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {expected}") from None


class OnnxNet(ExpressionNet):
    """A larger network in an ONNX file, such as EmotiEffNet (Savchenko, HSEmotion, Apache-2.0).

    The file reads standardised pictures (N, 3, size, size), of any N; the JSON beside it says what they are
    and what the outputs are called.

    Args:
        folder: `ONNX` and `SETTINGS`.
        threads: of onnxruntime; 0 takes all cores.

    Raises:
        InputError: onnxruntime is not installed, or a file is missing or damaged.
    """

    files = (ONNX, SETTINGS)

    def __init__(self, folder: Path, threads: int = 0) -> None:
        require("export", "onnxruntime")
        import onnxruntime

        self.folder = folder
        expected = f"what {ONNX} reads and gives, such as {EXAMPLE}"
        given = read_json(folder / SETTINGS, expected)
        try:
            self.size, self.labels = int(given["size"]), tuple(map(str, given["labels"]))
            self.mean, self.std = (np.array(given[name], np.float32) for name in ("mean", "std"))
            self.bgr = {"rgb": False, "bgr": True}[given["colours"]]
            self.outputs = [str(given["features"]), str(given["scores"])]
            if not 0 < self.size <= 1024 or self.mean.shape != (3,) or self.std.shape != (3,):
                raise ValueError("size, mean or std")
            if not (self.std > 0).all() or not set(EMOTIONS) <= set(self.labels):
                raise ValueError(f"std, or labels without some of {', '.join(EMOTIONS)}")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / SETTINGS} is damaged ({error!r}): expected {expected}") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, in one line
        options.intra_op_num_threads = threads or cores()
        content = _read(folder / ONNX, f"an ONNX file, as {SETTINGS} describes it")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            (self._input,) = [each.name for each in self._session.get_inputs()]
            self.run(np.zeros((2, self.size, self.size, 3), np.float32))
        except Exception as error:  # onnxruntime's own, of many kinds
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{folder / ONNX} cannot be run as {SETTINGS} describes it ({reason}): expected an input "
                f"(N, 3, {self.size}, {self.size}) and the outputs {' and '.join(self.outputs)}, (N, F) and "
                f"(N, {len(self.labels)})"
            ) from None

    def run(self, pictures: Float[np.ndarray, "T size size 3"]) -> tuple[NDArray[Any], NDArray[Any]]:
        given = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))
        features, scores = self._session.run(self.outputs, {self._input: given})
        if features.shape[:-1] != scores.shape[:-1] or scores.shape != (len(pictures), len(self.labels)):
            raise ValueError(f"the outputs are {features.shape} and {scores.shape}")
        return features, scores


def find_net(sha256: str = "", threads: int = 0) -> ExpressionNet:
    """Find the expression network of a preparation, one object a process.

    It is in the folder that `CFNSR_EXPRESSION` names, else the small one, fetched once.

    Args:
        sha256: expected `ExpressionNet.sha256`; any if not given.
        threads: of a large one; 0 lets it choose.

    Raises:
        InputError: there is none, or it is another one.
    """
    folder = folder_here()
    if folder is None:
        for name, known in SHA256.items():
            fetched = fetch([URL + name], known, "the expression network's weights", WITHOUT_NETWORK)
        folder = fetched.parent
    net, found = _in_folder(folder, threads)
    if sha256 and found != sha256:
        raise InputError(
            f"the expression network in {folder} has the SHA-256 {found}: expected {sha256}, with which the "
            f"features were made; set {VARIABLE} to that network's folder (unset it for the small one), or "
            "prepare and train anew with this one"
        )
    return net


def folder_here() -> Path | None:
    """Find the network's files here: the folder of `CFNSR_EXPRESSION`, else those fetched before, else None.

    Raises:
        InputError: the named folder holds none.
    """
    if named := os.environ.get(VARIABLE):
        folder = Path(named).resolve()
        if not (folder / ONNX).exists() and not (folder / MANIFEST).exists():
            raise InputError(
                f"{VARIABLE} names {named}: expected a folder that holds {MANIFEST} and {WEIGHTS}, or {ONNX} "
                f"and {SETTINGS}"
            )
        return folder
    there = [find_fetched(URL + name, known) for name, known in SHA256.items()]
    return there[0].parent if all(there) and there[0] is not None else None


@cache
def _in_folder(folder: Path, threads: int) -> tuple[ExpressionNet, str]:
    net = OnnxNet(folder, threads) if (folder / ONNX).exists() else SmallNet(folder)
    return net, net.sha256
