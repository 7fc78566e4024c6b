"""The training loop: epochs over one fold's clips, resumable at any moment, the best epoch kept."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
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
from cfnsr.data.dataset import Batch, Clips
from cfnsr.errors import InputError
from cfnsr.features.pictures import Pictures
from cfnsr.files import write_atomically
from cfnsr.models.fast import fast
from cfnsr.training.augmentation import Augmentation
from cfnsr.training.checkpoint import load_weights, save_weights
from cfnsr.training.config import Recipe, mix
from cfnsr.training.discriminants import fit_discriminants, prepare
from cfnsr.training.inputs import answer, to_input
from cfnsr.training.job import Job
from cfnsr.training.run import HISTORY, Record, read_history, write_history
from cfnsr.training.watch import NOT_FINITE, Watch, refuse

READERS = 4  # worker processes that prefetch when the clips do not fit into memory
ORDER, DROPOUT = 0, 1  # purposes of a mixed seed, beside those of `augmentation` and `fold.INITIAL`
# What torch.load raises for a file that is cut off or of another kind; its words are for programmers.
DAMAGE = (OSError, RuntimeError, UnpicklingError, EOFError, LookupError, TypeError, ValueError)
FROM_THE_BEGINNING = "delete it to train this run from its beginning"

Change = Callable[[Batch], Batch]
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
        self.clips, self.seed, self.epoch = clips, seed, 0

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
        model: trained in place; one that is solved, at one of its strengths each epoch.
        clips: all clips; `train` and `select` are places in it.
        folder: receives model.safetensors (the best epoch), history.jsonl, tensorboard/ and, until the
            training ends, training/state.pt.
        stop: the epoch after which to stop, where no clips select: the job's epochs still set the schedule.
    """

    def __init__(
        self,
        model: nn.Module,
        job: Job,
        clips: Clips,
        train: Sequence[int],
        select: Sequence[int],
        *,
        folder: Path,
        accelerator: Accelerator,
        stop: int | None = None,
        progress: Callable[[Step], None] = lambda step: None,
    ) -> None:
        recipe = job.recipe
        train = clips.balanced(train) if recipe.balanced_sampling else train
        self.clips, self.train, self.recipe = clips, train, recipe
        self.seed, self.epochs, self.stop = job.seed, job.epochs, stop or job.epochs
        self.selected_on, self.solver = job.protocol.selected_on, job.entry.solver
        self.folder, self.accelerator, self.progress = folder, accelerator, progress
        self.main = accelerator.is_main_process
        self.history: list[Record] = []
        # A run's history is that of its choice; what follows it chooses nothing.
        self._history = folder / (HISTORY if select else "refit.jsonl")
        self._state_path = folder / "training" / "state.pt"
        self._solve_model: Callable[[float], None] | None = None  # once the clips are measured
        self.augmentation = Augmentation(recipe, clips, train, job.seed)
        self._class_weights = _class_weights(clips, train) if recipe.class_balance else None
        model = _synchronised(model, accelerator)
        optimizer = _optimizer(model, recipe)
        if any(isinstance(column.feature, Pictures) for column in clips.columns.values()):
            model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._average: AveragedModel | None = None  # of the weights over the steps, from the first on
        if recipe.average_weights and not self.solver:
            update = partial(_update_average, recipe.average_weights)
            self._average = AveragedModel(model, accelerator.device, multi_avg_fn=update, use_buffers=True)
        self._sizes = _batch_sizes(len(train), recipe.batch_size)
        loader = DataLoader(
            Subset(clips, train),
            recipe.batch_size,
            sampler=EpochOrder(len(train), job.seed),
            drop_last=sum(self._sizes) < len(train),
            **self._loading(),
        )
        self.model, self.optimizer, self.loader = accelerator.prepare(model, optimizer, loader)
        if recipe.compile:
            self._bare(self.model).compile(dynamic=False)  # in place; a size of batches is a graph
        self.selecting = accelerator.prepare(self._ordered(select)) if select else None
        # Where the last epoch is kept, the selecting clips are asked after it alone.
        self.chooses = bool(select) and (recipe.keep == "best" or self.solver is not None)

    def _loading(self, lasting: bool = True) -> dict[str, Any]:
        """Settings of a loader. Its readers last between epochs, or end with a single pass over the clips."""
        workers = 0 if self.clips.in_memory else READERS
        return {
            "num_workers": workers,
            "persistent_workers": lasting and workers > 0,
            "pin_memory": self.accelerator.device.type == "cuda",
            # Starting to read draws a number; it must not come from the stream that dropout draws from.
            "generator": torch.Generator(),
        }

    def _ordered(self, places: Sequence[int], *, lasting: bool = True) -> DataLoader[Batch]:
        return DataLoader(Subset(self.clips, places), self.recipe.batch_size, **self._loading(lasting))

    def fit(self, *, resume: bool = False) -> State:
        """Train to the last epoch; the model ends with the weights of the best, or last, epoch."""
        from tensorboardX import SummaryWriter

        state = self._load() if resume else State()
        if state.epoch == 0:
            fit_discriminants(self._bare(self.model), self.clips, self.train)
        board = None
        if self.main:
            self.history = self._read_history(state.epoch)
            if state.epoch < self.stop:
                board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=state.epoch + 1)
        for epoch in range(state.epoch + 1, self.stop + 1):
            started = monotonic()
            record = {"epoch": epoch, **(self._solve(epoch) if self.solver else self._train_epoch(epoch))}
            self._score(state, record)
            state.seconds += monotonic() - started
            if board is not None:
                self.history.append(record)
                write_history(self._history, self.history)
                for name, value in record.items():
                    board.add_scalar(name, value, epoch)
                self._save(state)  # last: what it refers to is already on disk
        if board is not None:
            board.close()
        self.accelerator.wait_for_everyone()
        load_weights(self._bare(self.model), self.folder)
        self._average = None  # it has become the model
        return state

    def _bare(self, model: nn.Module) -> nn.Module:
        bare: nn.Module = self.accelerator.unwrap_model(model)
        return bare

    @property
    def _kept(self) -> nn.Module:
        """Network that chooses the epoch and is kept."""
        model: nn.Module = self.model if self._average is None else self._average.module
        return model

    def _score(self, state: State, record: Record) -> None:
        """Score an epoch on the selecting clips, if it is time, and keep the weights of the best so far."""
        epoch, asked = record["epoch"], self.chooses or record["epoch"] == self.stop
        score = figures = (float(epoch), 0.0)  # the last is the best, unless clips are there to choose
        if self.selecting is not None and asked:
            record |= self._select(self.selecting)
            by, loss = (record[f"{self.selected_on}_{name}"] for name in (self.recipe.select_by, "loss"))
            figures = by, -loss
            if self.chooses:
                score = figures
        state.epoch = epoch
        if score > state.best:
            state.best, state.best_epoch, state.kept = score, epoch, figures
            if self.main and asked:
                save_weights(self._bare(self._kept), self.folder)

    def _select(self, selecting: DataLoader[Batch]) -> Record:
        log_probabilities, labels, _ = self._predict(selecting)
        answers = log_probabilities.argmax(1)
        return {
            f"{self.selected_on}_loss": functional.nll_loss(log_probabilities, labels).item(),
            f"{self.selected_on}_accuracy": (answers == labels).float().mean().item(),
            f"{self.selected_on}_uar": _mean_recall(answers, labels),
        }

    def _solve(self, epoch: int) -> Record:
        """Solve the model at the strength of an epoch; of those before the one to stop at nothing is kept."""
        assert self.solver is not None  # noqa: S101 - asked before
        strength = self.solver.strengths[epoch - 1]
        if self.selecting is None and epoch < self.stop:
            return {}
        if self._solve_model is None:
            self._solve_model = prepare(
                self._bare(self.model), self.solver, self.clips, self.train, apart=self.recipe.corpora_apart
            )
        self._solve_model(strength)
        log_probabilities = self.predict(self.train)
        labels = torch.tensor([self.clips.labels[place] for place in self.train])
        loss = functional.nll_loss(log_probabilities, labels).item()
        accuracy = (log_probabilities.argmax(1) == labels).float().mean().item()
        if self.main:
            self.progress(Step(epoch, self.epochs, 1, 1, loss, accuracy))
        return {"strength": strength, "train_loss": loss, "train_accuracy": accuracy}

    def _train_epoch(self, epoch: int) -> Record:
        # Each process drops its own units.
        torch.manual_seed(mix(self.seed, epoch, DROPOUT, self.accelerator.process_index))
        self.augmentation.draw(epoch)
        self.loader.set_epoch(epoch)  # accelerate counts epochs itself, from 0 in every process: set it
        self.model.train()
        total = torch.zeros(3, device=self.accelerator.device)  # loss, correct, clips
        watch = Watch(self.folder, self.clips, epoch, self.recipe)
        for number, each in enumerate(self.loader):
            batch = Batch(*each)
            figures = self._train_batch(epoch, number, batch)
            total += figures
            watch.add(number + 1, figures, batch.place)
            for step, loss, accuracy in watch.arrived(last=number + 1 == len(self.loader)):
                if self.main:
                    self.progress(Step(epoch, self.epochs, step, len(self.loader), loss, accuracy))
        loss, correct, clips = self.accelerator.reduce(total).tolist()
        return {"train_loss": loss / clips, "train_accuracy": correct / clips}

    def _train_batch(self, epoch: int, number: int, batch: Batch) -> Float[Tensor, "3"]:
        """Learn from a batch; return its summed loss, its right answers and its clips."""
        first = number // self.recipe.accumulate * self.recipe.accumulate
        together = self._sizes[first : first + self.recipe.accumulate]  # the batches of one optimizer step
        last = number + 1 == first + len(together)
        batch, targets = self.augmentation.apply(batch, self.accelerator.device)
        # Accelerate fills a smaller last batch up for its processes; of what it adds nothing is learned.
        share = len(batch.label)
        mine = min(max(self._sizes[number] - self.accelerator.process_index * share, 0), share)
        # Processes exchange their gradients at the last batch before a step of the optimizer alone.
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            with self.accelerator.autocast():
                log_probabilities = self.model(batch.video, batch.audio)
            loss = 0 * log_probabilities.float().sum()
            if mine:
                own = None if targets is None else targets[:mine]
                loss = self._loss(log_probabilities[:mine].float(), batch.label[:mine], own)
            if number == first:
                self.optimizer.zero_grad()
            # By clips, so that the sum is the mean over all of them; processes take their gradients' mean.
            self.accelerator.backward(loss * (mine * self.accelerator.num_processes / sum(together)))
        if last:
            steps = math.ceil(len(self._sizes) / self.recipe.accumulate)  # of the optimizer
            rate = self.recipe.rate((epoch - 1 + first // self.recipe.accumulate / steps) / self.epochs)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["share"]
            if self.recipe.clip_gradient is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient)
            self.optimizer.step()
            if self._average is not None:
                self._average.update_parameters(self._bare(self.model))
        correct = (log_probabilities.argmax(1) == batch.label)[:mine].sum()
        return torch.stack([loss.detach() * mine, correct, torch.tensor(mine, device=loss.device)])

    def _loss(self, log_probabilities: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        if targets is None:
            return functional.nll_loss(log_probabilities, labels)
        if self._class_weights is not None:
            targets = targets * self._class_weights.to(targets.device)
        return -(targets * log_probabilities).sum(dim=1).mean()

    def predict(self, places: Sequence[int], change: Change | None = None) -> Float[Tensor, "clips classes"]:
        """Log-probabilities of some clips in order; `change` is of batches, their pictures in 0..255."""
        loader = self.accelerator.prepare(self._ordered(places, lasting=False))
        log_probabilities, _, indices = self._predict(loader, change)
        row_of = {place: row for row, place in enumerate(indices.tolist())}
        return log_probabilities[[row_of[place] for place in places]]

    @torch.no_grad()
    def _predict(
        self, loader: DataLoader[Batch], change: Change | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._kept.eval()
        model, rows = fast(self._bare(self._kept)), []
        for batch in loader:
            batch = Batch(*batch) if change is None else change(Batch(*batch))
            batch = to_input(batch, self.accelerator.device)
            with self.accelerator.autocast():
                # What a change has put behind the batch's own clips is not returned.
                log_probabilities = answer(model, batch)[: len(batch.label)]
            found = log_probabilities.float(), batch.label, batch.place
            rows.append(self.accelerator.gather_for_metrics(found))
        log_probabilities, labels, indices = (torch.cat(column).cpu() for column in zip(*rows, strict=True))
        if (wrong := log_probabilities.isnan().any(dim=1)).any():
            refuse(self.folder, self.clips, indices[wrong].tolist(), math.nan, "in prediction", self.recipe)
        return log_probabilities, labels, indices

    def _read_history(self, epochs: int) -> list[Record]:
        """Read the epochs that were trained before; what the file holds after them is trained again."""
        history = read_history(self._history) if self._history.exists() else []
        if len(history) < epochs:
            raise InputError(
                f"{self._history} has {len(history)} epochs: expected the {epochs} that were trained before; "
                "delete the run's folder to train it from its beginning"
            )
        return history[:epochs]

    def _save(self, state: State) -> None:
        parts = {"model": self._bare(self.model), "optimizer": self.optimizer, "average": self._average}
        content = {name: part.state_dict() for name, part in parts.items() if part is not None}
        content["state"] = vars(state)
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
            self._bare(self.model).load_state_dict(content["model"])
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
        if self.main:
            self._state_path.unlink(missing_ok=True)
            (self.folder / NOT_FINITE).unlink(missing_ok=True)  # of an attempt before, since mended
            if self._state_path.parent.is_dir():
                self._state_path.parent.rmdir()


def _synchronised(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Normalise batches over the clips of all processes, where the device can; else each by its own."""
    if accelerator.num_processes > 1 and any(isinstance(part, _BatchNorm) for part in model.modules()):
        if accelerator.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        elif accelerator.is_main_process:
            _say_unsynchronised(accelerator.num_processes, accelerator.device.type)
    return model


@cache
def _say_unsynchronised(processes: int, device: str) -> None:
    """Warn once, and not with every model of a grid."""
    say(
        f"{processes} processes on {device}: batch normalisation covers each process's part of a batch alone "
        "(on CUDA it would cover all of it), so figures depend on the number of processes"
    )


def _update_average(decay: float, means: Tensors, values: Tensors, steps: Tensor | int) -> None:
    if not means[0].is_floating_point():  # the number of batches of a norm
        torch._foreach_copy_(means, values)
        return
    torch._foreach_lerp_(means, values, 1 - min(decay, (1 + int(steps)) / (10 + int(steps))))


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
    every = [parameter for parameters in groups.values() for parameter in parameters]
    # One kernel is an eighth of the time on a CPU; elsewhere, and for complex numbers, there may be none.
    fused = all(each.is_floating_point() and each.device.type in ("cpu", "cuda") for each in every)
    if recipe.weight_decay:
        decay = recipe.weight_decay
        return torch.optim.AdamW(parts, lr=recipe.learning_rate, weight_decay=decay, fused=fused)
    return torch.optim.Adam(parts, lr=recipe.learning_rate, fused=fused)


def _class_weights(clips: Clips, train: Sequence[int]) -> Float[Tensor, " classes"]:
    """Weights inverse to a class's frequency among the training clips; their mean is 1."""
    counts = torch.bincount(torch.tensor([clips.labels[place] for place in train]), minlength=clips.classes)
    weights = counts.clamp(min=1).float().reciprocal()
    return weights * len(train) / (weights * counts).sum()
