"""The report's tables as Markdown: the paper's figures beside ours."""

import html
import re
from collections.abc import Iterable, Sequence

from cfnsr.data.folds import OPTIMISTIC, SUFFIX
from cfnsr.evaluation.calibration import COVERAGES
from cfnsr.evaluation.comparison import Comparison, Difference
from cfnsr.evaluation.interaction import DISTURBANCES, Effect, Interaction
from cfnsr.evaluation.layout import Line, Table, layout, reasons
from cfnsr.evaluation.robustness import MEANINGS, conditions_of, label
from cfnsr.evaluation.runs import Unfinished
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.summary import Row, remarks

NOTHING = "–"


def percent(value: float | None, signed: bool = False) -> str:
    """A fraction in per cent with one decimal, without the sign for per cent.

    >>> percent(0.7576), percent(0.0123, signed=True), percent(None)
    ('75.8', '+1.2', '–')
    """
    if value is None or value != value:
        return NOTHING
    text = f"{100 * value:{'+' if signed else ''}.1f}"
    return text.replace("-", "−")


def published(value: float | None) -> str:
    """A figure of the paper in per cent, with the two decimals it has there.

    >>> published(0.7035), published(None)
    ('70.35', '–')
    """
    return NOTHING if value is None else f"{100 * value:.2f}"


def mean_and_deviation(spread: Spread) -> str:
    """Mean and deviation over folds, in per cent.

    >>> mean_and_deviation(Spread(0.5, 0.025, None)), mean_and_deviation(Spread(0.5, None, None))
    ('50.0 ± 2.5', '50.0')
    """
    return percent(spread.mean) + ("" if spread.std is None else f" ± {percent(spread.std)}")


def limits(spread: Spread) -> str:
    """The 95 % interval, in per cent.

    >>> limits(Spread(0.5, None, (0.45, 0.561)))
    '45.0 to 56.1'
    """
    return pair(spread.ci95)


def pair(ci95: tuple[float, float] | None, signed: bool = False) -> str:
    """An interval's two limits, in per cent.

    >>> pair((-0.061, 0.02), signed=True), pair(None)
    ('−6.1 to +2.0', '–')
    """
    return NOTHING if ci95 is None else " to ".join(percent(limit, signed) for limit in ci95)


def p_value(p: float) -> str:
    """A p value with three decimals.

    >>> p_value(0.0312), p_value(0.0001)
    ('0.031', '< 0.001')
    """
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def versus(difference: Difference | str) -> str:
    """A difference in points, with its interval, its p value, Holm's, and that of equivalence.

    >>> versus(Difference(-0.032, (-0.061, -0.004), 0.0312, 0.187, 0.02, 0.841, folds=6, actors=24))
    '−3.2 (−6.1 to −0.4), p 0.031, Holm 0.187, within 2 points p 0.841'
    >>> versus("not run")
    '–'
    """
    if isinstance(difference, str):
        return NOTHING
    return (
        f"{percent(difference.mean, signed=True)} ({pair(difference.ci95, signed=True)}), "
        f"p {p_value(difference.p)}, Holm {p_value(difference.p_holm)}, "
        f"{equivalence(difference)} p {p_value(difference.p_equivalent)}"
    )


def equivalence(difference: Difference) -> str:
    """The claim of equivalence: "within 2 points"."""
    return f"within {100 * difference.margin:g} points"


def millions(params: float | None) -> str:
    """Parameters in millions, from millions: two decimals as in the paper, more for a tiny model.

    >>> millions(26.301417), millions(0.0034), millions(None)
    ('26.30', '0.0034', '–')
    """
    if params is None:
        return NOTHING
    return f"{params:.2f}" if params >= 0.01 else f"{params:.2g}"


def tables(rows: Sequence[Row], unfinished: Sequence[Unfinished], compared: Sequence[Comparison] = ()) -> str:
    """`tables.md`: the paper's tables with our figures beside its own, all other figures, and the remarks."""
    made = layout(rows)
    paired = any(table.of_features for table in made)
    parts = ["# Results", *[f"> {safe(remark)}" for remark in remarks(rows)]]
    for table in made:
        shown = _feature_table(table) if table.of_features else _layout_table(table)
        parts += [f"## {table.name}", shown, *map(safe, reasons(table))]
    if made:
        parts += [HOW_ACCURACY, f"{HOW_DIFFERENCE} {HOW_PAIRS}" if paired else HOW_DIFFERENCE]
    if compared:
        parts += ["## Comparisons", comparisons_table(compared), HOW_COMPARISONS]
    if made or compared:
        parts.append(HOW_TEST)
    parts += ["## Other figures", _figures_table(rows)]
    parts += [
        "## Calibration and abstention",
        _calibration_table(rows),
        f"{HOW_CALIBRATION} {HOW_ABSTENTION}",
    ]
    if conditions_of([row.conditions for row in rows]):
        parts += ["## Accuracy under bad input", _conditions_table(rows), how_conditions(rows)]
    if audited := [row for row in rows if row.interaction is not None]:
        parts += ["## What the exchange does", _interaction_table(audited), HOW_INTERACTION]
    if unfinished:
        parts.append("## Unfinished runs, not counted")
        parts.append("\n".join(f"- {safe(str(run.folder))}: {safe(run.reason)}" for run in unfinished))
    return "\n\n".join(parts) + "\n"


HOW_ACCURACY = (
    "Accuracy is the mean ± deviation over folds (n − 1; of several seeds each fold's mean first). "
    "The 95 % interval is Student's t by actor, about that mean: its standard error is the jackknife's, "
    "which leaves out one actor at a time."
)
HOW_TEST = (
    "All actors of a fold are answered by the same trained network, so the unit is the fold: its accuracy "
    "less the other model's on the same actors (of several seeds the means), and the mean of that over "
    "folds. The 95 % interval and p are of Student's t with folds − 1 degrees of freedom, two-sided; Holm's "
    "p is corrected for all pairs compared under that protocol. The p of equivalence is small where the data "
    "speak against a difference as large as the margin (two one-sided t tests); a large p of difference is "
    "no proof that two models are equally good. What the tests cannot tell: whether another corpus or "
    "another language would give the same order; nor do they see that the training sets of the folds "
    "overlap. Rows whose settings or seeds differ are not compared."
)
HOW_INTERACTION = (
    "The test clips answered again, first without the exchange between the modalities (under uniform "
    "weights, or passed by; of a model that fuses early, by the nearest sum of a score of each modality), "
    "then with the exchange alone given another clip's sound or picture: the share of answers that become "
    "another emotion and, in brackets, the mean change of an emotion's probability, both in per cent. "
    "Entropy is that of the attention weights, 1 where they are uniform. Beyond late fusion: accuracy less "
    "that of the late rule on the same encoders that does best on the inner validation clips, paired by "
    "fold, with Holm's p over all rows. A dash stands where a row has no such exchange."
)
HOW_DIFFERENCE = "The difference to CFN-SR is paired by fold, under the nested protocol."
HOW_COMPARISONS = "Each difference is the first model less the second, in points, paired by fold."
HOW_PAIRS = (
    "In a table with other encoders all this is under the table's own protocol, CFN-SR is the one with these "
    "encoders, and Holm's correction is over the rows with them."
)
HOW_CALIBRATION = (
    "ECE is the expected calibration error, raw and after temperature scaling; each fold's temperature is "
    "fitted, and each threshold of abstention chosen, on the fold's inner validation clips alone; to these "
    "the fit adds one clip whose emotion is anybody's guess, so that a few dozen right answers ask for no "
    "certainty. The checkpoint predicts with its temperature, so the tempered figures are those of what is "
    "shipped. Where the recipe trains again on the validation actors, the temperature is that of the network "
    "before, which had not met them; it may be a little too high for the one after, whose raw figures stand "
    "beside it."
)
HOW_ABSTENTION = (
    "The last columns: the accuracy of the answered clips where that share of the clips was to be answered, "
    "and in brackets the share of the test clips that really was."
)


def how_conditions(rows: Sequence[Row]) -> str:
    """What the conditions of some rows are."""
    said = [
        f"{label(name)}: {MEANINGS[name]}"
        for name in conditions_of([row.conditions for row in rows])
        if name in MEANINGS
    ]
    return (
        f"Accuracy in per cent, mean ± deviation over folds. {safe('; '.join(said))}. "
        "The models were not trained again."
    )


def in_column(row: Row | None, caveat: str = "") -> str:
    """Accuracy of a row in a column whose head says `caveat`; what the row has beside that it says itself."""
    if row is None:
        return NOTHING
    missing = "" if row.complete else f" ({row.progress})"
    beside = f" ({row.caveat})" if row.caveat != caveat else ""
    return mean_and_deviation(row.spreads["accuracy"]) + missing + beside


def ours(line: Line) -> str:
    """Our parameters of a line in millions, and how many of them were trained where that is not all."""
    said = (
        millions(total / 1e6) + (f" ({millions(trained / 1e6)} trained)" if trained < total else "")
        for total, trained in line.params
    )
    return " / ".join(dict.fromkeys(said)) or NOTHING


def _layout_table(table: Table) -> str:
    head = [
        "row",
        "fusion",
        f"paper: accuracy % ({OPTIMISTIC})",
        f"paper protocol ({OPTIMISTIC}): accuracy %",
        "nested protocol: accuracy %",
        "nested protocol: 95 % interval by actor",
        "nested protocol: difference to CFN-SR",
        "paper: params M",
        "ours: params M",
    ]
    lines = []
    for line in table.lines:
        nested, paper = line.nested, line.paper
        reference = "reference" if line.is_reference and nested else None
        lines.append(
            [
                line.title,
                line.fusion or NOTHING,
                published(paper.accuracy if paper else None),
                in_column(line.as_paper, OPTIMISTIC),
                in_column(nested),
                limits(nested.spreads["accuracy"]) if nested else NOTHING,
                reference or versus(line.versus),
                millions(paper.params if paper else None),
                ours(line),
            ]
        )
    return cells(head, lines, texts=2)


def _feature_table(table: Table) -> str:
    caveat = table.condition
    head = [
        "row",
        "model",
        "fusion",
        f"{table.protocol} protocol: accuracy %",
        f"{table.protocol} protocol: 95 % interval by actor",
        *([f"{table.protocol + SUFFIX} protocol ({caveat}): accuracy %"] if caveat is not None else []),
        f"{table.protocol} protocol: difference to CFN-SR with the same encoders",
        "params M",
    ]
    lines = [
        [
            line.title,
            line.model,
            line.fusion or NOTHING,
            in_column(line.nested),
            limits(line.nested.spreads["accuracy"]) if line.nested else NOTHING,
            *([in_column(line.normalised, caveat)] if caveat is not None else []),
            "reference" if line.is_reference and line.nested else versus(line.versus),
            ours(line),
        ]
        for line in table.lines
    ]
    return cells(map(safe, head), lines, texts=3)


def comparisons_table(compared: Sequence[Comparison]) -> str:
    """Pairs of rows as a Markdown table."""
    head = ["model", "less", "protocol", "difference", "95 % interval", "p", "Holm's p", "equivalence"]
    lines = []
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
                f"{equivalence(found)} p {p_value(found.p_equivalent)}",
                str(found.folds),
            ]
        lines.append([each.a, each.b, each.protocol_label, *figures])
    return cells([*head, "folds"], lines, texts=3)


def effect(found: Effect | None) -> str:
    """Answers that change, and in brackets the mean change of a probability, in per cent.

    >>> effect(Effect(0.0125, 0.00021)), effect(None)
    ('1.2 (0.02)', '–')
    """
    return NOTHING if found is None else f"{percent(found.changed)} ({100 * found.moved:.2f})"


def beyond_late(found: Interaction) -> str:
    """The difference to the best late rule in points, its interval and Holm's p; or why there is none."""
    versus = found.beyond
    if isinstance(versus, str):
        return versus if found.late else NOTHING
    limits = pair(versus.ci95, signed=True)
    return f"{percent(versus.mean, signed=True)} ({limits}), Holm {p_value(versus.p_holm)}, {found.late}"


def verdict(found: Interaction) -> str:
    """Whether the exchange has a part in the answers; a dash where there is nothing to disturb."""
    return ("no effect" if found.inert else "has an effect") if found.effects else NOTHING


def _interaction_table(rows: Sequence[Row]) -> str:
    head = ["model", "protocol", "exchange", *DISTURBANCES.values(), "entropy", "beyond late fusion, points"]
    lines = []
    for row in rows:
        found = row.interaction
        if found is not None:
            entropy = NOTHING if found.entropy is None else f"{found.entropy:.3f}"
            effects = [effect(found.effects.get(how)) for how in DISTURBANCES]
            told = beyond_late(found)
            lines.append([row.model, row.protocol_label, verdict(found), *effects, entropy, told])
    return cells(head, lines, texts=3)


def _figures_table(rows: Sequence[Row]) -> str:
    head = [
        "model",
        "protocol",
        "accuracy %",
        "95 % interval",
        "ours − paper's",
        "UAR %",
        "macro F1 %",
        "ECE %",
    ]
    lines = [
        [
            row.model,
            row.protocol_label,
            mean_and_deviation(row.spreads["accuracy"]),
            limits(row.spreads["accuracy"]),
            percent(row.difference, signed=True),
            *[mean_and_deviation(row.spreads[name]) for name in ("uar", "macro_f1", "ece")],
            row.progress,
            row.runs[0].preset,
            row.runs[0].corpus,
        ]
        for row in rows
    ]
    return cells([*head, "folds", "preset", "corpus"], lines, texts=2)


def _calibration_table(rows: Sequence[Row]) -> str:
    head = ["model", "protocol", "ECE %, raw", "ECE %, tempered", "NLL, raw", "NLL, tempered", "Brier, raw"]
    head += ["Brier, tempered", *[f"{100 * wanted:.0f} % to be answered" for wanted in COVERAGES]]
    lines = []
    for row in rows:
        found = row.calibration
        ece = [found.ece.get(name) for name in ("raw", "tempered")]
        answered = [f"{percent(each.accuracy)} ({percent(each.coverage)})" for each in found.abstention[1:]]
        lines.append(
            [
                row.model,
                row.protocol_label,
                *[mean_and_deviation(each) if each else NOTHING for each in ece],
                *[score(found.nll.get(name)) for name in ("raw", "tempered")],
                *[score(found.brier.get(name)) for name in ("raw", "tempered")],
                *(answered or [NOTHING] * len(COVERAGES)),
            ]
        )
    return cells(head, lines, texts=2)


def score(spread: Spread | None) -> str:
    """A score that is no share: two decimals.

    >>> score(Spread(0.755, 0.1, None)), score(None)
    ('0.76 ± 0.10', '–')
    """
    if spread is None:
        return NOTHING
    return f"{spread.mean:.2f}" + ("" if spread.std is None else f" ± {spread.std:.2f}")


def _conditions_table(rows: Sequence[Row]) -> str:
    conditions = conditions_of([row.conditions for row in rows])
    head = ["model", "protocol", *map(label, conditions)]
    lines = [
        [
            row.model,
            row.protocol_label,
            *[
                mean_and_deviation(row.conditions[name]) if name in row.conditions else NOTHING
                for name in conditions
            ],
        ]
        for row in rows
        if row.conditions
    ]
    return cells(head, lines, texts=2)


def cells(head: Iterable[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """A Markdown table whose first `texts` columns are text and whose others are aligned as numbers."""
    head = list(head)
    rule = ["---" if column < texts else "---:" for column in range(len(head))]
    rows = [head, rule, *([safe(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def safe(text: str) -> str:
    """Text that cannot end a cell, nor begin a tag, a link or code: names come from files.

    >>> print(safe("<b> [x](y) | z"))
    &lt;b&gt; \\[x\\](y) \\| z
    """
    return re.sub(r"([\\`\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
