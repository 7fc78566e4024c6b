"""A user's file -> its emotion, by the same preparation as the training clips."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cfnsr.corpus.take import Take
from cfnsr.data.clip import prepare_clip
from cfnsr.data.dataset import Batch, as_tensor, needed
from cfnsr.data.speech import choose_encoder
from cfnsr.errors import InputError
from cfnsr.media.container import probe
from cfnsr.models.zoo import Model
from cfnsr.training.checkpoint import config_of
from cfnsr.training.inputs import answer, to_input

SPEECH_LEVEL = -55.0  # dBFS; below it the window is taken for silent


@dataclass(frozen=True)
class Window:
    """A stretch of the file and what the model made of it.

    Args:
        start: seconds.
        end: seconds.
        probabilities: of each emotion.
        face: whether a face was seen in at least half of its pictures; None when none were asked for.
        speech: whether its sound is louder than silence; None when none was asked for.
    """

    start: float
    end: float
    probabilities: dict[str, float]
    face: bool | None
    speech: bool | None


@dataclass(frozen=True)
class Prediction:
    """What a model makes of a file.

    Args:
        file: as it was given.
        emotion: the most probable one.
        probabilities: of each emotion, in class order; they sum to 1.
        timeline: the same over time; one window so far.
    """

    file: str
    emotion: str
    probabilities: dict[str, float]
    timeline: tuple[Window, ...]

    def as_json(self) -> dict[str, Any]:
        """The form `cfnsr predict --json` prints."""
        return {**asdict(self), "timeline": [asdict(window) for window in self.timeline]}


def predict(
    model: Model,
    file: str | Path,
    *,
    openface: str | Path | None = None,
    speech_encoder: str | Path | None = None,
) -> Prediction:
    """Recognise the emotion in a video or sound file.

    Args:
        model: from `load_model`, or any model of the zoo (its weights are then random, and say nothing).
        file: anything PyAV opens; a model that sees and hears needs pictures with a face, and sound.
        openface: the file's OpenFace CSV, whose points then say where the face is; else the detector does.
            A model that sees OpenFace tracks needs it, or a table of clip means that has the file's name.
        speech_encoder: folder or hub name of the speech encoder that the model was trained with, if it hears
            by one; None leaves what `CFNSR_SPEECH_ENCODER` names, or what the process used before.

    Raises:
        MediaError: when the file has no face, no sound, is broken or too short; its `reason` says which.
        InputError: when the model needs an OpenFace file or a speech encoder that is not there, or was
            trained on standardised speakers.
    """
    config = config_of(model)
    if speech_encoder is not None:
        choose_encoder(str(speech_encoder))
    path = Path(file)
    preparation = replace(config.preparation, modalities=tuple(model.reads.values()))
    if config.normalised:
        raise InputError(
            f"model {config.model} was trained on speakers standardised over all their takes, and a file "
            "alone cannot be: expected a model trained without --speaker-normalisation"
        )
    if openface is None and "openface" in preparation.modalities:
        raise InputError(
            f"model {config.model} sees OpenFace tracks: expected --openface with the CSV of {path.name}, a "
            "folder of such files, or a table of clip means"
        )
    points = None if openface is None else Path(openface)
    clip = prepare_clip(Take(path.stem, "", 0, video=path, audio=path, openface=points), preparation)
    device = next(model.parameters()).device
    inputs = {
        modality: as_tensor(name, {key: clip.tensors[key] for key in needed(name, preparation)}, config.look)[
            None
        ]
        for modality, name in model.reads.items()
    }
    nothing = torch.empty(0)
    batch = Batch(inputs.get("video", nothing), inputs.get("audio", nothing), nothing, nothing)
    training = model.training
    with torch.inference_mode():
        log_probabilities = answer(model.eval(), to_input(batch, device))[0]
        values = (log_probabilities / config.temperature).softmax(0).tolist()
    model.train(training)
    probabilities = dict(zip(config.labels.emotions, values, strict=True))
    window = Window(
        0.0,
        float(clip.tensors["duration"][0]) if "duration" in clip.tensors else probe(path).duration,
        probabilities,
        bool(clip.tensors["face"].mean() >= 0.5) if "face" in clip.tensors else None,
        bool(clip.tensors["level"][0] > SPEECH_LEVEL) if "level" in clip.tensors else None,
    )
    return Prediction(str(file), max(probabilities, key=probabilities.__getitem__), probabilities, (window,))
