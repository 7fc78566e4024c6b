"""Notes of the report: how its figures are computed, and what a reader must know before comparing them."""

from collections.abc import Iterable, Sequence

from cfnsr.data.conditions import MEANINGS, label
from cfnsr.data.folds import EVALUATED, OPTIMISTIC
from cfnsr.evaluation.metrics import FEWEST, TOO_FEW
from cfnsr.evaluation.rows import Row

ACCURACY = (
    "Accuracy is the mean ± deviation over folds (n − 1; of several seeds each fold's mean first). "
    "The 95 % interval is Student's t by actor, about that mean: its standard error is the jackknife's, "
    "which leaves out one actor at a time."
)
TEST = (
    "All actors of a fold are answered by the same trained network, so the unit is the fold: its accuracy "
    "less the other model's on the same actors (of several seeds the means), and the mean of that over "
    "folds. The 95 % interval and p are of Student's t with folds − 1 degrees of freedom, two-sided; Holm's "
    "p is corrected for all pairs compared under that protocol. The p of equivalence is small where the data "
    "speak against a difference as large as the margin (two one-sided t tests); a large p of difference is "
    "no proof that two models are equally good. What the tests cannot tell: whether another corpus or "
    "another language would give the same order; nor do they see that the training sets of the folds "
    "overlap. Rows whose settings or seeds differ are not compared."
)
INTERACTION = (
    "The test clips answered again, first without the exchange between the modalities (under uniform "
    "weights, or passed by; of a model that fuses early, by the nearest sum of a score of each modality), "
    "then with the exchange alone given another clip's sound or picture: the share of answers that become "
    "another emotion and, in brackets, the mean change of an emotion's probability, both in per cent. "
    "Entropy is that of the attention weights, 1 where they are uniform. Beyond late fusion: accuracy less "
    "that of the late rule on the same encoders that does best on the inner validation clips, paired by "
    "fold, with Holm's p over all rows. A dash stands where a row has no such exchange."
)
DIFFERENCE = "The difference to CFN-SR is paired by fold, under the nested protocol."
COMPARISONS = "Each difference is the first model less the second, in points, paired by fold."
PAIRS = (
    "In a table with other encoders all this is under the table's own protocol, CFN-SR is the one with these "
    "encoders, and Holm's correction is over the rows with them."
)
CALIBRATION = (
    "ECE is the expected calibration error, raw and after temperature scaling; each fold's temperature is "
    "fitted, and each threshold of abstention chosen, on the fold's inner validation clips alone; to these "
    "the fit adds one clip whose emotion is anybody's guess, so that a few dozen right answers ask for no "
    "certainty. The checkpoint predicts with its temperature, so the tempered figures are those of what is "
    "shipped. Where the recipe trains again on the validation actors, the temperature is that of the network "
    "before, which had not met them; it may be a little too high for the one after, whose raw figures stand "
    "beside it."
)
ABSTENTION = (
    "The last columns: the accuracy of the answered clips where that share of the clips was to be answered, "
    "and in brackets the share of the test clips that really was."
)


def conditions(names: Iterable[str]) -> str:
    """Explain some conditions of bad input."""
    meanings = "; ".join(f"{label(name)}: {MEANINGS[name]}" for name in names if name in MEANINGS)
    return (
        f"Accuracy in per cent, mean ± deviation over folds. {meanings}. The models were not trained again."
    )


def remarks(rows: Sequence[Row]) -> list[str]:
    """Warn of what a reader must know before comparing figures, a sentence each."""
    warnings = []
    for reason in dict.fromkeys(row.incomparable for row in rows if row.incomparable):
        concerned = [row for row in rows if row.incomparable == reason]
        models = ", ".join(dict.fromkeys(row.model for row in concerned))
        which = "" if len(concerned) == len(rows) else f" for {models}"
        warnings.append(f"The paper's figures are not comparable with ours{which} ({reason}).")
    optimistic = dict.fromkeys(row.protocol for row in rows if row.runs[0].optimistic)
    if optimistic:
        warnings.append(
            f"Under the {' and the '.join(optimistic)} protocol each fold's epoch is chosen by the accuracy "
            "on the fold's own test actors, so these figures, and the paper's own, are too high "
            f"({OPTIMISTIC}); the nested protocol leaves the choice to other actors."
        )
    leaky = {row.protocol: row.caveat for row in rows if row.runs[0].leaky}
    for protocol, caveat in leaky.items():
        warnings.append(
            f"The {protocol} protocol leaks on purpose, to show what that adds ({caveat}): no figure of it "
            "stands for the model."
        )
    honest = [row for row in rows if not (row.runs[0].optimistic or row.runs[0].leaky)]
    for protocol, caveat in {row.protocol: row.caveat for row in honest}.items():
        if caveat:
            warnings.append(f"The figures of the {protocol} protocol hold on a condition alone ({caveat}).")
    evaluated = [row.protocol for row in rows if row.protocol.startswith(EVALUATED)]
    if evaluated:
        warnings.append(
            f"Under the {' and the '.join(dict.fromkeys(evaluated))} protocol a trained model answered among "
            "the emotions of a corpus that it was not trained on. Its confidence, called raw, is the one it "
            "predicts with, so its own temperature is in it."
        )
    few = [row.name for row in rows if len(row.tally.names) < FEWEST]
    if few:
        warnings.append(f"No 95 % interval for {', '.join(few)}: {TOO_FEW}.")
    partly = [row.name for row in rows if len({frozenset(run.conditions) for run in row.runs}) > 1]
    if partly:
        warnings.append(
            f"{', '.join(partly)}: not every run was scored under the same bad input, so what some lack is "
            "left out."
        )
    incomplete: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row.complete:
            incomplete.setdefault((row.protocol_label, row.progress), []).append(row.model)
    for (protocol, progress), unfinished in incomplete.items():
        warnings.append(
            f"Incomplete under the {protocol} ({progress}): {', '.join(unfinished)}; figures are of these "
            "folds alone."
        )
    return warnings
