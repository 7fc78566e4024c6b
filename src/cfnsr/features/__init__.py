"""Inputs of the models: one file each, and the list of them."""

from cfnsr.features.base import FEATURES, Feature
from cfnsr.features.expression import Expression
from cfnsr.features.mel import LOG_MEL, MFCC
from cfnsr.features.openface import OpenFace
from cfnsr.features.pictures import Pictures
from cfnsr.features.speech import Speech

FEATURES |= {each.name: each for each in (Pictures(), MFCC, LOG_MEL, Speech(), OpenFace(), Expression())}

__all__ = ["FEATURES", "Feature"]
