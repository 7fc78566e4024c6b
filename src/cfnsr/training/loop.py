"""The training loop: epochs over one fold's clips, resumable at any moment, the best epoch kept."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises; nothing is unpickled
from time import monotonic
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler, Subset

from cfnsr.console import say
from cfnsr.data import augment
from cfnsr.data.dataset import Batch, Clips
from cfnsr.errors import InputError
from cfnsr.features.mel import Mel
from cfnsr.files import write_atomically, write_text
from cfnsr.models.baselines import Solver
from cfnsr.training.checkpoint import load_weights, save_weights
from cfnsr.training.config import Recipe, mix
from cfnsr.training.discriminants import fit_discriminants, prepare
from cfnsr.training.inputs import answer, at_one_speed, drop_modality, mixed, to_input

READERS = 4  # worker processes that prefetch when the clips do not fit into memory
ORDER, DROPOUT, AUGMENT = range(3)  # purposes of a mixed seed; `crossval.INITIAL` is 3
FEATURES, COLOURS, MASKS = 4, 5, 6
# What torch.load raises for a file that is cut off or of another kind; its words are for programmers.
DAMAGE = (OSError, RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, ValueError)
FROM_THE_BEGINNING = "delete it to train this run from its beginning"

Record = dict[str, Any]
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass(frozen=True)
class Step:
    """Progress while an epoch runs; no loss for a run that was finished before."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    accuracy: float = 0.0


class EpochOrder(Sampler[int]):
    """A shuffle that depends on the seed and the epoch alone, so that a resumed run repeats it."""

    def __init__(self, clips: int, seed: int) -> None:
        self.clips = clips
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.clips

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch, ORDER))
        yield from torch.randperm(self.clips, generator=generator).tolist()


@dataclass
class State:
    """State of a training after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best: tuple[float, float] = (-1.0, -math.inf)  # accuracy or UAR, then minus the loss
    kept: tuple[float, float] = (-1.0, -math.inf)  # the same of the epoch that is kept, which may be the last
    seconds: float = 0.0


class Trainer:
    """Fit one model to one fold's training clips, keeping the epoch that does best on the selecting clips.

    Everything random in an epoch is drawn from the seed and the epoch's number, so the state after an epoch
    is all that a resumed run needs to end with the same weights, bit for bit on the same machine's CPU.

    Args:
        model: trained in place.
        clips: all clips; `train` and `select` are places in it.
        folder: receives model.safetensors (the best epoch), history.jsonl, tensorboard/ and, until the
            training ends, training/state.pt.
        selected_on: "validation" or "test": the name of the selecting clips in the history.
        stop: the epoch after which to stop, where no clips select: `epochs` still sets the schedule.
        solver: of a model that is not trained by gradient; each epoch solves it at one of the strengths, and
            the selecting clips choose among them.
    """

    def __init__(
        self,
        model: nn.Module,
        clips: Clips,
        train: Sequence[int],
        select: Sequence[int],
        recipe: Recipe,
        *,
        epochs: int,
        seed: int,
        folder: Path,
        selected_on: str,
        accelerator: Accelerator,
        stop: int | None = None,
        solver: Solver | None = None,
        progress: Callable[[Step], None] = lambda step: None,
    ) -> None:
        if recipe.modality_dropout and len(clips.columns) > 1 and clips.silence is None:
            raise InputError(
                "modality_dropout needs sound whose silence is known: this model reads "
                f"{clips.columns['audio'].name}; train it without"
            )
        self.clips = clips
        self.train = train
        self.recipe = recipe
        self.epochs = epochs
        self.stop = epochs if stop is None else stop
        self.seed = seed
        self.folder = folder
        self.selected_on = selected_on
        self.accelerator = accelerator
        self.solver = solver
        self._solve_model: Callable[[float], None] | None = None  # once the clips are measured
        self.progress = progress
        model = _synchronised(model, accelerator)
        optimizer = _optimizer(model, recipe)
        self._class_weights = _class_weights(clips, train) if recipe.class_balance else None
        if any(column.feature.file == "video" for column in clips.columns.values()):
            model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._average = None if solver else _average_of(model, recipe, accelerator.device)
        self._fill = self._mean_sound() if recipe.time_mask or recipe.frequency_mask else None
        self._sizes = _batch_sizes(len(train), recipe.batch_size)
        loader = DataLoader(
            Subset(clips, train),
            recipe.batch_size,
            sampler=EpochOrder(len(train), seed),
            drop_last=sum(self._sizes) < len(train),
            **self._loading(),
        )
        self.model, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        self.selecting = accelerator.prepare(self._ordered(select)) if select else None

    def _loading(self, *, lasting: bool = True) -> dict[str, Any]:
        """Settings of a loader. Its readers last between epochs, or end with a single pass over the clips."""
        workers = 0 if self.clips.in_memory else READERS
        return {
            "num_workers": workers,
            "persistent_workers": lasting and workers > 0,
            "pin_memory": self.accelerator.device.type == "cuda",
            # Starting to read draws a number; it must not come from the stream that dropout draws from.
            "generator": torch.Generator(),
        }

    def _ordered(self, which: Sequence[int], *, lasting: bool = True) -> DataLoader[Batch]:
        return DataLoader(Subset(self.clips, which), self.recipe.batch_size, **self._loading(lasting=lasting))

    def fit(self, *, resume: bool = False) -> State:
        """Train to the last epoch; the model ends with the weights of the best, or last, epoch."""
        from tensorboardX import SummaryWriter

        state = self._load() if resume else State()
        main = self.accelerator.is_main_process
        history = _read_history(self._history, state.epoch) if main else []
        board = None
        if main and state.epoch < self.stop:
            board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=state.epoch + 1)
        if state.epoch == 0:
            fit_discriminants(self.accelerator.unwrap_model(self.model), self.clips, self.train)
        # Where the last epoch is kept, the selecting clips are asked after it alone.
        chooses = self.selecting is not None and (self.recipe.keep == "best" or self.solver is not None)
        for epoch in range(state.epoch + 1, self.stop + 1):
            started = monotonic()
            record = {"epoch": epoch, **(self._solve(epoch) if self.solver else self._train_epoch(epoch))}
            score = figures = (float(epoch), 0.0)  # the last is the best, unless clips are there to choose
            if self.selecting is not None and (chooses or epoch == self.stop):
                record |= self._select(self.selecting)
                figure = record[f"{self.selected_on}_{self.recipe.select_by}"]
                figures = (figure, -record[f"{self.selected_on}_loss"])
                if chooses:
                    score = figures
            state.epoch = epoch
            if score > state.best:
                state.best, state.best_epoch, state.kept = score, epoch, figures
                if main and (chooses or epoch == self.stop):
                    save_weights(self.accelerator.unwrap_model(self._kept), self.folder)
            state.seconds += monotonic() - started
            history.append(record)
            if main and board is not None:
                lines = "".join(json.dumps(line) + "\n" for line in history)
                write_text(self._history, lines)
                for name, value in record.items():
                    board.add_scalar(name, value, epoch)
                self._save(state)  # last: what it refers to is already on disk
        if board is not None:
            board.close()
        self.accelerator.wait_for_everyone()
        load_weights(self.accelerator.unwrap_model(self.model), self.folder)
        self._average = None  # it has become the model
        return state

    @property
    def _kept(self) -> nn.Module:
        """Network that chooses the epoch and is kept."""
        model: nn.Module = self.model if self._average is None else self._average.module
        return model

    def _solve(self, epoch: int) -> Record:
        """Solve the model at the strength of an epoch; of those before the one to stop at nothing is kept."""
        assert self.solver is not None  # noqa: S101 - asked before
        strength = self.solver.strengths[epoch - 1]
        if self.selecting is None and epoch < self.stop:
            return {}
        if self._solve_model is None:
            model = self.accelerator.unwrap_model(self.model)
            self._solve_model = prepare(model, self.solver, self.clips, self.train)
        self._solve_model(strength)
        log_probabilities = self.predict(self.train)
        labels = torch.tensor([self.clips.labels[place] for place in self.train])
        loss = functional.nll_loss(log_probabilities, labels).item()
        accuracy = (log_probabilities.argmax(1) == labels).float().mean().item()
        if self.accelerator.is_main_process:
            self.progress(Step(epoch, self.epochs, 1, 1, loss, accuracy))
        return {"strength": strength, "train_loss": loss, "train_accuracy": accuracy}

    def _train_epoch(self, epoch: int) -> Record:
        device = self.accelerator.device
        # Each process drops its own units.
        torch.manual_seed(mix(self.seed, epoch, DROPOUT, self.accelerator.process_index))
        generator = torch.Generator().manual_seed(mix(self.seed, epoch, AUGMENT))
        recipe = self.recipe
        maps = augment.draw(len(self.clips), generator, smallest=recipe.crop, flip=recipe.flip)
        rate = recipe.modality_dropout if len(self.clips.columns) > 1 else 0.0
        dropped = augment.draw_dropped(len(self.clips), rate, generator)
        speeds, shares = self._draw_features(epoch)
        colours, masks = self._draw_appearance(epoch)
        self.loader.set_epoch(epoch)  # accelerate counts epochs itself, from 0 in every process: set it
        self.model.train()
        total = torch.zeros(3, device=device)  # loss, correct, clips
        steps = math.ceil(len(self._sizes) / recipe.accumulate)  # of the optimizer
        for step, batch in enumerate(self.loader, start=1):
            first = (step - 1) // recipe.accumulate * recipe.accumulate
            together = self._sizes[first : first + recipe.accumulate]  # the batches of one optimizer step
            last = step == first + len(together)
            batch = Batch(*batch)
            places = batch.place.cpu()
            batch = to_input(
                at_one_speed(batch, speeds[places]),
                device,
                maps[places].to(device),
                colours[places] if recipe.colour_jitter else None,
            )
            if self._fill is not None:
                hidden = augment.mask(
                    batch.audio,
                    masks[places].to(device),
                    self._fill.to(device),
                    time=recipe.time_mask,
                    frequency=recipe.frequency_mask,
                )
                batch = batch._replace(audio=hidden)
            if rate and self.clips.silence is not None:
                batch = drop_modality(batch, dropped[places].to(device), self.clips.silence.to(device))
            batch, targets = self._targets(batch, shares[places].to(device))
            with self._apart(last):
                with self.accelerator.autocast():
                    log_probabilities = self.model(batch.video, batch.audio)
                loss = self._loss(log_probabilities.float(), batch.label, targets)
                if step == first + 1:
                    self.optimizer.zero_grad()
                # By clips, so that the sum is the mean over all of them.
                self.accelerator.backward(loss * (self._sizes[step - 1] / sum(together)))
            if last:
                self._set_rate((epoch - 1 + first // recipe.accumulate / steps) / self.epochs)
                if recipe.clip_gradient is not None:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip_gradient)
                self.optimizer.step()
                if self._average is not None:
                    self._average.update_parameters(self.accelerator.unwrap_model(self.model))
            count = len(batch.label)
            correct = (log_probabilities.argmax(1) == batch.label).sum()
            total += torch.stack([loss.detach() * count, correct, torch.tensor(count, device=device)])
            if self.accelerator.is_main_process:
                loss_sum, correct_sum, clip_sum = total.tolist()
                self.progress(
                    Step(
                        epoch,
                        self.epochs,
                        step,
                        len(self.loader),
                        loss_sum / clip_sum,
                        correct_sum / clip_sum,
                    )
                )
        loss_sum, correct_sum, clip_sum = self.accelerator.reduce(total).tolist()
        if not math.isfinite(loss_sum):
            raise InputError(
                f"the loss is {loss_sum} in epoch {epoch} of {self.folder}: expected a finite one; "
                f"lower the learning rate, now {self.recipe.learning_rate}"
            )
        return {"train_loss": loss_sum / clip_sum, "train_accuracy": correct_sum / clip_sum}

    def _draw_features(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Draw for each clip one of its speeds, and how much of its neighbour is mixed in."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch, FEATURES))
        speeds = torch.rand(len(self.clips), generator=generator)
        if not self.recipe.mixup:
            return speeds, torch.zeros(len(self.clips))
        return speeds, augment.draw_shares(len(self.clips), self.recipe.mixup, generator)

    def _draw_appearance(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Draw for each clip the factors of its colours, and the masks of its sound."""
        colours, masks = (
            torch.Generator().manual_seed(mix(self.seed, epoch, what)) for what in (COLOURS, MASKS)
        )
        clips = len(self.clips)
        strength = self.recipe.colour_jitter
        return augment.draw_colours(clips, strength, colours), augment.draw_masks(clips, masks)

    def _mean_sound(self) -> Float[Tensor, "F 1"] | None:
        """Mean sound features over time and the training clips, where they can be masked."""
        column = self.clips.columns.get("audio")
        if column is None or not isinstance(column.feature, Mel):
            return None
        means = [column[place].float().mean(dim=1, keepdim=True) for place in self.train]
        return torch.stack(means).mean(dim=0)

    def _apart(self, last: bool) -> AbstractContextManager[None]:
        """Exchange the gradients of processes at the last batch before an optimizer step alone."""
        context: AbstractContextManager[None]
        context = nullcontext() if last else self.accelerator.no_sync(self.model)
        return context

    def _targets(self, batch: Batch, shares: Tensor) -> tuple[Batch, Tensor | None]:
        """Return the batch and its target probabilities; None for its plain labels."""
        if self.recipe.plain_loss:
            return batch, None
        classes = self.clips.classes
        targets = functional.one_hot(batch.label, classes).float()
        smooth = self.recipe.label_smoothing
        targets = (1 - smooth) * targets + smooth / classes
        return mixed(batch, targets, shares) if self.recipe.mixup else (batch, targets)

    def _loss(self, log_probabilities: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        if targets is None:
            return functional.nll_loss(log_probabilities, labels)
        if self._class_weights is not None:
            targets = targets * self._class_weights.to(targets.device)
        return -(targets * log_probabilities).sum(dim=1).mean()

    def _set_rate(self, progress: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(progress) * group["share"]

    def _select(self, selecting: DataLoader[Batch]) -> Record:
        log_probabilities, labels, _ = self._predict(selecting)
        return {
            f"{self.selected_on}_loss": functional.nll_loss(log_probabilities, labels).item(),
            f"{self.selected_on}_accuracy": (log_probabilities.argmax(1) == labels).float().mean().item(),
            f"{self.selected_on}_uar": _mean_recall(log_probabilities.argmax(1), labels),
        }

    def predict(
        self, which: Sequence[int], change: Callable[[Batch], Batch] = lambda batch: batch
    ) -> Float[Tensor, "clips classes"]:
        """Log-probabilities of some clips, in the order they are given.

        Args:
            change: applied to a batch, its pictures still in 0..255, before the model.
        """
        loader = self.accelerator.prepare(self._ordered(which, lasting=False))
        log_probabilities, _, indices = self._predict(loader, change)
        place = {index: row for row, index in enumerate(indices.tolist())}
        return log_probabilities[[place[index] for index in which]]

    def _predict(
        self, loader: DataLoader[Batch], change: Callable[[Batch], Batch] = lambda batch: batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        model = self._kept.eval()
        rows = []
        with torch.no_grad():
            for batch in loader:
                batch = to_input(change(Batch(*batch)), self.accelerator.device)
                with self.accelerator.autocast():
                    # What a change has put behind the batch's own clips is not returned.
                    log_probabilities = answer(model, batch)[: len(batch.label)]
                rows.append(
                    self.accelerator.gather_for_metrics((log_probabilities.float(), batch.label, batch.place))
                )
        log_probabilities, labels, indices = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
        return log_probabilities, labels, indices

    @property
    def _history(self) -> Path:
        # A run's history is that of its choice; what follows it chooses nothing.
        return self.folder / ("history.jsonl" if self.selecting is not None else "refit.jsonl")

    @property
    def _state_path(self) -> Path:
        return self.folder / "training" / "state.pt"

    def _save(self, state: State) -> None:
        content = {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": vars(state),
            **({} if self._average is None else {"average": self._average.state_dict()}),
        }
        write_atomically(self._state_path, lambda temporary: torch.save(content, temporary))

    def _load(self) -> State:
        if not self._state_path.exists():
            return State()
        with self._state_path.open("rb") as file:
            try:
                content = torch.load(file, map_location="cpu", weights_only=True)
            except DAMAGE:
                raise InputError(f"{self._state_path} is damaged: {FROM_THE_BEGINNING}") from None
        try:
            self.accelerator.unwrap_model(self.model).load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self._average is not None:
                self._average.load_state_dict(content["average"])
            return State(**content["state"])
        except (*DAMAGE, AttributeError):
            raise InputError(
                f"{self._state_path} does not fit the model and settings of this run: {FROM_THE_BEGINNING}"
            ) from None

    def close(self) -> None:
        """Delete the training state, from which nothing is left to resume, and let go of the clips."""
        self.accelerator.free_memory()
        if not self.accelerator.is_main_process:
            return
        self._state_path.unlink(missing_ok=True)
        if self._state_path.parent.is_dir():
            self._state_path.parent.rmdir()


def _synchronised(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Normalise batches over the clips of all processes, where the device can; else each by its own."""
    if accelerator.num_processes > 1 and any(isinstance(part, _BatchNorm) for part in model.modules()):
        if accelerator.device.type == "cuda":
            synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return synchronised
        if accelerator.is_main_process:
            _say_unsynchronised(accelerator.num_processes, accelerator.device.type)
    return model


@cache
def _say_unsynchronised(processes: int, device: str) -> None:
    """Warn once, and not with every model of a grid."""
    say(
        f"{processes} processes on {device}: batch normalisation covers each process's part of a batch alone "
        "(on CUDA it would cover all of it), so figures depend on the number of processes"
    )


def _average_of(model: nn.Module, recipe: Recipe, device: torch.device) -> AveragedModel | None:
    """Average of the weights over the steps, from the first on; None where the recipe has none."""
    if not recipe.average_weights:
        return None

    def average(means: Tensors, values: Tensors, seen: Tensor | int) -> None:
        if not means[0].is_floating_point():  # the number of batches of a norm
            torch._foreach_copy_(means, values)
            return
        decay = min(recipe.average_weights, (1 + int(seen)) / (10 + int(seen)))
        torch._foreach_lerp_(means, values, 1 - decay)

    return AveragedModel(model, device, multi_avg_fn=average, use_buffers=True)


def _batch_sizes(clips: int, batch: int) -> list[int]:
    """Sizes of an epoch's batches; a last one of a single clip falls away: batch norms cannot learn from it.

    >>> _batch_sizes(9, 4), _batch_sizes(10, 4)
    ([4, 4], [4, 4, 2])
    """
    whole, rest = divmod(clips, batch)
    return [batch] * whole + [rest] * (rest > 1)


def _mean_recall(answers: Int[Tensor, " N"], labels: Int[Tensor, " N"]) -> float:
    """Unweighted average recall over the classes that occur.

    >>> _mean_recall(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2]))
    0.5
    """
    clips = torch.bincount(labels)
    right = torch.bincount(labels[answers == labels], minlength=len(clips))
    return (right[clips > 0] / clips[clips > 0]).mean().item()


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam over what is trained; what was trained before has a learning rate of its own."""
    before = {id(parameter) for parameter in getattr(model, "initialised", ())}
    share = (recipe.fused_learning_rate or recipe.learning_rate) / recipe.learning_rate
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault(share if id(parameter) in before else 1.0, []).append(parameter)
    if not groups:
        raise InputError(
            "nothing is left to train: all of the model is its two frozen encoders; train it with a preset "
            "that does not freeze them, or with --no-pretrain"
        )
    parts = [{"params": parameters, "share": part} for part, parameters in groups.items()]
    if recipe.weight_decay:
        return torch.optim.AdamW(parts, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.Adam(parts, lr=recipe.learning_rate)


def _class_weights(clips: Clips, train: Sequence[int]) -> Tensor:
    """Weights (classes,) inverse to a class's frequency among the training clips; their mean is 1."""
    counts = torch.bincount(torch.tensor([clips.labels[place] for place in train]), minlength=clips.classes)
    weights = counts.clamp(min=1).float().reciprocal()
    return weights * len(train) / (weights * counts).sum()


def _read_history(path: Path, epochs: int) -> list[Record]:
    """Read the epochs that a run has finished; what the file holds after them is trained again."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        history = [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read ({error}): delete the run's folder to train it from its beginning"
        ) from None
    if len(history) < epochs:
        raise InputError(
            f"{path} has {len(history)} epochs: expected the {epochs} that were trained before; delete "
            "the run's folder to train it from its beginning"
        )
    return history[:epochs]
