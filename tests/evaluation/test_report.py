"""The three files of a report: their form, their figures, their warnings."""

import csv
import json
import math
import re
from collections.abc import Callable, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cfnsr.emotions import LabelSet
from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import Difference, comparisons
from cfnsr.evaluation.page import Example, Examples, html
from cfnsr.evaluation.report import Written, report
from cfnsr.evaluation.results import results
from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.sections import sections, tables
from cfnsr.evaluation.summary import Row, summarise
from cfnsr.evaluation.tables import Cell, safe
from cfnsr.features.preparation import Preparation
from cfnsr.models.zoo import TABLES, list_models
from cfnsr.training.config import PRESETS

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


def test_explained_clips_stand_in_their_row(full_runs: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def explained(rows: Sequence[Row]) -> Examples:
        asked.extend(row.name for row in rows)
        return {(rows[1].model, rows[1].protocol): [Example("<b>of the second</b>", b"a picture")]}

    written = report(full_runs, tmp_path, explained=explained)
    assert asked == [row.name for row in written.rows]
    sections = written.html.read_text().split("<section ")
    (there,) = [section for section in sections if "Explanations: what two answers rest on" in section]
    (row,) = [section for section in sections if section.startswith('id="row-2"')]
    assert there == row and "&lt;b&gt;of the second&lt;/b&gt;" in there
    assert 'src="data:image/png;base64,YSBwaWN0dXJl"' in there  # "a picture"


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
        assert row["caveat"] == (OPTIMISTIC if row["optimistic"] else "")
        assert row["complete"] is True and row["comparable"] is True
    assert rows[-1]["paper"] == {"accuracy": 0.7576, "params": 26.30}


def test_every_figure_can_be_recomputed_from_the_predictions(full: Written, full_runs: Path) -> None:
    for row in rows_of(full):
        by_fold, right_of, confusion = [], {}, np.zeros((8, 8))
        for fold in row["folds"]:
            folder = full_runs / row["protocol"] / row["model"] / "seed_0" / f"fold_{fold['fold']}"
            right = []
            with (folder / "predictions.csv").open(newline="") as file:
                for line in csv.DictReader(file):
                    if line["split"] == "test":
                        answer = max(list(line)[4:], key=lambda name, line=line: float(line[name]))
                        right.append(answer == line["label"])
                        confusion[row["emotions"].index(line["label"]), row["emotions"].index(answer)] += 1
                        right_of.setdefault(int(line["actor"]), []).append(right[-1])
            assert fold["accuracy"] == pytest.approx(np.mean(right))
            by_fold.append(np.mean(right))
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(by_fold))
        assert row["accuracy"]["std"] == pytest.approx(np.std(by_fold, ddof=1))
        assert row["confusion"] == confusion.tolist()
        assert row["actors"] == pytest.approx({str(actor): np.mean(each) for actor, each in right_of.items()})
        shares = [np.mean(values) for values in right_of.values()]
        limits = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
        assert row["accuracy"]["ci95"] == pytest.approx([limits.low, limits.high])


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


CELL = re.compile(r"<t[hd]\b.*?</t[hd]>", re.DOTALL)


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


def test_the_page_shows_the_cells_of_tables_md(full: Written, mixed: Written) -> None:
    """A table a protocol of bad input apart, and all figures but the preset and corpus in `summary`."""
    for written, names in ((full, {"video", "audio", "cfn_sr"}), (mixed, {"audio", "audio+speech"})):
        rows, page = [row for row in written.rows if row.model in names], written.html.read_text()
        made_of, text = sections(rows), Page(page).text
        assert {"table-1", "summary", "calibration"} <= set(made_of)
        for name, made in made_of.items():
            assert all(note in text for note in (*made.notes, *made.how))
            if name == "conditions":
                continue
            for line, expected in zip(lines_of(page, name), made.rows, strict=True):
                heads = [head for head in expected if head not in ("preset", "corpus")]
                assert [line[head] for head in heads] == [shown_of(expected[head]) for head in heads]


NESTED, AS_PAPER = "nested protocol", f"paper protocol ({OPTIMISTIC})"


def test_tables_put_the_paper_beside_ours(full: Written) -> None:
    lines = table_of(full, "Table 1")
    assert [line["row"] for line in lines] == [title for title, _ in TABLES[1]]
    cells = lines[-1]
    ours = {row["protocol"]: row for row in rows_of(full) if row["model"] == "cfn_sr"}
    assert cells[f"paper: accuracy % ({OPTIMISTIC})"] == "75.76"
    for protocol, column in (("nested", NESTED), ("paper", AS_PAPER)):
        mean, deviation = (100 * ours[protocol]["accuracy"][name] for name in ("mean", "std"))
        assert cells[f"{column}: accuracy %"] == f"{mean:.1f} ± {deviation:.1f}"
    low, high = ours["nested"]["accuracy"]["ci95"]
    assert cells[f"{NESTED}: 95 % interval by actor"] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert cells[f"{NESTED}: difference to CFN-SR"] == "reference"
    assert cells["paper: params M"] == cells["ours: params M"] == "26.30"
    # A row that was not run shows dashes and the paper's figures.
    (msaf,) = [line for line in lines if line["row"] == "MSAF"]
    assert msaf["paper: params M"] in ("25.94", "–") and msaf["ours: params M"] == "–"
    assert all(msaf[column] == "–" for column in msaf if column.startswith((NESTED, AS_PAPER)))


def test_cfn_sr_stands_in_the_second_table_twice(full: Written) -> None:
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
    assert differences["cfn_sr", "nested"] is None
    found = differences["video", "nested"]
    assert found["actors"] == 24 and differences["video", "paper"]["actors"] == 20
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1] and found["p"] <= found["p_holm"] <= 1
    assert found["folds"] == 6 and found["equivalence"]["margin"] == 0.02
    assert 0 <= found["equivalence"]["p"] <= 1
    cell = table_of(full, "Table 1")[0][f"{NESTED}: difference to CFN-SR"]
    assert cell.startswith(f"{100 * found['mean']:+.1f} (".replace("-", "−")) and "Holm" in cell
    assert "within 2 points p " in cell
    for text in (full.tables.read_text(), Page(full.html.read_text()).text):
        assert text.count("the unit is the fold") == 1 and "cannot tell" in text
        assert "within 2 points p " in text
    assert json.loads(full.results.read_text())["comparisons"] == []
    assert "Comparisons" not in full.tables.read_text() + full.html.read_text()


def test_asked_comparisons_stand_in_all_three_files(tmp_path: Path, fabricate_all: Fabricate) -> None:
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
    lines = table_of(markdown, "Comparisons")
    assert lines == [
        {head: cell.replace("<", "&lt;") for head, cell in line.items()}
        for line in lines_of(page, "comparisons")
    ]
    for line, each in zip(lines, found, strict=True):
        assert line["difference"] == f"{100 * each['mean']:+.1f}".replace("-", "−")
        assert line["equivalence"].startswith("within 3 points p ")
        assert (OPTIMISTIC in line["protocol"]) is (each["protocol"] == "paper")
    assert Page(page).text.count("the unit is the fold") == markdown.count("the unit is the fold") == 1


def test_a_comparison_that_cannot_be_made_has_a_reason_and_no_p(
    tmp_path: Path, fabricate_all: Fabricate
) -> None:
    fabricate_all(tmp_path, ("video",), ("nested",), settings={"<rate>": 1}, **SMALL)
    fabricate_all(tmp_path, ("audio",), ("nested",), settings={"<rate>": 2}, **SMALL)
    written = report(tmp_path, compare=[("video", "audio")])
    (found,) = json.loads(written.results.read_text())["comparisons"]
    assert found.pop("reason") == "trained with <rate> 1, audio with 2"
    assert {name for name, value in found.items() if value is not None} == {"a", "b", "protocol"}
    assert "not compared: trained with &lt;rate&gt; 1, audio with 2" in written.tables.read_text()
    assert "not compared: trained with &lt;rate&gt; 1, audio with 2" in written.html.read_text()
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
    text = markdown_of(tmp_path)
    assert "No difference to CFN-SR for 1D CNN: actors in common: 4; fewer than 8" in text
    assert "No difference to CFN-SR for 3D ResNeXt-50: run with another preset than cfn_sr" in text
    assert all(row["difference_to_cfn_sr"] is None for row in results_of(tmp_path))


RECIPE = {"learning_rate": 1e-3, "pretrain": True, "fused_epochs": 4, "modality_dropout": 0.0}


def compared(runs: Path) -> dict[str, Row]:
    return {row.model: row for row in summarise(read_runs(runs))}


def test_rows_of_other_settings_are_not_compared(tmp_path: Path, fabricate_all: Fabricate) -> None:
    own = {
        "same": {},
        "dropping": {"modality_dropout": 0.3},
        "slow": {"learning_rate": 1e-4, "pretrain": False},
        "other": {f"knob {number}": number for number in range(9)},
    }
    one = {"audio": {"modality_dropout": 0.3, "pretrain": False, "fused_epochs": 9}, "video": {"width": 0.5}}
    fabricate_all(tmp_path, ("cfn_sr",), ("nested",), settings=RECIPE, **SMALL)
    for model, settings in {**own, **one}.items():
        fabricate_all(tmp_path, (model,), ("nested",), settings=RECIPE | settings, **SMALL)
    rows = compared(tmp_path)
    told = {model: rows[model].versus for model in (*own, *one)}
    # What only a model of two streams can be trained with cannot concern one of one.
    assert isinstance(told["same"], Difference) and isinstance(told["audio"], Difference)
    assert told["dropping"] == "trained with modality_dropout 0.3, cfn_sr with 0.0"
    assert told["slow"] == "trained with learning_rate 0.0001 and pretrain False, cfn_sr with 0.001 and True"
    assert told["video"] == "trained with width 0.5, cfn_sr with not told"
    assert str(told["other"]).startswith("trained with knob 0 0 and knob 1 1 and ")
    assert str(told["other"]).endswith("; 4 more settings differ")
    # Holm's correction is over the rows that were compared alone.
    p = [told[model].p for model in ("same", "audio")]
    assert max(told[model].p_holm for model in ("same", "audio")) == pytest.approx(max(2 * min(p), max(p)))
    text = markdown_of(tmp_path)
    assert "for dropping: trained with modality\\_dropout" not in text
    assert "No difference to CFN-SR for dropping: trained with modality_dropout 0.3, cfn_sr with 0.0." in text


def test_rows_of_other_seeds_are_not_compared(tmp_path: Path, fabricate_all: Fabricate) -> None:
    for seed in (0, 1):
        fabricate_all(tmp_path, ("cfn_sr", "same"), ("nested",), seed=seed, **SMALL)
    fabricate_all(tmp_path, ("audio",), ("nested",), seed=0, **SMALL)
    rows = compared(tmp_path)
    assert isinstance(rows["same"].versus, Difference)
    assert rows["audio"].versus == "trained with seed 0, cfn_sr with seeds 0, 1"


STANDARDISED = "speakers standardised: transductive, needs all emotions of each person in balance"
PAIR = "Table 1 with OpenFace and speech"
FEATURES = ("video+openface", "audio+speech", "msaf+openface+speech", "cfn_sr+openface+speech")


@pytest.fixture(scope="module")
def mixed(fabricate_all: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Plain rows, those with OpenFace and speech, some with pixels and speech, and our own.

    The page is of three rows alone, because plots cost most of a report's time.
    """
    folder = tmp_path_factory.mktemp("mixed")
    fabricate_all(folder, ("cfn_sr", "audio"), ("nested",), **SMALL)
    for model in (*FEATURES, "cfn_sr_features"):
        fabricate_all(folder, (model,), ("nested", "nested_normalised"), preset="features", **SMALL)
    fabricate_all(folder, ("cfn_sr+speech", "msaf+speech"), ("nested",), preset="features", **SMALL)
    fabricate_all(folder, FEATURES[:1], ("leave_one_actor_out",), preset="features", **SMALL)
    rows = summarise(read_runs(folder))
    shown = [row for row in rows if row.model in ("audio", "audio+speech")]
    written = Written(folder / "report.html", folder / "tables.md", folder / "results.json", tuple(rows))
    written.html.write_text(html(shown))
    written.tables.write_text(tables(rows, []))
    written.results.write_text(json.dumps(results(rows)))
    return written


def test_other_encoders_have_a_table_of_their_own(mixed: Written) -> None:
    lines = {line["model"]: line for line in table_of(mixed, PAIR)}
    assert list(lines) == [*FEATURES, "cfn_sr_features"]
    assert [line["row"] for line in lines.values()] == [
        "OpenFace alone",
        "speech alone",
        "MSAF",
        "CFN-SR",
        "cfn_sr_features",
    ]
    rows = {(row["model"], row["protocol"]): row for row in rows_of(mixed)}
    for model, line in lines.items():
        for protocol, column in (
            ("nested", NESTED),
            ("nested_normalised", f"nested_normalised protocol ({STANDARDISED})"),
        ):
            accuracy = rows[model, protocol]["accuracy"]
            assert (
                line[f"{column}: accuracy %"] == f"{100 * accuracy['mean']:.1f} ± {100 * accuracy['std']:.1f}"
            )
    # The plain rows' table is the plain rows' alone.
    plain = table_of(mixed, "Table 1")
    assert [line["row"] for line in plain if line[f"{NESTED}: accuracy %"] != "–"] == ["1D CNN", "CFN-SR"]
    assert "Table 1 with OpenFace, leave one actor out" not in mixed.tables.read_text()
    assert len(table_of(mixed, f"{PAIR}, leave one actor out")) == 1
    page = Page(mixed.html.read_text())
    assert PAIR in page.text and "#row-2" in page.links


def test_rows_are_compared_with_cfn_sr_of_their_own_encoders(mixed: Written) -> None:
    rows = {(row["model"], row["protocol"]): row for row in rows_of(mixed)}

    def accuracies(model: str, protocol: str) -> dict[int, float]:
        (row,) = [row for row in mixed.rows if (row.model, row.protocol) == (model, protocol)]
        return {int(actor): value for actor, value in row.accuracy_of.items()}

    compared = {
        "audio": "cfn_sr",
        "audio+speech": "cfn_sr+openface+speech",
        "msaf+openface+speech": "cfn_sr+openface+speech",
        "cfn_sr_features": "cfn_sr+openface+speech",
        "msaf+speech": "cfn_sr+speech",
    }
    for protocol in ("nested", "nested_normalised"):
        for model, reference in compared.items():
            if (model, protocol) not in rows:
                continue
            ours, theirs = accuracies(model, protocol), accuracies(reference, protocol)
            found = rows[model, protocol]["difference_to_cfn_sr"]
            assert found["mean"] == pytest.approx(np.mean([ours[actor] - theirs[actor] for actor in ours]))
            assert rows[reference, protocol]["difference_to_cfn_sr"] is None
    # Holm's correction is over the rows of the same encoders: a lone one needs none.
    for model in ("audio", "msaf+speech"):
        found = rows[model, "nested"]["difference_to_cfn_sr"]
        assert found["p_holm"] == found["p"]
    p = [rows[model, "nested"]["difference_to_cfn_sr"]["p"] for model in (*FEATURES[:3], "cfn_sr_features")]
    smallest = rows[(*FEATURES[:3], "cfn_sr_features")[int(np.argmin(p))], "nested"]["difference_to_cfn_sr"]
    assert smallest["p_holm"] == pytest.approx(min(1, 4 * min(p)))


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


def test_a_condition_is_no_optimism_but_is_told(mixed: Written) -> None:
    for row in rows_of(mixed):
        standardised = row["protocol"] == "nested_normalised"
        assert row["optimistic"] is False and row["caveat"] == (STANDARDISED if standardised else "")
    text = mixed.html.read_text()
    assert (
        f"The figures of the nested_normalised protocol hold on a condition alone ({STANDARDISED})."
        in Page(text).text
    )
    for section in re.findall(r'<section id="row-\d+">.*?</section>', text, flags=re.DOTALL):
        captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", section, flags=re.DOTALL)[:-1]
        assert {STANDARDISED in caption for caption in captions} == {"nested_normalised protocol" in section}
    for line in mixed.tables.read_text().split("## Other figures")[1].splitlines():
        assert (STANDARDISED in line) is ("nested_normalised" in line)


def test_the_confusion_matrix_pools_all_test_clips(tmp_path: Path, fabricate: Fabricate) -> None:
    for seed in (0, 1):
        for fold in (1, 2):
            fabricate(tmp_path, "audio+speech", fold=fold, seed=seed, **SMALL)
    page = report(tmp_path).html.read_text().split('<table class="confusion">')[1].split("</table>")[0]
    shown = [
        [int(cell) for cell in re.findall(r'title="[^"]*"[^>]*><span>(\d+)</span></td>', line)]
        for line in page.split("<tbody>")[1].split("</tr>")[:-1]
    ]
    pooled = np.zeros((8, 8))
    for run in read_runs(tmp_path):
        np.add.at(pooled, (run.test.labels, run.test.log_probabilities.argmax(axis=1)), 1)
    assert np.abs(shown - 100 * pooled / pooled.sum(axis=1, keepdims=True)).max() <= 0.5


def test_the_page_needs_nothing_beside_itself(full: Written) -> None:
    text = full.html.read_text()
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?:|//[a-z]|url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids)) or all(  # clip paths with equal content may share a name
        re.fullmatch(r"[pm][0-9a-f]+", name) for name in page.ids if page.ids.count(name) > 1
    )
    assert len(text) < 1_200_000  # 30 rows and their plots must stay below 6 MB
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert {"main", "section", "caption", "figure", "figcaption", "h1", "h2"} <= set(page.tags)
    assert all(page.labels) and len(page.labels) == 5 * 6 + 2 * 8  # plots a row, and a condition


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ""),
        ({"mixup": 0.0, "label_smoothing": 0.1}, "smoothed labels"),
        ({"mixup": 0.4, "label_smoothing": 0.1}, "mixed clips and smoothed labels"),
    ],
)
def test_a_training_loss_of_other_clips_is_not_held_against_the_validation_loss(
    tmp_path: Path, fabricate: Fabricate, settings: dict[str, Any], told: str
) -> None:
    fabricate(tmp_path, settings=settings, **SMALL)
    text = Page(report(tmp_path).html.read_text()).text
    note = (
        f"The training loss is of {told}, with dropout, and so cannot be compared with the validation loss."
    )
    assert (note in text) is bool(told) and ("The training loss" in text) is bool(told)


@pytest.mark.parametrize(
    ("keep", "mark", "other", "said"),
    [
        ("last", "last epoch", "chosen epoch", "the last epoch kept"),
        ("best", "chosen epoch", "last epoch", "epoch chosen on: validation"),
    ],
)
def test_the_curves_mark_the_epoch_as_what_it_is(
    tmp_path: Path, fabricate: Fabricate, keep: str, mark: str, other: str, said: str
) -> None:
    fabricate(tmp_path, settings={"keep": keep}, epoch=4, **SMALL)
    page = Page(report(tmp_path).html.read_text())
    (alt,) = [label for label in page.labels if label and label.startswith("Learning curves")]
    assert alt.endswith(said) and mark in page.text and other not in page.text


def test_optimistic_figures_are_labelled_wherever_they_are_printed(full: Written) -> None:
    text = full.html.read_text()
    # "95" and "–" apart, every place of the optimistic rows: summary, heading, sentence, figures, folds.
    for section in re.findall(r'<section id="row-\d+">.*?</section>', text, flags=re.DOTALL):
        labels = section.count(OPTIMISTIC)
        if "paper protocol" in section:
            figures = section.count("<figure>")
            captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", section, flags=re.DOTALL)
            assert figures == 6
            # Every caption but that of the settings, which are no figures.
            assert [OPTIMISTIC in caption for caption in captions] == [True] * 7 + [False]
            assert all(OPTIMISTIC in label for label in Page(section).labels if label)
            assert OPTIMISTIC in section.split("</h2>")[0]
            assert re.search(rf"Accuracy \({OPTIMISTIC}\) <strong>", section)
        else:
            assert labels == 0
    for name in ("summary", "calibration"):
        summary = text.split(f'<section id="{name}">')[1].split("</table>")[0]
        for row in re.findall(r"<tr.*?</tr>", summary.split("<tbody>")[1], flags=re.DOTALL):
            protocol = re.search(r'<td data-label="protocol">.*?</td>', row, flags=re.DOTALL)
            assert protocol is not None
            assert (OPTIMISTIC in protocol.group()) is (">paper protocol" in protocol.group())
    summary = text.split('<section id="summary">')[1].split("</table>")[0]
    assert summary.split("<tbody>")[0].count(OPTIMISTIC) == 2  # the caption and the paper's own column

    conditions = text.split('<section id="conditions">')[1].split("</section>")[0].split("<h3>")[2]
    assert all(OPTIMISTIC in label for label in Page(conditions).labels if label)
    captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", conditions, flags=re.DOTALL)
    assert len(captions) == 9 and all(OPTIMISTIC in caption for caption in captions)

    markdown = full.tables.read_text()
    head = next(line for line in markdown.splitlines() if line.startswith("| row"))
    assert all(
        OPTIMISTIC in column
        for column in head.split("|")
        if column.strip().startswith("paper") and "params" not in column
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
    assert OPTIMISTIC in table_of(written, "Table 1")[-1]["nested protocol: accuracy %"]


def test_a_leaky_row_is_counted_and_bears_its_caveat(tmp_path: Path, fabricate_all: Fabricate) -> None:
    protocols = ("nested", "shared_actors", "repeated_takes")
    fabricate_all(tmp_path, ("cfn_sr",), protocols, **SMALL)
    written = report(tmp_path)
    caveats = {row["protocol"]: row["caveat"] for row in rows_of(written)}
    assert caveats["nested"] == "" and all(caveats[name].startswith("leaky: ") for name in protocols[1:])
    assert not any(row["optimistic"] for row in rows_of(written))
    text = written.html.read_text()
    for section in re.findall(r'<section id="row-\d+">.*?</section>', text, flags=re.DOTALL):
        (name,) = [name for name in protocols if f"{name} protocol</small>" in section]
        captions = re.findall(r"<(?:fig)?caption>.*?</(?:fig)?caption>", section, flags=re.DOTALL)[:-1]
        assert [("leaky: " in caption) for caption in captions] == [name != "nested"] * 8
        assert all(("leaky: " in label) is (name != "nested") for label in Page(section).labels if label)
    for line in written.tables.read_text().split("## Other figures")[1].splitlines():
        for name in protocols[1:]:
            assert f"{name} protocol" not in line or f"({caveats[name]})" in line
    # It stands in no table of the paper's, and in no ladder's place of an honest row.
    assert len(table_of(written, "Table 1")[0]) == 9
    assert "leaks on purpose" in Page(text).text


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


def test_unfinished_and_incomplete_runs_are_told(tmp_path: Path, fabricate: Fabricate) -> None:
    for fold in (1, 2, 3):
        fabricate(tmp_path, fold=fold, **SMALL)
    fabricate(tmp_path, fold=4, finished=False, **SMALL)
    written = report(tmp_path)
    page, markdown = Page(written.html.read_text()), written.tables.read_text()
    for text in (page.text, markdown):
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


def test_a_comparable_row_beside_one_that_is_not(tmp_path: Path, fabricate: Fabricate) -> None:
    fabricate(tmp_path, "audio", **SMALL)
    fabricate(tmp_path, "video", preset="small", **SMALL)
    written = report(tmp_path)
    said = "not comparable with ours for video (preset small, not paper)"
    assert said in written.tables.read_text() and said in Page(written.html.read_text()).text
    column = f"paper: accuracy % ({OPTIMISTIC})"
    shown = [line[column] for line in lines_of(written.html.read_text(), "summary")]
    assert shown == ["62.99 not comparable", "56.53"]


def test_several_seeds_are_averaged_fold_by_fold_first(tmp_path: Path, fabricate: Fabricate) -> None:
    for fold in (1, 2, 3):
        for seed in (0, 7):
            fabricate(tmp_path, fold=fold, seed=seed, **SMALL)
    (row,) = results_of(tmp_path)
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
    limits = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    assert row["accuracy"]["ci95"] == pytest.approx([limits.low, limits.high])
    assert table_of(markdown_of(tmp_path), "Other figures")[0]["folds"] == "3 of 6 folds, 2 seeds"


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
    files = (written.html, written.tables, written.results)
    before = [path.read_bytes() for path in files]
    (fabricate(tmp_path, fold=2, **SMALL) / "predictions.csv").write_text("half a li")
    with pytest.raises(InputError):
        report(tmp_path)
    assert [path.read_bytes() for path in files] == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "report.html",
        "results.json",
        "tables.md",
    ]
