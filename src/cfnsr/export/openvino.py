"""A checkpoint -> OpenVINO's .xml and .bin, in floating-point numbers or in int8."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from cfnsr.errors import InputError, require
from cfnsr.export.check import Checked, clips_for, difference, reference, refuse
from cfnsr.export.graph import Graph, describe
from cfnsr.export.onnx import SOUND, check_path, quiet, trace
from cfnsr.features.spec import KEY, PRECISIONS, ModelSpec
from cfnsr.files import write_atomically
from cfnsr.inference import checksum
from cfnsr.inference.exported import WEIGHTS_KEY, load_xml
from cfnsr.inference.telemetry import telemetry_off
from cfnsr.models.entries import Model

if TYPE_CHECKING:
    import openvino

Clip = Mapping[str, np.ndarray]
Pair = tuple[bytes, bytes]  # content of an .xml file and of its .bin file
# OpenVINO's mark of an operation that stays in float32 where the rest does not.
MARK = {"name": "precise", "version": "0"}
# Inputs for which int8 is worth its cost: networks whose time goes into convolutions over them.
LARGE = ("video", "log_mel")
SMALL_OPERATIONS = ["MatMul"]  # of attention and heads: little time, and most of the accuracy
CHECKED = 3  # clips that the float graph is checked on before it is quantised


@dataclass(frozen=True)
class Quantised:
    """An int8 file, and its cost beside the same model in floating-point numbers.

    Args:
        bytes: of both its files.
        calibrated: clips that its scales come from.
        clips: labelled ones that its cost was measured on; those of the calibration where none were given.
        float_accuracy, accuracy: fraction of right answers in float and in int8; None without labels.
        agreement: fraction of the clips that both give the same answer to.
        difference: the largest of a probability.
    """

    path: Path
    bytes: int
    calibrated: int
    clips: int
    float_accuracy: float | None
    accuracy: float | None
    agreement: float
    difference: float


def export_openvino(
    model: Model | str | Path, out: str | Path, clips: Iterable[Clip] = (), *, precision: str = "f32"
) -> Checked:
    """Write a checkpoint as OpenVINO's .xml and .bin, once its answers have been checked against PyTorch.

    The graph is that of `export_onnx`. Where it is computed in bfloat16, MFCCs and spectrograms stay in
    float32: they take no time, and MFCCs would be off by up to 25, where their deviation over a clip is about
    150. The layers behind them are marked too, but OpenVINO rewrites most, and so forgets the mark.

    Args:
        model: from `load_model`, or the folder of a checkpoint.
        out: the .xml file to write; the .bin file stands beside it.
        clips: tensors of prepared clips to check it on; made-up ones if none are given.
        precision: "f32", or "bf16" for a file that `load_exported` runs in bfloat16. Both are the same
            graph, which has to agree with PyTorch in float32; the reported difference is that in `precision`.

    Raises:
        InputError: when the folder is no checkpoint, a package is missing, or the file's answers differ from
            PyTorch's by more than `TOLERANCE`; no file is left then.
    """
    out = check_path(out, ".xml")
    if precision not in PRECISIONS[:2]:
        raise InputError(
            f"precision is {precision!r}: expected f32 or bf16; int8 needs clips to calibrate on"
        )
    require("export", "openvino")
    model, spec = describe(model)
    spec = replace(spec, precision=precision)
    given, real = clips_for(spec, clips)
    expected = reference(model, spec, given)
    pair = _serialise(_convert(model, spec), spec)
    found, agreement = difference(load_xml(*pair, out, "f32"), given, expected)
    refuse(out, found)
    if precision != "f32":
        found, agreement = difference(load_xml(*pair, out, precision), given, expected)
    _write(pair, out)
    return Checked(out, sum(map(len, pair)), len(given), real, found, agreement)


def export_int8(
    model: Model | str | Path,
    out: str | Path,
    calibration: Iterable[Clip],
    labelled: Iterable[tuple[Clip, int]] = (),
) -> Quantised:
    """Write a checkpoint of a network of pictures or spectrograms in int8, and measure its cost.

    Post-training static quantisation by NNCF: scales of activations come from the calibration clips. The
    waveform's part of the graph, the small operations of attention and heads, and layers that only the audio
    passes through stay in float32.

    Args:
        model: from `load_model`, or the folder of a checkpoint.
        out: the .xml file to write; the .bin file stands beside it.
        calibration: tensors of prepared clips, of actors that the model was trained on; a few dozen.
        labelled: clips with their class index, of actors that it was not trained on, to measure the cost.

    Raises:
        InputError: when the folder is no checkpoint, a package is missing, the model reads neither pictures
            nor a spectrogram, there is no clip to calibrate on, or the answers in floating-point numbers
            differ from PyTorch's.
    """
    out = check_path(out, ".xml")
    require("export", "openvino", "nncf")
    model, spec = describe(model)
    if not set(model.reads.values()) & set(LARGE):
        raise InputError(
            f"model {spec.model} reads no pictures, and is small without int8: export it as f32 or bf16"
        )
    scaling = list(calibration)
    if not scaling:
        raise InputError("there is no clip to calibrate int8 on: give the prepared clips it was trained on")
    expected = reference(model, spec, scaling[:CHECKED])
    converted = _convert(model, spec)
    exact = load_xml(*_serialise(converted, spec), out, "f32")
    refuse(out, difference(exact, scaling[:CHECKED], expected)[0])

    spec = replace(spec, precision="int8")
    pair = _serialise(_quantise(converted, scaling, spec), spec)
    measured = list(labelled)
    clips = [clip for clip, _ in measured] or scaling
    before, after = (  # a clip at a time, to save memory
        np.concatenate([exported.probabilities([clip]) for clip in clips])
        for exported in (exact, load_xml(*pair, out))
    )
    labels = np.array([label for _, label in measured])
    right = [float((each.argmax(axis=1) == labels).mean()) if measured else None for each in (before, after)]
    _write(pair, out)
    agreement = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
    farthest = float(np.abs(before - after).max())
    size = sum(map(len, pair))
    return Quantised(out, size, len(scaling), len(clips), right[0], right[1], agreement, farthest)


def _convert(model: Model, spec: ModelSpec) -> openvino.Model:
    """Convert a model's graph to OpenVINO, by way of ONNX."""
    written = BytesIO(trace(Graph(model, spec), spec).SerializeToString())
    with telemetry_off():
        import openvino

        return openvino.convert_model(written)


def _quantise(model: openvino.Model, clips: Sequence[Clip], spec: ModelSpec) -> openvino.Model:
    with telemetry_off(), quiet("nncf"):
        import nncf

        return nncf.quantize(
            model,
            nncf.Dataset(clips, lambda clip: spec.batch([clip])),
            subset_size=len(clips),
            ignored_scope=nncf.IgnoredScope(
                names=sorted(_untouched(model)), types=SMALL_OPERATIONS, validate=False
            ),
        )


def _untouched(model: openvino.Model) -> set[str]:
    """Names of the operations that only the audio passes through, and of those that make its features."""

    def following(node: openvino.Node) -> list[openvino.Node]:
        return [target.get_node() for output in node.outputs() for target in output.get_target_inputs()]

    features = [
        node for node in model.get_ordered_ops() if any(SOUND in each.get_names() for each in node.outputs())
    ]
    names = _reached(features, lambda node: [value.get_node() for value in node.input_values()])
    after = {each.get_any_name(): _reached([each.get_node()], following) for each in model.inputs}
    if "frames" in after:
        pictures = after.pop("frames")
        names |= set().union(*after.values()) - pictures
    return names - {node.get_friendly_name() for node in (*model.get_parameters(), *model.get_results())}


def _reached(
    waiting: list[openvino.Node], neighbours: Callable[[openvino.Node], list[openvino.Node]]
) -> set[str]:
    """Names of some operations and of all that are reached from them, directly or not."""
    found = set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in found:
            found.add(node.get_friendly_name())
            waiting += neighbours(node)
    return found


def _serialise(model: openvino.Model, spec: ModelSpec) -> Pair:
    with telemetry_off():
        import openvino

    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        weights = path.with_suffix(".bin").read_bytes()
        net = ElementTree.fromstring(path.read_bytes())  # noqa: S314 - written just now
    untouched = _untouched(model)
    for layer in net.iterfind("layers/layer"):
        if layer.get("name") in untouched:  # marked here, because OpenVINO has no call for it in Python
            info = _info(layer, 0 if layer.find("data") is None else 1)
            ElementTree.SubElement(info, "attribute", MARK)
    # OpenVINO and NNCF note how they made it: nobody's business, but for the runtime's version.
    info = _info(net, len(net))
    info[:] = info.findall("Runtime_version")
    ElementTree.SubElement(info, KEY, value=json.dumps(spec.as_json()))
    ElementTree.SubElement(info, WEIGHTS_KEY, value=checksum.digest(weights))
    text = ElementTree.tostring(net, encoding="utf-8", xml_declaration=True) + b"\n"
    return text + checksum.tail(text, ".xml"), weights


def _info(element: ElementTree.Element, place: int) -> ElementTree.Element:
    """The runtime's notes on an element, inserted at a place where there are none yet."""
    info = element.find("rt_info")
    if info is None:
        info = ElementTree.Element("rt_info")
        element.insert(place, info)
    return info


def _write(pair: Pair, out: Path) -> None:
    """Write both files; a kill may leave the old ones, the new ones or no .xml file, but no mixed pair."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(pair[0])
        write_atomically(out.with_suffix(".bin"), fill_weights)

    def fill_weights(temporary: Path) -> None:
        temporary.write_bytes(pair[1])
        out.unlink(missing_ok=True)

    write_atomically(out, fill)
