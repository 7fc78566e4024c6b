"""The command line: one verb a step, from a corpus to a prediction; each calls the library and prints."""

from cfnsr.cli import corpus, demo, give, train, use
from cfnsr.cli.app import app, main

__all__ = ["app", "corpus", "demo", "give", "main", "train", "use"]
