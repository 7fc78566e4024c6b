"""Train the models that come with the package, voice and everyday.

The voice is trained on RAVDESS and nEMO. What has to be chosen, the strength of its regularisation and its
temperature, is chosen by leaving one of the two out: on people, microphones and a language that do not train.
The face is a pretrained network's scores; their temperature comes from the few clips with faces at hand.

    python docs/everyday.py RAVDESS NEMO src/cfnsr/pretrained --faces FACES --faces MORE_FACES
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer

from cfnsr.data.folds import PROTOCOLS
from cfnsr.data.joined import open_stores
from cfnsr.emotions import parse_labels
from cfnsr.features.expression_net import EMOTIONS
from cfnsr.features.spec import ModelSpec
from cfnsr.models.entries import Model
from cfnsr.models.names import find
from cfnsr.models.zoo import create_model
from cfnsr.training.calibration import among, fit_temperature
from cfnsr.training.checkpoint import save_weights
from cfnsr.training.config import find_recipe
from cfnsr.training.devices import accelerator
from cfnsr.training.fold import build
from cfnsr.training.job import Job
from cfnsr.training.loop import Trainer
from cfnsr.training.prepared import PreparedCorpus

# The emotions that the expression network scores, in its order.
LABELS = parse_labels(f"{','.join(EMOTIONS)},calm=neutral")
VOICE, EVERYDAY = "logistic_audio+speech", "logistic_late+expression+speech"
WIDE = 10.0  # nats of a deviation, so that no score of the face is clamped
ENCODER = "openai/whisper-tiny.en"  # on the hub
PROTOCOL = PROTOCOLS["leave_one_corpus_out"]


class Voice:
    """Trainings of the voice on corpora read as one."""

    def __init__(self, corpus: PreparedCorpus) -> None:
        self.corpus, self.folds = corpus, corpus.folds(PROTOCOL)
        self.recipe = find_recipe("robust")
        self.job = Job(find(VOICE), PROTOCOL, self.folds[0], len(self.folds), 0, self.recipe)

    def train(self, left_out: int | None = None, epoch: int | None = None) -> tuple[Trainer, ModelSpec]:
        """Train on all corpora but one, at the strength of one epoch; or at each, scored on that corpus."""
        others = [fold.test for place, fold in enumerate(self.folds) if place != left_out]
        train = [actor for actors in others for actor in actors]
        select = [] if left_out is None or epoch else self.folds[left_out].test
        model, spec = build(self.job, self.corpus)
        with TemporaryDirectory() as folder:
            trainer = Trainer(
                model,
                self.job,
                self.corpus.clips(model.reads, spec.look),
                self.corpus.places(PROTOCOL, train),
                self.corpus.places(PROTOCOL, select),
                folder=Path(folder),
                accelerator=accelerator(self.recipe),
                stop=epoch,
            )
            trainer.fit()
        return trainer, spec

    def choose(self) -> tuple[int, float]:
        """Choose the epoch, whose strength has the best recall on corpora left out, and the temperature."""
        every = range(len(self.folds))
        histories = [self.train(left_out)[0].history for left_out in every]
        recalls = [[record["validation_uar"] for record in history] for history in histories]
        recall = np.mean(recalls, axis=0)
        epoch = int(recall.argmax()) + 1
        print(f"recall on the corpus left out, by strength: {recall.round(3)}; epoch {epoch}")
        return epoch, self.temperature(epoch)

    def temperature(self, epoch: int) -> float:
        """Mean, on a logarithmic scale, of the temperatures that fit each corpus left out.

        Of a corpus those emotions count that the others have too.
        """
        fitted = []
        for left_out in range(len(self.folds)):
            trainer, _ = self.train(left_out, epoch)
            places = self.corpus.places(PROTOCOL, self.folds[left_out].test)
            known = {trainer.clips.labels[place] for place in trainer.train}
            places = [place for place in places if trainer.clips.labels[place] in known]
            possible = self.corpus.possible[places] & np.isin(np.arange(len(LABELS)), list(known))
            logs = among(trainer.predict(places).double().numpy(), possible)
            fitted.append(fit_temperature(logs, np.array([trainer.clips.labels[place] for place in places])))
        print(f"temperatures on the corpora left out: {', '.join(f'{each:.2f}' for each in fitted)}")
        return float(np.exp(np.log(fitted).mean()))


def face_temperature(corpus: PreparedCorpus) -> float:
    """Fit the temperature of the expression network's scores on some clips."""
    scores = []
    for header in corpus.headers:
        values = corpus.store.load(header.name, ["expression"])["expression"][:, : len(LABELS)].mean(axis=0)
        scores.append(values.astype(np.float64))
    labels = np.array([LABELS.index(header.emotion) for header in corpus.headers])
    return fit_temperature(np.stack(scores), labels)


def write(folder: Path, model: torch.nn.Module, spec: ModelSpec) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spec.write(folder)
    save_weights(model, folder)
    print(f"{folder}: {(folder / 'model.safetensors').stat().st_size / 1e6:.2f} MB")


def train_voice(corpus: PreparedCorpus, out: Path) -> tuple[Model, ModelSpec]:
    """Train the voice on all corpora, and write it."""
    voice = Voice(corpus)
    epoch, temperature = voice.choose()
    trainer, spec = voice.train(epoch=epoch)
    preparation = replace(spec.preparation, speech_encoder=ENCODER)
    corpora = corpus.store.corpus.split("+")
    spec = replace(spec, preparation=preparation, corpora=corpora, temperature=temperature)
    write(out / "voice", trainer.model, spec)
    return trainer.model, spec


def fuse(voice: Model, spec: ModelSpec, faces: PreparedCorpus, out: Path) -> None:
    """Multiply the voice's answer by the face's, each divided by its temperature, and write the model."""
    cooling = face_temperature(faces)
    print(f"temperature of the voice {spec.temperature:.2f}, of the face {cooling:.2f}")
    settings = {**spec.settings, **faces.sizes(["expression"])}
    both = create_model(EVERYDAY, **settings)
    with torch.no_grad():
        both.audio.load_state_dict(voice.encoder.state_dict())
        for part in ("weight", "bias"):
            getattr(both.head.streams.audio, part).copy_(getattr(voice.classify, part) / spec.temperature)
            getattr(both.head.streams.video, part).zero_()
        both.video.deviation.fill_(WIDE)
        both.head.streams.video.weight[:, : len(LABELS)] = WIDE / cooling * torch.eye(len(LABELS))
    made = faces.preparation
    preparation = replace(
        spec.preparation,
        modalities=("speech", "expression"),
        expression_sha256=made.expression_sha256,
        frames=made.frames,
        size=made.size,
    )
    fused = replace(
        spec, model=EVERYDAY, settings=settings, preparation=preparation, independent=True, temperature=1.0
    )
    write(out / "everyday", both, fused)


def main(
    ravdess: Path,
    nemo: Path,
    out: Path,
    faces: Annotated[list[Path], typer.Option(help="Prepared clips with faces.")],
) -> None:
    """Train both models and write them into a folder."""
    model, spec = train_voice(PreparedCorpus(open_stores([ravdess, nemo], LABELS)), out)
    fuse(model, spec, PreparedCorpus(open_stores(faces, LABELS)), out)


if __name__ == "__main__":
    typer.run(main)
