"""Verbs that give a model away, and that examine this machine: export, share, doctor, bench."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from cfnsr.cli.app import JsonOption, Place, app
from cfnsr.console import say
from cfnsr.errors import InputError, require
from cfnsr.files import check_file
from cfnsr.sharing.shipped import find_folder

if TYPE_CHECKING:
    import numpy as np

# Clips that an export is checked on, calibrated by, and measured on.
CHECKED, CALIBRATION, MEASURED = 6, 48, 200
REPOSITORY = Path(__file__).resolve().parents[3]  # where cfnsr is not installed from a wheel


@app.command(epilog="Example: cfnsr export runs/nested/cfn_sr/seed_0/fold_1 model.onnx --data prepared")
def export(
    checkpoint: Annotated[
        Path,
        Argument(
            help="Folder with config.json and model.safetensors, or voice or everyday.", callback=find_folder
        ),
    ],
    out: Annotated[Path, Argument(help="The file to write: .onnx, or .xml for OpenVINO.")],
    precision: Annotated[
        str, Option(help="f32; with an .xml file also bf16, or int8, which is calibrated on --data.")
    ] = "f32",
    data: Annotated[
        Path | None,
        Option(help="Folder made by `cfnsr prepare`: clips to check on, and to calibrate int8.", **Place),
    ] = None,
) -> None:
    """Write a model as one file that needs no PyTorch: bytes of pictures and a waveform in, answers out."""
    require("export", "onnx", "onnxruntime", "onnxscript", "openvino")
    from cfnsr.features.spec import PRECISIONS
    from cfnsr.inference.exported import RUNTIMES

    suffix = out.suffix.lower()
    if suffix not in RUNTIMES:
        raise InputError(f"{out} has another ending: expected {' or '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision} is not known: expected one of {', '.join(PRECISIONS)}")
    if suffix == ".onnx" and precision != "f32":
        raise InputError(f"--precision {precision} for {out.name}: expected an .xml file, or f32")
    check_file(out)
    if precision == "int8" and data is None:
        raise InputError("int8 is calibrated on training clips: expected --data with a prepared corpus")
    from cfnsr.export.onnx import export_onnx  # loads torch, which a refusal need not wait for
    from cfnsr.export.openvino import export_int8, export_openvino
    from cfnsr.models.fast import has_bfloat16

    clips = [clip for clip, _ in _clips(checkpoint, data, CALIBRATION if precision == "int8" else CHECKED)]
    if precision == "int8":
        done = export_int8(checkpoint, out, clips, _clips(checkpoint, data, MEASURED, tested=True))
        found = "on them "
        if done.float_accuracy is not None and done.accuracy is not None:
            cost = 100 * (done.accuracy - done.float_accuracy)
            found = (
                f"on {done.clips} others accuracy {100 * done.accuracy:.1f} %, in float32 "
                f"{100 * done.float_accuracy:.1f} % ({cost:+.1f}), "
            )
        print(
            f"{out}: {done.bytes / 1e6:.1f} MB, int8 by {done.calibrated} training clips; {found}"
            f"the same answer on {100 * done.agreement:.1f} %"
        )
        return
    if suffix == ".onnx":
        checked = export_onnx(checkpoint, out, clips)
    else:
        checked = export_openvino(checkpoint, out, clips, precision=precision)
        if precision == "bf16" and not has_bfloat16():
            say("--precision bf16: this CPU has no bfloat16 and answers in float32, also for the check below")
    kind = "prepared" if checked.real else "made-up"
    print(
        f"{out}: {checked.bytes / 1e6:.1f} MB; on {checked.clips} {kind} clips no log-probability is further "
        f"than {checked.difference:.1e} from PyTorch"
    )


def _clips(
    checkpoint: Path, data: Path | None, most: int, *, tested: bool = False
) -> "list[tuple[Mapping[str, np.ndarray], int]]":
    """Load some prepared clips and their classes; of a run those of its training, or tested, actors."""
    from cfnsr.data.store import Store
    from cfnsr.media.decode import spread
    from cfnsr.training.checkpoint import read_spec
    from cfnsr.training.run import ABOUT, Run

    run = Run.read(checkpoint) if (checkpoint / ABOUT).exists() else None
    if data is None or (tested and run is None):
        return []
    store, labels = Store(data), read_spec(checkpoint).labels
    headers = store.headers()
    if run is not None:
        actors = set(run.test_actors if tested else run.train_actors)
        headers = [header for header in headers if header.actor in actors]
    places = sorted(set(spread(len(headers), min(most, len(headers))).tolist()))
    chosen = [headers[place] for place in places]
    return [(store.load(header.name), labels.index(header.emotion)) for header in chosen]


@app.command(epilog="Example: cfnsr share runs/nested/cfn_sr/seed_0/fold_1 owner/name")
def share(
    run: Annotated[Path, Argument(help="Folder of a run.")],
    to: Annotated[str, Argument(help="owner/name on the Hugging Face hub, or with --folder a folder.")],
    folder: Annotated[
        bool, Option("--folder", help="Write a folder instead of putting it on the hub.")
    ] = False,
    private: Annotated[bool, Option("--private", help="A new repository is for its owner alone.")] = False,
) -> None:
    """Share a model with its card, by the Hugging Face hub or as a folder."""
    if folder and private:
        raise InputError("--private with --folder: a folder has no readers to choose; leave out one of them")

    from cfnsr.sharing.pretrained import push_to_hub, save_pretrained
    from cfnsr.training.checkpoint import load_model

    if folder:
        print(save_pretrained(load_model(run), to, run=run))
    else:
        print(push_to_hub(run, to, private=private))


@app.command(epilog="Example: cfnsr doctor")
def doctor(as_json: JsonOption = False) -> None:
    """Say what is there (face detector, codecs, torch, extras, disk), and what to do about what is missing.

    Nothing is fetched. Exit code 0 where the usual work has all it needs, 1 where something is missing.
    """
    from cfnsr.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(finding.line() for finding in findings))
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: cfnsr bench clip.mp4 --out docs/benchmarks.md")
def bench(
    clip: Annotated[Path, Argument(help="A video of a few seconds: a face, and speech.")],
    out: Annotated[Path | None, Option(help="Write the page here, and JSON and a picture beside it.")] = None,
    only: Annotated[
        str, Option(help="Some of network, data, use, fold, gpu, growth and profiles, with commas between.")
    ] = "",
    rounds: Annotated[
        int, Option(min=1, help="Turns of each task, half as many of the longest; the median counts.")
    ] = 3,
    as_json: JsonOption = False,
) -> None:
    """Measure cfnsr on this machine, beside the usual scripts and beside what the machine can do at best."""
    if not (REPOSITORY / "benchmarks").is_dir():
        raise InputError(
            "bench needs the folder benchmarks of cfnsr's repository: clone it, and run `make setup` there"
        )
    if out is not None:
        check_file(out)
    require("export", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf")
    sys.path.insert(0, str(REPOSITORY))
    from benchmarks.run import as_markdown, measure, write

    sections = only.split(",") if only else ()
    report = measure(clip, sections, rounds=rounds, progress=lambda task: say(f"bench: {task}"))
    print(json.dumps(report.as_json(), indent=2) if as_json else as_markdown(report))
    if out is not None:
        write(report, out)
