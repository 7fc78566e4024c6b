"""The three files of a report: their form, their figures, their warnings."""

import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation import plots
from cfnsr.evaluation.comparison import Difference, comparisons
from cfnsr.evaluation.html import Example, Examples, html
from cfnsr.evaluation.paper_tables import sections, tables
from cfnsr.evaluation.render import Cell, safe
from cfnsr.evaluation.report import Written, report
from cfnsr.evaluation.results import results
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.evaluation.runs import read_runs
from cfnsr.features.preparation import Preparation
from cfnsr.models.entries import TABLES
from cfnsr.models.zoo import list_models
from cfnsr.training.config import PRESETS

Fabricate = Callable[..., Path]
Undrawn = Callable[[], AbstractContextManager[None]]
Right = Callable[[Path], dict[int, list[bool]]]
SMALL = {"takes": 16, "epochs": 4}
OPTIMISTIC = "optimistic: best epoch on test"
STANDARDISED = "speakers standardised: transductive, needs all emotions of each person in balance"
NESTED, AS_PAPER = "nested protocol", f"paper protocol ({OPTIMISTIC})"
CELL = re.compile(r"<t[hd]\b.*?</t[hd]>", re.DOTALL)
CAPTION = re.compile(r"<(?:fig)?caption>.*?</(?:fig)?caption>", re.DOTALL)
SECTION = re.compile(r'<section id="row-\d+">.*?</section>', re.DOTALL)


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


def rows_of(written: Written) -> list[dict[str, Any]]:
    content = json.loads(
        written.results.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON")
    )
    assert content["version"] == 1
    rows: list[dict[str, Any]] = content["rows"]
    return rows


def markdown_of(runs: Path) -> str:
    """What tables.md would hold, without the plots, which cost most of a report's time."""
    return tables(summarise(read_runs(runs)), [])


def results_of(runs: Path) -> list[dict[str, Any]]:
    """The rows of results.json, likewise."""
    rows: list[dict[str, Any]] = results(summarise(read_runs(runs)))["rows"]
    return rows


def table_of(written: Written | str, name: str) -> list[dict[str, str]]:
    """The lines of a table of tables.md, by its heading."""
    text = written if isinstance(written, str) else written.tables.read_text()
    section = text.split(f"## {name}\n")[1].split("\n## ")[0]
    head, _, *lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return [dict(zip(head, line, strict=True)) for line in lines]


def lines_of(page: str, name: str) -> list[dict[str, str]]:
    """The lines of a table of the page, by its section's name, as text."""
    table = page.split(f'<section id="{name}">')[1].split("<table")[1].split("</table>")[0]
    head, *lines = [
        [" ".join(unescape(re.sub(r"<[^>]+>", "", cell)).split()) for cell in CELL.findall(row)]
        for row in table.split("<tr>")[1:]
    ]
    return [dict(zip(head, line, strict=True)) for line in lines]


def shown_of(cell: Cell | str) -> str:
    """A cell as the page shows it: with a badge for each caveat instead of brackets."""
    if isinstance(cell, str):
        return cell
    deviation = f"± {cell.deviation}" if cell.deviation else ""
    return " ".join(filter(None, [cell.value, deviation, *cell.caveats]))


def plus_minus(figure: dict[str, Any]) -> str:
    return f"{100 * figure['mean']:.1f} ± {100 * figure['std']:.1f}"


@pytest.fixture(scope="module")
def full(full_runs: Path, undrawn: Undrawn, tmp_path_factory: pytest.TempPathFactory) -> Written:
    with undrawn():
        return report(full_runs, tmp_path_factory.mktemp("out"))


PAIR = "Table 1 with OpenFace and speech"
FEATURES = ("video+openface", "audio+speech", "msaf+openface+speech", "cfn_sr+openface+speech")


@pytest.fixture(scope="module")
def mixed(fabricate_all: Fabricate, undrawn: Undrawn, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Plain rows, those with OpenFace and speech, with pixels and speech, and our own; a page of three."""
    folder = tmp_path_factory.mktemp("mixed")
    fabricate_all(folder, ("cfn_sr", "audio"), ("nested",), **SMALL)
    for model in (*FEATURES, "cfn_sr_features"):
        fabricate_all(folder, (model,), ("nested", "nested_normalised"), preset="features", **SMALL)
    fabricate_all(folder, ("cfn_sr+speech", "msaf+speech"), ("nested",), preset="features", **SMALL)
    fabricate_all(folder, FEATURES[:1], ("leave_one_actor_out",), preset="features", **SMALL)
    rows = summarise(read_runs(folder))
    shown = [row for row in rows if row.model in ("audio", "audio+speech")]
    written = Written(folder / "report.html", folder / "tables.md", folder / "results.json", tuple(rows))
    with undrawn():
        written.html.write_text(html(shown))
    written.tables.write_text(tables(rows, []))
    written.results.write_text(json.dumps(results(rows)))
    return written


def test_explained_clips_stand_in_their_row(full_runs: Path, tmp_path: Path, quick: None) -> None:
    asked: list[str] = []

    def explained(rows: Sequence[Row]) -> Examples:
        asked.extend(row.name for row in rows)
        return {(rows[1].model, rows[1].protocol): [Example("<b>of the second</b>", b"a picture")]}

    written = report(full_runs / "nested", tmp_path, explained=explained)
    assert asked == [row.name for row in written.rows] and len(asked) == 3
    (there,) = [each for each in SECTION.findall(written.html.read_text()) if "Explanations" in each]
    assert there.startswith('<section id="row-2"') and "&lt;b&gt;of the second&lt;/b&gt;" in there
    assert 'src="data:image/png;base64,YSBwaWN0dXJl"' in there  # "a picture"


def test_results_have_the_agreed_form(full: Written) -> None:
    rows = rows_of(full)
    order = [name for name in list_models() if name in ("video", "audio", "cfn_sr")]
    expected = [(model, protocol) for model in order for protocol in ("nested", "paper")]
    assert [(row["model"], row["protocol"]) for row in rows] == expected
    for row in rows:
        assert row["seeds"] == [0] and isinstance(row["params"], int)
        for figure in ("accuracy", "uar", "macro_f1", "ece"):
            assert set(row[figure]) == {"mean", "std", "ci95"}
            low, high = row[figure]["ci95"]
            assert 0 <= low <= row[figure]["mean"] <= high <= 1 and 0 < row[figure]["std"] < 0.5
        folds = 6 if row["protocol"] == "nested" else 5
        assert [fold["fold"] for fold in row["folds"]] == list(range(1, folds + 1))
        assert all(len(fold["test_actors"]) == 4 and 1 <= fold["epoch"] <= 9 for fold in row["folds"])
        assert row["optimistic"] is (row["protocol"] == "paper")
        assert row["caveat"] == (OPTIMISTIC if row["optimistic"] else "")
        assert row["complete"] is True and row["comparable"] is True
    assert rows[-1]["paper"] == {"accuracy": 0.7576, "params": 26.30}


def test_every_figure_can_be_recomputed_from_the_predictions(
    full: Written, full_runs: Path, right_of: Right
) -> None:
    for row in rows_of(full):
        folder = full_runs / row["protocol"] / row["model"]
        by_fold = []
        for fold in row["folds"]:
            right = right_of(folder / "seed_0" / f"fold_{fold['fold']}").values()
            by_fold.append(np.mean([*right]))  # of every actor as many clips
            assert fold["accuracy"] == pytest.approx(by_fold[-1])
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(by_fold))
        assert row["accuracy"]["std"] == pytest.approx(np.std(by_fold, ddof=1))
        shares = {str(actor): np.mean(each) for actor, each in right_of(folder).items()}
        assert row["actors"] == pytest.approx(shares)
        limits = stats.ttest_1samp(list(shares.values()), 0).confidence_interval(0.95)
        assert row["accuracy"]["ci95"] == pytest.approx([limits.low, limits.high])


def test_figures_of_each_of_several_corpora(tmp_path: Path, fabricate: Fabricate) -> None:
    for fold in (1, 2):
        fabricate(tmp_path, fold=fold, **SMALL)
    runs = []
    for run in read_runs(tmp_path):
        # The first fold tests both corpora, the second one of them alone.
        of = ["two" if run.fold == 1 and int(actor) % 2 else "one" for actor in run.test.actors]
        clips = tuple(f"{corpus}/{clip}" for corpus, clip in zip(of, run.test.clips, strict=True))
        runs.append(replace(run, corpus="one+two", test=replace(run.test, clips=clips)))
    (row,) = summarise(runs)
    found = results([row])["rows"][0]["corpora"]
    assert list(found) == ["one", "two"]
    for corpus, fold_numbers in {"one": (1, 2), "two": (1,)}.items():
        recalls = []
        for run in (run for run in runs if run.fold in fold_numbers):
            mine = np.array([clip.startswith(corpus) for clip in run.test.clips])
            truth, said = run.test.labels[mine], run.test.log_probabilities[mine].argmax(axis=1)
            recalls.append(np.mean([(said[truth == each] == each).mean() for each in np.unique(truth)]))
        assert found[corpus]["uar"]["mean"] == pytest.approx(np.mean(recalls))
    assert [line["corpus"] for line in sections([row])["corpora"].rows] == ["one", "two"]
    assert "corpora" not in sections(summarise(read_runs(tmp_path)))


def test_the_confusion_matrix_pools_all_test_clips(tmp_path: Path, fabricate: Fabricate, quick: None) -> None:
    for seed in (0, 1):
        for fold in (1, 2):
            fabricate(tmp_path, "audio+speech", fold=fold, seed=seed, **SMALL)
    pooled = np.zeros((8, 8))
    for run in read_runs(tmp_path):
        np.add.at(pooled, (run.test.labels, run.test.log_probabilities.argmax(axis=1)), 1)
    written = report(tmp_path)
    page = written.html.read_text().split('<table class="confusion">')[1].split("</table>")[0]
    shown = [
        [int(cell) for cell in re.findall(r'title="[^"]*"[^>]*><span>(\d+)</span></td>', line)]
        for line in page.split("<tbody>")[1].split("</tr>")[:-1]
    ]
    assert np.abs(shown - 100 * pooled / pooled.sum(axis=1, keepdims=True)).max() <= 0.5
    assert rows_of(written)[0]["confusion"] == (pooled / 2).tolist()


def test_several_seeds_are_averaged_fold_by_fold_first(
    tmp_path: Path, fabricate: Fabricate, right_of: Right
) -> None:
    for fold in (1, 2, 3):
        for seed in (0, 7):
            fabricate(tmp_path, fold=fold, seed=seed, **SMALL)
    (row,) = results_of(tmp_path)
    assert row["seeds"] == [0, 7] and len(row["folds"]) == 6
    by_fold = [np.mean([f["accuracy"] for f in row["folds"] if f["fold"] == fold]) for fold in (1, 2, 3)]
    assert row["accuracy"]["mean"] == pytest.approx(np.mean(by_fold))
    assert row["accuracy"]["std"] == pytest.approx(np.std(by_fold, ddof=1))
    # The interval is of both seeds: that of the actors' mean accuracies.
    shares = [np.mean(right) for right in right_of(tmp_path).values()]
    limits = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    assert row["accuracy"]["ci95"] == pytest.approx([limits.low, limits.high])
    assert table_of(markdown_of(tmp_path), "Other figures")[0]["folds"] == "3 of 6 folds, 2 seeds"


def test_the_page_shows_the_cells_of_tables_md(full: Written, mixed: Written) -> None:
    """A table a protocol of bad input apart, and all figures but the preset and corpus in `summary`."""
    for written, names in ((full, {"video", "audio", "cfn_sr"}), (mixed, {"audio", "audio+speech"})):
        rows, page = [row for row in written.rows if row.model in names], written.html.read_text()
        made_of, text = sections(rows), Page(page).text
        assert {"table-1", "summary", "calibration"} <= set(made_of)
        for name, made in made_of.items():
            assert all(note in text for note in (*made.notes, *made.method))
            if name == "conditions":
                continue
            for line, expected in zip(lines_of(page, name), made.rows, strict=True):
                heads = [head for head in expected if head not in ("preset", "corpus")]
                assert [line[head] for head in heads] == [shown_of(expected[head]) for head in heads]


def test_tables_put_the_paper_beside_ours(full: Written) -> None:
    lines = table_of(full, "Table 1")
    assert [line["row"] for line in lines] == [title for title, _ in TABLES[1]]
    cells = lines[-1]
    ours = {row["protocol"]: row["accuracy"] for row in rows_of(full) if row["model"] == "cfn_sr"}
    assert cells[f"paper: accuracy % ({OPTIMISTIC})"] == "75.76"
    assert cells[f"{NESTED}: accuracy %"] == plus_minus(ours["nested"])
    assert cells[f"{AS_PAPER}: accuracy %"] == plus_minus(ours["paper"])
    low, high = ours["nested"]["ci95"]
    assert cells[f"{NESTED}: 95 % interval by actor"] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert cells[f"{NESTED}: difference to CFN-SR"] == "reference"
    assert cells["paper: params M"] == cells["ours: params M"] == "26.30"
    # A row that was not run shows dashes and the paper's figures.
    (msaf,) = [line for line in lines if line["row"] == "MSAF"]
    assert msaf["paper: params M"] in ("25.94", "–") and msaf["ours: params M"] == "–"
    assert all(msaf[column] == "–" for column in msaf if column.startswith((NESTED, AS_PAPER)))
    # CFN-SR stands in the second table twice.
    lines = table_of(full, "Table 2")
    assert [line["row"] for line in lines] == [title for title, _ in TABLES[2]]
    run = [line for line in lines if line[f"{NESTED}: accuracy %"] != "–"]
    assert [line["row"] for line in run] == [title for title, model in TABLES[2] if model == "cfn_sr"]
    assert len({line[f"{NESTED}: accuracy %"] for line in run}) == 1
    names = [table["name"] for table in json.loads(full.results.read_text())["tables"]]
    assert names == ["Table 1", "Table 2"]
    page = Page(full.html.read_text())
    assert all(title in page.text for lines in TABLES.values() for title, _ in lines)


def test_the_difference_to_cfn_sr_stands_in_all_three_files(full: Written) -> None:
    differences = {(row["model"], row["protocol"]): row["difference_to_cfn_sr"] for row in rows_of(full)}
    assert differences["cfn_sr", "nested"] is None and differences["video", "paper"]["actors"] == 20
    found = differences["video", "nested"]
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1] and found["p"] <= found["p_holm"] <= 1
    assert (found["folds"], found["actors"], found["equivalence"]["margin"]) == (6, 24, 0.02)
    cell = table_of(full, "Table 1")[0][f"{NESTED}: difference to CFN-SR"]
    assert cell.startswith(f"{100 * found['mean']:+.1f} (".replace("-", "−"))
    assert "Holm" in cell and "within 2 points p " in cell
    for text in (full.tables.read_text(), Page(full.html.read_text()).text):
        assert text.count("the unit is the fold") == 1 and "cannot tell" in text
        assert "within 2 points p " in text and "Comparisons" not in text
    assert json.loads(full.results.read_text())["comparisons"] == []


def test_asked_comparisons_stand_in_all_three_files(
    tmp_path: Path, fabricate_all: Fabricate, quick: None
) -> None:
    fabricate_all(tmp_path, ("video", "audio", "cfn_sr"), ("nested",), **SMALL)
    fabricate_all(tmp_path, ("audio", "cfn_sr"), ("paper",), preset="small", **SMALL)
    rows = summarise(read_runs(tmp_path), margin=0.03)
    compared = comparisons(rows, [("video", "audio"), ("audio", "cfn_sr")], 0.03)
    found = results(rows, (), compared)["comparisons"]
    pairs = [("video", "audio", "nested"), ("audio", "cfn_sr", "nested"), ("audio", "cfn_sr", "paper")]
    assert [(each["a"], each["b"], each["protocol"]) for each in found] == pairs
    (versus,) = [row.versus for row in rows if row.name == "audio, nested protocol"]
    assert isinstance(versus, Difference) and found[1]["p"] == versus.p
    assert all(each["reason"] is None and each["equivalence"]["margin"] == 0.03 for each in found)
    markdown, page = tables(rows, [], compared), html(rows[:1], compared=compared)
    lines = lines_of(page, "comparisons")
    assert [line["difference"] for line in table_of(markdown, "Comparisons")] == [
        f"{100 * each['mean']:+.1f}".replace("-", "−") for each in found
    ]
    assert [OPTIMISTIC in line["protocol"] for line in lines] == [False, False, True]
    assert all(line["equivalence"].startswith("within 3 points p ") for line in lines)
    assert Page(page).text.count("the unit is the fold") == markdown.count("the unit is the fold") == 1


def test_a_comparison_that_cannot_be_made_has_a_reason_and_no_p(
    tmp_path: Path, fabricate_all: Fabricate, quick: None
) -> None:
    fabricate_all(tmp_path, ("video",), ("nested",), settings={"<rate>": 1}, **SMALL)
    fabricate_all(tmp_path, ("audio",), ("nested",), settings={"<rate>": 2}, **SMALL)
    written = report(tmp_path, compare=[("video", "audio")])
    (found,) = json.loads(written.results.read_text())["comparisons"]
    assert found.pop("reason") == "trained with <rate> 1, audio with 2"
    assert {name for name, value in found.items() if value is not None} == {"a", "b", "protocol"}
    for text in (written.tables.read_text(), written.html.read_text()):
        assert "not compared: trained with &lt;rate&gt; 1, audio with 2" in text
    for margin in (0, -0.02, 1, math.nan):
        with pytest.raises(InputError, match=r"a margin of .* points: expected more than 0"):
            report(tmp_path, margin=margin)


def test_one_fold_has_neither_deviation_nor_interval_and_the_reason_stands_there_once(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    fabricate(tmp_path, **SMALL)
    written = report(tmp_path)
    (row,) = rows_of(written)
    for name in ("accuracy", "uar", "macro_f1", "ece"):
        assert row[name]["ci95"] == [None, None] and row[name]["std"] is None
    assert row["abstention"][1]["accuracy"]["ci95"] == [None, None]
    for text in (written.tables.read_text(), Page(written.html.read_text()).text):
        assert text.count("No 95 % interval for cfn_sr, nested protocol: fewer than 8 actors") == 1
    assert table_of(written, "Other figures")[0]["95 % interval"] == "–"
    first = written.html.read_bytes()
    assert b"nan" not in first.lower()
    assert report(tmp_path).html.read_bytes() == first, "the page is the same every time"


def test_a_model_of_ones_own_stands_beside_cfn_sr(tmp_path: Path, fabricate_all: Fabricate) -> None:
    fabricate_all(tmp_path, ("cfn_sr", "my_gate"), ("nested",), takes=16, epochs=4, preset="small")
    reference, own = table_of(markdown_of(tmp_path), "Other models")
    assert reference["row"] == "CFN-SR" and own["row"] == "my_gate"
    assert re.fullmatch(r"−\d+\.\d \(.* to .*\), p .*, Holm .*", own[f"{NESTED}: difference to CFN-SR"])
    # It is one of the rows that Holm's correction is over.
    (found,) = [row["difference_to_cfn_sr"] for row in results_of(tmp_path) if row["model"] == "my_gate"]
    assert found["p_holm"] == found["p"]


def test_why_there_is_no_difference_is_told(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, "cfn_sr", **SMALL)
    fabricate(tmp_path, "audio", **SMALL)
    fabricate(tmp_path, "video", preset="small", **SMALL)
    fabricate(tmp_path, "dropping", settings={"modality_dropout": 0.3}, **SMALL)
    text = markdown_of(tmp_path)
    assert "No difference to CFN-SR for 1D CNN: actors in common: 4; fewer than 8" in text
    assert "No difference to CFN-SR for 3D ResNeXt-50: run with another preset than cfn_sr" in text
    assert "No difference to CFN-SR for dropping: trained with modality_dropout 0.3 and " in text
    assert all(row["difference_to_cfn_sr"] is None for row in results_of(tmp_path))


def test_other_encoders_have_a_table_of_their_own(mixed: Written) -> None:
    lines = {line["model"]: line for line in table_of(mixed, PAIR)}
    titles = ["OpenFace alone", "speech alone", "MSAF", "CFN-SR", "cfn_sr_features"]
    assert list(lines) == [*FEATURES, "cfn_sr_features"]
    assert [line["row"] for line in lines.values()] == titles
    rows = {(row["model"], row["protocol"]): row["accuracy"] for row in rows_of(mixed)}
    for model, line in lines.items():
        assert line[f"{NESTED}: accuracy %"] == plus_minus(rows[model, "nested"])
        standardised = line[f"nested_normalised protocol ({STANDARDISED}): accuracy %"]
        assert standardised == plus_minus(rows[model, "nested_normalised"])
    # The plain rows' table is the plain rows' alone.
    plain = table_of(mixed, "Table 1")
    assert [line["row"] for line in plain if line[f"{NESTED}: accuracy %"] != "–"] == ["1D CNN", "CFN-SR"]
    assert "Table 1 with OpenFace, leave one actor out" not in mixed.tables.read_text()
    assert len(table_of(mixed, f"{PAIR}, leave one actor out")) == 1
    page = Page(mixed.html.read_text())
    assert PAIR in page.text and "#row-2" in page.links


def test_rows_are_compared_with_cfn_sr_of_their_own_encoders(mixed: Written) -> None:
    rows = {(row.model, row.protocol): row for row in mixed.rows}
    differences = {(row["model"], row["protocol"]): row["difference_to_cfn_sr"] for row in rows_of(mixed)}
    references = {
        "audio": "cfn_sr",
        "audio+speech": "cfn_sr+openface+speech",
        "msaf+openface+speech": "cfn_sr+openface+speech",
        "cfn_sr_features": "cfn_sr+openface+speech",
        "msaf+speech": "cfn_sr+speech",
    }
    for model, protocol in rows:
        if model in references:
            ours, theirs = (rows[name, protocol].accuracy_of for name in (model, references[model]))
            expected = np.mean([ours[actor] - theirs[actor] for actor in ours])
            assert differences[model, protocol]["mean"] == pytest.approx(expected)
        elif model in references.values():
            assert differences[model, protocol] is None
    # Holm's correction is over the rows of the same encoders: a lone one needs none.
    for model in ("audio", "msaf+speech"):
        found = differences[model, "nested"]
        assert found["p_holm"] == found["p"]
    together = [differences[model, "nested"] for model in (*FEATURES[:3], "cfn_sr_features")]
    smallest = min(together, key=lambda each: each["p"])
    assert smallest["p_holm"] == pytest.approx(min(1, 4 * smallest["p"]))


def test_a_modality_alone_is_shown_but_once_compared(mixed: Written) -> None:
    lines = {line["model"]: line for line in table_of(mixed, "Table 1 with pixels and speech")}
    assert list(lines) == ["audio+speech", "msaf+speech", "cfn_sr+speech"]
    column = f"{NESTED}: difference to CFN-SR with the same encoders"
    assert lines["audio+speech"][column] == "–" and lines["cfn_sr+speech"][column] == "reference"
    assert "No difference to CFN-SR for speech alone: compared in the table of OpenFace and speech." in (
        mixed.tables.read_text()
    )


def test_the_paper_has_no_figure_for_other_encoders(mixed: Written) -> None:
    for row in rows_of(mixed):
        plain = row["model"] in ("cfn_sr", "audio")
        assert (row["paper"] is not None) is plain and row["comparable"] is plain
    encoders = {row["model"]: row["encoders"] for row in rows_of(mixed)}
    assert encoders["cfn_sr"] == {"video": "pixels", "audio": "mfcc"}
    assert encoders["audio+speech"] == {"video": None, "audio": "speech"}
    assert encoders["cfn_sr_features"] == {"video": "openface", "audio": "speech"}
    text = mixed.tables.read_text()
    assert "not comparable with ours for video+openface, audio+speech" in text
    assert "(other encoders than the paper's)" in text


@pytest.mark.parametrize("name", ["full", "mixed"])
def test_a_caveat_stands_wherever_a_figure_of_its_row_is_printed(
    name: str, request: pytest.FixtureRequest
) -> None:
    written: Written = request.getfixturevalue(name)
    page, caveats = written.html.read_text(), {row.protocol: row.caveat for row in written.rows}
    for section in SECTION.findall(page):
        (protocol,) = [each for each in caveats if f">{each} protocol</small>" in section]
        captions, labels = CAPTION.findall(section), [label for label in Page(section).labels if label]
        # Every caption but that of the settings, which are no figures.
        assert section.count("<figure>") == 6 and len(captions) == 9 - (protocol == "paper")
        for caveat in filter(None, {*caveats.values()}):
            there = caveat == caveats[protocol]
            assert [caveat in caption for caption in captions] == [there] * (len(captions) - 1) + [False]
            assert all((caveat in label) is there for label in labels)
            assert (caveat in section.split("</h2>")[0]) is there
            assert (f"Accuracy ({caveat}) <strong>" in section) is there
            assert there or caveat not in section
    for table in ("summary", "calibration"):
        for line in lines_of(page, table):
            protocol = line["protocol"].split()[0]
            assert line["protocol"] == f"{protocol} protocol {caveats[protocol]}".strip()
    for line in table_of(written, "Other figures"):
        protocol = line["protocol"].split()[0]
        assert line["protocol"] == f"{protocol} protocol" + (
            f" ({caveats[protocol]})" if caveats[protocol] else ""
        )


def test_optimistic_figures_are_labelled_in_the_tables(full: Written) -> None:
    text = full.html.read_text()
    summary = text.split('<section id="summary">')[1].split("</table>")[0]
    assert summary.split("<tbody>")[0].count(OPTIMISTIC) == 2  # the caption and the paper's own column
    conditions = text.split('<section id="conditions">')[1].split("</section>")[0].split("<h3>")[2]
    assert all(OPTIMISTIC in label for label in Page(conditions).labels if label)
    captions = CAPTION.findall(conditions)
    assert len(captions) == 9 and all(OPTIMISTIC in caption for caption in captions)
    heads = [
        head for head in table_of(full, "Table 1")[0] if head.startswith("paper") and "params" not in head
    ]
    assert len(heads) == 2 and all(OPTIMISTIC in head for head in heads)


def test_a_condition_is_no_optimism_but_is_told(mixed: Written) -> None:
    for row in rows_of(mixed):
        standardised = row["protocol"] == "nested_normalised"
        assert row["caveat"] == (STANDARDISED if standardised else "") and row["optimistic"] is False
    remark = f"The figures of the nested_normalised protocol hold on a condition alone ({STANDARDISED})."
    assert remark in Page(mixed.html.read_text()).text


def test_runs_that_choose_on_test_are_optimistic_whatever_their_protocol(
    tmp_path: Path, fabricate: Fabricate
) -> None:
    fabricate(tmp_path, protocol="nested", selected_on="test", **SMALL)
    assert results_of(tmp_path)[0]["optimistic"] is True
    text = markdown_of(tmp_path)
    assert f"nested protocol ({OPTIMISTIC})" in text
    assert OPTIMISTIC in table_of(text, "Table 1")[-1]["nested protocol: accuracy %"]


def test_a_leaky_row_is_counted_and_stands_in_no_table_of_the_papers(
    tmp_path: Path, fabricate_all: Fabricate
) -> None:
    fabricate_all(tmp_path, ("cfn_sr",), ("nested", "shared_actors", "repeated_takes"), **SMALL)
    caveats = {row["protocol"]: row["caveat"] for row in results_of(tmp_path) if not row["optimistic"]}
    assert caveats.pop("nested") == "" and len(caveats) == 2
    assert all(caveat.startswith("leaky: ") for caveat in caveats.values())
    text = markdown_of(tmp_path)
    assert len(table_of(text, "Table 1")[0]) == 9 and text.count("leaks on purpose") == 2


def test_the_page_needs_nothing_beside_itself(full: Written) -> None:
    text = html(full.rows[-2:])
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", text)
    twice = {name for name in page.ids if page.ids.count(name) > 1}
    assert all(re.fullmatch(r"[pm][0-9a-f]+", name) for name in twice)  # clip paths with equal content
    assert len(text) < 600_000  # 30 rows and their plots must stay below 6 MB
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert {"main", "section", "caption", "figure", "figcaption", "h1", "h2"} <= set(page.tags)
    assert all(page.labels) and len(page.labels) == 5 * 2 + 2 * 8  # plots a row, and a condition


CHOSEN, LAST = ("chosen epoch", "epoch chosen on: validation"), ("last epoch", "the last epoch kept")


@pytest.mark.parametrize(
    ("settings", "harder", "shown", "other"),
    [
        ({"keep": "best"}, "", CHOSEN, LAST),
        ({"keep": "last", "mixup": 0.0, "label_smoothing": 0.1}, "smoothed labels", LAST, CHOSEN),
        ({"mixup": 0.4, "label_smoothing": 0.1}, "mixed clips and smoothed labels", CHOSEN, LAST),
    ],
)
def test_the_learning_curves_say_what_they_show(
    tmp_path: Path,
    fabricate: Fabricate,
    undrawn: Undrawn,
    settings: dict[str, Any],
    harder: str,
    shown: tuple[str, str],
    other: tuple[str, str],
) -> None:
    fabricate(tmp_path, settings=settings, epoch=4, **SMALL)
    rows = summarise(read_runs(tmp_path))
    curves = Page(plots.learning_curves(rows[0]))
    assert str(curves.labels[0]).endswith(shown[1])
    assert shown[0] in curves.text and other[0] not in curves.text
    with undrawn():
        text = Page(html(rows)).text
    note = (
        f"The training loss is of {harder}, with dropout, and so cannot be compared with the validation loss."
    )
    assert (note in text) is bool(harder) and ("The training loss" in text) is bool(harder)


def test_names_are_escaped(tmp_path: Path, fabricate: Fabricate) -> None:
    evil = "<script>alert(1)</script>|`x` [y](javascript:alert(2))"
    labels = LabelSet("<b>set", ("<i>calm", "a&b $x", 'q"uote'))
    for fold in (1, 2):
        fabricate(
            tmp_path,
            "my_own",
            fold=fold,
            place=f"f{fold}",
            labels=labels,
            settings={"<u>": "<s>x</s>"},
            versions={"<em>": "<q>"},
            preset=evil,
            corpus={"name": "<img src=x>", "clips": 5},
            **SMALL,
        )
    (tmp_path / "fold_<h6>").mkdir()
    written = report(tmp_path)
    page = Page(written.html.read_text())
    assert not {"script", "b", "i", "u", "s", "em", "q", "img", "h6"} & set(page.tags)
    assert evil in page.text and "<i>calm" in page.text and "a&b $x" in page.text
    markdown = written.tables.read_text()
    assert "<script" not in markdown and "<img" not in markdown and safe(evil) in markdown
    assert not re.search(r"(?<!\\)\]\(", markdown)  # nor does one become a link
    assert len(table_of(written, "Other models")) == 1  # no name breaks a table
    assert rows_of(written)[0]["preset"] == evil and rows_of(written)[0]["paper"] is None


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("cfn_sr, −1.2 (a to b)", "cfn_sr, −1.2 (a to b)"),
        ("![x](javascript:alert(1))", r"!\[x\](javascript:alert(1))"),
        ("<javascript:alert(1)>", "&lt;javascript:alert(1)&gt;"),
        ("{raw}`<b>`", r"{raw}\`&lt;b&gt;\`"),
        ("a\\|b", r"a\\\|b"),  # the name's own backslash must not free the bar
        ("a\\", r"a\\"),  # nor the cell's end
        ("a\n\n# b\r|", r"a # b \|"),
    ],
)
def test_names_in_markdown_are_text(text: str, cell: str) -> None:
    assert safe(text) == cell


def test_unfinished_and_incomplete_runs_are_told(tmp_path: Path, fabricate: Fabricate, quick: None) -> None:
    for fold in (1, 2, 3):
        fabricate(tmp_path, fold=fold, **SMALL)
    fabricate(tmp_path, fold=4, finished=False, **SMALL)
    written = report(tmp_path)
    for text in (Page(written.html.read_text()).text, written.tables.read_text()):
        assert "3 of 6 folds" in text and "Incomplete" in text and "nested/cfn_sr/seed_0/fold_4" in text
    (row,) = rows_of(written)
    assert row["complete"] is False and len(row["folds"]) == 3
    assert json.loads(written.results.read_text())["unfinished"][0]["folder"] == "nested/cfn_sr/seed_0/fold_4"


PAPERS, CLIPS = PRESETS["paper"].as_json(), Preparation().as_json()


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"preset": "small"}, "preset small, not paper"),
        ({"corpus": {"name": "synthetic", "clips": 1440}}, "corpus synthetic, not RAVDESS"),
        ({"corpus": {"name": "ravdess", "clips": 300}}, "300 clips, not RAVDESS's 1440"),
        # Two clips lost in preparation do not make another corpus.
        ({"corpus": {"name": "RAVDESS", "clips": 1438}}, ""),
        # Its text has consecutive pictures, its code evenly spaced ones; how it cuts the face it leaves open.
        ({"preparation": {**CLIPS, "sampling": "consecutive", "margin": 0.0}}, ""),
        ({"preparation": {**CLIPS, "frames": 20}}, "frames 20, not 30"),
        ({"settings": {**PAPERS, "precision": "bf16"}}, ""),
        ({"settings": {**PAPERS, "residual_start": 0.2}}, "residual_start 0.2, not 1.0"),
        ({"settings": {**PAPERS, "schedule": "cosine", "select_by": "uar"}}, "select_by uar, not accuracy"),
    ],
)
def test_the_paper_is_not_compared_with_what_is_not_comparable(
    tmp_path: Path, fabricate: Fabricate, about: dict[str, Any], reason: str
) -> None:
    fabricate(tmp_path, **SMALL, **{"settings": PAPERS, "preparation": CLIPS} | about)
    text = markdown_of(tmp_path)
    assert ("The paper's figures are not comparable with ours (" in text) is bool(reason) and reason in text
    assert (table_of(text, "Other figures")[0]["ours − paper's"] == "–") is bool(reason)
    assert results_of(tmp_path)[0]["comparable"] is not bool(reason)


def test_a_comparable_row_beside_one_that_is_not(tmp_path: Path, fabricate: Fabricate, quick: None) -> None:
    fabricate(tmp_path, "audio", **SMALL)
    fabricate(tmp_path, "video", preset="small", **SMALL)
    rows = summarise(read_runs(tmp_path))
    page = html(rows)
    remark = "not comparable with ours for video (preset small, not paper)"
    assert remark in tables(rows, []) and remark in Page(page).text
    shown = [line[f"paper: accuracy % ({OPTIMISTIC})"] for line in lines_of(page, "summary")]
    assert shown == ["62.99 not comparable", "56.53"]


def test_an_absent_emotion_is_no_error(tmp_path: Path, fabricate: Fabricate) -> None:
    path = fabricate(tmp_path, **SMALL) / "predictions.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *(line for line in lines[1:] if ",surprised," not in line)]))
    (row,) = summarise(read_runs(tmp_path))
    assert 0 < row.estimates["uar"].mean < 1 and "surprised – %" in plots.emotion_bars(row)


def test_nothing_is_written_when_a_run_is_broken(tmp_path: Path, fabricate: Fabricate, quick: None) -> None:
    fabricate(tmp_path, fold=1, **SMALL)
    report(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert set(before) == {"report.html", "results.json", "tables.md"}
    (fabricate(tmp_path, fold=2, **SMALL) / "predictions.csv").write_text("half a li")
    with pytest.raises(InputError):
        report(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
