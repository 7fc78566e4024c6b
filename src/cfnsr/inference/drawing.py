"""The style of cfnsr's figures, safe in threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import RLock
from typing import Any

INK, FAINT = "#222222", "#dddddd"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cfnsr",
    "text.parse_math": False,  # a file may be called $1
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "figure.facecolor": "white",
}

_one_at_a_time = RLock()  # matplotlib's settings are the process's, and a server draws in several threads


@contextmanager
def style(more: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw in cfnsr's style inside; other threads that want to draw wait.

    Args:
        more: further matplotlib settings (rcParams) of this picture.
    """
    from matplotlib import rc_context

    with _one_at_a_time, rc_context({**STYLE, **(more or {})}):
        yield
