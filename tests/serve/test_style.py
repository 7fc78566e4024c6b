"""The page's colours: readable, and those of the report."""

import re
from pathlib import Path

import numpy as np
import pytest

import cfnsr

SOURCE = Path(cfnsr.__file__).parent
TEXT, GRAPHIC = 4.5, 3.0  # least contrast of text (WCAG 2.2, AA), and of what is no text
PAIRS = {
    TEXT: ("ink paper", "ink panel", "soft paper", "soft panel", "ours paper", "warn warn-back"),
    GRAPHIC: ("other panel", "ours panel"),
}


def schemes(path: Path) -> list[dict[str, str]]:
    """The variables of the light and the dark scheme."""
    blocks = re.findall(r":root \{(.*?)\}", path.read_text(encoding="utf-8"), re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in blocks]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_contrast(place: int) -> None:
    colours = schemes(SOURCE / "serve" / "page" / "style.css")[place]
    for least, pairs in PAIRS.items():
        for pair in pairs:
            low, high = sorted(luminance(colours[name]) for name in pair.split())
            assert (high + 0.05) / (low + 0.05) >= least, pair


def test_the_page_has_the_colours_of_the_report() -> None:
    report = schemes(SOURCE / "evaluation" / "templates" / "report.css")
    for ours, theirs in zip(schemes(SOURCE / "serve" / "page" / "style.css"), report, strict=True):
        assert {name: theirs[name] for name in ours} == ours


def test_nothing_of_the_page_comes_from_elsewhere_or_stands_in_line() -> None:
    for path in (SOURCE / "serve").rglob("*"):
        if path.suffix not in (".html", ".css", ".js", ".svg"):
            continue
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        text = text.replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(r"(?:src|href|url|import|from)\s*[=(]?\s*[\"']?(?:https?:)?//", text), path
        if path.suffix == ".html":
            assert not re.search(r"<style|style=|<script>|\son\w+=", text), path
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text, path
