"""Train every fusion on a task that only an interaction of the two modalities solves.

Of a map's places four carry a key and a class each, every key once; the other modality names one key, and the
label is the class that stands with it. The classes at the four places are drawn apart, so that what either
modality tells alone, and any sum of the two, is a guess among them.

    python docs/interaction.py docs/results/interaction.json
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from cfnsr.files import write_text
from cfnsr.models.entries import ENTRIES, Model
from cfnsr.models.settings import STAGES, Settings
from cfnsr.models.streams import Encoder

KEYS = CLASSES = 4
CHANNELS = 16  # of both maps
NOISE = 0.1
PLACES = (12, 98)  # 98 are those of the paper's video map
TRAINING, TESTED, EPOCHS, BATCH, RATE = 8_000, 2_000, 10, 100, 3e-3


class Given(Encoder):
    """An encoder whose map is its input: three stages that pass it on, and a mean over the places."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.reads, self.channels, self.dim = reads, (CHANNELS,) * STAGES, CHANNELS
        self.stages = nn.ModuleList(nn.Identity() for _ in range(STAGES))

    def check(self, features: Tensor) -> Tensor:
        return features

    def pool(self, features: Tensor) -> Tensor:
        return features.flatten(2).mean(dim=2)


class AsGiven(Settings):
    """Settings whose encoders are `Given`."""

    def encoder(self, modality: str) -> Encoder:
        return Given(modality)


def build(name: str) -> Model:
    """A row of the zoo whose encoders are `Given`; its exchanges begin as behind trained encoders."""
    model = ENTRIES[name].build(AsGiven(CLASSES))
    for module in model.modules():
        if hasattr(module, "start_neutral"):
            module.start_neutral()
    return model


def draw(clips: int, places: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A map with four marked places, the vector that names one of them, and its class.

    Returns:
        (clips, 16, places) keys and classes one-hot among noise; (clips, 16, 4) the named key at every step;
        (clips,) labels.
    """
    order = torch.rand(clips, places, generator=generator).argsort(dim=1)[:, :KEYS]  # where each key stands
    classes = torch.randint(CLASSES, (clips, KEYS), generator=generator)
    named = torch.randint(KEYS, (clips,), generator=generator)
    features = NOISE * torch.randn(clips, places, CHANNELS, generator=generator)
    rows = torch.arange(clips)[:, None]
    features[rows, order, torch.arange(KEYS)] += 1
    features[rows, order, KEYS + classes] += 1
    name = NOISE * torch.randn(clips, CHANNELS, KEYS, generator=generator)
    name[torch.arange(clips), named] += 1
    return features.transpose(1, 2).contiguous(), name, classes[torch.arange(clips), named]


def accuracy(
    name: str, places: int, *, answer_in: str = "video", clips: int = TRAINING, epochs: int = EPOCHS
) -> float:
    """Accuracy of a row on unseen clips of the task.

    Args:
        name: of a two-stream row.
        places: of the map that holds the answer.
        answer_in: the modality of that map; the other one names the key.
        clips: to train on.
        epochs: passes over them.
    """
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = build(name)
    training, tested = (draw(count, places, generator) for count in (clips, TESTED))

    def answer(features: Tensor, named: Tensor) -> Tensor:
        if answer_in == "audio":
            return model(named.unflatten(2, (1, 2, 2)), features)
        return model(features.unflatten(2, (1, 1, places)), named)

    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    steps = epochs * clips // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for chosen in torch.randperm(clips, generator=generator).split(BATCH):
            features, named, labels = (part[chosen] for part in training)
            loss = nn.functional.nll_loss(answer(features, named), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        model.eval()
        return float((answer(*tested[:2]).argmax(dim=1) == tested[2]).float().mean())


def main(out: Path) -> None:
    """Write the accuracies of all two-stream rows that are trained, among few places and among many."""
    rows = {}
    for name, entry in ENTRIES.items():
        if entry.fusion == "none" or entry.solver is not None:
            continue
        side = "audio" if name == "cfn_sr_video_to_audio" else "video"
        rows[name] = {
            "answer_in": side,
            "places": {str(places): accuracy(name, places, answer_in=side) for places in PLACES},
        }
        print(name, rows[name], flush=True)
    task = {"clips": TRAINING, "epochs": EPOCHS}
    write_text(out, json.dumps({"task": task, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
