"""A model that `cfnsr export` wrote, run without PyTorch: nothing imported here needs it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from cfnsr.errors import InputError, is_installed, require
from cfnsr.features.base import Arrays
from cfnsr.features.spec import KEY, OUTPUT, PRECISIONS, ModelSpec
from cfnsr.files import read_bytes
from cfnsr.inference import checksum
from cfnsr.inference.recogniser import Recogniser
from cfnsr.inference.telemetry import telemetry_off
from cfnsr.processes import cores

Runtime = Literal["onnxruntime", "openvino"]
RUNTIMES: dict[str, tuple[Runtime, ...]] = {".onnx": ("openvino", "onnxruntime"), ".xml": ("openvino",)}
NO_EXPORT = "%s is no exported model: expected an .onnx or .xml file of `cfnsr export`"
WEIGHTS_KEY = "cfnsr_weights_sha256"  # in an .xml file: of the .bin file beside it
HINTS = {"f32": "f32", "bf16": "bf16", "int8": "f32"}  # OpenVINO's arithmetic where nothing is quantised
LARGEST = 2**31  # bytes of a file: as many as an ONNX file can have

Inputs = Mapping[str, NDArray[np.generic]]
Run = Callable[[Inputs], NDArray[np.float32]]


class ExportedModel(Recogniser):
    """A model in a file, as `predict` needs it; from `load_exported`.

    Args:
        run: the graph: inputs of some clips side by side -> log-probabilities.
    """

    def __init__(self, spec: ModelSpec, run: Run, runtime: Runtime) -> None:
        self.spec, self.runtime, self._run = spec, runtime, run
        self.name, self.labels, self.reads = spec.model, spec.labels, spec.reads
        self.preparation = replace(spec.preparation, modalities=tuple(spec.reads.values()))
        self.frames, self.size, self.settings = spec.frames, spec.size, spec.settings
        self.corpora = spec.corpora
        self.normalised, self.tolerant = spec.normalised, spec.tolerant

    def probabilities(self, clips: Sequence[Arrays]) -> Float[np.ndarray, "B classes"]:
        """Calibrated probabilities of the emotions, float64.

        Args:
            clips: tensors of prepared clips, as `prepare_clip` makes them; the waveform of 16 bits or float.

        Raises:
            InputError: for a clip that lacks a tensor, or has one of another shape.
        """
        values = np.exp(self.log_probabilities(clips))
        probabilities: NDArray[np.float64] = values / values.sum(axis=1, keepdims=True)
        return probabilities

    def log_probabilities(self, clips: Sequence[Arrays]) -> Float[np.ndarray, "B classes"]:
        """The same as logarithms, as the graph gives them; likewise float64."""
        if not clips:
            return np.empty((0, len(self.labels)))
        return self._run(self.spec.batch(clips)).astype(np.float64)


def load_exported(
    path: str | Path, *, runtime: Runtime | None = None, precision: str | None = None, threads: int = 0
) -> ExportedModel:
    """Load a file that `cfnsr export` wrote; PyTorch is not needed.

    Args:
        path: an .onnx file, or OpenVINO's .xml with its .bin beside it.
        runtime: "openvino" or "onnxruntime"; None takes the first of these that is installed and can read
            the file.
        precision: "f32" or "bf16", what OpenVINO computes in; None leaves what the file was exported for.
        threads: of the runtime; 0 lets it choose.

    Raises:
        InputError: when the file is no export, is damaged or of another format, or nothing can run it.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    known = RUNTIMES.get(suffix)
    if known is None:
        raise InputError(NO_EXPORT % path)
    if precision not in (None, *PRECISIONS[:2]):
        raise InputError(f"precision is {precision!r}: expected f32 or bf16")
    if precision == "bf16" and suffix != ".xml":
        raise InputError(
            f"precision is bf16 for {path.name}: expected an .xml file of `cfnsr export`, which says what "
            "has to stay in f32"
        )
    if runtime not in (None, *known):
        raise InputError(f"runtime is {runtime!r}: expected {' or '.join(known)} for {path.name}")
    chosen = next(filter(is_installed, known), known[-1]) if runtime is None else runtime
    require("export", chosen)
    if suffix == ".onnx":
        return load_onnx(_read(path), path, chosen, threads)
    return load_xml(_read(path), _read(path.with_suffix(".bin")), path, precision, threads)


def load_onnx(data: bytes, path: Path, runtime: Runtime, threads: int = 0) -> ExportedModel:
    """Load from the content of an .onnx file; `path` is for messages."""
    spec = _onnx_spec(data, path)
    with _reading(path):
        if runtime == "onnxruntime":
            run = _onnxruntime(data, spec, threads)
        else:
            run = _openvino(data, b"", spec, path, "f32", threads)
        return ExportedModel(spec, run, runtime)


def load_xml(
    text: bytes, weights: bytes, path: Path, precision: str | None = None, threads: int = 0
) -> ExportedModel:
    """Load from the content of an .xml file and of the .bin file beside it."""
    spec = _xml_spec(text, weights, path)
    with _reading(path):
        run = _openvino(text, weights, spec, path, precision or HINTS[spec.precision], threads)
        return ExportedModel(spec, run, "openvino")


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{path} has {size} bytes: expected at most {LARGEST}, a file of `cfnsr export`")
        return read_bytes(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path} cannot be read ({reason}): expected a file of `cfnsr export`") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn a runtime's error about a graph that it cannot read into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each runtime has its own
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} cannot be run ({reason}): export the model again") from None


def _onnx_spec(data: bytes, path: Path) -> ModelSpec:
    require("export", "onnx")
    import onnx

    checksum.check(data, ".onnx", path)
    with _reading(path):
        model = onnx.load_model_from_string(data)
    texts = [entry.value for entry in model.metadata_props if entry.key == KEY]
    if len(texts) != 1:
        raise InputError(NO_EXPORT % path)
    # Runtimes follow a path to weights elsewhere wherever it leads, and code in a file is not ours.
    inside = list(_messages(model.graph))
    domains = {each.domain for each in inside if isinstance(each, onnx.NodeProto)}
    tensors = [each for each in inside if isinstance(each, onnx.TensorProto)]
    outside = any(each.data_location or each.external_data for each in tensors)
    if outside or model.functions or domains - {"", "ai.onnx"}:
        raise InputError(
            f"{path} reads other files, or has operations of its own: expected what cfnsr wrote; export again"
        )
    return ModelSpec.from_export(texts[0], path)


def _messages(message: Any) -> Iterator[Any]:
    """Yield a message of a protocol buffer and all inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _xml_spec(text: bytes, weights: bytes, path: Path) -> ModelSpec:
    import xml.etree.ElementTree as ElementTree

    checksum.check(text, ".xml", path)
    entries: dict[str, str] = {}
    if b"<!DOCTYPE" not in text and b"<!ENTITY" not in text:
        with suppress(ElementTree.ParseError):
            net = ElementTree.fromstring(text)  # noqa: S314 - it defines no entities
            entries = {entry.tag: entry.get("value", "") for entry in net.iterfind("rt_info/*")}
    if not {KEY, WEIGHTS_KEY} <= set(entries):
        raise InputError(NO_EXPORT % path)
    checksum.require_whole(checksum.digest(weights) == entries[WEIGHTS_KEY], path.with_suffix(".bin"))
    return ModelSpec.from_export(entries[KEY], path)


def _onnxruntime(data: bytes, spec: ModelSpec, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, in one line
    options.intra_op_num_threads = threads or cores()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    _check_graph(
        {each.name: each.shape[1:] for each in session.get_inputs()},
        [each.name for each in session.get_outputs()],
        spec,
    )

    return lambda inputs: session.run([OUTPUT], dict(inputs))[0]


def _openvino(model: bytes, weights: bytes, spec: ModelSpec, path: Path, precision: str, threads: int) -> Run:
    with telemetry_off():
        import openvino

    core = openvino.Core()
    beside = [openvino.Tensor(np.frombuffer(weights, np.uint8))] if weights else []
    graph = core.read_model(model, *beside)
    sides = {each.get_any_name(): list(each.get_partial_shape())[1:] for each in graph.inputs}
    _check_graph(
        {name: [side.get_length() for side in each] for name, each in sides.items()},
        [each.get_any_name() for each in graph.outputs],
        spec,
    )
    # One clip at a time: a graph of fixed shape runs faster than one of any, and each clip fills all cores.
    graph.reshape({name: [1, *spec.shapes[name]] for name in spec.inputs})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        # Set always: OpenVINO else takes bfloat16 by itself where the processor has it.
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": str(threads or cores()),
    }
    # Meanwhile a first recording can be decoded.
    compiling = ThreadPoolExecutor(1).submit(core.compile_model, graph, "CPU", settings)
    lock = Lock()

    @cache
    def make_request() -> Any:
        with _reading(path):
            return compiling.result().create_infer_request()

    def run(inputs: Inputs) -> NDArray[np.float32]:
        answers = []
        with lock:  # a request serves one thread at a time
            request = make_request()
            for clip in range(len(next(iter(inputs.values())))):
                one = {name: each[clip : clip + 1] for name, each in inputs.items()}
                request.infer(one, share_inputs=True)
                answers.append(request.get_output_tensor().data.copy())
        return np.concatenate(answers)

    return run


def _check_graph(inputs: dict[str, list[int]], outputs: list[str], spec: ModelSpec) -> None:
    expected = {name: list(spec.shapes[name]) for name in spec.inputs}
    if inputs != expected or outputs != [OUTPUT]:
        raise InputError(
            f"its graph takes {inputs} and gives {outputs}: expected {expected} and {[OUTPUT]}; export again"
        )
