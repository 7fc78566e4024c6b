"""Output for people while the work runs: plain lines and progress bars, on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import NoReturn, Protocol

from cfnsr.files import ESCAPED

# Exit code of a program whose reader has gone: 128 and the number of SIGPIPE, as shells report it.
HUNG_UP = 141


def show_all() -> None:
    """Let stdout and stderr show as an escape what they cannot write, such as a name that is no text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)


def hang_up() -> NoReturn:
    """End without a message because nobody reads any more, as in `cfnsr ... | head -1`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):  # what is still waiting to be written would complain at the end
        os.dup2(nowhere, number)
    sys.exit(HUNG_UP)


def enabled() -> bool:
    """Look if this process prints: of the several that `accelerate launch` starts, one does."""
    return os.environ.get("RANK", "0") == "0"


class Step(Protocol):
    """Moves a progress bar: to `completed` of `total`, or on by `advance`; `note` is shown behind."""

    def __call__(
        self,
        completed: float | None = None,
        total: float | None = None,
        *,
        advance: float | None = None,
        note: str | None = None,
    ) -> None: ...


def say(message: str) -> None:
    """Print a line that is no result, so it goes to stderr."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def bar(description: str, total: float) -> Iterator[Step]:
    """Draw a progress bar for work of a known amount; in a log it leaves one line when it is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    def wide(cells: int) -> Column:
        return Column(no_wrap=True, min_width=cells)  # a long note must not squeeze the numbers

    columns = (
        TextColumn("{task.description}", table_column=wide(len(description))),
        BarColumn(bar_width=16),
        MofNCompleteColumn(table_column=wide(2 * len(str(total)) + 1)),
        TimeElapsedColumn(table_column=wide(7)),
        TimeRemainingColumn(table_column=wide(7)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(no_wrap=True)),
    )
    console = Console(stderr=True, highlight=False, quiet=not enabled())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, note="")

        def step(
            completed: float | None = None,
            total: float | None = None,
            *,
            advance: float | None = None,
            note: str | None = None,
        ) -> None:
            fields = {} if note is None else {"note": note}
            progress.update(task, completed=completed, total=total, advance=advance, **fields)  # type: ignore[arg-type]

        yield step
