"""Rows of results: all runs of one model under one protocol, summarised."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from cfnsr.corpus.take import Actor, actor_order
from cfnsr.data.clip import Preparation
from cfnsr.data.folds import OPTIMISTIC, PROTOCOLS
from cfnsr.evaluation.calibration import Calibration, calibrate
from cfnsr.evaluation.comparison import Difference, compare
from cfnsr.evaluation.metrics import FIGURES, Counts, Floats, accuracy, interval, recalls
from cfnsr.evaluation.names import (
    PAPERS,
    Encoders,
    encoders_of,
    entry_of,
    is_plain,
    modalities_of,
    pairs_of,
    reference_of,
)
from cfnsr.evaluation.robustness import partly_scored, under_conditions
from cfnsr.evaluation.runs import Run
from cfnsr.evaluation.spread import Spread, Tally, tally
from cfnsr.training.config import PRESETS

PAPER_SETTINGS = {  # a run with others is not the paper's, whatever its preset
    **{key: value for key, value in PRESETS["paper"].as_json().items() if key != "precision"},
    **{
        f"prepared {key}": value
        for key, value in Preparation().as_json().items()
        # No row of the paper hears through a speech encoder. Of sampling its text and its code say two
        # things, and of the face its text says only that it is cut out.
        if key not in ("modalities", "sampling", "margin") and not key.startswith("speech_")
    },
}
OF_TWO_STREAMS = ("fused_epochs", "pretrain", "modality_dropout")  # settings that concern no other model
SHOWN = 5  # differences of settings that are named
RAVDESS_CLIPS = 1440  # 24 actors x 60 takes of speech
PROTOCOL_ORDER = ("nested", *(name for name in PROTOCOLS if name != "nested"))  # the honest one first


@dataclass(frozen=True)
class Paper:
    """What the paper reports for a model: accuracy as a fraction, parameters in millions."""

    accuracy: float
    params: float | None


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one model under one protocol, and the figures that come out of them.

    Args:
        tally: the test predictions of its runs, which are ordered by seed and fold.
        actors: the tested actors, in the order of the counts.
        fusion: where the modalities meet, if the zoo knows the model.
        paper: the paper's figures, if it has the model.
        versus: the difference to CFN-SR with the same encoders under the same protocol, or why there is none.
        pair: of encoders, whose table the row stands in.
    """

    tally: Tally
    actors: tuple[Actor, ...]
    fusion: str | None = None
    paper: Paper | None = None
    versus: Difference | str = "not compared"
    pair: Encoders = PAPERS

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.tally.runs

    @property
    def counts(self) -> Counts:
        """The counts of each tested actor (first axis), averaged over seeds."""
        return self.tally.actors

    @cached_property
    def fold_figures(self) -> tuple[Mapping[str, float], ...]:
        """Of each run every figure of `metrics.FIGURES`."""
        columns = {name: self.tally.each_fold(name) for name in FIGURES}
        return tuple({name: values[run] for name, values in columns.items()} for run in range(len(self.runs)))

    @property
    def model(self) -> str:
        return self.runs[0].model

    @property
    def protocol(self) -> str:
        return self.runs[0].protocol

    @property
    def name(self) -> str:
        """How the row is called in running text, its caveat with it."""
        return f"{self.model}, {self.protocol_label}"

    @property
    def protocol_label(self) -> str:
        """The protocol's name, and the caveat where its figures flatter."""
        return f"{self.protocol} protocol" + (f" ({self.caveat})" if self.caveat else "")

    @property
    def encoders(self) -> Encoders:
        """What its pictures and its sound are read by."""
        return encoders_of(self.model)

    @property
    def emotions(self) -> tuple[str, ...]:
        return self.runs[0].labels.emotions

    @property
    def optimistic(self) -> bool:
        return self.runs[0].optimistic

    @property
    def caveat(self) -> str:
        """Why the row's figures flatter, to stand beside each of them; empty for an honest protocol."""
        return self.runs[0].caveat

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def seeds_label(self) -> str:
        """The seeds in words: "seed 0", "seeds 0, 1"."""
        return f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"

    @property
    def complete(self) -> bool:
        """Whether every seed has every fold of the cross-validation."""
        return len(self.runs) == len(self.seeds) * self.runs[0].folds

    @property
    def progress(self) -> str:
        """How much of the cross-validation is there: "3 of 6 folds"."""
        of = f"of {self.runs[0].folds} folds"
        done = {seed: sum(run.seed == seed for run in self.runs) for seed in self.seeds}
        if len(set(done.values())) == 1:
            return f"{done[self.seeds[0]]} {of}" + (f", {len(done)} seeds" if len(done) > 1 else "")
        return "; ".join(f"seed {seed}: {number} {of}" for seed, number in done.items())

    @property
    def incomparable(self) -> str | None:
        """Why the paper's figures are not comparable with this row's; None when they are."""
        run, why = self.runs[0], []
        if not is_plain(self.model):
            return "other encoders than the paper's"
        if run.preset != "paper":
            why.append(f"preset {run.preset}, not paper")
            preset = PRESETS[run.preset].as_json() if run.preset in PRESETS else {}
            why += [
                f"{key} {run.settings[key]}, not the preset's {value}"
                for key, value in preset.items()
                if run.settings.get(key, value) != value
            ]
        else:
            changed = [
                f"{key.removeprefix('prepared ')} {run.settings[key]}, not {value}"
                for key, value in PAPER_SETTINGS.items()
                if run.settings.get(key, value) != value
            ]
            why += changed
        if run.corpus.lower() != "ravdess":
            why.append(f"corpus {run.corpus}, not RAVDESS")
        elif abs(run.clips - RAVDESS_CLIPS) > RAVDESS_CLIPS // 100:  # a few clips may fail in preparation
            why.append(f"{run.clips} clips, not RAVDESS's {RAVDESS_CLIPS} of speech")
        return "; ".join(why) or None

    @property
    def difference(self) -> float | None:
        """Our mean accuracy less the paper's, where the two are comparable."""
        if self.paper is None or self.incomparable:
            return None
        return self.spreads["accuracy"].mean - self.paper.accuracy

    @cached_property
    def spreads(self) -> Mapping[str, Spread]:
        """Mean, deviation and interval of every figure of `metrics.FIGURES`."""
        return {name: self.tally.spread(name) for name in FIGURES}

    @cached_property
    def calibration(self) -> Calibration:
        """How far the row's confidence can be believed."""
        return calibrate(self.tally, self.actors)

    @cached_property
    def conditions(self) -> Mapping[str, Spread]:
        """Accuracy on clean clips and under bad input; empty where it was not scored so."""
        return under_conditions(self.tally, self.actors)

    @cached_property
    def actor_accuracy(self) -> Floats:
        """(actors,) accuracy of each tested actor's clips."""
        return accuracy(self.counts)

    @property
    def accuracy_of(self) -> Mapping[Actor, float]:
        """Each tested actor's accuracy."""
        return dict(zip(self.actors, self.actor_accuracy.tolist(), strict=True))

    @cached_property
    def emotion_accuracy(self) -> Floats:
        """(classes,) recall of each emotion over all tested clips."""
        return recalls(self.counts.pooled())

    @cached_property
    def emotion_interval(self) -> Floats:
        """(2, classes) 95 % interval of each emotion's recall by resampling actors."""
        return interval(recalls, self.counts)


def summarise(runs: Iterable[Run]) -> list[Row]:
    """One row per model and protocol, in the order of the paper's tables; other models follow by name.

    Rows with other encoders than the paper's follow these, pair of encoders by pair, in the same order.
    """
    from cfnsr.models.zoo import ENTRIES, base_name

    runs = tuple(runs)
    order = list(ENTRIES)
    pairs = pairs_of(run.model for run in runs)
    first = {pair: place for place, pair in enumerate(dict.fromkeys([PAPERS, *sorted(pairs.values())]))}

    def place(run: Run) -> tuple[int, int, str, int, str]:
        base = base_name(run.model)
        known = order.index(base) if base in ENTRIES else len(order)
        protocol = PROTOCOL_ORDER.index(run.protocol) if run.protocol in PROTOCOLS else len(PROTOCOLS)
        return first[pairs[run.model]], known, run.model, protocol, run.protocol

    rows = []
    for _, members in groupby(sorted(runs, key=lambda run: (place(run), run.seed, run.fold)), key=place):
        together = tuple(members)
        found = entry_of(together[0].model)
        actors = tuple(
            sorted(
                {actor for run in together for actor in run.test.actors},
                key=actor_order,
            )
        )
        counted = tally(together, [run.test for run in together], actors)
        fusion = found.fusion if found is not None else None
        model = together[0].model
        rows.append(Row(counted, actors, fusion, paper_of(model), pair=pairs[model]))
    return _compared(rows)


def paper_of(model: str) -> Paper | None:
    """What the paper reports for a model; None where it has none, as of other encoders than its own."""
    found = entry_of(model)
    if found is None or found.paper_accuracy is None or not is_plain(model):
        return None
    return Paper(found.paper_accuracy, found.paper_params)


def remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader must know before comparing figures, a sentence each."""
    said = []
    reasons = dict.fromkeys(row.incomparable for row in rows if row.incomparable)
    for reason in reasons:
        concerned = [row for row in rows if row.incomparable == reason]
        which = (
            ""
            if len(concerned) == len(rows)
            else " for " + ", ".join(dict.fromkeys(r.model for r in concerned))
        )
        said.append(f"The paper's figures are not comparable with ours{which} ({reason}).")
    optimistic = dict.fromkeys(row.protocol for row in rows if row.optimistic)
    if optimistic:
        said.append(
            f"Under the {' and the '.join(optimistic)} protocol each fold's epoch is chosen by the accuracy "
            "on the fold's own test actors, so these figures, and the paper's own, are too high "
            f"({OPTIMISTIC}); the nested protocol leaves the choice to other actors."
        )
    leaky = {row.protocol: row.caveat for row in rows if row.runs[0].leaky}
    said += [
        f"The {protocol} protocol leaks on purpose, to show what that adds ({caveat}): no figure of it "
        "stands for the model."
        for protocol, caveat in leaky.items()
    ]
    conditional = {row.protocol: row.caveat for row in rows if not (row.optimistic or row.runs[0].leaky)}
    said += [
        f"The figures of the {protocol} protocol hold on a condition alone ({caveat})."
        for protocol, caveat in conditional.items()
        if caveat
    ]
    partly = [row.name for row in rows if partly_scored(row.runs)]
    if partly:
        said.append(
            f"{', '.join(partly)}: not every run was scored under the same bad input, so what some lack is "
            "left out."
        )
    incomplete: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row.complete:
            incomplete.setdefault((row.protocol_label, row.progress), []).append(row.model)
    said += [
        f"Incomplete under the {label} ({progress}): {', '.join(models)}; figures are of these folds alone."
        for (label, progress), models in incomplete.items()
    ]
    return said


def _compared(rows: Sequence[Row]) -> list[Row]:
    """The rows with their differences to CFN-SR of the same encoders, each under its own protocol."""
    found: dict[tuple[str, str], Difference | str] = {}
    by_name = {(row.protocol, row.model): row for row in rows}
    for protocol, pair in dict.fromkeys((row.protocol, row.pair) for row in rows):
        name = reference_of(pair)
        members = [row for row in rows if (row.protocol, row.pair) == (protocol, pair)]
        others = [row for row in members if row.model != name]
        reference = by_name.get((protocol, name))
        reasons = {row.model: _unlike(row, reference, name) for row in others}
        if reference is not None:
            found[protocol, name] = "the reference"
            compared = {row.model: row.accuracy_of for row in others if not reasons[row.model]}
            found |= {
                (protocol, model): versus
                for model, versus in compare(compared, reference.accuracy_of).items()
            }
        found |= {(protocol, model): reason for model, reason in reasons.items() if reason}
    return [replace(row, versus=found[row.protocol, row.model]) for row in rows]


def _unlike(row: Row, reference: Row | None, name: str) -> str:
    """Why a row cannot be compared with the reference; empty when it can."""
    if reference is None:
        return f"{name} was not run under the {row.protocol} protocol"
    ours, theirs = row.runs[0], reference.runs[0]
    for what in ("corpus", "fingerprint", "clips", "labels", "preset"):
        if getattr(ours, what) != getattr(theirs, what):
            return f"run with another {'corpus' if what != 'preset' else what} than {name}"
    return trained_otherwise(row, reference, "CFN-SR")


def trained_otherwise(row: Row, other: Row, called: str) -> str:
    """In what the training of two rows differs beside the model; empty where it does not."""
    found = [(f"{name} {ours}", theirs) for name, (ours, theirs) in different_settings(row, other).items()]
    if row.seeds != other.seeds:
        found.insert(0, (row.seeds_label, other.seeds_label))
    elif unequal := _folds_of_other_seeds(row, other):
        found.insert(0, (f"other seeds in fold {', '.join(map(str, unequal))}", "all of them"))
    if not found:
        return ""
    ours, theirs = (" and ".join(values) for values in zip(*found[:SHOWN], strict=True))
    more = f"; {len(found) - SHOWN} more settings differ" if len(found) > SHOWN else ""
    return f"trained with {ours}, {called} with {theirs}{more}"


def _folds_of_other_seeds(row: Row, other: Row) -> list[int]:
    """The folds that both rows have, and not with the same seeds: their means are of other trainings."""
    ours, theirs = (
        {fold: {run.seed for run in one.runs if run.fold == fold} for fold in {run.fold for run in one.runs}}
        for one in (row, other)
    )
    return sorted(fold for fold in ours.keys() & theirs.keys() if ours[fold] != theirs[fold])


def different_settings(row: Row, other: Row) -> dict[str, tuple[str, str]]:
    """The settings that differ, with both values, of those that concern the row's model."""
    ours, theirs = row.runs[0].settings, other.runs[0].settings
    return {
        name: (str(ours.get(name, "not told")), str(theirs.get(name, "not told")))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name) and not (name in OF_TWO_STREAMS and has_one_modality(row.model))
    }


def has_one_modality(model: str) -> bool:
    """Whether the zoo knows a model to have one modality, so that it starts from nothing."""
    return len(modalities_of(model)) == 1
