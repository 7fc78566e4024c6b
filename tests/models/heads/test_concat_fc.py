"""Concat + FC by its formula, and the parameters that speak for its layout."""

import torch
from torch import nn

from cfnsr.models.heads.concat_fc import ConcatFC


def test_scores_of_the_hidden_layer_and_of_both_streams_add_up() -> None:
    torch.manual_seed(1)
    head = ConcatFC(3, 2, 4, hidden=5)
    video, audio = torch.randn(2, 3), torch.randn(2, 2)
    first, last = head.joint[0], head.joint[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    for clip in range(2):
        spliced = [*video[clip].tolist(), *audio[clip].tolist()]
        hidden = [
            max(0.0, sum(w * x for w, x in zip(row, spliced, strict=True)) + b)
            for row, b in zip(first.weight.tolist(), first.bias.tolist(), strict=True)
        ]
        scores = []
        for emotion in range(4):
            score = sum(w * x for w, x in zip(last.weight[emotion].tolist(), hidden, strict=True))
            score += last.bias[emotion].item()
            for stream, vector in ((head.streams.video, video), (head.streams.audio, audio)):
                score += (stream.weight[emotion] @ vector[clip] + stream.bias[emotion]).item()
            scores.append(score)
        expected = torch.tensor(scores).exp() / torch.tensor(scores).exp().sum()
        torch.testing.assert_close(head(video, audio)[clip].exp(), expected)


def test_size() -> None:
    """950,528 + 2,056 of the hidden layer, 29,712 of the streams: 26.868 M with the two encoders."""
    head = ConcatFC(2048, 1664, 8)
    assert sum(p.numel() for p in head.parameters()) == 950_528 + 2_056 + 29_712
    assert 25_886_368 + 950_528 + 2_056 + 29_712 == 26_868_664


def test_float32_log_probabilities_under_mixed_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        log_probabilities = ConcatFC(256, 64, 8)(torch.randn(3, 256), torch.randn(3, 64))
    assert log_probabilities.dtype == torch.float32
    torch.testing.assert_close(log_probabilities.exp().sum(1), torch.ones(3))
