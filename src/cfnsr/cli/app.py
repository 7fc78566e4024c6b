"""The command line's frame: shared options, exit codes, and parsing of arguments."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from cfnsr import __version__
from cfnsr.console import hang_up, say, show_all
from cfnsr.errors import InputError
from cfnsr.files import FULL, place, visible

# Form of a list: 1,2,5 or 1-4.
Numbers = str
MOST_NUMBERS = 10_000  # of one range; more is a slip

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Audio-video emotion recognition: prepare, cross-validate, report, predict. "
    "`cfnsr demo` shows it all on a synthetic corpus.",
    epilog="--debug, anywhere, shows the traceback of an error.",
)


def check_workers(workers: int | None) -> int | None:
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}: expected 1 or more")
    return workers


def check_engine(engine: str) -> str:
    if engine not in ("local", "ray"):
        raise InputError(f"--engine {engine}: expected local or ray")
    return engine


WorkersOption = Annotated[
    int | None, Option(help="Processes; all cores if not given.", callback=check_workers)
]
EngineOption = Annotated[
    str, Option(help="local, or ray: all nodes of a Ray cluster, see docs/scale.md.", callback=check_engine)
]
AddressOption = Annotated[
    str | None,
    Option(
        help="Of the Ray cluster, such as 10.0.0.1:6379; if not given the one that runs here, else one is "
        "started on this machine."
    ),
]
VideoStreamOption = Annotated[
    int | None,
    Option(
        help="Which stream of pictures, of a file that has several, from 1; if not given, the one marked "
        "default, else the first."
    ),
]
AudioStreamOption = Annotated[int | None, Option(help="Which stream of sound; the same.")]


def _placed(given: Any) -> Any:
    return [place(name) for name in given] if isinstance(given, list) else given and place(given)


# Of a store, which may lie on object storage; as a Path its name would lose a slash.
Place: dict[str, Any] = {"parser": str, "callback": _placed, "metavar": "FOLDER"}
JsonOption = Annotated[bool, Option("--json", help="Print JSON.")]
MODEL_HELP = (
    "Folder with config.json and model.safetensors, an exported .onnx or .xml, a name on the Hugging Face "
    "hub, or voice or everyday, which come with the package."
)
ModelArgument = Annotated[str, Argument(help=MODEL_HELP)]


def main() -> None:
    """Run the command line: bad input ends with one line on stderr and code 2, a closed pipe with 141."""
    show_all()
    # PyTorch's tensors in large pages, which the system hands out faster: a training step of the paper's size
    # on a CPU takes 2.7 s in place of 3.3, and as much memory.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        try:
            _run()
        finally:
            if sys.stdout:  # None after >&-
                sys.stdout.flush()
    except BaseException as end:
        # Typer and Rich end by themselves with 1, which is an answer of check-split.
        if isinstance(end, BrokenPipeError) or isinstance(end.__context__, BrokenPipeError):
            hang_up()
        raise


def _run() -> None:
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="cfnsr")
    except InputError as error:
        if debug:
            raise
        _stop(str(error))
    except OSError as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        if error.errno in FULL:
            _stop(
                f"the disk is full ({error.filename or 'while writing'}): free some and run it again "
                "(train and crossval with --resume)"
            )
        _stop(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        print("cfnsr: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        from cfnsr.plugin import blamed

        first = visible((str(error).splitlines() or [""])[0])
        if plugin := blamed(error):
            _stop(f"plugin {plugin} fails with {type(error).__name__}: {first}; mend it, or see --debug")
        say(f"cfnsr: unexpected {type(error).__name__}: {first}; run again with --debug and report it")
        sys.exit(70)  # a fault of the program: 1 is an answer of check-split


def _stop(message: str) -> None:
    say(f"cfnsr: {visible(message)}")
    sys.exit(2)


@contextmanager
def engine_ready(
    engine: str, address: str | None, *, local: Mapping[str, object], ray: Mapping[str, object]
) -> Iterator[None]:
    """Connect to the cluster of --engine ray; refuse options of the other engine, by their names."""
    others = local if engine == "ray" else {"--address": address, **ray}
    for option, value in others.items():
        if value is not None:
            raise InputError(f"{option} {value} does not go with --engine {engine}: leave one of the two out")
    if engine == "local":
        yield
        return
    from cfnsr.cluster import connect

    with connect(address):
        yield


def parse_numbers(text: str, what: str) -> list[int]:
    """Parse numbers and ranges, as users write them.

    >>> parse_numbers("1-3,7", "actors")
    [1, 2, 3, 7]
    """
    numbers: list[int] = []
    with suppress(ValueError):
        for part in names(text):
            first, _, last = part.partition("-")
            span = range(int(first), int(last or first) + 1)
            numbers += span if len(span) <= MOST_NUMBERS else ()
        if numbers:
            return list(dict.fromkeys(numbers))
    raise InputError(f"{what} {text!r}: expected numbers such as 1,2,5 or 1-4")


def _version(value: bool) -> None:
    if value:
        print(f"cfnsr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    plugin: Annotated[
        list[Path] | None,
        Option(
            help="A Python file of yours that registers models, inputs or corpora; before the verb, may be "
            "repeated."
        ),
    ] = None,
) -> None:
    if plugin:
        from cfnsr.plugin import load_plugin

        for path in plugin:
            load_plugin(path)


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.replace(",", " ").split()))
