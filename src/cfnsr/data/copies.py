"""Which clips of a store are one recording by their sound: what was found last is kept beside the clips.

Every two are compared, so the search takes four times as long for twice as many.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np

from cfnsr import __version__
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
        fingerprint: of these names and their recordings. What is kept counts for them alone, as they are
            prepared now, and for this version.
    """
    path, names = store.folder / "copies.json", list(names)
    known = {"fingerprint": fingerprint, "preparation": store.preparation, "version": __version__}
    with suppress(InputError):  # missing or damaged
        kept = read_json(path, "sets of copies")
        if (found := _found(kept.pop("copies", None), names)) is not None and kept == known:
            return found
    sounds = {name: sound for name in names if (sound := _sound(store, name)) is not None}
    sets = copies([Content("", sound) for sound in sounds.values()])
    found = dict(zip(sounds, sets.tolist(), strict=True))
    with suppress(OSError, NotImplementedError):  # a folder, or a kind of storage, that may only be read
        write_json(path, {**known, "copies": found})
    return found


def _found(kept: object, names: Sequence[str]) -> dict[str, int] | None:
    """What a search once found of these clips; None for what is no such thing."""
    if not isinstance(kept, dict) or not kept.keys() <= set(names):
        return None
    return kept if all(type(number) is int for number in kept.values()) else None


def _sound(store: Store, name: str) -> np.ndarray | None:
    """Picture of a clip's sound, of its waveform where the clip was prepared without; None for silence."""
    sound = store.find(name, "sound_map")
    if sound is None and (waveform := store.find(name, "waveform")) is not None:
        sound = sound_map((waveform / PCM).astype(np.float32), SAMPLE_RATE)
    return sound if sound is not None and sound.any() else None
