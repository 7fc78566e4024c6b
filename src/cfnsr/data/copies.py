"""Which clips of a store are one recording by their sound: searched for once, and kept beside the clips.

Every two are compared, so the search takes four times as long for twice as many.
"""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features.mel import PCM
from cfnsr.files import read_json, write_json
from cfnsr.media.fingerprint import Content, copies, sound_map
from cfnsr.media.mfcc import SAMPLE_RATE


def sound_copies(store: Store, names: Iterable[str], fingerprint: str) -> dict[str, int]:
    """Number of each clip's set of copies; -1 for one that has none, and no entry for one without sound.

    Args:
        names: of the clips.
        fingerprint: of these names and their recordings; what is kept counts for that alone.
    """
    path = store.folder / "copies.json"
    with suppress(InputError):  # missing or damaged
        kept = read_json(path, "sets of copies")
        if kept.get("fingerprint") == fingerprint:
            return dict(kept["copies"])
    sounds = {name: sound for name in names if (sound := _sound(store, name)) is not None}
    sets = copies([Content("", sound) for sound in sounds.values()])
    found = dict(zip(sounds, sets.tolist(), strict=True))
    with suppress(OSError):  # a folder that may only be read
        write_json(path, {"fingerprint": fingerprint, "copies": found})
    return found


def _sound(store: Store, name: str) -> np.ndarray | None:
    """Picture of a clip's sound, of its waveform where the clip was prepared without; None for silence."""
    sound = store.find(name, "sound_map")
    if sound is None and (waveform := store.find(name, "waveform")) is not None:
        sound = sound_map((waveform / PCM).astype(np.float32), SAMPLE_RATE)
    return sound if sound is not None and sound.any() else None
