"""Concat + FC by its formula, its start, and the parameters that speak for its layout."""

import pytest
import torch
from torch import Tensor, nn

from cfnsr.models.heads.concat_fc import ConcatFC, ConcatFCHeads


def by_hand(head: ConcatFC | ConcatFCHeads, spliced: Tensor) -> list[float]:
    """The scores of one clip, unit by unit."""
    hidden = [
        max(0.0, sum(w * x for w, x in zip(row, spliced.tolist(), strict=True)) + b)
        for row, b in zip(head.hidden.weight.tolist(), head.hidden.bias.tolist(), strict=True)
    ]
    return [
        sum(w * x for w, x in zip(row, hidden, strict=True)) + b
        for row, b in zip(head.classify.weight.tolist(), head.classify.bias.tolist(), strict=True)
    ]


def test_a_hidden_layer_over_the_spliced_pair() -> None:
    torch.manual_seed(1)
    head = ConcatFC(3, 2, 4, hidden=9)
    video, audio = torch.randn(2, 3), torch.randn(2, 2)
    for clip, spliced in enumerate(torch.cat([video, audio], dim=1)):
        expected = torch.tensor(by_hand(head, spliced)).softmax(dim=0)
        torch.testing.assert_close(head(video, audio)[clip].exp(), expected)


def test_with_heads_the_scores_of_both_streams_are_added() -> None:
    torch.manual_seed(1)
    head = ConcatFCHeads(3, 2, 4, hidden=5)
    video, audio = torch.randn(2, 3), torch.randn(2, 2)
    alone = [each.log_softmax(dim=1) for each in (head.streams.video(video), head.streams.audio(audio))]
    for clip, spliced in enumerate(torch.cat([video, audio], dim=1)):
        expected = (torch.tensor(by_hand(head, spliced)) + alone[0][clip] + alone[1][clip]).softmax(dim=0)
        torch.testing.assert_close(head(video, audio)[clip].exp(), expected)


@pytest.mark.parametrize("classes", [4, 200])
def test_it_starts_as_the_sum_of_two_trained_classifiers(classes: int) -> None:
    """All its own weights but those that stand for the sum stay as they are, and learn."""
    torch.manual_seed(1)
    head, video, audio = ConcatFC(3, 2, classes), nn.Linear(3, classes), nn.Linear(2, classes)
    head.start_from(video, audio)
    seen, heard = torch.randn(5, 3), torch.randn(5, 2)
    torch.testing.assert_close(head(seen, heard), (video(seen) + audio(heard)).log_softmax(dim=1))
    head(seen, heard)[:, 0].sum().backward()
    assert head.classify.weight.grad is not None
    unread = head.classify.weight.grad[:, 2 * classes :]
    assert classes == 200 or (unread.abs().sum(dim=0) > 0).float().mean() > 0.5
