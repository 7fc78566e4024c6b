"""The three files of a report: their form, their figures, their warnings."""

import csv
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.report import Written, report
from cfnsr.models.zoo import list_models

Fabricate = Callable[..., Path]
SMALL = {"takes": 16, "epochs": 4}
OPTIMISTIC = "optimistic: best epoch on test"


class Page(HTMLParser):
    """What a browser would load or run, and what it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.labels: list[str | None] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("src", "href", "xlink:href", "action") if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        self.labels += [found.get("aria-label")] if tag == "svg" and "aria-hidden" not in found else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def full(full_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return report(full_runs, tmp_path_factory.mktemp("out"))


def rows_of(written: Written) -> list[dict[str, Any]]:
    content = json.loads(
        written.results.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON")
    )
    assert content["version"] == 1
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def test_results_have_the_agreed_form(full: Written) -> None:
    rows = rows_of(full)
    order = [name for name in list_models() if name in ("video", "audio", "cfn_sr")]
    assert [(row["model"], row["protocol"]) for row in rows] == [
        (model, protocol) for model in order for protocol in ("nested", "paper")
    ]
    for row in rows:
        assert row["seeds"] == [0] and isinstance(row["params"], int)
        for figure in ("accuracy", "uar", "macro_f1", "ece"):
            assert set(row[figure]) == {"mean", "std", "ci95"}
            low, high = row[figure]["ci95"]
            assert 0 <= low <= row[figure]["mean"] <= high <= 1 and 0 < row[figure]["std"] < 0.5
        assert [fold["fold"] for fold in row["folds"]] == list(
            range(1, 7 if row["protocol"] == "nested" else 6)
        )
        for fold in row["folds"]:
            assert {"fold", "seed", "accuracy", "test_actors", "epoch"} <= set(fold)
            assert len(fold["test_actors"]) == 4 and 1 <= fold["epoch"] <= 70
        assert row["optimistic"] is (row["protocol"] == "paper")
        assert row["complete"] is True and row["comparable"] is True
    assert rows[-1]["paper"] == {"accuracy": 0.7576, "params": 26.30}


def test_every_figure_can_be_recomputed_from_the_predictions(full: Written, full_runs: Path) -> None:
    for row in rows_of(full):
        by_fold, right_of = [], {}
        for fold in row["folds"]:
            folder = full_runs / row["protocol"] / row["model"] / "seed_0" / f"fold_{fold['fold']}"
            right = []
            with (folder / "predictions.csv").open(newline="") as file:
                for line in csv.DictReader(file):
                    if line["split"] == "test":
                        answer = max(list(line)[4:], key=lambda name, line=line: float(line[name]))
                        right.append(answer == line["label"])
                        right_of.setdefault(int(line["actor"]), []).append(right[-1])
            assert fold["accuracy"] == pytest.approx(np.mean(right))
            by_fold.append(np.mean(right))
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(by_fold))
        assert row["accuracy"]["std"] == pytest.approx(np.std(by_fold, ddof=1))
        # Another draw of casts: the same interval but for the chance of the draw.
        shares = np.array([np.mean(values) for _, values in sorted(right_of.items())])
        rng = np.random.default_rng(99)
        casts = shares[rng.integers(0, len(shares), (10_000, len(shares)))].mean(axis=1)
        assert row["accuracy"]["ci95"] == pytest.approx(np.percentile(casts, [2.5, 97.5]).tolist(), abs=0.005)


def test_tables_put_the_paper_beside_ours(full: Written) -> None:
    text = full.tables.read_text()
    head, _, *lines = [line for line in text.splitlines() if line.startswith("|")][:5]
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    for line in lines:
        cells = dict(zip(columns, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        if cells["model"] == "cfn_sr":
            break
    ours = {row["protocol"]: row for row in rows_of(full) if row["model"] == "cfn_sr"}
    assert cells[f"paper: accuracy % ({OPTIMISTIC})"] == "75.8"
    mean, deviation = (100 * ours["nested"]["accuracy"][name] for name in ("mean", "std"))
    assert cells["nested protocol: accuracy %"] == f"{mean:.1f} ± {deviation:.1f}"
    low, high = ours["paper"]["accuracy"]["ci95"]
    assert cells[f"paper protocol ({OPTIMISTIC}): 95 % interval"] == f"{100 * low:.1f} to {100 * high:.1f}"
    difference = float(cells["nested protocol: ours − paper's"].replace("−", "-"))
    assert difference == pytest.approx(mean - 75.76, abs=0.051)
    assert cells["paper: params M"] == cells["ours: params M"] == "26.30"


def test_the_page_needs_nothing_beside_itself(full: Written) -> None:
    text = full.html.read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids)) or all(  # clip paths with equal content may share a name
        re.fullmatch(r"[pm][0-9a-f]+", name) for name in page.ids if page.ids.count(name) > 1
    )
    assert len(text) < 3_000_000
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert {"main", "section", "caption", "figure", "figcaption", "h1", "h2"} <= set(page.tags)
    assert all(page.labels) and len(page.labels) == 3 * 6


def test_the_page_is_the_same_every_time(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, **SMALL)
    assert report(tmp_path).html.read_bytes() == report(tmp_path).html.read_bytes()


def test_optimistic_figures_are_labelled_wherever_they_are_printed(full: Written) -> None:
    text = full.html.read_text()
    # "95" and "–" apart, every place of the optimistic rows: summary, heading, sentence, figures, folds.
    for section in re.findall(r'<section id="row-\d+">.*?</section>', text, flags=re.DOTALL):
        labels = section.count(OPTIMISTIC)
        if "paper protocol" in section:
            figures = section.count("<figure>")
            captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", section, flags=re.DOTALL)
            assert figures == 4
            assert [OPTIMISTIC in caption for caption in captions] == [True] * 5 + [
                False
            ]  # settings have none
            assert all(OPTIMISTIC in label for label in Page(section).labels if label)
            assert OPTIMISTIC in section.split("</h2>")[0]
            assert re.search(rf"Accuracy \({OPTIMISTIC}\) <strong>", section)
        else:
            assert labels == 0
    summary = text.split('<section id="summary">')[1].split("</table>")[0]
    for row in re.findall(r"<tr.*?</tr>", summary.split("<tbody>")[1], flags=re.DOTALL):
        protocol = re.search(r'<td data-label="Protocol">.*?</td>', row, flags=re.DOTALL)
        assert protocol is not None
        assert (OPTIMISTIC in protocol.group()) is (">paper" in protocol.group())
    assert summary.split("<tbody>")[0].count(OPTIMISTIC) == 2  # the caption and the paper's own column

    markdown = full.tables.read_text()
    head = next(line for line in markdown.splitlines() if line.startswith("| model"))
    assert all(
        OPTIMISTIC in column for column in head.split("|") if column.strip().startswith("paper protocol")
    )
    for line in markdown.split("## Other figures")[1].splitlines():
        assert (OPTIMISTIC in line) is ("paper protocol" in line)


def test_runs_that_choose_on_test_are_optimistic_whatever_their_protocol(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    fabricate(tmp_path, protocol="nested", selected_on="test", **SMALL)
    written = report(tmp_path)
    assert rows_of(written)[0]["optimistic"] is True
    assert f"nested protocol ({OPTIMISTIC})" in written.tables.read_text()


def test_names_are_escaped(tmp_path: Path, fabricate: Fabricate) -> None:
    evil = "<script>alert(1)</script>|`x`"
    labels = LabelSet("<b>set", ("<i>calm", "a&b $x", 'q"uote'))
    for fold in (1, 2):
        fabricate(
            tmp_path,
            evil,
            fold=fold,
            place=f"f{fold}",
            labels=labels,
            settings={"<u>": "<s>x</s>"},
            versions={"<em>": "<q>"},
            corpus={"name": "<img src=x>", "clips": 5},
            **SMALL,
        )
    (tmp_path / "fold_<h6>").mkdir()
    written = report(tmp_path)
    page = Page(written.html.read_text())
    assert not {"script", "b", "i", "u", "s", "em", "q", "img", "h6"} & set(page.tags)
    assert evil in page.text and "<i>calm" in page.text and "a&b $x" in page.text
    markdown = written.tables.read_text()
    assert "<script" not in markdown and "<img" not in markdown
    rows = [re.split(r"(?<!\\)\|", line) for line in markdown.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows[:3]} == {len(rows[0])}
    assert rows_of(written)[0]["model"] == evil and rows_of(written)[0]["paper"] is None


def test_unfinished_and_incomplete_runs_are_told(tmp_path: Path, fabricate: Fabricate) -> None:
    for fold in (1, 2, 3):
        fabricate(tmp_path, fold=fold, **SMALL)
    fabricate(tmp_path, fold=4, finished=False, **SMALL)
    written = report(tmp_path)
    page, markdown = Page(written.html.read_text()), written.tables.read_text()
    for text in (page.text, markdown):
        assert "3 of 6 folds" in text and "incomplete" in text and "nested/cfn_sr/seed_0/fold_4" in text
    (row,) = rows_of(written)
    assert row["complete"] is False and len(row["folds"]) == 3
    assert json.loads(written.results.read_text())["unfinished"][0]["folder"] == "nested/cfn_sr/seed_0/fold_4"


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"preset": "small"}, "preset small, not paper"),
        ({"corpus": {"name": "synthetic", "clips": 1440}}, "corpus synthetic, not RAVDESS"),
        ({"corpus": {"name": "ravdess", "clips": 300}}, "300 clips, not RAVDESS's 1440"),
    ],
)
def test_the_paper_is_not_compared_with_what_is_not_comparable(
    tmp_path: Path, fabricate: Fabricate, about: dict[str, Any], reason: str
) -> None:
    fabricate(tmp_path, **SMALL, **about)
    written = report(tmp_path)
    for text in (Page(written.html.read_text()).text, written.tables.read_text()):
        assert f"The paper's figures are not comparable with ours ({reason}" in text
    assert "not comparable" in written.html.read_text().split("<tbody>")[1].split("</tbody>")[0]
    line = next(line for line in written.tables.read_text().splitlines() if line.startswith("| cfn_sr"))
    assert line.split("|")[6].strip() == "–"  # no difference
    assert rows_of(written)[0]["comparable"] is False


def test_a_comparable_row_beside_one_that_is_not(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, "audio", **SMALL)
    fabricate(tmp_path, "video", preset="small", **SMALL)
    text = report(tmp_path).tables.read_text()
    assert "not comparable with ours for video (preset small, not paper)" in text
    # Two clips lost in preparation do not make another corpus.
    fabricate(tmp_path / "b", corpus={"name": "RAVDESS", "clips": 1438}, **SMALL)
    assert "not comparable" not in report(tmp_path / "b").tables.read_text()


def test_one_fold_has_no_deviation(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, **SMALL)
    written = report(tmp_path)
    (row,) = rows_of(written)
    assert row["accuracy"]["std"] is None and not math.isnan(row["accuracy"]["ci95"][0])
    assert "nan" not in written.html.read_text().lower()


def test_several_seeds_are_averaged_fold_by_fold_first(tmp_path: Path, fabricate: Fabricate) -> None:
    for fold in (1, 2, 3):
        for seed in (0, 7):
            fabricate(tmp_path, fold=fold, seed=seed, phases=True, **SMALL)
    written = report(tmp_path)
    (row,) = rows_of(written)
    assert row["seeds"] == [0, 7] and len(row["folds"]) == 6
    by_fold = [np.mean([f["accuracy"] for f in row["folds"] if f["fold"] == fold]) for fold in (1, 2, 3)]
    assert row["accuracy"]["mean"] == pytest.approx(np.mean(by_fold))
    assert row["accuracy"]["std"] == pytest.approx(np.std(by_fold, ddof=1))
    # The interval is of both seeds: that of the actors' mean accuracies.
    right_of: dict[str, list[bool]] = {}
    for path in tmp_path.rglob("predictions.csv"):
        with path.open(newline="") as file:
            for line in csv.DictReader(file):
                if line["split"] == "test":
                    answer = max(list(line)[4:], key=lambda name, line=line: float(line[name]))
                    right_of.setdefault(line["actor"], []).append(answer == line["label"])
    shares = np.array([np.mean(right_of[str(actor)]) for actor in range(1, 13)])
    casts = np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=10_000) @ shares / 12
    assert row["accuracy"]["ci95"] == pytest.approx(np.percentile(casts, [2.5, 97.5]).tolist())
    page = Page(written.html.read_text())
    assert "3 of 6 folds, 2 seeds" in page.text
    assert all(f"Learning curves: {phase}" in page.text for phase in ("video", "audio", "fused"))


def test_an_absent_emotion_is_no_error(tmp_path: Path, fabricate: Fabricate) -> None:
    folder = fabricate(tmp_path, **SMALL)
    path = folder / "predictions.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *(line for line in lines[1:] if ",surprised," not in line)]))
    (row,) = rows_of(report(tmp_path))
    assert 0 < row["uar"]["mean"] < 1


def test_nothing_is_written_when_a_run_is_broken(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, fold=1, **SMALL)
    written = report(tmp_path)
    before = [path.read_bytes() for path in written]
    (fabricate(tmp_path, fold=2, **SMALL) / "predictions.csv").write_text("half a li")
    with pytest.raises(InputError):
        report(tmp_path)
    assert [path.read_bytes() for path in written] == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "report.html",
        "results.json",
        "tables.md",
    ]
