"""A contact sheet: a few prepared clips as one picture, to see what the models see."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cfnsr.data.dataset import even
from cfnsr.data.store import Header, Store
from cfnsr.files import write_atomically

TILE = 112  # pixels
LABEL = 22  # pixels above each row


def contact_sheet(
    store: Store, headers: Sequence[Header], path: Path, *, clips: int = 8, frames: int = 8
) -> Path:
    """Write a PNG with one row a clip: its emotion and name, and evenly spaced crops.

    Args:
        store: where the clips are.
        headers: clips to choose from; one of each emotion first, then evenly over the rest.
        path: of the picture.
        clips: rows.
        frames: crops a row.
    """
    import cv2

    by_emotion: dict[str, list[Header]] = {emotion: [] for emotion in store.labels.emotions}
    for header in headers:
        by_emotion[header.emotion].append(header)
    # A different actor for each emotion, as far as there are any.
    chosen = [
        found[(place * len(found)) // len(by_emotion)]
        for place, found in enumerate(by_emotion.values())
        if found
    ]
    rest = [header for header in headers if header not in chosen]
    missing = max(0, min(clips - len(chosen), len(rest)))
    chosen = (chosen + [rest[place] for place in even(len(rest), missing)])[:clips]
    rows = []
    for header in chosen:
        video = store.load(header.name, ["video"])["video"]
        tiles = [
            cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)
            for frame in video[even(len(video), frames)]
        ]
        label = np.full((LABEL, TILE * frames, 3), 255, np.uint8)
        text = f"{header.emotion}   {header.name}"
        cv2.putText(label, text, (4, LABEL - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        rows += [label, np.concatenate(tiles, axis=1)]
    encoded = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))[1]
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded.tobytes()))
    return path
