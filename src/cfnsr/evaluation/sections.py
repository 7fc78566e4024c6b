"""The report's tables, of which `tables.md` and the page show the same: the paper's figures beside ours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cfnsr.data.conditions import in_order, label
from cfnsr.data.folds import OPTIMISTIC, SUFFIX
from cfnsr.evaluation import notes
from cfnsr.evaluation.calibration import COVERAGES
from cfnsr.evaluation.comparison import Comparison
from cfnsr.evaluation.interaction import Effect, Interaction
from cfnsr.evaluation.layout import Group, Place, layout
from cfnsr.evaluation.names import fusion_of
from cfnsr.evaluation.runs import Unfinished
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.summary import Row, paper_of
from cfnsr.evaluation.tables import (
    NOTHING,
    Cell,
    Line,
    Table,
    difference,
    equivalence,
    figure,
    limits,
    millions,
    p_value,
    pair,
    percent,
    published,
    safe,
    two_decimals,
    versus,
)
from cfnsr.training.interaction import DISTURBANCES

KINDS = ("raw", "tempered")


def tables(rows: Sequence[Row], unfinished: Sequence[Unfinished], compared: Sequence[Comparison] = ()) -> str:
    """`tables.md`: the paper's tables with our figures beside its own, all other figures, and the remarks."""
    parts = ["# Results", *[f"> {safe(remark)}" for remark in notes.remarks(rows)]]
    for table in sections(rows, compared).values():
        parts += table.section()
    if unfinished:
        parts.append("## Unfinished runs, not counted")
        parts.append("\n".join(f"- {safe(str(run.folder))}: {safe(run.reason)}" for run in unfinished))
    return "\n\n".join(parts) + "\n"


def sections(rows: Sequence[Row], compared: Sequence[Comparison] = ()) -> dict[str, Table]:
    """The tables of a report by the names that the page has for them, in order."""
    groups = layout(rows)
    made = {f"table-{number}": group_table(group) for number, group in enumerate(groups, start=1)}
    if groups:
        pairs = f" {notes.PAIRS}" if any(group.of_features for group in groups) else ""
        test = [] if compared else [notes.TEST]
        last = f"table-{len(groups)}"
        made[last] = replace(made[last], how=[notes.ACCURACY, notes.DIFFERENCE + pairs, *test])
    if compared:
        made["comparisons"] = comparisons_table(compared)
    made["summary"] = Table("Other figures", [_all_figures(row) for row in rows], texts=2)
    made["calibration"] = calibration_table(rows)
    scored = [row for row in rows if row.conditions]
    if scored:
        named = [(_lead(row), row.conditions) for row in scored]
        how = [notes.conditions(in_order(row.conditions for row in scored))]
        made["conditions"] = conditions_table(named, "Accuracy under bad input", how)
    audited = [(row, row.interaction) for row in rows if row.interaction is not None]
    if audited:
        beyond = "beyond late fusion, points"
        lines = [{**_lead(row), **audit(found), beyond: beyond_late(found)} for row, found in audited]
        made["interaction"] = Table("What the exchange does", lines, texts=3, how=(notes.INTERACTION,))
    return made


def protocol_of(row: Row) -> Cell:
    """A row's protocol, with the caveat that must stand beside each of its figures."""
    return Cell(f"{row.protocol} protocol", caveats=(row.caveat,))


def _lead(row: Row) -> dict[str, Cell | str]:
    return {"model": Cell(row.model, link=row.name), "protocol": protocol_of(row)}


def group_table(group: Group) -> Table:
    """One of the paper's tables, or that of other encoders, with our figures."""
    lines = [_of_features(place, group) if group.of_features else _of_paper(place) for place in group.places]
    return Table(group.name, lines, 3 if group.of_features else 2, notes.reasons(group))


def _of_paper(place: Place) -> Line:
    paper, nested = paper_of(place.model), place.nested
    return {
        "row": _title(place),
        "fusion": fusion_of(place.model) or NOTHING,
        f"paper: accuracy % ({OPTIMISTIC})": published(paper.accuracy if paper else None),
        f"paper protocol ({OPTIMISTIC}): accuracy %": _accuracy(place.rows.get("paper"), OPTIMISTIC),
        "nested protocol: accuracy %": _accuracy(nested),
        "nested protocol: 95 % interval by actor": limits(nested.spreads["accuracy"] if nested else None),
        "nested protocol: difference to CFN-SR": _to_reference(place),
        "paper: params M": millions(paper.params if paper else None),
        "ours: params M": _params(place),
    }


def _of_features(place: Place, group: Group) -> Line:
    protocol, nested, caveat = f"{group.protocol} protocol", place.nested, group.condition
    line: dict[str, Cell | str] = {
        "row": _title(place),
        "model": place.model,
        "fusion": fusion_of(place.model) or NOTHING,
        f"{protocol}: accuracy %": _accuracy(nested),
        f"{protocol}: 95 % interval by actor": limits(nested.spreads["accuracy"] if nested else None),
    }
    if caveat is not None:
        sister = f"{group.protocol + SUFFIX} protocol ({caveat}): accuracy %"
        line[sister] = _accuracy(place.normalised, caveat)
    line[f"{protocol}: difference to CFN-SR with the same encoders"] = _to_reference(place)
    return {**line, "params M": _params(place)}


def _title(place: Place) -> Cell:
    run = place.nested or next(iter(place.rows.values()), None)
    return Cell(place.title, hint=place.model, link=run.name if run else "")


def _accuracy(row: Row | None, caveat: str = "") -> Cell:
    """In a column whose head says `caveat`; what the row has beside that it says itself."""
    if row is None:
        return Cell(NOTHING)
    partly = "" if row.complete else row.progress
    return figure(row.spreads["accuracy"], partly, row.caveat if row.caveat != caveat else "")


def _to_reference(place: Place) -> str:
    return "reference" if place.is_reference and place.nested else versus(place.versus)


def _params(place: Place) -> str:
    """Ours in millions, and how many of them were trained where that is not all."""
    sizes = {(row.runs[0].params, row.runs[0].trained_params): None for row in place.rows.values()}
    said = (
        millions(total / 1e6) + (f" ({millions(trained / 1e6)} trained)" if trained < total else "")
        for total, trained in sizes
    )
    return " / ".join(dict.fromkeys(said)) or NOTHING


def comparisons_table(compared: Sequence[Comparison]) -> Table:
    """Pairs of rows."""
    heads = ("difference", "95 % interval", "p", "Holm's p", "equivalence", "folds")
    lines: list[Line] = []
    for each in compared:
        found = each.found
        if isinstance(found, str):
            figures = [f"not compared: {found}", *[NOTHING] * 5]
        else:
            figures = [
                percent(found.mean, signed=True),
                pair(found.ci95, signed=True),
                p_value(found.p),
                p_value(found.p_holm),
                equivalence(found),
                str(found.folds),
            ]
        pairs = zip(heads, figures, strict=True)
        lines.append({"model": each.a, "less": each.b, "protocol": each.protocol_label, **dict(pairs)})
    return Table("Comparisons", lines, texts=3, how=(notes.COMPARISONS, notes.TEST))


def _all_figures(row: Row) -> Line:
    return {
        **_lead(row),
        "accuracy %": figure(row.spreads["accuracy"]),
        "95 % interval": limits(row.spreads["accuracy"]),
        "ours − paper's": percent(row.difference, signed=True),
        "UAR %": figure(row.spreads["uar"]),
        "macro F1 %": figure(row.spreads["macro_f1"]),
        "ECE %": figure(row.spreads["ece"]),
        "folds": row.progress,
        "preset": row.runs[0].preset,
        "corpus": row.runs[0].corpus,
    }


def calibration_table(rows: Sequence[Row]) -> Table:
    """Calibration error and proper scores before and after the temperature, and abstention."""
    lines: list[Line] = []
    for row in rows:
        found = row.calibration
        line = _lead(row)
        line |= {f"ECE %, {kind}": figure(found.ece.get(kind)) for kind in KINDS}
        for name, scores in (("NLL", found.nll), ("Brier", found.brier)):
            line |= {f"{name}, {kind}": figure(scores.get(kind), form=two_decimals) for kind in KINDS}
        answered = [f"{percent(each.accuracy)} ({percent(each.coverage)})" for each in found.abstention[1:]]
        heads = [f"{100 * wanted:.0f} % to be answered" for wanted in COVERAGES]
        lines.append({**line, **dict(zip(heads, answered or [NOTHING] * len(heads), strict=True))})
    return Table("Calibration and abstention", lines, 2, how=(f"{notes.CALIBRATION} {notes.ABSTENTION}",))


def conditions_table(
    named: Iterable[tuple[Line, Mapping[str, Spread | None]]], title: str = "", how: Sequence[str] = ()
) -> Table:
    """Accuracy on clean clips and under bad input.

    Args:
        named: of each row what stands before its figures, and these by condition.
    """
    named = list(named)
    names = in_order(found for _, found in named)
    lines = [{**lead, **{label(name): figure(found.get(name)) for name in names}} for lead, found in named]
    return Table(title, lines, texts=len(named[0][0]) if named else 1, how=how)


def effect(found: Effect | None) -> str:
    """Answers that change, and in brackets the mean change of a probability, in per cent.

    >>> effect(Effect(0.0125, 0.00021)), effect(None)
    ('1.2 (0.02)', '–')
    """
    return NOTHING if found is None else f"{percent(found.changed)} ({100 * found.moved:.2f})"


def audit(found: Interaction) -> dict[str, Cell | str]:
    """The verdict on the exchange, the change of the answers under each disturbance, and the entropy."""
    return {
        "exchange": ("no effect" if found.inert else "has an effect") if found.effects else NOTHING,
        **{title: effect(found.effects.get(how)) for how, title in DISTURBANCES.items()},
        "entropy": NOTHING if found.entropy is None else f"{found.entropy:.3f}",
    }


def beyond_late(found: Interaction) -> str:
    """The difference to the best late rule in points, its interval and Holm's p; or why there is none."""
    versus = found.beyond
    if isinstance(versus, str):
        return versus if found.late else NOTHING
    return f"{difference(versus)}, Holm {p_value(versus.p_holm)}, {found.late}"


def confusion_table(emotions: Sequence[str], clips: Sequence[Sequence[float]], acted: str = "acted") -> Table:
    """Of the clips of each acted emotion, the per cent that were called so.

    Args:
        clips: by acted and answered emotion.
        acted: the head of the first column.
    """
    lines: list[Line] = []
    for emotion, counts in zip(emotions, clips, strict=True):
        total = sum(counts)
        shares = [count / total if total else 0.0 for count in counts]
        cells = [
            Cell(f"{100 * share:.0f}", share=share, hint=f"{count:.1f} clips")
            for share, count in zip(shares, counts, strict=True)
        ]
        lines.append({acted: emotion, **dict(zip(emotions, cells, strict=True)), "clips": f"{total:.0f}"})
    return Table("", lines)
