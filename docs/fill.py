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
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

from cfnsr.data.folds import OPTIMISTIC, SUFFIX
from cfnsr.errors import InputError
from cfnsr.evaluation import sections
from cfnsr.evaluation.comparison import Comparison, Difference
from cfnsr.evaluation.interaction import DISTURBANCES, Effect, Interaction
from cfnsr.evaluation.metrics import FEWEST
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.tables import (
    NOTHING,
    Cell,
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
    two_decimals,
)
from cfnsr.files import read_json, write_text

DOCS = Path(__file__).resolve().parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
RESULTS = DOCS / "results"
LARGEST = 150_000  # bytes of a kept results file

BLOCK = re.compile(
    r"(<!-- table (\w+) (\S+\.json)([^\n]*) -->\n)((?:(?!<!-- table ).)*?)(<!-- end -->)", re.DOTALL
)
FIGURE = re.compile(r"([+−]?\d[\d.,]*|–)?(?: \([^()]*\))?(<!--\s+(\S+\.json)\s+([^>]*?)\s*-->)")
LEARNT = 0.95  # of the answers to the task of interaction.py
HABITS = ("best_epoch_on_test", "paper", "shared_actors", "repeated_takes")

Results = dict[str, Any]
Row = dict[str, Any]

FORMS: dict[str, Callable[[float], str]] = {
    "%": percent,
    "+%": lambda value: percent(value, signed=True),
    ".2": two_decimals,
    "n": lambda value: f"{value:,}",
    "M": lambda value: millions(value / 1e6),
    "s": lambda value: f"{value:.0f}",
}


def find(results: Results, model: str, protocol: str) -> Row:
    """The row of a model under a protocol."""
    for row in results["rows"]:
        if (row["model"], row["protocol"]) == (model, protocol):
            return dict(row)
    known = ", ".join(f"{row['model']} {row['protocol']}" for row in results["rows"])
    raise InputError(f"no row {model} {protocol}: expected one of {known}")


def inline(results: Results, words: str) -> str:
    """An inline figure: `MODEL PROTOCOL KEY [- MODEL PROTOCOL KEY] FORM`, with its rows' caveats."""
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
    flatter = "; ".join(dict.fromkeys(filter(None, caveats)))
    return FORMS[form](values[0] - sum(values[1:])) + (f" ({flatter})" if flatter else "")


def table_of_rows(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Every row of a protocol, or some models; a second group of columns has standardised speakers."""
    plain = {row["model"]: row for row in _rows(results, protocol, models)}
    others = {row["model"]: row for row in results["rows"] if row["protocol"] == protocol + SUFFIX}
    standardised = {model: row for model, row in others.items() if not models or model in models}
    caveats = [next(iter(group.values()))["caveat"] for group in (plain, standardised) if group]
    titles = {
        line["model"]: line["title"] for table in reversed(results["tables"]) for line in table["lines"]
    }
    lines: list[Line] = []
    for model, row in sorted({**plain, **standardised, **plain}.items(), key=lambda item: _is_fused(item[1])):
        line = {"row": titles.get(model, model), "model": model, "fusion": row["fusion"] or NOTHING}
        figures: dict[str, Cell | str] = {}
        for group, caveat in zip((plain, standardised), caveats, strict=False):
            beside = f" ({caveat})" if caveat else ""
            interval = "95 % by actor" + " " * len(figures)  # two columns; the page trims their heads
            figures |= _accuracy(group.get(model), f"accuracy %{beside}", interval)
        sizes = {"parameters M": row["params"], "trained M": row.get("trained_params", row["params"])}
        sized = {head: millions(size / 1e6) for head, size in sizes.items()}
        lines.append({**line, **figures, **sized, "seeds": ", ".join(map(str, row["seeds"]))})
    return Table("", lines, texts=3)


def paper_table(results: Results, number: str, *models: str) -> Table:
    """One of the paper's tables, or some models of it, beside ours under both protocols."""
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
    """One model under several protocols: each with its caveat, and its difference to nested by actor."""
    honest = find(results, model, "nested")
    more = "more than nested, points (95 % by actor)"
    lines: list[Line] = [{"protocol": "nested", "caveat": "none", **_accuracy(honest), more: NOTHING}]
    rows = [row for row in results["rows"] if row["model"] == model and row["protocol"] in HABITS]
    for row in sorted(rows, key=lambda row: HABITS.index(row["protocol"])):
        for key in ("corpus", "preset", "seeds"):
            if row[key] != honest[key]:
                raise InputError(f"{model} {row['protocol']} has another {key} than nested: {row[key]}")
        last = [fold.get("last_epoch_test_accuracy") for fold in row["folds"]]
        # A fused model started from encoders whose epoch the test fold chose: it has no such figure.
        if row["protocol"] == "best_epoch_on_test" and None not in last and not _is_fused(row):
            value = sum(last) / len(last)
            added = percent(value - honest["accuracy"]["mean"], signed=True)
            figures = (percent(value), NOTHING, added)
            lines.append(
                {
                    "protocol": "the next line at its last epoch",
                    "caveat": "none",
                    **dict(zip(list(lines[0])[2:], figures, strict=True)),
                }
            )
        line = {"protocol": row["protocol"], "caveat": row["caveat"]}
        lines.append({**line, **_accuracy(row), more: _paired(row, honest)})
    return Table("", lines, texts=2)


def calibration_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Calibration error and log-likelihood before and after the temperature, and the temperatures."""
    rows = _rows(results, protocol, models)
    kinds = dict.fromkeys(kind for row in rows for kind in row["calibration"]["ece"])
    lines: list[Line] = []
    for row in rows:
        found = row["calibration"]
        line: dict[str, Cell | str] = {"model": _named(row)}
        for score, head, form in (("ece", "ECE %", percent), ("nll", "NLL", two_decimals)):
            scores = {kind: _spread(found[score].get(kind)) for kind in kinds}
            line |= {f"{head}, {kind}": figure(each, form=form) for kind, each in scores.items()}
        fitted = [each["temperature"] for each in found["temperatures"]]
        lines.append(
            {**line, "temperatures": f"{min(fitted):.2f} to {max(fitted):.2f}" if fitted else NOTHING}
        )
    return Table("", lines)


def conditions_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Accuracy on clean clips and under bad input."""
    rows = [row for row in _rows(results, protocol, models) if row["conditions"]]
    return sections.conditions_table(
        ({"model": _named(row)}, {name: _spread(each) for name, each in row["conditions"].items()})
        for row in rows
    )


def confusion_table(results: Results, model: str, protocol: str = "nested") -> Table:
    """Of the clips of each acted emotion, the per cent that were called so."""
    row = find(results, model, protocol)
    acted = "acted" + (f" ({row['caveat']})" if row["caveat"] else "")
    return sections.confusion_table(row["emotions"], row["confusion"], acted)


def actors_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Each tested actor's accuracy."""
    rows = _rows(results, protocol, models)
    actors = dict.fromkeys(actor for row in rows for actor in row["actors"])
    return Table(
        "",
        [
            {"actor": actor, **{f"{_named(row)} %": percent(row["actors"].get(actor)) for row in rows}}
            for actor in actors
        ],
    )


def time_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """Seconds of a training, without those of the encoders that a fused model starts from."""
    lines = []
    for row in _rows(results, protocol, models):
        seconds = [fold["seconds"] for fold in row["folds"]]
        mean, longest = f"{sum(seconds) / len(seconds):.0f}", f"{max(seconds):.0f}"
        lines.append({"model": row["model"], "seconds a fold": mean, "longest": longest})
    return Table("", lines)


def interaction_table(results: Results, protocol: str = "nested", *models: str) -> Table:
    """The audit of the exchange of each two-stream row, and its gain beyond late fusion."""
    lines: list[Line] = []
    for row in _rows(results, protocol, models):
        found = row["interaction"]
        if found is None:
            continue
        effects = {how: Effect(**found[how]) for how in DISTURBANCES if how in found}
        versus = None if found["beyond_late"] is None else _difference(found["beyond_late"])
        audited = Interaction(effects, found["entropy"], found["late"] or "", versus or "")
        lines.append(
            {
                "model": _named(row),
                **sections.audit(audited),
                "beyond late fusion, points": NOTHING if versus is None else difference(versus),
                "Holm's p": NOTHING if versus is None else p_value(versus.p_holm),
                "late rule": audited.late or NOTHING,
            }
        )
    return Table("", lines, texts=2)


def comparisons(results: Results) -> Table:
    """The pairs of rows that `cfnsr report --compare` was asked for."""
    if not results["comparisons"]:
        raise InputError("no comparisons: expected some that `cfnsr report --compare A,B` was asked for")
    compared = []
    for each in results["comparisons"]:
        caveat = find(results, each["a"], each["protocol"])["caveat"]
        named = each["protocol"] + (f" ({caveat})" if caveat else "")
        found = each["reason"] or _difference(each)
        compared.append(Comparison(each["a"], each["b"], each["protocol"], named, found))
    return sections.comparisons_table(compared)


def task_table(results: Results) -> Table:
    """Accuracy of each row on the task of interaction.py, and its verdict among the most places."""
    lines = []
    for name, row in results["rows"].items():
        learnt = "yes" if [*row["places"].values()][-1] >= LEARNT else "no"
        places = {f"{number} places: accuracy %": percent(found) for number, found in row["places"].items()}
        lines.append({"model": name, "answer in": row["answer_in"], "learns it": learnt, **places})
    return Table("", lines, texts=3)


TABLES: dict[str, Callable[..., Table]] = {
    "rows": table_of_rows,
    "paper": paper_table,
    "inflation": inflation_table,
    "calibration": calibration_table,
    "conditions": conditions_table,
    "confusion": confusion_table,
    "actors": actors_table,
    "time": time_table,
    "interaction": interaction_table,
    "comparisons": comparisons,
    "task": task_table,
}


def _rows(results: Results, protocol: str, models: Sequence[str]) -> list[Row]:
    """Some models' rows under a protocol, or all that there are."""
    there = [row["model"] for row in results["rows"] if row["protocol"] == protocol]
    if not there:
        raise InputError(f"no row {protocol}: expected a protocol that was run")
    return [find(results, model, protocol) for model in models or there]


def _is_fused(row: Row) -> bool:
    return all(row["encoders"].values())


def _named(row: Row) -> str:
    return f"{row['model']} ({row['caveat']})" if row["caveat"] else str(row["model"])


def _spread(spread: Row | None) -> Spread | None:
    """A figure as the results have it."""
    if spread is None:
        return None
    low, high = spread["ci95"]
    return Spread(spread["mean"], spread["std"], None if low is None else (low, high))


def _accuracy(
    row: Row | None, head: str = "accuracy %", interval: str = "95 % by actor"
) -> dict[str, Cell | str]:
    if row is None:
        return {head: NOTHING, interval: NOTHING}
    partly = "" if row["complete"] else f"{len({fold['fold'] for fold in row['folds']})} folds alone"
    spread = _spread(row["accuracy"])
    return {head: figure(spread, partly), interval: limits(spread)}


def _difference(found: Row) -> Difference:
    """A difference of two rows as the results have it."""
    same = {key: found[key] for key in ("mean", "p", "p_holm", "folds", "actors")}
    within = found["equivalence"]
    return Difference(ci95=tuple(found["ci95"]), margin=within["margin"], p_equivalent=within["p"], **same)


def _paired(row: Row, other: Row) -> str:
    """The mean difference over the actors that both tested, with Student's interval of it."""
    from scipy.stats import ttest_1samp

    shared = [actor for actor in row["actors"] if actor in other["actors"]]
    differences = [row["actors"][actor] - other["actors"][actor] for actor in shared]
    text = percent(sum(differences) / len(differences), signed=True)
    if len(shared) >= FEWEST:
        text += f" ({pair(tuple(ttest_1samp(differences, 0).confidence_interval()), signed=True)})"
    return text + ("" if len(shared) == len(other["actors"]) else f", {len(shared)} actors")


def fill(text: str, folder: Path = RESULTS) -> tuple[str, list[str], list[str]]:
    """A page with its figures written anew.

    Args:
        text: the page.
        folder: of the results files.

    Returns:
        The page; what cannot be written, such as an unknown row; and the results files that are missing:
        what comes from them is left as it is.
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
        old = match[0].removesuffix(match[2])
        if match[1] is None:
            wrong.append(f"{match[2]} follows no number: write one before it")
            return match[0]
        return written(match, match[3], lambda results: inline(results, match[4]), old) + match[2]

    if not len(BLOCK.findall(text)) == text.count("<!-- table") == text.count("<!-- end"):
        wrong.append("a table's comment or an end stands alone, or names no results file")
    return FIGURE.sub(number, BLOCK.sub(table, text)), wrong, list(missing)


def differences(old: str, new: str) -> Iterator[str]:
    """The lines of a page that are not what the results say."""
    for line in unified_diff(old.splitlines(), new.splitlines(), "page", "results", n=0, lineterm=""):
        if not line.startswith(("---", "+++")):
            yield line


def slim(results: Results) -> str:
    """Results as the repository keeps them: one row a line, numbers with five decimals.

    Dropped are `unfinished`, each row's `abstention`, its calibration's `curve`, of each fold the figures
    beside its accuracy, and keys without a value in a fold.
    """

    def without(value: Row, *keys: str) -> Row:
        return {key: each for key, each in value.items() if key not in keys}

    def accuracy_alone(fold: Row) -> Row:
        return without(fold, "uar", "macro_f1", "ece", *(key for key in fold if fold[key] is None))

    rounded: Results = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 5))
    rows = []
    for row in rounded.pop("rows"):
        kept = without(row, "abstention") | {"calibration": without(row["calibration"], "curve")}
        kept["folds"] = [accuracy_alone(fold) for fold in row["folds"]]
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
    """Fill or check pages; 1 where something is wrong, or differs in a check."""
    failed = False
    for page in pages:
        old = page.read_text(encoding="utf-8")
        new, wrong, missing = fill(old, folder)
        for name in missing:
            print(f"{page.name}: {folder / name} is missing, so its figures are not checked")
        wrong += differences(old, new) if check else []
        for line in wrong:
            print(f"{page.name}: {line}")
        failed |= bool(wrong)
        if not check and new != old:
            write_text(page, new)
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
