"""`docs/fill.py`: the figures of the pages are those of the kept results, and a check finds every other."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import comparisons
from cfnsr.evaluation.render import Table, p_value
from cfnsr.evaluation.results import results
from cfnsr.evaluation.rows import summarise
from cfnsr.evaluation.runs import read_runs
from cfnsr.training.interaction import DISTURBANCES

Fabricate = Callable[..., Path]
Right = Callable[[Path], dict[int, list[bool]]]
SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "fill.py"
OURS, LATE = "cfn_sr_features", "multiplication+openface+speech"
EVERY = dict(zip(DISTURBANCES, (2, 4, 1000), strict=True))  # so-many-th answer changes
OPTIMISTIC = "optimistic: best epoch on test"
STANDARDISED = "speakers standardised: transductive, needs all emotions of each person in balance"
PAGE = """Text 1.5.

<!-- table rows real.json nested -->
<!-- end -->

Reached: 0<!-- real.json cfn_sr_features nested accuracy.mean % --> %,
0<!-- real.json cfn_sr_features nested accuracy.mean -
audio+speech nested accuracy.mean +% --> more; with all takes
0<!-- real.json cfn_sr_features nested_normalised accuracy.mean % -->,
on the test fold 1.2 (no)<!-- real.json audio paper accuracy.mean % --> % of 4 actors.
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = load()


@pytest.fixture(scope="module")
def runs(
    fabricate_all: Fabricate,
    disturb: Callable[[Path, str, int], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    small: dict[str, Any] = {"takes": 16, "epochs": 3}
    fabricate_all(folder, ("audio",), ("nested", "best_epoch_on_test", "paper", "repeated_takes"), **small)
    for model in ("video+openface", "audio+speech", LATE):
        fabricate_all(folder, (model,), ("nested",), **small)
    fabricate_all(folder, (OURS,), ("nested",), conditions=True, attention_entropy=0.75, **small)
    for fold in (folder / "nested" / OURS / "seed_0").iterdir():
        for how, every in EVERY.items():
            disturb(fold, how, every)
    fabricate_all(folder, (OURS,), ("nested_normalised",), **small)
    return folder


@pytest.fixture(scope="module")
def whole(runs: Path) -> dict[str, Any]:
    """The results as `cfnsr report` writes them."""
    rows = summarise(read_runs(runs))
    return results(rows, (), comparisons(rows, [(OURS, "audio+speech"), (OURS, LATE)]))


@pytest.fixture(scope="module")
def kept(whole: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results as the repository keeps them."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "real.json").write_text(pages.slim(whole), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def content(kept: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((kept / "real.json").read_text(encoding="utf-8"))
    return read


def lines_of(table: Table) -> list[dict[str, str]]:
    return [{head.strip(): str(cell) for head, cell in line.items()} for line in table.rows]


def test_a_page_is_filled_and_then_right(
    runs: Path, right_of: Right, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert pages.main([page], check=True, folder=kept) == 1
    assert page.read_text(encoding="utf-8") == PAGE, "a check writes nothing"
    assert pages.main([page], check=False, folder=kept) == 0
    capsys.readouterr()
    assert pages.main([page], check=True, folder=kept) == 0 and capsys.readouterr().out == ""
    text = page.read_text(encoding="utf-8")

    def share(protocol: str, model: str) -> float:
        """In per cent: every fold has as many clips, so that their mean is that of all clips."""
        return 100 * float(np.mean(list(right_of(runs / protocol / model).values())))

    ours, standardised = (share(protocol, OURS) for protocol in ("nested", "nested_normalised"))
    more = f"{ours - share('nested', 'audio+speech'):+.1f}".replace("-", "−")
    assert f"Reached: {ours:.1f}<!--" in text and f" %,\n{more}<!--" in text
    assert f"\n{standardised:.1f} (speakers standardised)<!--" in text
    assert f"on the test fold {share('paper', 'audio'):.1f} (optimistic)<!--" in text
    assert text.startswith("Text 1.5.\n") and text.endswith(" % of 4 actors.\n")
    (line,) = [line for line in text.splitlines() if f"| {OURS} | {OURS} | model | {ours:.1f} ± " in line]
    assert f"| {standardised:.1f} ± " in line
    assert f"| accuracy % ({STANDARDISED}) | 95 % by actor | parameters M | trained M | seeds |" in text


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("3<!-- real.json cfn_sr_features nested accuracy.mean % -->", "-3<!-- real.json"),
        ("<!-- table actors real.json nested audio -->\n| 1 | 2 |\n<!-- end -->", "-| 1 | 2 |"),
        ("3<!-- gone.json audio nested accuracy.mean % -->", "gone.json is missing"),
        ("<!-- table rows gone.json -->\n<!-- end -->", "gone.json is missing"),
        ("3<!-- real.json cfn_sr nested accuracy.mean % -->", "line 3: real.json: no row cfn_sr nested"),
        ("3<!-- real.json audio nested accuracy.median % -->", "line 3: real.json: KeyError('median')"),
        ("3<!-- real.json audio nested accuracy.mean -->", "expected MODEL PROTOCOL KEY"),
        ("x<!-- real.json audio nested accuracy.mean % -->", "follows no number"),
        ("<!-- table rows real.json nested msaf -->\n<!-- end -->", "no row msaf nested"),
        ("<!-- table rows real.json nestled -->\n<!-- end -->", "no row nestled"),
        ("<!-- table lines real.json -->\n<!-- end -->", "no table lines: expected one of rows, paper"),
        ("<!-- table confusion real.json -->\n<!-- end -->", "line 3: real.json: TypeError"),
        ("<!-- table rows real.json nested -->\n", "stands alone"),
        ("<!-- table rows nested -->\n<!-- end -->", "names no results file"),
    ],
)
def test_a_check_names_what_is_wrong(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, named: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\n{wrong}\n", encoding="utf-8")
    # What is missing may come later: it is named, and what the page says of it stays.
    assert pages.main([page], check=True, folder=kept) == int("gone.json" not in wrong)
    said = capsys.readouterr().out
    assert said.startswith("page.md: ") and named in said
    if "gone.json" in wrong:
        assert pages.main([page], check=False, folder=kept) == 0
        assert page.read_text(encoding="utf-8") == f"Text.\n\n{wrong}\n"


def test_inflation_is_paired_by_actor(runs: Path, right_of: Right, content: dict[str, Any]) -> None:
    lines = {line["protocol"]: line for line in lines_of(pages.TABLES["inflation"](content, "audio"))}
    order = ["nested", "the next line at its last epoch", "best_epoch_on_test", "paper", "repeated_takes"]
    assert list(lines) == order
    column = "more than nested, points (95 % by actor)"
    honest = right_of(runs / "nested" / "audio")
    for protocol in ("best_epoch_on_test", "paper", "repeated_takes"):
        flattered = right_of(runs / protocol / "audio")
        each = np.array([100 * (np.mean(flattered[actor]) - np.mean(honest[actor])) for actor in flattered])
        low, high = stats.t.interval(0.95, len(each) - 1, each.mean(), stats.sem(each))
        fewer = ", 20 actors" if protocol == "paper" else ""
        expected = f"{each.mean():+.1f} ({low:+.1f} to {high:+.1f}){fewer}".replace("-", "−")
        assert lines[protocol][column] == expected
        assert ("optimistic" in lines[protocol]["caveat"]) is (protocol != "repeated_takes")
    assert "leaky" in lines["repeated_takes"]["caveat"]
    folders = (runs / "best_epoch_on_test" / "audio").rglob("history.jsonl")
    last = [json.loads(path.read_text().splitlines()[-1])["test_accuracy"] for path in folders]
    assert lines["the next line at its last epoch"]["accuracy %"] == f"{100 * np.mean(last):.1f}"
    # Rows of other seeds differ in more than their protocol.
    changed = json.loads(json.dumps(content))
    pages.find(changed, "audio", "paper")["seeds"].append(1)
    with pytest.raises(InputError, match="audio paper has another seeds than nested"):
        pages.TABLES["inflation"](changed, "audio")


def test_confusion_actors_and_time_follow_the_predictions(
    runs: Path, right_of: Right, content: dict[str, Any]
) -> None:
    shares = {
        line["actor"]: line[f"audio ({OPTIMISTIC}) %"]
        for line in lines_of(pages.TABLES["actors"](content, "paper", "audio"))
    }
    assert shares["7"] == f"{100 * np.mean(right_of(runs / 'paper' / 'audio')[7]):.1f}"
    confusion = lines_of(pages.TABLES["confusion"](content, OURS, "nested_normalised"))
    assert [line["clips"] for line in confusion] == [str(24 * 2)] * 8  # 16 takes of 8 emotions
    row = pages.find(content, OURS, "nested_normalised")
    assert confusion[2]["happy"] == f"{100 * row['confusion'][2][2] / 48:.0f}"
    assert f"acted ({STANDARDISED})" in confusion[0]
    assert lines_of(pages.TABLES["time"](content, "nested", "audio")) == [
        {"model": "audio", "seconds a fold": "1234", "longest": "1234"}
    ]


def test_calibration_and_bad_input(content: dict[str, Any]) -> None:
    (line,) = lines_of(pages.TABLES["calibration"](content, "nested", "audio"))
    row = pages.find(content, "audio", "nested")
    found = row["calibration"]["ece"]["tempered"]
    assert line["ECE %, tempered"] == f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f}"
    fitted = [each["temperature"] for each in row["calibration"]["temperatures"]]
    assert line["temperatures"] == f"{min(fitted):.2f} to {max(fitted):.2f}"
    (line,) = lines_of(pages.TABLES["calibration"](content, "paper"))
    assert line == {"model": f"audio ({OPTIMISTIC})"} | {
        name: line[name] for name in ("ECE %, raw", "NLL, raw")
    } | {"temperatures": "–"}
    (line,) = lines_of(pages.TABLES["conditions"](content))
    noisy = pages.find(content, OURS, "nested")["conditions"]["noise_20db"]
    assert line["model"] == OURS
    assert line["noise 20 dB"] == f"{100 * noisy['mean']:.1f} ± {100 * noisy['std']:.1f}"


def paired_of(found: dict[str, Any]) -> str:
    """A difference of the results in points, with its interval."""
    low, high = found["ci95"]
    return f"{100 * found['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})".replace("-", "−")


def test_the_audit_of_the_exchange(content: dict[str, Any]) -> None:
    first, second = lines_of(pages.TABLES["interaction"](content))
    late, ours = (first, second) if first["model"] == LATE else (second, first)
    assert set(late.values()) == {LATE, "–"}, "a sum has no exchange, and there is no other late rule"
    changed = json.loads(json.dumps(content))
    row = next(row for row in changed["rows"] if (row["model"], row["protocol"]) == (OURS, "nested"))
    found = row["interaction"]
    assert ours["model"] == OURS and ours["late rule"] == found["late"] == LATE
    assert ours["exchange"] == "has an effect" and ours["entropy"] == "0.750"
    for how, title in DISTURBANCES.items():
        assert ours[title] == f"{100 * found[how]['changed']:.1f} ({100 * found[how]['moved']:.2f})"
    assert ours["beyond late fusion, points"] == paired_of(found["beyond_late"])
    assert ours["Holm's p"] == p_value(found["beyond_late"]["p_holm"])

    found |= {how: {"changed": 0.0099, "moved": 0.01} for how in DISTURBANCES} | {"beyond_late": None}
    (line,) = lines_of(pages.TABLES["interaction"](changed, "nested", OURS))
    assert line["exchange"] == "no effect"
    assert line["beyond late fusion, points"] == line["Holm's p"] == "–"


def test_pairs_that_were_compared(content: dict[str, Any]) -> None:
    lines = lines_of(pages.TABLES["comparisons"](content))
    assert [line["less"] for line in lines] == ["audio+speech", LATE]
    for line, found in zip(lines, content["comparisons"], strict=True):
        assert line["model"] == OURS and line["protocol"] == "nested" and line["folds"] == "6"
        assert f"{line['difference']} ({line['95 % interval']})" == paired_of(found)
        assert (line["p"], line["Holm's p"]) == (p_value(found["p"]), p_value(found["p_holm"]))
        assert line["equivalence"] == f"within 2 points p {p_value(found['equivalence']['p'])}"
    changed = json.loads(json.dumps(content))
    changed["comparisons"][0] |= {"mean": None, "reason": "trained with batch 16"}
    assert "| not compared: trained with batch 16 |" in pages.TABLES["comparisons"](changed).markdown()
    with pytest.raises(InputError, match="no comparisons: expected some that `cfnsr report --compare A,B`"):
        pages.TABLES["comparisons"](content | {"comparisons": []})


def test_what_a_row_learns_of_the_task() -> None:
    rows = {
        "cfn_sr": {"answer_in": "video", "places": {"12": 1.0, "98": 0.9504}},
        "mirror": {"answer_in": "audio", "places": {"12": 0.99, "98": 0.9496}},
    }
    assert lines_of(pages.TABLES["task"]({"task": {}, "rows": rows})) == [
        {"model": name, "answer in": side, "learns it": learns}
        | {"12 places: accuracy %": few, "98 places: accuracy %": many}
        for name, side, learns, few, many in (
            ("cfn_sr", "video", "yes", "100.0", "95.0"),
            ("mirror", "audio", "no", "99.0", "95.0"),
        )
    ]


def test_the_papers_table_stands_beside_ours(content: dict[str, Any]) -> None:
    (line,) = lines_of(pages.TABLES["paper"](content, "1"))
    nested, paper = (pages.find(content, "audio", protocol)["accuracy"] for protocol in ("nested", "paper"))
    assert line["row"] == "1D CNN" and line["ours"] == "0.03"
    assert line[f"paper: accuracy % ({OPTIMISTIC})"] == "56.53"
    ours = f"ours, paper protocol: accuracy % ({OPTIMISTIC})"
    assert line[ours].startswith(f"{100 * paper['mean']:.1f} ± ")
    assert line["ours, nested: accuracy %"].startswith(f"{100 * nested['mean']:.1f} ± ")
    # Where some folds alone were run the table says so.
    changed = json.loads(json.dumps(content))
    row = next(row for row in changed["rows"] if (row["model"], row["protocol"]) == ("audio", "nested"))
    row["complete"], row["folds"] = False, row["folds"][:2]
    (line,) = lines_of(pages.TABLES["paper"](changed, "1"))
    assert line["ours, nested: accuracy %"].endswith(" (2 folds alone)")


def test_what_is_kept_is_small(
    whole: dict[str, Any], kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results.json").write_text(json.dumps(whole), encoding="utf-8")
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    pages.store(tmp_path / "results.json", "small.json")
    text = (tmp_path / "small.json").read_text(encoding="utf-8")
    assert text == (kept / "real.json").read_text(encoding="utf-8")
    assert pages.slim(json.loads(text)) == text
    assert len(text) < 0.5 * len(json.dumps(whole))
    small = json.loads(text)
    assert set(whole) - set(small) == {"unfinished"} and len(small["comparisons"]) == 2
    for ours, theirs in zip(small["rows"], whole["rows"], strict=True):
        assert set(theirs) - set(ours) == {"abstention"}
        gone = set(theirs["folds"][0]) - set(ours["folds"][0]) - {"last_epoch_test_accuracy"}
        assert gone == {"uar", "macro_f1", "ece"}
        assert set(theirs["calibration"]) - set(ours["calibration"]) == {"curve"}
        assert (ours["interaction"] is None) is (theirs["interaction"] is None)
        assert ours["accuracy"]["mean"] == pytest.approx(theirs["accuracy"]["mean"], abs=1e-5)
    monkeypatch.setattr(pages, "LARGEST", 1000)
    with pytest.raises(InputError, match="expected at most 1,000"):
        pages.store(tmp_path / "results.json", "small.json")
