"""Write docs/ravdess-features.md: `python docs/write_features.py RUNS RUNS_SEQUENCE RUNS_MEAN OUT.md`.

RUNS are of all rows, nested and nested_normalised; RUNS_SEQUENCE and RUNS_MEAN of the takes with
frame-by-frame action units, leave_one_actor_out, with the frames and with each take's mean of them.
Each run of RUNS gets its model card.
"""

import datetime
import sys
from pathlib import Path

from cfnsr.evaluation.card import write_card
from cfnsr.evaluation.features import page
from cfnsr.evaluation.runs import read_runs
from cfnsr.evaluation.sequence import sequence_page
from cfnsr.evaluation.summary import summarise
from cfnsr.files import write_text

COMMANDS = ("make ravdess-features",)
TRIED = "[What was tried on real features](ravdess-features-tried.md), and what each try gave."

if __name__ == "__main__":
    runs, frames, means, out = map(Path, sys.argv[1:])
    rows, of_frames, of_means = (summarise(read_runs(folder)) for folder in (runs, frames, means))
    for row in rows:
        for run in row.runs:
            write_card(run.folder, rows)
    date = datetime.date.today().isoformat()
    write_text(
        out,
        page(rows, COMMANDS, date=date, tried=TRIED, sequence=sequence_page(of_frames, of_means)),
    )
