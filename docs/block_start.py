"""A plugin with another start of CFN-SR's block: eq. 7 begins with scores of zero: weights are uniform.

    cfnsr --plugin docs/block_start.py crossval cfn_sr cfn_sr_uniform_start --data prepared --out runs

`make block-start` compares the two on inner validation actors of a corpus that no figure is taken from.
"""

from torch import nn

from cfnsr.models.exchanges.cross_modal import CrossModal
from cfnsr.models.streams import TwoStream
from cfnsr.models.zoo import Settings, entry


class UniformStart(CrossModal):
    """The block of CFN-SR, whose weights are uniform behind encoders that were trained without it."""

    def start_neutral(self) -> None:
        """Let each place have the same score."""
        nn.init.zeros_(self.agreement.score.weight)


@entry("cfn_sr_uniform_start", fusion="model")
def cfn_sr_uniform_start(settings: Settings) -> TwoStream:
    return settings.fuse(UniformStart)
