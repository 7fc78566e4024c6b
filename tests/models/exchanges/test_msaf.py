"""MSAF against a slow re-derivation block by block, and what block dropout drops."""

import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.exchanges.msaf import MSAF


def padded_blocks(features: Tensor, block: int) -> list[Tensor]:
    """(C, ...) -> blocks of (block, ...), the last filled with zeros."""
    blocks = []
    for start in range(0, len(features), block):
        part = features[start : start + block]
        missing = block - len(part)
        blocks.append(torch.cat([part, torch.zeros(missing, *features.shape[1:])]))
    return blocks


def derive(module: MSAF, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """The source's steps for one clip in its order: sum of the blocks, mean over places, joint, attention."""
    split = [padded_blocks(video, module.block), padded_blocks(audio, module.block)]
    joint = torch.zeros(module.block)
    for blocks in split:
        total = sum(blocks)
        assert isinstance(total, Tensor)
        for channel in range(module.block):
            joint[channel] += total[channel].mean()
    linear, norm = module.joint[0], module.joint[1]
    assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    assert norm.running_mean is not None and norm.running_var is not None
    reduced = linear.weight @ joint + linear.bias
    reduced = (reduced - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    reduced = reduced.clamp(min=0)
    scores = [module.weight[n] @ reduced + module.bias[n] for n in range(len(module.weight))]
    outputs: list[list[Tensor]] = [[], []]
    number = 0
    for modality, blocks in enumerate(split):
        for features in blocks:
            gated = torch.zeros_like(features)
            for channel in range(module.block):
                share = scores[number][channel].exp() / sum(score[channel].exp() for score in scores)
                gated[channel] = share * len(scores) * features[channel]
            outputs[modality].append(gated)
            number += 1
    return torch.cat(outputs[0])[: len(video)], torch.cat(outputs[1])[: len(audio)]


def trained(*channels: int, **options: float) -> MSAF:
    """A module in evaluation whose batch norm is not the identity."""
    torch.manual_seed(1)
    module = MSAF(*channels, **options).eval()  # type: ignore[arg-type]
    norm = module.joint[1]
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return module


@pytest.mark.parametrize("channels", [(16, 8), (10, 6), (12, 3)], ids=str)
def test_against_the_source_step_by_step(channels: tuple[int, int]) -> None:
    """Also where channels fill no whole block, and where a modality has less than one."""
    module = trained(*channels, block=4, reduction=2)
    video, audio = torch.randn(3, channels[0], 2, 3, 3), torch.randn(3, channels[1], 5)
    with torch.no_grad():
        ours = module(video, audio)
        for clip in range(3):
            expected = derive(module, video[clip], audio[clip])
            torch.testing.assert_close((ours[0][clip], ours[1][clip]), expected, atol=1e-6, rtol=1e-5)


def test_gates_have_mean_one() -> None:
    """So trained encoders keep their scale; the source's gates begin near one by the number of blocks."""
    module = trained(16, 8, block=4)
    video, audio = module(torch.ones(3, 16, 1, 2, 2), torch.ones(3, 8, 5))
    gates = torch.cat([video[:, :, 0, 0, 0], audio[:, :, 0]], dim=1).unflatten(1, (6, 4))
    torch.testing.assert_close(gates.mean(dim=1), torch.ones(3, 4))
    assert gates.std() > 1e-3


def test_block_dropout_drops_whole_blocks_of_a_clip_in_training_alone() -> None:
    """A kept channel is scaled by 1 / 0.5 once; at a neutral start nothing else scales it."""
    torch.manual_seed(2)
    module = MSAF(64, 32, block=8, block_dropout=0.5)
    module.start_neutral()
    video, audio = torch.ones(20, 64, 1, 2, 2), torch.ones(20, 32, 3)
    masks = []
    for dropped in module(video, audio):
        blocks = dropped.flatten(2).unflatten(1, (-1, 8))
        assert (blocks == blocks[:, :, :1, :1]).all(), "a block is kept or dropped as a whole"
        masks.append(blocks[:, :, 0, 0])
    mask = torch.cat(masks, dim=1)
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert (mask.std(dim=0) > 0).all() and (mask.std(dim=1) > 0).all(), "drawn for each clip and block"
    assert 0.8 < mask.mean() < 1.2
    module.eval()
    assert torch.equal(module(video, audio)[0], video) and torch.equal(module(video, audio)[1], audio)


def test_dropped_blocks_are_missing_from_the_joint_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every block but one dropped, the joint vector is that block's averages, scaled."""
    module = MSAF(8, 4, block=4, reduction=1, block_dropout=0.5)
    seen: list[Tensor] = []
    monkeypatch.setattr(module, "attention", lambda joint: seen.append(joint) or torch.ones(2, 3, 4))
    kept = torch.tensor([0.0, 2.0, 0.0])[None, :, None].expand(2, -1, -1)
    monkeypatch.setattr("torch.nn.functional.dropout", lambda ones, p, training: kept)
    video, audio = torch.randn(2, 8, 1, 2, 2), torch.randn(2, 4, 3)
    module(video, audio)
    torch.testing.assert_close(seen[0], 2 * video[:, 4:].mean(dim=(2, 3, 4)))
