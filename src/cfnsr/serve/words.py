"""A prediction in words: what was there most of the time, and where something was missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from cfnsr.inference.timeline import Prediction, Segment, clock, segments

LISTED = 3  # segments by name; of more, their number
LEAST_SHARE = 0.005  # of the time, below which nothing is said


def in_words(prediction: Prediction) -> str:
    """Put a prediction into a few sentences, for people who see no picture of it too.

    >>> from cfnsr.inference.timeline import Window
    >>> calm, happy = {"calm": 0.7, "happy": 0.3}, {"calm": 0.2, "happy": 0.8}
    >>> windows = [Window(at, at + 1, calm if at < 6 else happy, True, True) for at in range(8)]
    >>> windows += [Window(8, 10, None, False, True, ())]
    >>> in_words(Prediction("", "calm", {"calm": 0.55, "happy": 0.45}, tuple(windows)))
    'Most of the time calm (60 %), then happy (20 %). No face from 0:08 to 0:10: no answer.'
    """
    cut = segments(prediction, join=False)
    notes = " ".join(f"{note[:1].upper()}{note[1:]}." for note in prediction.notes)
    if not cut:
        return "Nothing to tell of."
    return " ".join(part for part in (_answers(prediction, cut), _gaps(cut), notes) if part)


def _answers(prediction: Prediction, cut: Sequence[Segment]) -> str:
    if prediction.probabilities is None:
        return "No answer."
    if len(prediction.timeline) == 1:
        ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
        (first, most), (second, less) = ranked[:2]
        return f"{first.capitalize()} {_percent(most)}, then {second} {_percent(less)}."
    times: dict[str, float] = {}
    for each in cut:
        if each.emotion is not None:
            times[each.emotion] = times.get(each.emotion, 0.0) + each.end - each.start
    whole = sum(each.end - each.start for each in cut)
    shares = sorted(((time / whole, emotion) for emotion, time in times.items()), reverse=True)
    shown = [(share, emotion) for share, emotion in shares if share >= LEAST_SHARE][:LISTED]
    (share, emotion), *others = shown or shares[:1]
    if share > 1 - LEAST_SHARE:
        return f"{emotion.capitalize()} all the time."
    begin = "Most of the time " if share > 0.5 else "Most often "
    then = "".join(f", then {emotion} ({_percent(share)})" for share, emotion in others)
    return f"{begin}{emotion} ({_percent(share)}){then}."


def _gaps(cut: Sequence[Segment]) -> str:
    """Name the times without a face, speech or an answer: a sentence for each kind."""
    runs: dict[str, list[str]] = {}
    for mark, group in groupby(cut, key=lambda each: each.mark):
        run = list(group)
        if mark:
            runs.setdefault(mark, []).append(f"from {clock(run[0].start)} to {clock(run[-1].end)}")
    sentences = []
    for mark, places in runs.items():
        what, _, then = mark.partition(": ")
        if len(places) > LISTED:
            places[LISTED:] = [f"{len(places) - LISTED} times more"]
        where = " and ".join(filter(None, (", ".join(places[:-1]), places[-1])))
        sentences.append(f"{what.capitalize()} {where}{': ' + then if then else ''}.")
    return " ".join(sentences)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
