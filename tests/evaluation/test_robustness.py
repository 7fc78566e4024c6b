"""Accuracy under bad input: which rows have it, in which order, and what it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfnsr.data.conditions import CONDITIONS, MEANINGS, in_order
from cfnsr.evaluation.html import html
from cfnsr.evaluation.notes import remarks
from cfnsr.evaluation.paper_tables import tables
from cfnsr.evaluation.rows import Row, summarise
from cfnsr.evaluation.runs import read_runs

Fabricate = Callable[..., Path]
SMALL = {"takes": 16, "epochs": 3}
BAD, TAKES = [*CONDITIONS][:7], [*CONDITIONS][7:]


@pytest.fixture(scope="module")
def rows(fabricate_all: Fabricate, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("runs")
    models = ("audio", "cfn_sr")
    return summarise(read_runs(fabricate_all(folder, models, ("nested",), conditions=True, **SMALL)))


def test_accuracy_is_the_mean_over_folds(rows: list[Row]) -> None:
    row = rows[-1]
    assert list(row.conditions) == ["clean", *BAD]
    assert row.conditions["clean"] == row.estimates["accuracy"]
    for condition in BAD:
        folds = [
            np.mean(part.log_probabilities.argmax(axis=1) == part.labels)
            for part in (run.conditions[condition] for run in row.runs)
        ]
        spread = row.conditions[condition]
        assert spread.mean == pytest.approx(np.mean(folds))
        assert spread.std == pytest.approx(np.std(folds, ddof=1))
        assert spread.ci95 is not None and spread.ci95[0] < spread.mean < spread.ci95[1]
    # As they were made up: the more noise, the less is left.
    noises = [row.conditions[name].mean for name in ("clean", "noise_10db", "noise_0db", "silent_sound")]
    assert noises == sorted(noises, reverse=True)


def test_a_row_has_the_conditions_of_its_modalities(rows: list[Row]) -> None:
    audio = rows[0]
    assert list(audio.conditions) == ["clean", "noise_20db", "noise_10db", "noise_0db"]
    assert in_order([audio.conditions, rows[1].conditions]) == ["clean", *BAD]
    assert in_order([{}, {}]) == []


def test_the_page_has_a_plot_a_condition_and_a_table_with_numbers(rows: list[Row], quick: None) -> None:
    section = html(rows).split('<section id="conditions">')[1].split("</section>")[0]
    assert section.count("<svg") == 8
    names = ["clean", "silent sound", "noise 20 dB", "no picture", "dark face"]
    places = [section.index(f"<figcaption>{name}") for name in names]
    assert places == sorted(places)
    table = section.split('<table class="heat">')[1]
    assert f"{100 * rows[1].conditions['no_picture'].mean:.1f}" in table
    assert table.count('<td class="number none"><span>–</span></td>') == 4  # audio has no pictures to lose
    text = tables(rows, []).split("## Accuracy under bad input")[1]
    assert f"{100 * rows[1].conditions['dark_face'].mean:.1f} ±" in text


def test_standardised_speakers_are_shown_by_fewer_takes(
    tmp_path: Path, fabricate_all: Fabricate, quick: None
) -> None:
    both = ("nested", "nested_normalised")
    rows = summarise(read_runs(fabricate_all(tmp_path, ("audio",), both, conditions=True, **SMALL)))
    (row,) = [row for row in rows if row.protocol == "nested_normalised"]
    assert list(row.conditions) == ["clean", *TAKES]
    means = [spread.mean for spread in row.conditions.values()]
    assert means == sorted(means, reverse=True)  # as they were made up
    section = html(rows).split('<section id="conditions">')[1].split("</section>")[0]
    text = tables(rows, []).split("## Accuracy under bad input")[1]
    for name in TAKES:
        assert MEANINGS[name] in section and MEANINGS[name] in text
        assert f"{100 * row.conditions[name].mean:.1f}" in section
        assert f"{100 * row.conditions[name].mean:.1f} ±" in text
    assert MEANINGS["dark_face"] not in section, "nobody was seen"


def test_a_row_of_which_some_folds_were_not_scored_has_no_conditions(
    tmp_path: Path, fabricate: Fabricate, quick: None
) -> None:
    fabricate(tmp_path, fold=2, **SMALL)
    rows = summarise(read_runs(tmp_path))
    assert rows[0].conditions == {} and "under bad input" not in tables(rows, [])
    assert '<section id="conditions">' not in html(rows)
    fabricate(tmp_path, fold=1, conditions=True, **SMALL)
    rows = summarise(read_runs(tmp_path))
    assert rows[0].conditions == {}
    assert any("not every run was scored under the same bad input" in remark for remark in remarks(rows))


def test_the_page_escapes_what_it_shows_of_conditions(
    tmp_path: Path, fabricate: Fabricate, quick: None
) -> None:
    path = fabricate(tmp_path, conditions=True, **SMALL) / "conditions.csv"
    path.write_text(path.read_text().replace(",dark_face,", ",<i>fog,"))
    page = html(summarise(read_runs(tmp_path)))
    assert "<i>" not in page and "&lt;i&gt;fog" in page
