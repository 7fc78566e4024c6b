"""Several prepared corpora read as one, with one label set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from cfnsr.data.index import Listed
from cfnsr.data.store import Header, Store
from cfnsr.emotions import LabelSet, label_set_of
from cfnsr.errors import InputError, listed

CORPUS = "corpus"  # attribute of a clip: the corpus it comes from
JOINT = "+"  # between the names of the corpora, as their common name


class JoinedStore(Store):
    """Prepared corpora as one store: clips and speakers carry the name of their corpus.

    So speakers of two corpora are never one person, whatever their names. Clips of an emotion outside the
    label set are left out.

    Args:
        stores: of different names.
        labels: the label set; that of all their emotions if not given.

    Raises:
        InputError: two corpora of one name, or prepared with different settings.
    """

    def __init__(self, stores: Sequence[Store], labels: LabelSet | None = None) -> None:
        self.stores = {store.corpus: store for store in stores}
        if len(self.stores) < len(stores):
            names = ", ".join(f"{store.corpus} ({store.folder})" for store in stores)
            raise InputError(f"two of the corpora {names} have one name: expected each once")
        first = stores[0]
        for store in stores:
            if store.preparation != first.preparation:
                different = [
                    f"{key} {first.preparation.get(key)} and {value}"
                    for key, value in store.preparation.items()
                    if first.preparation.get(key) != value
                ]
                raise InputError(
                    f"{first.folder} and {store.folder} were prepared with {listed(different)}: expected the "
                    "same settings; prepare one of them again"
                )
        self.folder, self.corpus = first.folder, JOINT.join(self.stores)
        self.preparation = first.preparation
        every = dict.fromkeys(emotion for store in stores for emotion in store.labels.emotions)
        self.labels = label_set_of(every) if labels is None else labels

    def notes(self) -> list[str]:
        """Say how many clips are left out, and which labels no clip has."""
        emotions = Counter(header.emotion for headers in self._read.values() for header in headers)
        out = {emotion: count for emotion, count in emotions.items() if emotion not in self.labels}
        there = {self.labels.index(emotion) for emotion in emotions if emotion not in out}
        nobody = [emotion for emotion in self.labels.emotions if self.labels.index(emotion) not in there]
        lines = [f"{count} clips of {emotion} left out" for emotion, count in out.items()]
        return lines + [f"no clip of {emotion}" for emotion in nobody]

    @cached_property
    def _read(self) -> dict[str, list[Header]]:
        """Headers of each corpus as its own store has them; reading them takes a file each."""
        return {corpus: store.headers() for corpus, store in self.stores.items()}

    def path(self, name: str) -> Path:
        corpus, _, own = name.partition("/")
        return self.stores[corpus].path(own)

    def entries(self) -> list[Listed]:
        return [Listed(header.name, header.emotion, header.actor) for header in self.headers()]

    def headers(self) -> list[Header]:
        headers = [
            replace(
                header,
                name=f"{corpus}/{header.name}",
                actor=f"{corpus} {header.actor}",
                attributes={**header.attributes, CORPUS: corpus},
            )
            for corpus, own in self._read.items()
            for header in own
            if header.emotion in self.labels
        ]
        for corpus, store in self.stores.items():
            if not any(header.attributes[CORPUS] == corpus for header in headers):
                raise InputError(
                    f"{store.folder} has no clip of {', '.join(self.labels.emotions)}: its labels are "
                    f"{', '.join(store.labels.emotions)}; give other --labels, or leave it out"
                )
        return headers


def open_stores(folders: Sequence[Path], labels: LabelSet | None = None) -> Store:
    """Open a prepared corpus, or several as one, with their own label set or another.

    Raises:
        InputError: a folder is no prepared corpus, or they do not go together.
    """
    stores = [Store(folder) for folder in folders]
    return stores[0] if len(stores) == 1 and labels is None else JoinedStore(stores, labels)
