"""Explained test clips of a finished run: the basis of its surest answers."""

from __future__ import annotations

import numpy as np

from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.evaluation.html import Example
from cfnsr.evaluation.runs import Run
from cfnsr.inference.explain import explain
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.inference.sheet import sheet
from cfnsr.inference.windows import Span, heard_at
from cfnsr.training.checkpoint import config_of, load_model


def examples(run: Run, store: Store) -> list[Example]:
    """Explain the test clips that a run is surest of, one right and one wrong, as far as there are such.

    They show what the model attends to, not how well it does: nobody chose them by sight.

    Args:
        run: with its checkpoint in its folder.
        store: of the clips that it was tested on.

    Raises:
        InputError: the checkpoint is missing or was trained on standardised speakers, or the store has no
            such clip.
    """
    model = load_model(run.folder)
    config = config_of(model)
    if config.normalised:
        raise InputError(
            f"{run.folder} was trained on standardised speakers, and one clip alone cannot be: expected runs "
            "without --speaker-normalisation"
        )
    heard = TorchRecogniser(model).preparation
    sees, hears = heard.of_file("video"), heard.of_file("audio")
    test = run.test
    emotions = run.labels.emotions
    answers, sureness = test.log_probabilities.argmax(axis=1), test.log_probabilities.max(axis=1)
    told = []
    for title, wanted in (("rightly", answers == test.labels), ("wrongly", answers != test.labels)):
        if not wanted.any():
            continue
        place = int(np.where(wanted, sureness, -np.inf).argmax())
        name, acted = test.clips[place], emotions[int(test.labels[place])]
        tensors = store.load(name)
        explanation = explain(model, tensors)
        sound = tensors.get("waveform") if hears else None
        length = float(tensors["duration"][0]) if "duration" in tensors else heard.skip + heard.keep
        picture = sheet(
            explanation,
            frames=tensors.get("video") if sees else None,
            times=tensors.get("times"),
            sound=sound,
            span=None if sound is None else heard_at(Span(0.0, length), heard),
            name=name,
        )
        caption = (
            f"The clip answered {title} that it is surest of: {name} of actor {test.actors[place]}, acted "
            f"{acted}, called {explanation.emotion}"
        )
        told.append(Example(caption, picture))
    return told
