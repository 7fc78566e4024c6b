"""The report's tables, of which `tables.md` and the page show the same: the paper's figures beside ours."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cfnsr.data.conditions import in_order, label
from cfnsr.data.folds import OPTIMISTIC, SUFFIX
from cfnsr.evaluation import notes
from cfnsr.evaluation.calibration import COVERAGES
from cfnsr.evaluation.comparison import Comparison, by_model
from cfnsr.evaluation.encoders import (
    PAPERS,
    REFERENCE,
    Encoders,
    describe,
    encoders_of,
    fusion_of,
    reference_of,
    title_of,
    uses,
)
from cfnsr.evaluation.estimates import Estimate
from cfnsr.evaluation.interaction import Interaction
from cfnsr.evaluation.render import (
    NOTHING,
    TWO_DECIMALS,
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
    tested,
)
from cfnsr.evaluation.rows import Row, paper_of
from cfnsr.evaluation.runs import Unfinished
from cfnsr.training.interaction import DISTURBANCES

PAPER_PROTOCOLS = ("nested", "paper")  # the protocols that the paper's tables have columns for
HONEST_PROTOCOLS = ("nested", "leave_one_actor_out")  # those that a table of other encoders may be of
KINDS = ("raw", "tempered")


@dataclass(frozen=True, eq=False)
class Group:
    """The rows of one table.

    Args:
        lines: title and model of each, in order; not every model was run.
        rows: those that were run, by model and protocol.
        protocol: whose accuracy the table shows; one of other encoders than the paper's has a column for its
            sister with features standardised per speaker.
    """

    name: str
    lines: Sequence[tuple[str, str]]
    rows: Mapping[str, Mapping[str, Row]]
    pair: Encoders = PAPERS
    protocol: str = "nested"


def layout(rows: Sequence[Row]) -> list[Group]:
    """Group rows into tables of which at least one line was run.

    A model that stands in no table of the paper, such as a user's own, gets one with CFN-SR beside it. Rows
    with other encoders stand in a table per pair and honest protocol; one of a single modality stands in the
    table of every pair that uses its encoder.
    """
    from cfnsr.models.entries import TABLES

    run = by_model(row for row in rows if row.protocol in PAPER_PROTOCOLS and row.pair == PAPERS)
    groups = [Group(f"Table {number}", lines, run) for number, lines in sorted(TABLES.items())]
    titles = {model: title for table in TABLES.values() for title, model in table}
    groups = [group for group in groups if any(model in run for _, model in group.lines)]
    if others := [model for model in run if model not in titles]:
        beside = [REFERENCE] if REFERENCE in run else []
        lines = [(titles.get(model, model), model) for model in beside + others]
        groups.append(Group("Other models", lines, run))
    for encoders in dict.fromkeys(row.pair for row in rows if row.pair != PAPERS):
        for protocol in HONEST_PROTOCOLS:
            shown = [row for row in rows if row.protocol in (protocol, protocol + SUFFIX)]
            if not any(row.pair == encoders for row in shown):
                continue
            run = by_model(
                row
                for row in shown
                if row.pair == encoders or (not all(row.encoders) and uses(encoders, row.encoders))
            )
            # The modalities alone first, as in the paper's table.
            order = sorted(run, key=lambda model: (all(encoders_of(model)), not encoders_of(model).video))
            under = ", leave one actor out" if protocol != "nested" else ""
            name = f"Table 1 with {describe(encoders)}{under}"
            groups.append(Group(name, [(title_of(model), model) for model in order], run, encoders, protocol))
    return groups


def tables(rows: Sequence[Row], unfinished: Sequence[Unfinished], compared: Sequence[Comparison] = ()) -> str:
    """Write `tables.md`: remarks, the paper's tables with our figures beside its own, all other figures."""
    parts = ["# Results", *[f"> {safe(remark)}" for remark in notes.remarks(rows)]]
    for table in sections(rows, compared).values():
        parts += table.section()
    if unfinished:
        lines = [f"- {safe(str(run.folder))}: {safe(run.reason)}" for run in unfinished]
        parts += ["## Unfinished runs, not counted", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def sections(rows: Sequence[Row], compared: Sequence[Comparison] = ()) -> dict[str, Table]:
    """Make the tables of a report, in order, by the names that the page has for them."""
    groups = layout(rows)
    made = {f"table-{number}": group_table(group) for number, group in enumerate(groups, start=1)}
    if groups:
        pairs = f" {notes.PAIRS}" if any(group.pair != PAPERS for group in groups) else ""
        test = [] if compared else [notes.TEST]
        last = f"table-{len(groups)}"
        made[last] = replace(made[last], method=[notes.ACCURACY, notes.DIFFERENCE + pairs, *test])
    if compared:
        made["comparisons"] = comparisons_table(compared)
    made["summary"] = Table("Other figures", [_all_figures(row) for row in rows], texts=2)
    if joint := [row for row in rows if row.corpora]:
        made["corpora"] = corpora_table(joint)
    made["calibration"] = calibration_table(rows)
    if scored := [row for row in rows if row.conditions]:
        named = [(_model_and_protocol(row), row.conditions) for row in scored]
        method = [notes.conditions(in_order(row.conditions for row in scored))]
        made["conditions"] = conditions_table(named, "Accuracy under bad input", method)
    audited = [
        {**_model_and_protocol(row), **audit(found), "beyond late fusion, points": beyond_late(found)}
        for row in rows
        if (found := row.interaction) is not None
    ]
    if audited:
        made["interaction"] = Table("What the exchange does", audited, texts=3, method=(notes.INTERACTION,))
    return made


def _model_and_protocol(row: Row) -> Line:
    """Name a row, with the caveat that must stand beside each of its figures."""
    protocol = Cell(f"{row.protocol} protocol", caveats=(row.caveat,))
    return {"model": Cell(row.model, link=row.name), "protocol": protocol}


def group_table(group: Group) -> Table:
    """Make one of the paper's tables, or that of other encoders, with our figures."""
    lines: list[Line] = []
    reasons: dict[str, list[str]] = {}  # why rows that were run have no difference to CFN-SR
    for title, model in group.lines:
        row = group.rows.get(model, {}).get(group.protocol)
        versus = NOTHING
        if row is not None and model == reference_of(group.pair):
            versus = "reference"
        elif row is not None:
            elsewhere = f"compared in the table of {describe(row.pair)}"
            found = row.versus if row.pair == group.pair else elsewhere
            if isinstance(found, str):
                reasons.setdefault(found, []).append(title)
            else:
                versus = tested(found)
        lines.append(_line(group, title, model, versus))
    missing = [f"No difference to CFN-SR for {', '.join(titles)}: {why}." for why, titles in reasons.items()]
    return Table(group.name, lines, 2 if group.pair == PAPERS else 3, missing)


def _line(group: Group, title: str, model: str, versus: str) -> Line:
    """Show a model's figures; of other encoders the paper has none, but speakers may be standardised."""
    of_paper, paper, rows = group.pair == PAPERS, paper_of(model), group.rows.get(model, {})
    honest, sister, row = f"{group.protocol} protocol", group.protocol + SUFFIX, rows.get(group.protocol)
    first = row or next(iter(rows.values()), None)
    line: Line = {"row": Cell(title, hint=model, link=first.name if first else "")}
    if not of_paper:
        line["model"] = model
    line["fusion"] = fusion_of(model) or NOTHING
    if of_paper:
        line[f"paper: accuracy % ({OPTIMISTIC})"] = published(paper.accuracy if paper else None)
        line[f"paper protocol ({OPTIMISTIC}): accuracy %"] = _accuracy(rows.get("paper"), OPTIMISTIC)
    line[f"{honest}: accuracy %"] = _accuracy(row)
    line[f"{honest}: 95 % interval by actor"] = limits(row.estimates["accuracy"] if row else None)
    caveat = next((each[sister].caveat for each in group.rows.values() if sister in each), None)
    if not of_paper and caveat is not None:
        line[f"{sister} protocol ({caveat}): accuracy %"] = _accuracy(rows.get(sister), caveat)
    line[f"{honest}: difference to CFN-SR" + ("" if of_paper else " with the same encoders")] = versus
    if of_paper:
        line["paper: params M"] = millions(paper.params if paper else None)
    return {**line, "ours: params M" if of_paper else "params M": _params(rows.values())}


def _accuracy(row: Row | None, caveat: str = "") -> Cell:
    """Show the accuracy in a column whose head says `caveat`; what the row has beside that it says itself."""
    if row is None:
        return Cell(NOTHING)
    partly = "" if row.complete else row.progress
    return figure(row.estimates["accuracy"], partly, row.caveat if row.caveat != caveat else "")


def _params(rows: Iterable[Row]) -> str:
    """Show ours in millions, and how many of them were trained where that is not all."""
    sizes = []
    for params, trained in dict.fromkeys((row.runs[0].params, row.runs[0].trained_params) for row in rows):
        part = f" ({millions(trained / 1e6)} trained)" if trained < params else ""
        sizes.append(millions(params / 1e6) + part)
    return " / ".join(dict.fromkeys(sizes)) or NOTHING


def comparisons_table(compared: Sequence[Comparison]) -> Table:
    """Make the table of pairs of rows."""
    lines: list[Line] = []
    for each in compared:
        line: Line = {"model": each.a, "less": each.b, "protocol": each.protocol_label}
        found = each.found
        if isinstance(found, str):
            line |= {"difference": f"not compared: {found}"}
            line |= dict.fromkeys(("95 % interval", "p", "Holm's p", "equivalence", "folds"), NOTHING)
        else:
            line |= {
                "difference": percent(found.mean, signed=True),
                "95 % interval": pair(found.ci95, signed=True),
                "p": p_value(found.p),
                "Holm's p": p_value(found.p_holm),
                "equivalence": equivalence(found.equivalence),
                "folds": str(found.folds),
            }
        lines.append(line)
    return Table("Comparisons", lines, texts=3, method=(notes.COMPARISONS, notes.TEST))


def _all_figures(row: Row) -> Line:
    accuracy, more = row.estimates["accuracy"], None
    if row.paper and not row.incomparable:
        more = accuracy.mean - row.paper.accuracy
    return {
        **_model_and_protocol(row),
        "accuracy %": figure(accuracy),
        "95 % interval": limits(accuracy),
        "ours − paper's": percent(more, signed=True),
        "UAR %": figure(row.estimates["uar"]),
        "macro F1 %": figure(row.estimates["macro_f1"]),
        "ECE %": figure(row.estimates["ece"]),
        "folds": row.progress,
        "preset": row.runs[0].preset,
        "corpus": row.runs[0].corpus,
    }


def corpora_table(rows: Sequence[Row]) -> Table:
    """Show the figures on the clips of each corpus, of rows of several corpora."""
    lines: list[Line] = []
    for row in rows:
        for corpus, found in row.corpora.items():
            line: Line = {**_model_and_protocol(row), "corpus": corpus}
            line |= {"UAR %": figure(found["uar"]), "95 % interval by actor": limits(found["uar"])}
            heads = {"accuracy": "accuracy %", "macro_f1": "macro F1 %", "ece": "ECE %"}
            lines.append(line | {head: figure(found[name]) for name, head in heads.items()})
    return Table("By corpus", lines, texts=3)


def calibration_table(rows: Sequence[Row]) -> Table:
    """Show calibration error and proper scores before and after the temperature, and abstention."""
    lines: list[Line] = []
    for row in rows:
        found = row.calibration
        line = _model_and_protocol(row)
        line |= {f"ECE %, {kind}": figure(found.ece.get(kind)) for kind in KINDS}
        for name, scores in (("NLL", found.nll), ("Brier", found.brier)):
            line |= {f"{name}, {kind}": figure(scores.get(kind), form=TWO_DECIMALS) for kind in KINDS}
        answered = [f"{percent(each.accuracy)} ({percent(each.coverage)})" for each in found.abstention[1:]]
        heads = [f"{100 * wanted:.0f} % to be answered" for wanted in COVERAGES]
        lines.append({**line, **dict(zip(heads, answered or [NOTHING] * len(heads), strict=True))})
    return Table("Calibration and abstention", lines, 2, method=(f"{notes.CALIBRATION} {notes.ABSTENTION}",))


def conditions_table(
    named: Sequence[tuple[Line, Mapping[str, Estimate | None]]], title: str = "", method: Sequence[str] = ()
) -> Table:
    """Show accuracy under bad input; `named` is what stands before each row's figures, and these."""
    names = in_order(found for _, found in named)
    lines = [{**lead, **{label(name): figure(found.get(name)) for name in names}} for lead, found in named]
    return Table(title, lines, texts=len(named[0][0]) if named else 1, method=method)


def audit(found: Interaction) -> Line:
    """Show the verdict on the exchange, the change of the answers under each disturbance, and the entropy.

    Of each disturbance the share of answers that change, and in brackets the mean change of a probability.
    """
    verdict = "no effect" if found.inert else "has an effect"
    line: Line = {"exchange": verdict if found.effects else NOTHING}
    for name, title in DISTURBANCES.items():
        effect = found.effects.get(name)
        line[title] = NOTHING if effect is None else f"{percent(effect.changed)} ({100 * effect.moved:.2f})"
    return line | {"entropy": NOTHING if found.entropy is None else f"{found.entropy:.3f}"}


def beyond_late(found: Interaction) -> str:
    """Show the difference to the best late rule in points, or why there is none."""
    versus = found.beyond
    if isinstance(versus, str):
        return versus if found.late else NOTHING
    return f"{difference(versus)}, Holm {p_value(versus.p_holm)}, {found.late}"


def confusion_table(emotions: Sequence[str], clips: Sequence[Sequence[float]], acted: str = "acted") -> Table:
    """Show the per cent of the clips of each acted emotion that were called so; `acted` heads the column."""
    lines: list[Line] = []
    for emotion, counts in zip(emotions, clips, strict=True):
        total = sum(counts)
        line: Line = {acted: emotion}
        for answer, count in zip(emotions, counts, strict=True):
            share = count / total if total else 0.0
            line[answer] = Cell(f"{100 * share:.0f}", share=share, hint=f"{count:.1f} clips")
        lines.append({**line, "clips": f"{total:.0f}"})
    return Table("", lines)
