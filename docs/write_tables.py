"""Write docs/synthetic-tables.md from the runs of `make table`: `python docs/write_tables.py RUNS OUT`."""

import sys
from pathlib import Path

from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.summary import summarise
from cfnsr.evaluation.tables import tables
from cfnsr.files import write_text

INTRODUCTION = """# Both tables on the synthetic corpus

`make table` wrote these: all fifteen models of the paper's two tables, trained and tested on 24 drawn
and voiced actors with the small preset. The faces and voices are made so that each sense alone confuses
some pairs of emotions and both together do not. The figures show that every row trains and how the
tables read; they say nothing about which fusion is best on people.
"""

if __name__ == "__main__":
    runs, out = map(Path, sys.argv[1:])
    body = tables(summarise(read_runs(runs)), ()).split("\n", 1)[1]  # its title makes way for ours
    write_text(out, INTRODUCTION + body)
