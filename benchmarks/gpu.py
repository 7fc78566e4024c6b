"""The paper's training on a GPU: clips a second, memory, and the hours of Table 1."""

from collections.abc import Callable
from functools import partial

import torch

from benchmarks import plain
from benchmarks.measure import Figure, Goal, Progress, alternate, compare
from benchmarks.network import flops, learner, product, runs_bfloat16
from cfnsr import create_model
from cfnsr.data import augment
from cfnsr.data.dataset import Batch
from cfnsr.features.base import FEATURES
from cfnsr.features.mel import Mel
from cfnsr.media.mfcc import N_SAMPLES
from cfnsr.models.entries import TABLES
from cfnsr.training.config import PAPER
from cfnsr.training.inputs import to_input

DEVICE = "cuda"
RECIPE = PAPER
MODEL = "cfn_sr"
SIDE = 8192  # of the matrices whose product is the limit
CLIPS, FOLDS = 1440, 5
STEPS = 10  # between two looks at the clock

Task = Callable[[], object]


def training(rounds: int, progress: Progress) -> list[Figure]:
    """Clips a second in training, the peak memory, and from that the time of a fold and of Table 1.

    Clips are made up. Plain has float32 in the machine's memory and reads each loss. Ours has bytes there,
    which are cropped, flipped and normalised on the device, and reads no loss.
    """
    progress(f"training on {DEVICE}, compiled first")
    makers: dict[str, Callable[[], Task]] = {"plain": _learns_plainly, "ours": partial(_learns, MODEL)}
    one = [each[:1].float() for each in _clips(MODEL)]
    operations = 3 * STEPS * RECIPE.batch_size * flops(create_model(MODEL, width=RECIPE.width), *one)
    limit = _awaited(product(operations, DEVICE, SIDE))
    seconds = alternate({**{name: make() for name, make in makers.items()}, "limit": limit}, rounds)
    what, clips = f"training, {RECIPE.batch_size} clips a step", STEPS * RECIPE.batch_size
    rate = compare(what, seconds, goal=Goal(6, "plain", least=True), unit="1/s", amount=clips)
    peaks = {name: _peak(make()) for name, make in makers.items()}
    learnt = RECIPE.epochs * CLIPS * (FOLDS - 1) // FOLDS  # in a fold
    hours = 0.0
    for _, name in TABLES[1]:
        progress(f"training on {DEVICE}: {name}")
        hours += FOLDS * learnt / clips * alternate({"ours": _learns(name)}, 1)["ours"][0] / 3600
    table = f"Table 1: {len(TABLES[1])} models, {FOLDS} folds of {RECIPE.epochs} epochs"
    return [
        rate,
        Figure(f"{what}, peak memory", peaks["ours"], "GB", peaks["plain"]),
        Figure(f"one fold of {RECIPE.epochs} epochs", learnt / rate.ours, goal=Goal(480)),
        Figure(table, hours, "h"),
    ]


def inference(rounds: int, progress: Progress) -> list[Figure]:
    """Clips a second in answers, from the same kinds of memory."""
    progress(f"answers on {DEVICE}, compiled first")
    video, audio = _clips(MODEL)
    pictures, batch, device = video.float(), _batch(video, audio), torch.device(DEVICE)
    models = [create_model(MODEL, width=RECIPE.width).to(device).eval() for _ in range(2)]
    ours = models[1].to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    ours.compile(dynamic=False)

    def answer_plainly() -> None:
        for _ in range(STEPS):
            plain.answer(models[0], pictures.to(device), audio.to(device)).cpu()

    @torch.no_grad()
    def answer() -> None:
        for _ in range(STEPS):
            given = to_input(batch, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=runs_bfloat16(device)):
                ours(given.video, given.audio)

    seconds = alternate({"plain": answer_plainly, "ours": _awaited(answer)}, rounds)
    clips = RECIPE.batch_size
    return [compare(f"answers, {clips} clips a step", seconds, unit="1/s", amount=STEPS * clips)]


def _learns_plainly() -> Task:
    device = torch.device(DEVICE)
    torch.manual_seed(0)
    model = create_model(MODEL, width=RECIPE.width).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE.learning_rate)
    video, audio = _clips(MODEL)
    pictures, labels = video.float(), torch.arange(len(video)) % 8

    def learn() -> None:
        for _ in range(STEPS):
            plain.learn(model, optimizer, pictures.to(device), audio.to(device), labels.to(device))

    return learn


def _learns(name: str) -> Task:
    device = torch.device(DEVICE)
    torch.manual_seed(0)
    model = create_model(name, width=RECIPE.width)
    step = learner(model, device)
    model.compile(dynamic=False)
    batch = _batch(*_clips(name))
    maps = augment.draw(len(batch.label), torch.Generator().manual_seed(0)).to(device)

    def learn() -> None:
        for _ in range(STEPS):
            given = to_input(batch, device, maps)
            step(given.video, given.audio, given.label.to(device, non_blocking=True))

    return _awaited(learn)


def _clips(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures as bytes, and the features of sound that a model reads, made up."""
    generator = torch.Generator().manual_seed(0)
    shape = RECIPE.batch_size, 3, RECIPE.frames, RECIPE.size, RECIPE.size
    video = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    sound = FEATURES[create_model(name, width=1 / 8).reads.get("audio", "audio")]
    assert isinstance(sound, Mel)
    return video, torch.randn(len(video), *sound.silence(N_SAMPLES).shape, generator=generator)


def _batch(video: torch.Tensor, audio: torch.Tensor) -> Batch:
    """As a loader gives it: pinned, where there is a GPU."""
    places = torch.arange(len(video))
    batch = video, audio, places % 8, places
    return Batch(*(each.pin_memory() if DEVICE == "cuda" else each for each in batch))


def _awaited(task: Task) -> Task:
    """The task with the end of what it has put on the device's list."""

    def awaited() -> None:
        task()
        torch.get_device_module(DEVICE).synchronize()

    return awaited


def _peak(task: Task) -> float:
    """Peak of the GPU's memory in GB while a task runs."""
    torch.cuda.reset_peak_memory_stats()
    task()
    return torch.cuda.max_memory_allocated() / 1e9
