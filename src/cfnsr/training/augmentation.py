"""Everything random that training does to the clips of an epoch and to their labels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cfnsr.data import augment
from cfnsr.data.dataset import Batch, Clips
from cfnsr.features.mel import Mel
from cfnsr.training.config import Recipe, mix
from cfnsr.training.inputs import at_one_speed, drop_modality, mixed, to_input

AUGMENT, FEATURES, COLOURS, MASKS = 2, 4, 5, 6  # purposes of a mixed seed, beside those of the loop


class Augmentation:
    """Crops, colours, masks, speeds, dropped modalities and mixed clips, drawn from the seed and the epoch.

    All is drawn for every clip at once, so that a clip's own depends neither on the batch that it falls into
    nor on who loads it. `train` are places in the clips.
    """

    def __init__(self, recipe: Recipe, clips: Clips, train: Sequence[int], seed: int) -> None:
        self.recipe, self.clips, self.seed = recipe, clips, seed
        self.dropout = recipe.modality_dropout if len(clips.columns) > 1 else 0.0
        self.fill = self._mean_sound(train) if recipe.time_mask or recipe.frequency_mask else None

    def draw(self, epoch: int) -> None:
        """Draw what happens to each clip in an epoch."""
        recipe, clips = self.recipe, len(self.clips)
        generator, features, colours, masks = (
            torch.Generator().manual_seed(mix(self.seed, epoch, purpose))
            for purpose in (AUGMENT, FEATURES, COLOURS, MASKS)
        )
        self.maps = augment.draw(clips, generator, smallest=recipe.crop, flip=recipe.flip)
        self.dropped = augment.draw_dropped(clips, self.dropout, generator)
        self.speeds = torch.rand(clips, generator=features)
        mixup = recipe.mixup
        self.shares = augment.draw_mixing_weights(clips, mixup, features) if mixup else torch.zeros(clips)
        self.colours = augment.draw_colours(clips, recipe.colour_jitter, colours)
        self.masks = torch.rand(clips, 2, 2, generator=masks)

    def apply(self, batch: Batch, device: torch.device) -> tuple[Batch, Float[Tensor, "B classes"] | None]:
        """Make the model's input of a batch, and the target probabilities; None for its plain labels."""
        recipe, places = self.recipe, batch.place.cpu()
        colours = self.colours[places] if recipe.colour_jitter else None
        batch = at_one_speed(batch, self.speeds[places])
        batch = to_input(batch, device, self.maps[places].to(device), colours)
        if self.fill is not None:
            masks, fill = self.masks[places].to(device), self.fill.to(device)
            shares = {"time": recipe.time_mask, "frequency": recipe.frequency_mask}
            batch = batch._replace(audio=augment.mask(batch.audio, masks, fill, **shares))
        if self.dropout and self.clips.silence is not None:
            batch = drop_modality(batch, self.dropped[places].to(device), self.clips.silence.to(device))
        return self.soften(batch, self.shares[places].to(device))

    def soften(
        self, batch: Batch, shares: Float[Tensor, " B"]
    ) -> tuple[Batch, Float[Tensor, "B classes"] | None]:
        """Smooth the labels of a batch, and mix its clips and their labels by shares of the next one."""
        if self.recipe.plain_loss:
            return batch, None
        classes, smooth = self.clips.classes, self.recipe.label_smoothing
        targets = functional.one_hot(batch.label, classes).float()
        targets = (1 - smooth) * targets + smooth / classes
        return mixed(batch, targets, shares) if self.recipe.mixup else (batch, targets)

    def _mean_sound(self, train: Sequence[int]) -> Float[Tensor, "F 1"] | None:
        """Average sound features over time and the training clips, where they can be masked."""
        column = self.clips.columns.get("audio")
        if column is None or not isinstance(column.feature, Mel):
            return None
        means = [column[place].float().mean(dim=1, keepdim=True) for place in train]
        return torch.stack(means).mean(dim=0)
