"""The video encoder for the values of an expression network over time."""

from cfnsr.models.encoders.openface import OpenFaceEncoder


class ExpressionEncoder(OpenFaceEncoder):
    """OpenFace's encoder, whose places are an expression network's values in time, `(B, C, T, F, 1)`.

    Args:
        features: values a step has; 263 are the seven scores and 256 features of the small network.
    """

    reads = "expression"
    setting = "expression_features"

    def __init__(self, features: int = 263, classes: int = 8) -> None:
        super().__init__(features, classes)
