"""A checkpoint -> one ONNX file, which any language with a runtime can use."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from cfnsr import __version__
from cfnsr.errors import InputError, is_installed, require
from cfnsr.export.check import Checked, clips_for, difference, reference, refuse
from cfnsr.export.graph import Graph, describe
from cfnsr.features.spec import KEY, OUTPUT, ModelSpec
from cfnsr.files import write_atomically
from cfnsr.inference import checksum
from cfnsr.inference.exported import RUNTIMES, load_onnx
from cfnsr.models.entries import Model

if TYPE_CHECKING:
    from onnx import ModelProto

# The one that the exporter writes without a conversion, and the first with all that the zoo needs (layer
# normalisation in one operation is of 17). Runtimes of 2023 and later read it.
OPSET = 18
MOST_CLIPS = 4096  # at once; the exporter wants a bound
SOUND = "sound_features"  # name of what stands between the waveform's part of the graph and the network


def export_onnx(
    model: Model | str | Path, out: str | Path, clips: Iterable[Mapping[str, np.ndarray]] = ()
) -> Checked:
    """Write a checkpoint as an ONNX file, once its answers have been checked against PyTorch.

    The graph takes bytes of pictures and a waveform, any number of clips, and gives calibrated
    log-probabilities (see `Graph`); all else that a program needs is in the file's metadata (`ModelSpec`).

    Args:
        model: from `load_model`, or the folder of a checkpoint.
        clips: tensors of prepared clips to check it on, such as those of a store; made-up ones if none are
            given.

    Raises:
        InputError: when the folder is no checkpoint, a package is missing, or the file's answers differ from
            PyTorch's by more than `TOLERANCE`; no file is left then.
    """
    out = check_path(out, ".onnx")
    require("export", "onnx", "onnxscript", "onnxruntime")
    model, spec = describe(model)
    given, real = clips_for(spec, clips)
    expected = reference(model, spec, given)
    written = trace(Graph(model, spec), spec)
    entry = written.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(spec.as_json())
    content = written.SerializeToString()
    data = content + checksum.tail(content, ".onnx")
    installed = filter(is_installed, RUNTIMES[".onnx"])
    found = [difference(load_onnx(data, out, runtime), given, expected) for runtime in installed]
    worst = max(distance for distance, _ in found)
    refuse(out, worst)
    write_atomically(out, lambda temporary: temporary.write_bytes(data))
    return Checked(out, len(data), len(given), real, worst, min(agreement for _, agreement in found))


def check_path(out: str | Path, suffix: str) -> Path:
    """Return a path to write; raise `InputError` where it has another suffix, or is a folder."""
    out = Path(out)
    if out.suffix.lower() != suffix:
        raise InputError(f"{out} has another ending: expected {suffix}")
    if out.is_dir():
        raise InputError(f"{out} is a folder: expected a file to write")
    return out


def trace(graph: Graph, spec: ModelSpec) -> ModelProto:
    """Trace a graph into ONNX, a message without metadata of ours."""
    require("export", "onnxscript")
    inputs, shapes = spec.inputs, spec.shapes
    batch = torch.export.Dim("batch", max=MOST_CLIPS)
    examples = tuple(  # two clips, because one would fix the batch
        torch.zeros(2, *shapes[name], dtype=getattr(torch, numbers)) for name, numbers in inputs.items()
    )
    try:
        with quiet("torch.onnx"), torch.no_grad():
            program = torch.onnx.export(
                graph,
                examples,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=[OUTPUT, SOUND][: 1 + graph.hears],
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"model {spec.model} has no graph ({reason}): expected one of the zoo's, or one that "
            "torch.export takes"
        ) from error
    assert program is not None  # noqa: S101 - of this exporter always
    written: ModelProto = program.model_proto
    del written.graph.output[1:]  # the name stays with the value
    # Where in whose source it came from: of no use to others, and with paths of this machine.
    content = written.graph
    for part in (written, content, *content.node, *content.value_info, *content.input, *content.output):
        part.ClearField("metadata_props")
    for node in content.node:
        node.ClearField("doc_string")
    written.producer_name, written.producer_version = "cfnsr", __version__
    return written


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a package that logs, warns and prints what it does; failures are raised."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
