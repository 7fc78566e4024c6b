"""Write the figures of the pages from `docs/results/*.json`, or check them.

    python docs/fill.py                                      # write all figures anew
    python docs/fill.py --check                              # name those that differ; exit code 1
    python docs/fill.py --store runs/results.json NAME.json  # keep a slim copy of a report's results

README.md and the pages of this folder are written by hand but for their figures, which are named in comments
that no browser shows. A figure follows its comment's results file, row and key, with a caveat where the row
has one; the last word is its form (`FORMS`). A second row and key after a minus are taken off:

    86.9<!-- ravdess-features.json cfn_sr_features nested accuracy.mean % --> %, which is
    +8.1<!-- ravdess-features.json cfn_sr_features nested accuracy.mean - audio+speech nested accuracy.mean
    +% --> points more

A table is one of `TABLES` with its options:

    <!-- table rows ravdess-features.json nested -->
    (written here)
    <!-- end -->
"""

import json
import re
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from difflib import unified_diff
from pathlib import Path
from typing import Any

from cfnsr.data.folds import EVALUATED, OPTIMISTIC, SUFFIX
from cfnsr.errors import InputError
from cfnsr.evaluation import paper_tables
from cfnsr.evaluation.comparison import Comparison, Difference, Equivalence
from cfnsr.evaluation.estimates import Estimate
from cfnsr.evaluation.interaction import Effect, Interaction
from cfnsr.evaluation.metrics import FEWEST
from cfnsr.evaluation.render import (
    NOTHING,
    TWO_DECIMALS,
    Line,
    Table,
    difference,
    figure,
    limits,
    millions,
    p_value,
    pair,
    percent,
    published,
)
from cfnsr.files import read_json, write_text
from cfnsr.training.interaction import DISTURBANCES

DOCS = Path(__file__).resolve().parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
RESULTS = DOCS / "results"
LARGEST = 150_000  # bytes of a kept results file

BLOCK = re.compile(
    r"(<!-- table (\w+) (\S+\.json)([^\n]*) -->\n)((?:(?!<!-- table ).)*?)(<!-- end -->)", re.DOTALL
)
FIGURE = re.compile(r"([+−]?\d[\d.,]*|–)?(?: \([^()]*\))?(<!--\s+(\S+\.json)\s+([^>]*?)\s*-->)")
LEARNT = 0.95  # of the answers to the task of interaction.py
FLATTERING = ("best_epoch_on_test", "paper", "shared_actors", "repeated_takes")

Results = dict[str, Any]
Row = dict[str, Any]

FORMS: dict[str, Callable[[float], str]] = {
    "%": percent,
    "+%": lambda value: percent(value, signed=True),
    ".2": TWO_DECIMALS,
    "n": "{:,}".format,
    "M": lambda value: millions(value / 1e6),
    "s": "{:.0f}".format,
}


def find(results: Results, model: str, protocol: str) -> Row:
    """Find the row of a model under a protocol."""
    for row in results["rows"]:
        if (row["model"], row["protocol"]) == (model, protocol):
            return dict(row)
    known = ", ".join(f"{row['model']} {row['protocol']}" for row in results["rows"])
    raise InputError(f"no row {model} {protocol}: expected one of {known}")


def inline(results: Results, words: str) -> str:
    """Write an inline figure, `MODEL PROTOCOL KEY [- MODEL PROTOCOL KEY] FORM`, with its rows' caveats."""
    *terms, form = words.split()
    if form not in FORMS or len(terms) not in (3, 7) or terms[3:4] not in ([], ["-"]):
        raise InputError(
            f"{words!r}: expected MODEL PROTOCOL KEY [- MODEL PROTOCOL KEY] and one of {' '.join(FORMS)}"
        )
    values, caveats = [], []
    for model, protocol, key in (terms[:3], terms[4:]) if terms[3:] else (terms[:3],):
        value: Any = find(results, model, protocol)
        caveats += [value["caveat"].split(":")[0]]
        for part in key.split("."):
            if value is not None:
                value = value[int(part) if isinstance(value, list) else part]
        values.append(value)
    if None in values:
        return NOTHING
    return _with(FORMS[form](values[0] - sum(values[1:])), "; ".join(dict.fromkeys(filter(None, caveats))))


def rows_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Show every row of a protocol, or some models; a second group of columns has standardised speakers."""
    plain = {row["model"]: row for row in _rows(results, protocol, models)}
    others = {row["model"]: row for row in results["rows"] if row["protocol"] == protocol + SUFFIX}
    standardised = {model: row for model, row in others.items() if not models or model in models}
    groups = [group for group in (plain, standardised) if group]
    titles = {
        line["model"]: line["title"] for table in reversed(results["tables"]) for line in table["lines"]
    }
    lines: list[Line] = []
    for model, row in sorted({**plain, **standardised, **plain}.items(), key=lambda item: _is_fused(item[1])):
        line: Line = {"row": titles.get(model, model), "model": model, "fusion": row["fusion"] or NOTHING}
        for place, group in enumerate(groups):
            head = _with("accuracy %", next(iter(group.values()))["caveat"])
            # A head stands once in a line; the page trims the spaces.
            line |= _accuracy(group.get(model), head, "95 % by actor" + " " * place)
        sizes = {"parameters M": row["params"], "trained M": row.get("trained_params", row["params"])}
        line |= {head: millions(size / 1e6) for head, size in sizes.items()}
        lines.append({**line, "seeds": ", ".join(map(str, row["seeds"]))})
    return Table("", lines, texts=3)


def paper_table(results: Results, number: str, *models: str) -> Table:
    """Show one of the paper's tables, or some models of it, beside ours under both protocols."""
    named = {table["name"]: table["lines"] for table in results["tables"]}[f"Table {number}"]
    as_paper = f"ours, paper protocol: accuracy % ({OPTIMISTIC})"
    lines: list[Line] = []
    for line in named:
        rows = {row["protocol"]: row for row in results["rows"] if row["model"] == line["model"]}
        if not rows or (models and line["model"] not in models):
            continue
        first = next(iter(rows.values()))
        paper = first["paper"] or {"accuracy": None, "params": None}
        lines.append(
            {
                "row": line["title"],
                f"paper: accuracy % ({OPTIMISTIC})": published(paper["accuracy"]),
                as_paper: _accuracy(rows.get("paper"), as_paper)[as_paper],
                **_accuracy(rows.get("nested"), "ours, nested: accuracy %"),
                "paper: parameters M": millions(paper["params"]),
                "ours": millions(first["params"] / 1e6),
            }
        )
    return Table("", lines)


def inflation_table(results: Results, model: str) -> Table:
    """Show one model under several protocols: each with its caveat, and its difference to nested by actor."""
    honest = find(results, model, "nested")
    more = "more than nested, points (95 % by actor)"
    lines: list[Line] = [{"protocol": "nested", "caveat": "none", **_accuracy(honest), more: NOTHING}]
    rows = [row for row in results["rows"] if row["model"] == model and row["protocol"] in FLATTERING]
    for row in sorted(rows, key=lambda row: FLATTERING.index(row["protocol"])):
        for key in ("corpus", "preset", "seeds"):
            if row[key] != honest[key]:
                raise InputError(f"{model} {row['protocol']} has another {key} than nested: {row[key]}")
        last = [fold.get("last_epoch_test_accuracy") for fold in row["folds"]]
        # A fused model started from encoders whose epoch the test fold chose: it has no such figure.
        if row["protocol"] == "best_epoch_on_test" and None not in last and not _is_fused(row):
            value = sum(last) / len(last)
            line: Line = {"protocol": "the next line at its last epoch", "caveat": "none"}
            line |= _accuracy(None) | {"accuracy %": percent(value)}
            lines.append({**line, more: percent(value - honest["accuracy"]["mean"], signed=True)})
        line = {"protocol": row["protocol"], "caveat": row["caveat"]}
        lines.append({**line, **_accuracy(row), more: _paired(row, honest)})
    return Table("", lines, texts=2)


def calibration_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Show calibration error and log-likelihood before and after the temperature, and the temperatures."""
    rows = _rows(results, protocol, models)
    kinds = dict.fromkeys(kind for row in rows for kind in row["calibration"]["ece"])
    lines: list[Line] = []
    for row in rows:
        found = row["calibration"]
        line: Line = {"model": _named(row)}
        for score, head, form in (("ece", "ECE %", percent), ("nll", "NLL", TWO_DECIMALS)):
            scores = {kind: _estimate(found[score].get(kind)) for kind in kinds}
            line |= {f"{head}, {kind}": figure(each, form=form) for kind, each in scores.items()}
        fitted = [each["temperature"] for each in found["temperatures"]]
        line["temperatures"] = f"{min(fitted):.2f} to {max(fitted):.2f}" if fitted else NOTHING
        lines.append(line)
    return Table("", lines)


def conditions_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Show accuracy on clean clips and under bad input."""
    named = [
        (Line(model=_named(row)), {name: _estimate(each) for name, each in row["conditions"].items()})
        for row in _rows(results, protocol, models)
        if row["conditions"]
    ]
    return paper_tables.conditions_table(named)


def confusion_table(results: Results, model: str, protocol: str = "nested") -> Table:
    """Show, of the clips of each acted emotion, the per cent that were called so."""
    row = find(results, model, protocol)
    return paper_tables.confusion_table(row["emotions"], row["confusion"], _with("acted", row["caveat"]))


def actors_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Show each tested actor's accuracy."""
    rows = _rows(results, protocol, models)
    lines: list[Line] = []
    for actor in dict.fromkeys(actor for row in rows for actor in row["actors"]):
        shares = {f"{_named(row)} %": percent(row["actors"].get(actor)) for row in rows}
        lines.append({"actor": actor, **shares})
    return Table("", lines)


def time_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Show seconds of a training, without those of the encoders that a fused model starts from."""
    lines = []
    for row in _rows(results, protocol, models):
        seconds = [fold["seconds"] for fold in row["folds"]]
        mean, longest = f"{sum(seconds) / len(seconds):.0f}", f"{max(seconds):.0f}"
        lines.append({"model": row["model"], "seconds a fold": mean, "longest": longest})
    return Table("", lines)


def interaction_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Show the audit of the exchange of each two-stream row, and its gain beyond late fusion."""
    lines: list[Line] = []
    for row in _rows(results, protocol, models):
        found = row["interaction"]
        if found is None:
            continue
        effects = {name: Effect(**found[name]) for name in DISTURBANCES if name in found}
        beyond = None if found["beyond_late"] is None else _difference(found["beyond_late"])
        audited = Interaction(effects, found["entropy"], found["late"] or "", beyond or "")
        line = {"model": _named(row), **paper_tables.audit(audited)}
        line["beyond late fusion, points"] = NOTHING if beyond is None else difference(beyond)
        line["Holm's p"] = NOTHING if beyond is None else p_value(beyond.p_holm)
        lines.append({**line, "late rule": audited.late or NOTHING})
    return Table("", lines, texts=2)


def comparisons_table(results: Results) -> Table:
    """Show the pairs of rows that `cfnsr report --compare` was asked for."""
    if not results["comparisons"]:
        raise InputError("no comparisons: expected some that `cfnsr report --compare A,B` was asked for")
    compared = []
    for each in results["comparisons"]:
        a, b, protocol = (each[key] for key in ("a", "b", "protocol"))
        named = _with(protocol, find(results, a, protocol)["caveat"])
        compared.append(Comparison(a, b, protocol, named, each["reason"] or _difference(each)))
    return paper_tables.comparisons_table(compared)


def people_table(results: Results) -> Table:
    """Show models on corpora that did not train them: every row that `cfnsr evaluate` made."""
    lines: list[Line] = []
    for row in results["rows"]:
        if row["protocol"].startswith(EVALUATED):
            tested = row["protocol"].removeprefix(EVALUATED).removesuffix("_adapted")
            uar = _estimate(row["uar"])
            line: Line = {"trained on": row["model"], "tested on": tested, "adapted": NOTHING}
            if row["caveat"]:
                line["adapted"] = _with("yes", row["caveat"].split(":")[0])
            line |= {
                "emotions": str(len(row["emotions"])),
                "UAR %": figure(uar),
                "95 % by speaker": limits(uar),
            }
            scores = {"accuracy %": "accuracy", "macro F1 %": "macro_f1", "ECE %": "ece"}
            lines.append({**line, **{head: percent(row[key]["mean"]) for head, key in scores.items()}})
    return Table("", lines, texts=3)


def corpora_table(results: Results, protocol: str = "nested") -> Table:
    """Show the figures on each corpus, of rows of several."""
    lines: list[Line] = []
    for row in _rows(results, protocol, ()):
        for corpus, found in row["corpora"].items():
            uar = _estimate(found["uar"])
            line: Line = {"model": _named(row), "tested on": corpus, "UAR %": figure(uar)}
            line |= {"95 % by speaker": limits(uar)}
            scores = {"accuracy %": "accuracy", "macro F1 %": "macro_f1", "ECE %": "ece"}
            lines.append(line | {head: figure(_estimate(found[key])) for head, key in scores.items()})
    return Table("", lines, texts=2)


def left_out_table(results: Results) -> Table:
    """Show UAR on each corpus left out, by the model of all others, and the mean over them."""
    by = {"ravdess": "nemo", "nemo": "ravdess", "urdu": "ravdess_and_nemo"}
    lines: list[Line] = []
    for suffix in ("", "_adapted"):
        rows = {tested: find(results, model, f"{EVALUATED}{tested}{suffix}") for tested, model in by.items()}
        values = {tested: row["uar"]["mean"] for tested, row in rows.items()}
        head = _with("adapted", rows["urdu"]["caveat"].split(":")[0]) if suffix else "as it is"
        mean = percent(sum(values.values()) / len(values))
        lines.append({"UAR %": head, **{key: percent(value) for key, value in values.items()}, "mean": mean})
    return Table("", lines)


def task_table(results: Results) -> Table:
    """Show accuracy of each row on the task of interaction.py, and its verdict among the most places."""
    lines = []
    for name, row in results["rows"].items():
        learnt = "yes" if [*row["places"].values()][-1] >= LEARNT else "no"
        places = {f"{number} places: accuracy %": percent(found) for number, found in row["places"].items()}
        lines.append({"model": name, "answer in": row["answer_in"], "learns it": learnt, **places})
    return Table("", lines, texts=3)


def facts_table(results: Results, key: str = "rows") -> Table:
    """Show rows of a script's results as they are."""
    return Table("", [{head: str(value) for head, value in row.items()} for row in results[key]])


TABLES: dict[str, Callable[..., Table]] = {
    "rows": rows_table,
    "paper": paper_table,
    "inflation": inflation_table,
    "calibration": calibration_table,
    "conditions": conditions_table,
    "confusion": confusion_table,
    "actors": actors_table,
    "time": time_table,
    "interaction": interaction_table,
    "comparisons": comparisons_table,
    "people": people_table,
    "corpora": corpora_table,
    "left_out": left_out_table,
    "task": task_table,
    "facts": facts_table,
}


def _rows(results: Results, protocol: str, models: Sequence[str]) -> list[Row]:
    """Choose some models' rows under a protocol, or all that there are."""
    there = [row["model"] for row in results["rows"] if row["protocol"] == protocol]
    if not there:
        raise InputError(f"no row {protocol}: expected a protocol that was run")
    return [find(results, model, protocol) for model in models or there]


def _is_fused(row: Row) -> bool:
    return all(row["encoders"].values())


def _with(text: str, caveat: str) -> str:
    return f"{text} ({caveat})" if caveat else text


def _named(row: Row) -> str:
    return _with(row["model"], row["caveat"])


def _estimate(found: Row | None) -> Estimate | None:
    if found is None:
        return None
    low, high = found["ci95"]
    return Estimate(found["mean"], found["std"], None if low is None else (low, high))


def _accuracy(row: Row | None, head: str = "accuracy %", interval: str = "95 % by actor") -> Line:
    if row is None:
        return {head: NOTHING, interval: NOTHING}
    partly = "" if row["complete"] else f"{len({fold['fold'] for fold in row['folds']})} folds alone"
    accuracy = _estimate(row["accuracy"])
    return {head: figure(accuracy, partly), interval: limits(accuracy)}


def _difference(found: Row) -> Difference:
    figures = {field.name: found[field.name] for field in fields(Difference)}
    figures |= {"ci95": tuple(found["ci95"]), "equivalence": Equivalence(**found["equivalence"])}
    return Difference(**figures)


def _paired(row: Row, other: Row) -> str:
    """Format the mean difference over the actors that both tested, with Student's interval of it."""
    from scipy.stats import ttest_1samp

    shared = [actor for actor in row["actors"] if actor in other["actors"]]
    differences = [row["actors"][actor] - other["actors"][actor] for actor in shared]
    text = percent(sum(differences) / len(differences), signed=True)
    if len(shared) >= FEWEST:
        text += f" ({pair(tuple(ttest_1samp(differences, 0).confidence_interval()), signed=True)})"
    return text + ("" if len(shared) == len(other["actors"]) else f", {len(shared)} actors")


def fill(text: str, folder: Path = RESULTS) -> tuple[str, list[str], list[str]]:
    """Write the figures of a page anew.

    Args:
        text: the page.
        folder: of the results files.

    Returns:
        The page; what cannot be written, such as an unknown row; and the results files that are missing: what
        comes from them is left as it is.
    """
    wrong: list[str] = []
    missing: dict[str, None] = {}

    def written(match: re.Match[str], name: str, make: Callable[[Results], str], old: str) -> str:
        if not (folder / name).exists():
            missing[name] = None
            return old
        try:
            return make(read_json(folder / name, "results that `--store` keeps"))
        except (InputError, LookupError, TypeError, ValueError) as error:
            line = 1 + match.string.count("\n", 0, match.start())
            wrong.append(f"line {line}: {name}: {error if isinstance(error, InputError) else repr(error)}")
            return old

    def table(match: re.Match[str]) -> str:
        head, kind, name, options, old, end = match.groups()

        def make(results: Results) -> str:
            if kind not in TABLES:
                raise InputError(f"no table {kind}: expected one of {', '.join(TABLES)}")
            return TABLES[kind](results, *options.split()).markdown() + "\n"

        return head + written(match, name, make, old) + end

    def number(match: re.Match[str]) -> str:
        if match[1] is None:
            wrong.append(f"{match[2]} follows no number: write one before it")
            return match[0]
        old = match[0].removesuffix(match[2])
        return written(match, match[3], lambda results: inline(results, match[4]), old) + match[2]

    if not len(BLOCK.findall(text)) == text.count("<!-- table") == text.count("<!-- end"):
        wrong.append("a table's comment or an end stands alone, or names no results file")
    return FIGURE.sub(number, BLOCK.sub(table, text)), wrong, list(missing)


def slim(results: Results) -> str:
    """Write results as the repository keeps them: one row a line, numbers with five decimals.

    Dropped are `unfinished`, each row's `abstention`, its calibration's `curve`, of each fold the figures
    beside its accuracy, and keys without a value in a fold.
    """

    def without(value: Row, *keys: str) -> Row:
        return {key: each for key, each in value.items() if key not in keys}

    rounded: Results = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 5))
    rows = []
    for row in rounded.pop("rows"):
        kept = without(row, "abstention") | {"calibration": without(row["calibration"], "curve")}
        kept["folds"] = [
            without(fold, "uar", "macro_f1", "ece", *(key for key in fold if fold[key] is None))
            for fold in row["folds"]
        ]
        rows.append(json.dumps(kept, separators=(",", ":")))
    lines = ",\n".join(rows)
    return f'{{"rows":[\n{lines}\n],\n{json.dumps(without(rounded, "unfinished"))[1:]}\n'


def store(source: Path, name: str) -> None:
    """Keep a slim copy of a report's results."""
    text = slim(read_json(source, "the results.json of `cfnsr report`"))
    if len(text) > LARGEST:
        raise InputError(
            f"{source} makes {len(text):,} bytes: expected at most {LARGEST:,}; report fewer rows"
        )
    write_text(RESULTS / name, text)


def main(pages: Iterable[Path], *, check: bool, folder: Path = RESULTS) -> int:
    """Fill or check pages; return 1 where something is wrong, or differs in a check."""
    failed = False
    for page in pages:
        old = page.read_text(encoding="utf-8")
        new, wrong, missing = fill(old, folder)
        for name in missing:
            print(f"{page.name}: {folder / name} is missing, so its figures are not checked")
        if check:
            differing = unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
            wrong += [line for line in differing if not line.startswith(("---", "+++"))]
        elif new != old:
            write_text(page, new)
        for line in wrong:
            print(f"{page.name}: {line}")
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    parser = ArgumentParser(description="Write the figures of the pages from the kept results.")
    parser.add_argument("--check", action="store_true", help="write nothing, name what differs")
    parser.add_argument("--store", nargs=2, metavar=("RESULTS", "NAME"), help="keep a report's results.json")
    given = parser.parse_args()
    try:
        if given.store:
            store(Path(given.store[0]), given.store[1])
        else:
            sys.exit(main(PAGES, check=given.check))
    except InputError as error:
        sys.exit(f"fill.py: {error}")
