"""Write docs/protocols.md from runs: `python docs/write_protocols.py RUNS docs/protocols.md`."""

import sys
from pathlib import Path

from cfnsr.evaluation.habits import page
from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.summary import summarise
from cfnsr.files import write_text

COMMANDS = ("make protocols RAVDESS=ravdess",)

if __name__ == "__main__":
    runs, out = map(Path, sys.argv[1:])
    write_text(out, page(summarise(read_runs(runs)), COMMANDS))
