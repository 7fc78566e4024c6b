"""Takes of a corpus: names, labels, and where their files are."""

from cfnsr.corpus.scan import scan
from cfnsr.corpus.table import read_table
from cfnsr.corpus.take import Actor, Corpus, Take

__all__ = ["Actor", "Corpus", "Take", "read_table", "scan"]
