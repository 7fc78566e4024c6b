"""`docs/ravdess-features.md`: every fusion on OpenFace action units and a pretrained speech encoder.

Every figure and every sentence follows from the runs; nothing here is written by hand but what the
figures mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cfnsr.data.folds import NORMALISED, SUFFIX
from cfnsr.errors import InputError
from cfnsr.evaluation.comparison import FEWEST, Difference, compare, paired_interval, sign_flip_p
from cfnsr.evaluation.ensemble import seeds_together
from cfnsr.evaluation.metrics import Floats
from cfnsr.evaluation.names import OURS, called, is_plain, reference_of, title_of, uses
from cfnsr.evaluation.spread import Spread
from cfnsr.evaluation.summary import Row, has_one_modality, trained_otherwise
from cfnsr.evaluation.tables import (
    HOW_CALIBRATION,
    NOTHING,
    cells,
    in_column,
    limits,
    mean_and_deviation,
    millions,
    p_value,
    pair,
    percent,
    safe,
    score,
)

HONEST = "nested"
UNKNOWN = "an unknown number of"
LEVEL = 0.05  # of significance
GOALS = {  # accuracy as a fraction, and seconds
    "speech alone": 0.74,
    "OpenFace alone": 0.62,
    "fused": 0.86,
    "fused, standardised": 0.92,
    "fused less best single": 0.08,
    "training a fold": 300.0,
}


@dataclass(frozen=True, eq=False)
class Entrant:
    """One model of the page: its honest row and its sister with features standardised per speaker."""

    model: str
    honest: Row | None
    normalised: Row | None

    @property
    def row(self) -> Row:
        """One of the two, the honest one first."""
        found = self.honest or self.normalised
        assert found is not None  # noqa: S101 - made of a row
        return found


def page(
    rows: Sequence[Row], commands: Sequence[str], *, date: str = "", tried: str = "", sequence: str = ""
) -> str:
    """The page in Markdown.

    Args:
        rows: of `summarise`; those under other protocols than nested and nested_normalised are passed over.
        commands: what made the runs, a line each.
        date: when they were made.
        tried: Markdown on what else was tried and what each try gave.
        sequence: Markdown of `sequence_page`.

    Raises:
        InputError: no model was run under the nested protocol, or the rows are of several corpora.
    """
    entrants = _entrants(rows)
    honest = [each.honest for each in entrants if each.honest is not None]
    if not honest:
        raise InputError(
            f"no row was run under the {HONEST} protocol: expected some, as "
            "`cfnsr crossval cfn_sr+openface+speech` makes them"
        )
    _check_alike([row for each in entrants for row in (each.honest, each.normalised) if row is not None])
    fused = [row for row in honest if not has_one_modality(row.model)]
    best = _best(fused or honest)
    parts = [
        "# RAVDESS without pixels: OpenFace and a speech encoder"
        if best.runs[0].corpus.lower() == "ravdess"
        else f"# {safe(best.runs[0].corpus)} without pixels: OpenFace and a speech encoder",
        _about(honest, date),
        _protocol(honest),
        "## Every row",
        _table(entrants),
        *_numbers_of_seeds(entrants),
        *_notes(honest),
        HOW,
        "## What the figures say",
        *_winner(fused, best),
        *_above_single(honest, fused),
        *_seeds(_declared(fused) or best),
        *_ensembles(entrants),
        "## Goals",
        _goals(entrants),
        GOALS_ARE_OF,
        f"## {safe(title_of(best.model))}: which emotions are taken for which",
        f"Of the clips with the emotion at the left, the per cent that were called so; `{best.model}`, "
        f"{best.protocol} protocol, all test clips"
        + (f", the {len(best.seeds)} seeds averaged." if len(best.seeds) > 1 else "."),
        _confusion(best),
        "## Actor by actor",
        _actors(best, next((each.normalised for each in entrants if each.honest is best), None)),
        "## Calibration",
        _calibration(honest),
        HOW_CALIBRATION,
        "## Training time",
        _times(honest),
        _times_are(honest),
        *(["## What else was tried", tried] if tried else []),
        sequence,
        "## How these figures were made",
        "```\n" + "\n".join(commands) + "\n```",
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


NOBODY = "Nobody who is tested chooses anything."
# Of the preset `features` on the actors that chose it; in the words of docs/ravdess-features-tried.md.
RECIPE = (
    "The recipe itself (epochs, shrinkage and scale of the discriminants) was chosen on the inner validation "
    "actors of all folds, who are each other's test actors: so the recipe as a whole has seen these actors "
    "in that way, though no fold's weights or temperatures have; only actors outside them are wholly new to "
    "it."
)
HOW = (
    "Accuracy is the mean ± deviation over folds (of several seeds each fold's mean first); the 95 % "
    "interval resamples whole actors. Where speakers are standardised, each person's features have that "
    "person's mean and deviation over all takes taken out, without labels: that needs several takes of each "
    "person, so these are no figures to expect of a single take of a stranger. Parameters are those learnt "
    "by gradient; the two discriminants, solved in closed form, add 0.05 million where speech is heard and "
    "0.01 where OpenFace is seen."
)
GOALS_ARE_OF = (
    f"'Fused' is the model declared beforehand, `{OURS}` or else CFN-SR on these encoders, not the row that "
    "turned out best on the test actors."
)


ENSEMBLES_ARE = (
    "The seeds' tempered log-probabilities averaged: one model of several networks, at as many times the "
    "cost. Whether that pays is for the inner validation clips to say; the test clips only tell how far."
)


def summary_table(rows: Sequence[Row]) -> str:
    """The rows' accuracies without and with speaker standardisation, as a short Markdown table."""
    entrants = _entrants(rows)
    caveat = _caveat(entrants)
    head = ["row", "accuracy, %", "95 % by actor", f"accuracy, % ({caveat})", "95 % by actor"]
    lines = [
        [
            each.model if title == each.model else f"{title} ({each.model})",
            *accuracies(each.honest, ""),
            *accuracies(each.normalised),
        ]
        for each, title in ((each, title_of(each.model)) for each in entrants)
    ]
    return cells(map(safe, head), lines, texts=1)


def _entrants(rows: Sequence[Row]) -> list[Entrant]:
    """Models of one modality first, then the fused ones; each in the order of the rows."""
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.protocol in (HONEST, HONEST + SUFFIX):
            by_model.setdefault(row.model, {})[row.protocol] = row
    found = [Entrant(model, each.get(HONEST), each.get(HONEST + SUFFIX)) for model, each in by_model.items()]
    return sorted(found, key=lambda each: not has_one_modality(each.model))


def _check_alike(rows: Sequence[Row]) -> None:
    first = rows[0].runs[0]
    for row in rows[1:]:
        run = row.runs[0]
        for what in ("corpus", "clips", "fingerprint", "labels"):
            if getattr(run, what) != getattr(first, what):
                raise InputError(
                    f"{first.folder} and {run.folder} differ in {what}: expected runs of one corpus; write "
                    "the page from one folder of runs"
                )


def _best(rows: Sequence[Row]) -> Row:
    whole = [row for row in rows if row.complete]
    return max(whole or rows, key=lambda row: row.spreads["accuracy"].mean)


def _declared(fused: Sequence[Row]) -> Row | None:
    """The fused row that was declared beforehand."""
    by_model = {row.model: row for row in fused}
    if OURS in by_model:
        return by_model[OURS]
    return next((by_model[name] for row in fused if (name := reference_of(row.pair)) in by_model), None)


def clips_of(row: Row) -> set[str]:
    """The names of a row's test clips."""
    return {clip for run in row.runs for clip in run.test.clips}


def _caveat(entrants: Sequence[Entrant]) -> str:
    return next((each.normalised.caveat for each in entrants if each.normalised is not None), NORMALISED)


def _about(rows: Sequence[Row], date: str) -> str:
    row = rows[0]
    run = row.runs[0]
    encoders = dict.fromkeys(
        f"{each.runs[0].settings['prepared speech_encoder']} (SHA-256 "
        f"{str(each.runs[0].settings.get('prepared speech_sha256', ''))[:12]}…)"
        for each in rows
        if each.encoders.audio == "speech" and each.runs[0].settings.get("prepared speech_encoder")
    )
    threads = dict.fromkeys(each.versions.get("threads", UNKNOWN) for every in rows for each in every.runs)
    presets = dict.fromkeys(each.runs[0].preset for each in rows)
    return (
        f"Corpus {safe(run.corpus)}: {run.clips} clips, of which {len(clips_of(row))} of {len(row.actors)} "
        f"actors are tested; {len(row.emotions)} emotions (chance {percent(1 / len(row.emotions))} %). "
        + (f"Speech encoder {safe(', '.join(encoders))}. " if encoders else "")
        + f"Preset {safe(', '.join(presets))}; {_seeds_of(rows)}; "
        + f"{safe(' or '.join(threads))} threads a training"
        + (f"; {safe(date)}." if date else ".")
    )


def _seeds_of(rows: Sequence[Row]) -> str:
    return " or ".join(dict.fromkeys(row.seeds_label for row in rows))


def _protocol(rows: Sequence[Row]) -> str:
    runs = rows[0].runs
    refit = any(run.settings.get("refit") for row in rows for run in row.runs)
    last = all(run.settings.get("keep") == "last" for row in rows for run in row.runs)
    chosen = "the temperatures (the epoch is the last)" if last else "the epoch"
    chosen_here = runs[0].corpus.lower().startswith("ravdess") and any(
        run.preset == "features" for row in rows for run in row.runs
    )
    return (
        f"Nested cross-validation: {runs[0].folds} folds of whole actors. In each, "
        f"{_numbers([len(run.test_actors) for run in runs])} actors are tested, "
        f"{_numbers([len(run.validation_actors) for run in runs])} others alone choose {chosen}, and "
        f"{_numbers([len(run.train_actors) for run in runs])} train"
        + ("; after that choice the model is fitted to the latter two together. " if refit else ". ")
        + (f"Nobody who is tested in a fold chooses anything there. {RECIPE}" if chosen_here else NOBODY)
    )


def _numbers(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _table(entrants: Sequence[Entrant]) -> str:
    caveat = _caveat(entrants)
    head = [
        "row",
        "model",
        "encoders",
        "fusion",
        "accuracy %",
        "95 % interval by actor",
        f"accuracy % ({caveat})",
        "95 % interval by actor",
        "parameters M",
    ]
    lines = [
        [
            title_of(each.model),
            each.model,
            called(each.row.encoders),
            each.row.fusion or NOTHING,
            *accuracies(each.honest, ""),
            *accuracies(each.normalised),
            millions(each.row.runs[0].params / 1e6),
        ]
        for each in entrants
    ]
    return cells(map(safe, head), lines, texts=4)


def accuracies(row: Row | None, caveat: str | None = None) -> list[str]:
    """Accuracy and interval; without a `caveat` the column's head says the row's own."""
    if row is None:
        return [NOTHING, NOTHING]
    return [in_column(row, row.caveat if caveat is None else caveat), limits(row.spreads["accuracy"])]


def _numbers_of_seeds(entrants: Sequence[Entrant]) -> list[str]:
    """Which rows have how many seeds, where they differ."""
    found: dict[int, list[str]] = {}
    for each in entrants:
        for row in filter(None, (each.honest, each.normalised)):
            name = safe(row.model) + (" standardised" if row is each.normalised else "")
            found.setdefault(len(row.seeds), []).append(name)
    if len(found) < 2:
        return []
    most, *fewer = sorted(found, reverse=True)
    fewest = fewer.pop()
    few = [f"{number} seeds: {', '.join(found[number])}" for number in (most, *fewer)]
    return [
        f"Rows have {', '.join(map(str, (most, *fewer)))} or {fewest} seed{'s' if fewest > 1 else ''} "
        f"({'; '.join(few)}; the others {fewest}). With more seeds less of a figure is the luck of one."
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    """Rows trained otherwise than the one declared beforehand, which a comparison should know of."""
    fused = [row for row in rows if not has_one_modality(row.model)]
    base = _declared(fused)
    if base is None:
        return []
    found: dict[str, list[str]] = {}
    for row in rows:
        otherwise = trained_otherwise(row, base, base.model) if row is not base else ""
        if otherwise:
            found.setdefault(otherwise, []).append(row.model)
    return [f"{safe(', '.join(models))}: {safe(why)}." for why, models in found.items()]


def _compared(base: Row, others: Sequence[Row]) -> dict[str, Difference | str]:
    """How far a row lies above each of the others, paired by actor; Holm's correction over all of them."""
    turned = compare({row.model: row.accuracy_of for row in others}, base.accuracy_of)
    return {
        model: found
        if isinstance(found, str)
        else Difference(-found.mean, (-found.ci95[1], -found.ci95[0]), found.p, found.p_holm, found.actors)
        for model, found in turned.items()
    }


def _winner(fused: Sequence[Row], best: Row) -> list[str]:
    """Which fusion has the highest accuracy, and whether its lead is more than chance."""
    if len(fused) < 2:
        return []
    found = _compared(best, [row for row in fused if row is not best])
    tested = {model: each for model, each in found.items() if isinstance(each, Difference)}
    clear = {model: each for model, each in tested.items() if each.p_holm < LEVEL}
    rest = {model: each for model, each in tested.items() if model not in clear}
    said = [
        f"**{safe(title_of(best.model))}** (`{best.model}`) has the highest accuracy of the {len(fused)} "
        f"fused rows, {percent(best.spreads['accuracy'].mean)} %."
    ]
    if tested and not clear:
        said.append(
            f"None of its differences to the other {len(tested)} is significant (paired by actor, sign "
            f"flips, Holm's p at least {p_value(min(each.p_holm for each in rest.values()))}): "
            f"{_listed(rest)}. Which fusion is best these actors do not tell."
        )
    elif tested and not rest:
        said.append(
            f"All its differences to the other {len(tested)} are significant (paired by actor, sign flips, "
            f"Holm's p below {LEVEL}): {_listed(clear)}."
        )
    elif tested:
        said.append(
            f"Significant (paired by actor, sign flips, Holm's p below {LEVEL}) are its differences to "
            f"{len(clear)} of the other {len(tested)}: {_listed(clear)}; not to {_listed(rest)}."
        )
    untested = {model: why for model, why in found.items() if isinstance(why, str)}
    said += [f"Not compared with {safe(model)}: {safe(why)}." for model, why in untested.items()]
    said.append(
        "The row was found by these same test figures, so its lead is a little too large: the highest of "
        "several has luck in it."
    )
    return [" ".join(said)]


def _listed(found: dict[str, Difference]) -> str:
    return ", ".join(
        f"`{model}` ({percent(each.mean, signed=True)} points, {pair(each.ci95, signed=True)}, "
        f"Holm {p_value(each.p_holm)})"
        for model, each in found.items()
    )


def _singles(honest: Sequence[Row], row: Row) -> list[Row]:
    """The modalities alone that a fused row is made of, with other encoders than the paper's first."""
    found = [each for each in honest if has_one_modality(each.model) and uses(row.encoders, each.encoders)]
    return sorted(found, key=lambda each: is_plain(each.model))


def _over_single(honest: Sequence[Row], row: Row) -> tuple[Row, Floats] | None:
    """The better of a fused row's modalities, and what each actor gains by the fusion."""
    singles = _singles(honest, row)
    if not singles:
        return None
    single = max(singles, key=lambda each: each.spreads["accuracy"].mean)
    ours, theirs = row.accuracy_of, single.accuracy_of
    return single, np.array([ours[actor] - theirs[actor] for actor in ours if actor in theirs])


def _above_single(honest: Sequence[Row], fused: Sequence[Row]) -> list[str]:
    row = _declared(fused)
    found = _over_single(honest, row) if row is not None else None
    if row is None or found is None:
        return []
    single, gains = found
    mean = float(gains.mean())
    where = "above" if mean >= 0 else "below"
    p = f"p {p_value(sign_flip_p(gains))}" if len(gains) >= FEWEST else "too few actors for a test"
    return [
        f"`{row.model}` lies {percent(abs(mean))} points {where} {safe(title_of(single.model))}, the better "
        f"single modality (paired by actor {percent(mean, signed=True)}, 95 % interval "
        f"{pair(paired_interval(gains), signed=True)}, {p})."
    ]


def _seeds(row: Row) -> list[str]:
    """How far the seed alone moves the figure."""
    if len(row.seeds) < 2:
        return []
    means = [
        np.mean(
            [
                figures["accuracy"]
                for run, figures in zip(row.runs, row.fold_figures, strict=True)
                if run.seed == seed
            ]
        )
        for seed in row.seeds
    ]
    told = ", ".join(
        f"{percent(float(mean))} (seed {seed})" for seed, mean in zip(row.seeds, means, strict=True)
    )
    return [f"Seed by seed `{row.model}` has {told}."]


def _ensembles(entrants: Sequence[Entrant]) -> list[str]:
    """A table of rows with several seeds, one alone and all together; nothing where there are none."""
    found = [
        (row, ensemble)
        for each in entrants
        for row in (each.honest, each.normalised)
        if row is not None and (ensemble := seeds_together(row)) is not None
    ]
    if not found:
        return []
    head = [
        "model",
        "protocol",
        "seeds",
        "one alone, inner %",
        "together, inner %",
        "one alone, test %",
        "together, test %",
        "95 % interval by actor",
    ]
    lines = [
        [
            row.model,
            row.protocol_label,
            str(ensemble.seeds),
            percent(ensemble.inner_alone),
            percent(ensemble.inner_together),
            percent(row.spreads["accuracy"].mean),
            mean_and_deviation(ensemble.together),
            limits(ensemble.together),
        ]
        for row, ensemble in found
    ]
    return ["## The seeds as an ensemble", ENSEMBLES_ARE, cells(map(safe, head), lines, texts=2)]


def _goals(entrants: Sequence[Entrant]) -> str:
    honest = [each.honest for each in entrants if each.honest is not None]
    fused = [row for row in honest if not has_one_modality(row.model)]
    by_model = {each.model: each for each in entrants}
    ours = _declared(fused) or _declared([each.row for each in entrants if not has_one_modality(each.model)])
    declared = by_model[ours.model] if ours is not None else None
    lines = []
    rows = {
        "speech alone": by_model["audio+speech"].honest if "audio+speech" in by_model else None,
        "OpenFace alone": by_model["video+openface"].honest if "video+openface" in by_model else None,
        "fused": declared.honest if declared else None,
        "fused, standardised": declared.normalised if declared else None,
    }
    for goal, row in rows.items():
        spread = row.spreads["accuracy"] if row is not None else None
        lines.append(_goal(goal, row, spread))
    over = (
        _over_single(honest, declared.honest)
        if declared is not None and declared.honest is not None
        else None
    )
    gain = Spread(float(over[1].mean()), None, paired_interval(over[1])) if over is not None else None
    lines.append(_goal("fused less best single", declared.honest if declared else None, gain))
    lines.append(_time_goal(declared.honest if declared else None, honest))
    return cells(["goal", "model", "asked", "measured", "95 % interval", "outcome"], lines, texts=2)


def _goal(goal: str, row: Row | None, spread: Spread | None) -> list[str]:
    asked = GOALS[goal]
    if row is None or spread is None:
        return [goal, NOTHING, f"{100 * asked:g}", NOTHING, NOTHING, "not run"]
    over = spread.mean - asked
    by = percent(abs(over))
    outcome = f"{'reached' if over >= 0 else 'missed'} by {'less than 0.1' if by == '0.0' and over else by}"
    caveat = f" ({row.caveat})" if row.caveat else ""
    missing = "" if row.complete else f" ({row.progress})"
    return [
        goal + caveat,
        row.model,
        f"{100 * asked:g}",
        percent(spread.mean) + missing,
        pair(spread.ci95),
        outcome,
    ]


def _time_goal(row: Row | None, honest: Sequence[Row]) -> list[str]:
    name, asked = "longest training of a fold, s", GOALS["training a fold"]
    if row is None:
        return [name, NOTHING, f"at most {asked:g}", NOTHING, NOTHING, "not run"]
    longest = max(_seconds(row, honest))
    outcome = "reached" if longest <= asked else f"missed by {longest - asked:.0f}"
    return [name, row.model, f"at most {asked:g}", f"{longest:.0f}", NOTHING, outcome]


def _confusion(row: Row) -> str:
    clips = row.counts.pooled().confusion
    totals = clips.sum(axis=1, keepdims=True)
    shares = np.divide(clips, totals, out=np.zeros_like(clips), where=totals > 0)
    lines = [
        [name, *[f"{100 * share:.0f}" for share in line], f"{total:.0f}"]
        for name, line, (total,) in zip(row.emotions, shares.tolist(), totals.tolist(), strict=True)
    ]
    return cells(map(safe, ["acted", *row.emotions, "clips"]), lines, texts=1)


def _actors(row: Row, normalised: Row | None) -> str:
    standardised = normalised.accuracy_of if normalised is not None else {}
    clips = row.counts.confusion.sum(axis=(1, 2))
    head = ["actor", "clips", "accuracy %"]
    if normalised is not None:
        head.append(f"accuracy % ({normalised.caveat})")
    lines = [
        [
            str(actor),
            f"{number:.0f}",
            percent(float(value)),
            *([percent(standardised.get(actor))] if normalised is not None else []),
        ]
        for actor, number, value in zip(row.actors, clips, row.actor_accuracy, strict=True)
    ]
    return cells(map(safe, head), lines, texts=1)


def _calibration(rows: Sequence[Row]) -> str:
    head = ["row", "model", "ECE %, raw", "ECE %, tempered", "NLL, raw", "NLL, tempered", "temperatures"]
    lines = []
    for row in rows:
        found = row.calibration
        ece = [found.ece.get(kind) for kind in ("raw", "tempered")]
        low, high = (min(found.temperatures), max(found.temperatures)) if found.temperatures else (None, None)
        lines.append(
            [
                title_of(row.model),
                row.model,
                *[mean_and_deviation(each) if each is not None else NOTHING for each in ece],
                *[score(found.nll.get(kind)) for kind in ("raw", "tempered")],
                NOTHING if low is None else f"{low:.2f} to {high:.2f}",
            ]
        )
    return cells(head, lines, texts=2)


def _seconds(row: Row, honest: Sequence[Row]) -> list[float]:
    """Seconds of each run of a row, with the trainings of the encoders it starts from."""
    if has_one_modality(row.model) or row.runs[0].settings.get("pretrain") is False:
        return [run.seconds for run in row.runs]
    first = {
        (each.model, run.seed, run.fold): run.seconds for each in _singles(honest, row) for run in each.runs
    }
    return [
        run.seconds
        + sum(value for (_, seed, fold), value in first.items() if (seed, fold) == (run.seed, run.fold))
        for run in row.runs
    ]


def _times(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        own, whole = [run.seconds for run in row.runs], _seconds(row, rows)
        lines.append(
            [
                title_of(row.model),
                row.model,
                f"{np.mean(own):.1f}",
                f"{max(own):.1f}",
                f"{np.mean(whole):.1f}",
                f"{max(whole):.1f}",
            ]
        )
    head = ["row", "model", "seconds a fold", "longest", "with its encoders alone first", "longest"]
    return cells(head, lines, texts=2)


def _times_are(rows: Sequence[Row]) -> str:
    threads = ", ".join(
        dict.fromkeys(run.versions.get("threads", UNKNOWN) for row in rows for run in row.runs)
    )
    return (
        f"Wall-clock seconds of one training after the features are computed, with {safe(threads)} threads; "
        "trainings that ran beside each other slow each other down. A fused model starts from the models of "
        "its encoders alone, which are trained once for all fused rows of a fold and seed."
    )
