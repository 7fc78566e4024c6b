"""A contact sheet: a few prepared clips as one picture, to check the input of models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cfnsr.data.store import Header, Store
from cfnsr.files import write_atomically
from cfnsr.media.decode import spread

TILE = 112  # pixels
LABEL = 22  # pixels above each row
CLIPS = FRAMES = 8


def contact_sheet(store: Store, headers: Sequence[Header], path: Path) -> Path:
    """Write a PNG with one row a clip: its emotion and name, and evenly spaced crops.

    Of the clips one of each emotion comes first, each of another actor as far as there are any.
    """
    import cv2

    chosen: list[Header] = []
    for emotion in store.labels.emotions:
        seen = {header.actor for header in chosen}
        of_emotion = [header for header in headers if header.emotion == emotion]
        chosen += sorted(of_emotion, key=lambda header: header.actor in seen)[:1]
    chosen += [header for header in headers if header not in chosen]
    rows = []
    for header in chosen[:CLIPS]:
        video = store.load(header.name, ["video"])["video"]
        tiles = [
            cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)
            for frame in video[spread(len(video), FRAMES)]
        ]
        label = np.full((LABEL, TILE * FRAMES, 3), 255, np.uint8)
        text = f"{header.emotion}   {header.name}"
        cv2.putText(label, text, (4, LABEL - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        rows += [label, np.concatenate(tiles, axis=1)]
    encoded = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))[1]
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded.tobytes()))
    return path
