"""The network at the paper's size: forward, exported, and a training step."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain
from benchmarks.measure import Figure, Goal, Progress, alone, alternate, compare
from benchmarks.subjects import WIDTH, Subjects
from cfnsr import create_model
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.models.entries import Model
from cfnsr.models.fast import fast, has_bfloat16

FRAMES, SIZE, STEPS, BATCH = 30, 224, 212, 2
BFLOAT16 = "bf16" if has_bfloat16() else "bf16, which this CPU answers in float32"
EXPORTED = {
    "onnx": ("exported (.onnx)", None),
    "bf16": (f"exported (OpenVINO, {BFLOAT16})", Goal(5, "plain", least=True)),
    "int8": ("exported (OpenVINO, int8)", Goal(8, "plain", least=True)),
}
DECIDED = 2.0  # deviation of the log-probabilities of a clip
SIDE = 2048  # of the matrices whose product is the machine's limit


def forward(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """One clip forward by PyTorch, plain and as `predict`, `serve` and the evaluation of a training do."""
    progress("forward, one clip")
    model, clip = subjects.network()
    inner, audio = TorchRecogniser(model).batch([clip])[:2]
    video = inner.contiguous()
    decide(model, video, audio)
    ours = fast(model)
    seconds = alternate(
        {
            "plain": lambda: plain.answer(model, video, audio),
            "ours": lambda: _inferred(ours, inner, audio),
            "limit": product(flops(model, video, audio)),
        },
        rounds,
    )
    change = (_inferred(ours, inner, audio).exp() - plain.answer(model, video, audio).exp()).abs().max()
    return [
        compare("forward, one clip, PyTorch", seconds, goal=Goal(3, "plain", least=True)),
        Figure("the same: largest change of a probability", change.item(), "", goal=Goal(0.01)),
    ]


def decide(model: nn.Module, video: torch.Tensor, audio: torch.Tensor) -> None:
    """Let the last layer judge by what tells these pictures from grey ones, as surely as trained weights do.

    The answers of random weights are nearly alike whatever they see, so that no change of them would show.
    """
    grey, answer = (plain.answer(model, each, audio)[0] for each in (torch.zeros_like(video), video))
    classify = cast(nn.Linear, cast(nn.Module, model.head).classify)
    with torch.no_grad():
        classify.bias.sub_(grey)
        for parameter in classify.parameters():
            parameter.mul_(DECIDED / (answer - grey).std())


def exported(subjects: Subjects, rounds: int, progress: Progress) -> list[Figure]:
    """One clip forward by the exported model: float32, bfloat16 and int8, sound included."""
    from cfnsr.inference.exported import load_exported

    progress("exported, one clip")
    model, clip = subjects.network()
    batch = TorchRecogniser(model).batch([clip])
    video = batch.video.contiguous()
    runs = {kind: load_exported(subjects.exported[kind]) for kind in EXPORTED}
    tasks: dict[str, Callable[[], object]] = {
        kind: partial(run.probabilities, [clip]) for kind, run in runs.items()
    }
    seconds = alternate({"plain": lambda: plain.answer(model, video, batch.audio), **tasks}, rounds)
    return [
        compare(f"forward, one clip, {called}", seconds, kind, goal)
        for kind, (called, goal) in EXPORTED.items()
    ]


def training(rounds: int, progress: Progress) -> list[Figure]:
    """A training step of two clips: seconds in turns, and the peak memory of a process that does it alone."""
    progress(f"training step, batch {BATCH}")
    tasks = {name: step(name) for name in ("plain", "ours")}
    forward_flops = flops(create_model("cfn_sr", width=WIDTH), *_batch())
    seconds = alternate({**tasks, "limit": product(3 * forward_flops)}, rounds)
    del tasks
    progress("training step, memory")
    plainly, ours = (_peak(name) for name in ("plain", "ours"))
    what = f"training step, batch {BATCH}, "
    how = "bfloat16" if has_bfloat16() else "float32, for this CPU has no bfloat16"
    return [
        compare(what + how, seconds, goal=Goal(2.5, "plain", least=True)),
        Figure(what + "peak memory", ours, "GB", plainly, goal=Goal(1 / 0.6, "plain", least=True)),
    ]


def step(name: str) -> Callable[[], float]:
    """A training step of one of the two kinds, with a model and an optimizer of its own."""
    torch.manual_seed(0)
    model = create_model("cfn_sr", width=WIDTH).train()
    video, audio = _batch()
    labels = torch.arange(BATCH)
    if name == "plain":
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        return lambda: plain.learn(model, optimizer, video, audio, labels)
    learn = learner(model)
    video = video.contiguous(memory_format=torch.channels_last_3d)
    return lambda: learn(video, audio, labels).item()


def learner(
    model: Model, device: torch.device | str = "cpu"
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Learn from pictures, sound and labels as a training does; the loss stays on the device."""
    model.to(device).train()
    if "video" in model.reads:
        model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def learn(video: torch.Tensor, audio: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(video.device.type, torch.bfloat16, enabled=runs_bfloat16(device)):
            log_probabilities = model(video, audio)
        loss = functional.nll_loss(log_probabilities.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return learn


def runs_bfloat16(device: torch.device | str) -> bool:
    """Whether the device has bfloat16: every GPU of the last years, and some CPUs."""
    return has_bfloat16() if torch.device(device).type == "cpu" else torch.cuda.is_bf16_supported()


def flops(model: nn.Module, video: torch.Tensor, audio: torch.Tensor) -> int:
    """Floating-point operations of a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(video, audio)
    return int(counter.get_total_flops())


def product(operations: int, device: torch.device | str = "cpu", side: int = SIDE) -> Callable[[], object]:
    """As many operations in the device's best matrix product."""
    dtype = torch.bfloat16 if runs_bfloat16(device) else torch.float32
    a = torch.randn(side, side, dtype=dtype, device=device)
    rows = max(1, round(operations / (2 * side * side)))
    tall = a.repeat(-(-rows // side), 1)[:rows]
    return lambda: tall @ a


def _inferred(model: Callable[..., torch.Tensor], video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(video, audio)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(BATCH, 3, FRAMES, SIZE, SIZE, generator=generator)
    return video, torch.randn(BATCH, 13, STEPS, generator=generator)


def _peak(name: str) -> float:
    """Peak memory in GB of a process that takes two training steps."""
    setup = f"from benchmarks import network; network.WIDTH = {WIDTH}; task = network.step({name!r})"
    return alone(setup, 2)["GB"]
