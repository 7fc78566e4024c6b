"""A prepared corpus for a grid of trainings: its clips in memory, its folds, and their actors."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from cfnsr.corpus.take import Actor, actor_order, refuse_spellings
from cfnsr.data.conditions import CorruptedSound
from cfnsr.data.copies import sound_copies
from cfnsr.data.dataset import Clips, Column
from cfnsr.data.degraded import degraded_name, is_degraded
from cfnsr.data.folds import Dealt, Fold, Protocol, Unit
from cfnsr.data.index import collector_paused
from cfnsr.data.joined import CORPUS
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features.base import FEATURES, Look
from cfnsr.features.mel import Mel
from cfnsr.features.preparation import Preparation
from cfnsr.models.parameters import whisper_encoder

TABLE = "openface"  # file of a take that may be one table of all takes


class PreparedCorpus:
    """A store with its headers read and its clips at hand for every kind of model."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.headers = store.headers()
        self.corrupted_sound = CorruptedSound(store)
        self._columns: dict[tuple[str, tuple[int, ...], bool], Column] = {}
        self._sizes: dict[str, dict[str, int]] = {}
        self._dealt: dict[Protocol, dict[Unit, list[tuple[int, Dealt]]]] = {}

    def clips(self, reads: Mapping[str, str], look: Look, *, normalised: bool = False) -> Clips:
        """All clips as a model reads them; each tensor is read once for all models and folds.

        Args:
            reads: inputs for "video", "audio" or both.
        """
        columns = {modality: self._column(name, look, normalised) for modality, name in reads.items()}
        labels = [self.store.labels.index(header.emotion) for header in self.headers]
        silent = None if normalised else self.silence(reads.get("audio"))
        corpora = [header.attributes.get(CORPUS, "") for header in self.headers]
        return Clips(columns, labels, len(self.store.labels), silent, corpora)

    def _column(self, name: str, look: Look, normalised: bool) -> Column:
        key = name, FEATURES[name].concerns(look), normalised
        if key not in self._columns and normalised:
            self._columns[key] = self._column(name, look, False).standardised()
        elif key not in self._columns:
            self._columns[key] = Column(self.store, self.headers, name, look)
        return self._columns[key]

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Sizes that a model of some inputs must know of what was prepared, see `Feature.sizes`."""
        sizes: dict[str, int] = {}
        for name in (name for name in names if name in self.preparation.modalities):
            if name not in self._sizes:
                clips = (self.store.load(header.name, [name]) for header in self.headers)
                self._sizes[name] = FEATURES[name].sizes(clips)
            sizes |= self._sizes[name]
        return sizes

    @cached_property
    def speech_parameters(self) -> int:
        """Parameters of the speech encoder; 0 where there is none, or an earlier version kept no count."""
        if not self.preparation.pretrained:
            return 0
        counted = max(header.speech_parameters for header in self.headers)
        if counted or "whisper" not in self.preparation.speech_encoder.lower():
            return counted
        sizes = self.sizes(["speech"])
        layers, width = sizes["speech_layers"], sizes["speech_width"]
        return whisper_encoder(width, layers - 1, 4 * width)  # as all of them are built

    def silence(self, reads: str | None) -> Tensor | None:
        """Silence as a model reads it; None for one that reads no sound computed here."""
        feature = FEATURES.get(reads or "")
        if not isinstance(feature, Mel):
            return None
        return torch.from_numpy(feature.silence(self.preparation.samples))

    @cached_property
    def possible(self) -> Bool[np.ndarray, "clips classes"]:
        """Classes that each clip's corpus has."""
        corpora = [header.attributes.get(CORPUS) for header in self.headers]
        labels = [self.store.labels.index(header.emotion) for header in self.headers]
        there = set(zip(corpora, labels, strict=True))
        classes = range(len(self.store.labels))
        of = {corpus: [(corpus, label) in there for label in classes] for corpus in dict.fromkeys(corpora)}
        return np.array([of[corpus] for corpus in corpora])

    @cached_property
    def preparation(self) -> Preparation:
        """Preparation of the clips; raises `InputError` if they were not all made alike."""
        first = self.headers[0]
        for header in self.headers:
            if header.preparation != first.preparation:
                raise InputError(
                    f"{self.store.folder}: {first.name} and {header.name} were prepared with different "
                    "settings: prepare the whole corpus again with one"
                )
        return Preparation.from_json(dict(first.preparation))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and source files of all clips: the recordings behind a figure."""
        digest = hashlib.sha256()
        for header in self.headers:
            content = sorted(source["sha256"] for source in header.sources.values())
            digest.update(json.dumps([header.name, header.emotion, *content]).encode())
        return digest.hexdigest()

    @collector_paused()
    def _units(self, protocol: Protocol) -> dict[Unit, list[tuple[int, Dealt]]]:
        """Units that a protocol deals, with the clips of each."""
        if protocol not in self._dealt:
            if not protocol.leaks:
                refuse_spellings(self.store.folder, (header.actor for header in self.headers))
            units: dict[Unit, list[tuple[int, Dealt]]] = {}
            for place, header in enumerate(self.headers):
                for dealt in protocol.units(header):
                    units.setdefault(dealt.unit, []).append((place, dealt))
            self._dealt[protocol] = units
        return self._dealt[protocol]

    def folds(self, protocol: Protocol) -> list[Fold]:
        """Folds of a protocol over the units that have clips."""
        return protocol.deal({unit: clips[0][1].stratum for unit, clips in self._units(protocol).items()})

    def part(
        self, protocol: Protocol, units: Iterable[Unit], *, degraded: bool = False
    ) -> list[tuple[int, str]]:
        """Place and name of the clips of some of the units that a protocol deals.

        Args:
            degraded: with the degraded versions of their takes, which only ever train.
        """
        dealt = self._units(protocol)
        return sorted(
            (place, clip.name)
            for unit in units
            for place, clip in dealt.get(unit, ())
            if degraded or not is_degraded(self.headers[place].attributes)
        )

    def places(self, protocol: Protocol, units: Iterable[Unit], *, degraded: bool = False) -> list[int]:
        """Places of the clips of some units."""
        return [place for place, _ in self.part(protocol, units, degraded=degraded)]

    def versions(self, protocol: Protocol, units: Iterable[Unit]) -> list[int]:
        """Places of the first degraded version of each clip of some units; none where one has none."""
        place_of = {header.name: place for place, header in enumerate(self.headers)}
        clips = [self.headers[place].name for place in self.places(protocol, units)]
        versions = [place_of.get(degraded_name(name, 1)) for name in clips]
        return [] if None in versions else [place for place in versions if place is not None]

    def actors(self, protocol: Protocol, units: Iterable[Unit]) -> list[Actor]:
        """Actors in the clips of these units."""
        return sorted({self.headers[place].actor for place in self.places(protocol, units)}, key=actor_order)

    def check(self, protocol: Protocol, fold: Fold) -> None:
        """Refuse a fold with an empty part, or with one recording in two parts under different names.

        A recording is known by its files' bytes, and by its sound in any codec, as `cfnsr check-split` does.
        """
        owner: dict[str | int, tuple[str, str]] = {}
        for part in ("train", "validation", "test"):
            units = getattr(fold, part)
            places = self.places(protocol, units)
            if units and len(places) < (2 if part == "train" else 1):
                few, who = "too few" if places else "no", ", ".join(map(str, units))
                raise InputError(
                    f"fold {fold.number} has {few} {part} clips (actors {who}): prepare those actors too"
                )
            if protocol.leaks:
                continue
            for place in places:
                name = self.headers[place].name
                for content in self._contents[name]:
                    before, other = owner.setdefault(content, (part, name))
                    if before != part:
                        kind = "sound" if isinstance(content, int) else "bytes"
                        raise InputError(
                            f"fold {fold.number} leaks: the recording of {other} in {before} is that of "
                            f"{name} in {part}, by its {kind}: remove the copy and its prepared clip"
                        )

    @cached_property
    @collector_paused()
    def _contents(self) -> dict[str, list[str | int]]:
        """By clip SHA-256 of its files, of a table its own rows alone, and the number of its sound."""
        names = [feature.name for feature in self.preparation.of_openface]
        contents: dict[str, list[str | int]] = {}
        for header in self.headers:
            files = [source["sha256"] for role, source in header.sources.items() if role != TABLE]
            rows = self.store.load(header.name, names) if names else {}
            sound = self._copies.get(header.name, -1)
            contents[header.name] = [
                *files,
                *(hashlib.sha256(row.tobytes()).hexdigest() for row in rows.values()),
                *([sound] if sound >= 0 else []),
            ]
        return contents

    @cached_property
    def _copies(self) -> dict[str, int]:
        return sound_copies(self.store, [header.name for header in self.headers], self.fingerprint)

    def uncompared(self) -> str:
        """Warn how many clips could not be searched for re-coded copies; empty where there are none."""
        silent = len(self.headers) - len(self._copies)
        if not silent:
            return ""
        return (
            f"{silent} of {len(self.headers)} clips have no sound to compare: a re-coded copy of one under "
            "another name would not be found, only the same bytes; check the files with cfnsr check-split"
        )
