"""Takes of a corpus: names, labels, and where their files are; one file a corpus, and the list of them."""

from cfnsr.corpus import cremad, ravdess
from cfnsr.corpus.scan import scan
from cfnsr.corpus.scheme import SCHEMES
from cfnsr.corpus.table import read_table
from cfnsr.corpus.take import Actor, Corpus, Take

SCHEMES |= {each.name: each for each in (ravdess.SCHEME, cremad.SCHEME)}

__all__ = ["SCHEMES", "Actor", "Corpus", "Take", "read_table", "scan"]
