"""Names of files, takes and emotions that are code elsewhere; and that the threat model's tests exist."""

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from cfnsr.emotions import LabelSet
from cfnsr.files import to_csv as as_csv
from cfnsr.inference.plot import plot
from cfnsr.inference.timeline import Prediction, Window
from cfnsr.inference.writers import to_csv
from cfnsr.training.predictions import Predictions, read_predictions, write_predictions

REPOSITORY = Path(__file__).resolve().parents[1]
FORMULAS = ["=cmd()", "+A1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]
HOSTILE = [*FORMULAS, "<script>alert(1)</script>", "a\x1b[2Jb", "'=1", 'x",=1', "two\nlines", "\x00"]


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_of_a_timeline_is_a_formula(name: str) -> None:
    windows = (Window(0, 1, {name: 0.75, "sad": 0.25}, True, True),)
    rows = list(csv.reader(io.StringIO(to_csv(Prediction(name, name, None, windows)), newline="")))
    assert rows[1][0] == "'" + name and "'" + name in rows[0]
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_no_cell_of_predictions_is_a_formula_and_names_are_read_back(tmp_path: Path) -> None:
    names = tuple(name for name in HOSTILE if "\x00" not in name)
    labels = LabelSet("odd", ("=cmd()", "happy"))
    logs = np.log(np.full((len(names), 2), 0.5))
    part = Predictions(names, names, np.zeros(len(names), np.int64), logs)
    path = tmp_path / "predictions.csv"
    write_predictions(path, "split", labels, {"test": part})
    for row in csv.reader(path.open(newline="", encoding="utf-8")):
        assert not [cell for cell in row if cell.startswith(("=", "+", "@", "\t", "\r", "-2+"))]
    _, test = read_predictions(path, labels, {"test": names, "validation": ()})
    assert test.clips == test.actors == names


@pytest.mark.parametrize("name", HOSTILE)
def test_a_plot_is_text_whatever_the_names(tmp_path: Path, name: str) -> None:
    emotion = name if name.isprintable() else "happy"  # labels are: see `LabelSet`
    windows = tuple(Window(second, second + 1, {emotion: 0.75, "sad": 0.25}, True, True) for second in (0, 1))
    prediction = Prediction(f"{name}.mp4", emotion, {emotion: 0.75, "sad": 0.25}, windows)
    drawn = ElementTree.parse(plot(prediction, tmp_path / "timeline.svg"))  # noqa: S314 - our own
    tags = {element.tag.rpartition("}")[2] for element in drawn.iter()}
    assert "path" in tags and not tags & {"script", "a", "foreignObject", "image"}


def test_a_cell_begins_with_a_quote_only_where_it_must() -> None:
    assert as_csv([["it's", "", "-1.5", "+1e-3", -2, None]]) == "it's,,-1.5,+1e-3,-2,\n"


def test_every_line_of_the_threat_model_has_its_test() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) >= 30
    for file, test in named:
        assert re.search(rf"^def {test}\(", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), (
            test
        )
    heads = [line for line in lines if line.endswith("| shown by |")]
    assert heads
    assert not [line for line in lines if line not in heads and "`tests/" not in line]
