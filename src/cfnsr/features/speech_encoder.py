"""Hidden states of a pretrained speech encoder over a whole take: the features of the `speech` models.

It reads folders as Hugging Face's libraries write them: config.json and safetensors, nothing pickled and
no code of the folder's own. transformers is imported for the first take, not before.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float16

from cfnsr.errors import InputError, require
from cfnsr.files import read_json, refuse_pointer

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000  # Hz
TOKEN = 320  # samples from one hidden state to the next: 20 ms, in all these encoders
STEP = 4  # tokens that are averaged: 80 ms
LONGEST = 1500  # tokens at once: 30 s
LAYERS = 200  # more than any encoder has
LARGEST = 65_504.0  # of a float16
VARIANCE = 1e-7  # added to a waveform's, as transformers does
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)  # of wav2vec 2.0's convolutions
VARIABLE = "CFNSR_SPEECH_ENCODER"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FILES = [CONFIG, PREPROCESSOR, WEIGHTS, INDEX, "model-*-of-*.safetensors"]  # all that is ever fetched

# Encoder's name in config.json -> its class in transformers.
CLASSES = {
    "whisper": "WhisperEncoder",
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
}
# Encoders that are published in files of several kinds, with a decoder or without, of 32 bits or 16: the
# SHA-256 that all these files count as, and the norms of some of their weights.
PUBLISHED = {
    "a5edb78c34a54d6695861de72033be734203dec43c2f74e70a8e36ed238737ef": {  # openai/whisper-tiny.en
        "encoder.conv1.weight": 16.76843,
        "encoder.conv2.weight": 23.57152,
        "encoder.layers.0.self_attn.q_proj.weight": 11.26579,
        "encoder.layers.3.fc2.weight": 26.65616,
        "encoder.layer_norm.weight": 25.83261,
    }
}
SAME_NORM = 1e-4  # of a norm; rounding to 16 bits changes one by less, further training by more
UNUSED = {"masked_spec_embed"}  # a weight for training alone, which some files leave out


class SpeechEncoder:
    """A frozen speech encoder: Whisper, wav2vec 2.0, HuBERT or WavLM.

    Sources: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, ICML 2023;
    Baevski et al., wav2vec 2.0, NeurIPS 2020; Hsu et al., HuBERT, TASLP 2021; Chen et al., WavLM,
    JSTSP 2022. The weights are read for the first take.

    Args:
        folder: config.json, safetensors and, where the encoder has one, preprocessor_config.json.
        name: in headers; the folder's own name if not given.

    Raises:
        InputError: transformers is not installed, or the folder holds no such encoder.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        require("pretrained", "transformers")
        self.folder = folder
        self.name = name or folder.resolve().name
        self.config = read_json(folder / CONFIG, "the folder of a Hugging Face speech encoder")
        self.kind = str(self.config.get("model_type"))
        if self.kind not in CLASSES:
            raise InputError(
                f"{folder} holds a model of type {self.kind}: expected one of {', '.join(CLASSES)}"
            )
        self.weights = _weights(folder)
        for path in self.weights:
            refuse_pointer(path)
        for key, value in self.config.items():  # each layer is built before a weight is looked at
            count = len(value) if isinstance(value, list) and key.startswith("conv") else value
            if (key.endswith("layers") or count is not value) and isinstance(count, int) and count > LAYERS:
                raise InputError(
                    f"{folder / CONFIG} has {key} {count}: expected at most {LAYERS}; copy the encoder again"
                )
        # Samples of a token's receptive field beyond its 20 ms, and tokens at once; Whisper pads its windows.
        with self._reading():
            self._overlap, self._longest = 0, int(self.config.get("max_source_positions", LONGEST))
            if self.kind != "whisper":
                kernels = self.config.get("conv_kernel", KERNELS)
                strides = self.config.get("conv_stride", STRIDES)
                if (stride := prod(strides)) != TOKEN:
                    raise InputError(
                        f"{folder} gives a hidden state every {stride} samples: expected {TOKEN}, 50 a second"
                    )
                reach = 1 + sum((kernel - 1) * prod(strides[:layer]) for layer, kernel in enumerate(kernels))
                self._overlap, self._longest = max(0, reach - TOKEN), LONGEST

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what is raised of a config.json that no such encoder has into one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # transformers, safetensors and torch each raise their own
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self.folder} cannot be read as a {CLASSES[self.kind]} ({reason}): copy the encoder again"
            ) from None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the names and contents of the files the features depend on; see `PUBLISHED`."""
        for sha256, norms in PUBLISHED.items():
            if all(abs(self._norm(name) / norm - 1) < SAME_NORM for name, norm in norms.items()):
                return sha256
        digest = hashlib.sha256()
        settings = [CONFIG] if self.kind == "whisper" else [CONFIG, PREPROCESSOR]
        for path in [path for name in settings if (path := self.folder / name).exists()] + self.weights:
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def _norm(self, tensor: str) -> float:
        """Norm of one of the weights, of an encoder alone or within a whole model; 0 where it has none."""
        from safetensors import SafetensorError, safe_open

        path = self.weights[0]
        for name in (tensor, f"model.{tensor}"):
            with suppress(SafetensorError, TypeError), safe_open(path, framework="np") as file:
                return float(np.linalg.norm(file.get_tensor(name).astype(np.float64)))
        return 0.0

    @cached_property
    def parameters(self) -> int:
        """Number of its parameters."""
        import torch

        with self._reading(), _quiet(), torch.device("meta"):  # by its configuration alone
            model_class, config = self._architecture()
            return sum(value.numel() for value in model_class(config).parameters())

    def features(
        self, waveform: Float[np.ndarray, " N"], *, threads: int = 0
    ) -> Float16[np.ndarray, "layers S width"]:
        """Compute all hidden states of a take, a step every 80 ms, from the embedding's to the last layer's.

        More than 30 s are read in windows of 30 s. What does not fill a token of 20 ms at the end is left
        out; less than one token in all is followed by silence.

        Args:
            waveform: mono, 16 kHz, full scale 1.
            threads: of torch; 0 leaves it its own number.
        """
        import torch
        from torch.nn import functional

        sound = np.asarray(waveform, np.float32)
        tokens = max(1, (len(sound) - self._overlap) // TOKEN)
        sound = np.pad(sound, (0, max(0, tokens * TOKEN + self._overlap - len(sound))))
        with _torch_threads(threads), torch.no_grad():
            samples = torch.from_numpy(self._normalise(sound))
            starts = range(0, tokens, self._longest)
            ends = [TOKEN * min(tokens, start + self._longest) + self._overlap for start in starts]
            windows = [samples[TOKEN * start : end] for start, end in zip(starts, ends, strict=True)]
            states = torch.cat([self._tokens(window) for window in windows], dim=1)
            # The last group is the mean of as many tokens as are left.
            steps = functional.avg_pool1d(states.transpose(1, 2), STEP, ceil_mode=True).transpose(1, 2)
            steps = steps.clamp(-LARGEST, LARGEST)  # some layers have single values beyond a float16
        return np.ascontiguousarray(steps.numpy(), np.float16)

    def _normalise(self, sound: np.ndarray) -> np.ndarray:
        """Normalise to zero mean and unit variance, where the encoder was trained on that."""
        path = self.folder / PREPROCESSOR
        if self.kind != "whisper" and (
            not path.exists()
            or read_json(path, "the encoder's preprocessor configuration").get("do_normalize", True)
        ):
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + VARIANCE)
        return sound

    def _tokens(self, window: "torch.Tensor") -> "torch.Tensor":
        """All hidden states (layers, tokens, width) of one window (N,)."""
        from torch import cat, nn

        model = self._model
        if self.kind != "whisper":
            output = model(window[None], output_hidden_states=True)
            # Some versions of transformers leave the final layer norm out of the last of the hidden states.
            return cat((*output.hidden_states[:-1], output.last_hidden_state))
        front, positions = self._whisper
        settings = {"sampling_rate": SAMPLE_RATE, "padding": "longest", "truncation": False}
        log_mel = front(window.numpy(), **settings, return_tensors="pt").input_features
        # transformers insists on 30 s, because there are positions for 30 s. With the first positions alone
        # a shorter window is as long as it insists on.
        length = log_mel.shape[-1] // 2
        model.embed_positions = nn.Embedding(length, positions.shape[1], _weight=positions[:length])
        model.config.max_source_positions = length
        return cat(model(log_mel, output_hidden_states=True).hidden_states)

    @cached_property
    def _whisper(self) -> "tuple[Any, torch.Tensor]":
        """Front end of Whisper, and its embedding of every position, before a window leaves it a part."""
        from transformers import WhisperFeatureExtractor

        front = WhisperFeatureExtractor(feature_size=self._model.config.num_mel_bins)
        return front, self._model.embed_positions.weight

    def _architecture(self) -> tuple[Any, Any]:
        """Class in transformers, and the configuration to build it by."""
        import transformers
        from transformers.models.whisper import modeling_whisper

        source = modeling_whisper if self.kind == "whisper" else transformers
        model_class: Any = getattr(source, CLASSES[self.kind])
        config = model_class.config_class.from_pretrained(self.folder, local_files_only=True)
        config.add_adapter = False  # a layer that would make the last state's tokens longer
        return model_class, config

    @cached_property
    def _model(self) -> Any:
        import torch

        # A file may hold the encoder alone, or a whole Whisper around it.
        names = {r"^(?:model\.)?encoder\.": ""} if self.kind == "whisper" else None
        with self._reading(), _quiet():
            model_class, config = self._architecture()
            model, report = model_class.from_pretrained(
                self.folder,
                config=config,
                key_mapping=names,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        missing = sorted(set(report["missing_keys"]) - UNUSED)
        if missing:
            raise InputError(
                f"{self.folder} lacks {len(missing)} of the weights that its config.json names, such as "
                f"{missing[0]}: copy the encoder again"
            )
        return model.eval()


def find_encoder(name: str, sha256: str = "") -> SpeechEncoder:
    """Find the speech encoder of a preparation, one object a process.

    The folder that `CFNSR_SPEECH_ENCODER` names goes before the hub.

    Args:
        name: on the hub, owner/name.
        sha256: expected `SpeechEncoder.sha256`; any if not given.

    Raises:
        InputError: there is no such encoder, or it is another one.
    """
    folder = os.environ.get(VARIABLE)
    encoder = _in_folder(Path(folder).resolve()) if folder else _on_hub(name, sha256)
    if sha256 and encoder.sha256 != sha256:
        where = f"{VARIABLE} names {folder}, which" if folder else f"the hub's {name}"
        raise InputError(
            f"{where} has the SHA-256 {encoder.sha256}: expected {sha256} ({name}), with which the features "
            "were made; give that encoder, or prepare and train anew with this one"
        )
    return encoder


def choose_encoder(given: str | None) -> SpeechEncoder:
    """Find the encoder a user names, for this process and those it starts.

    Args:
        given: a folder or a hub name; None leaves what `CFNSR_SPEECH_ENCODER` names.

    Raises:
        InputError: nothing is named, or there is no such encoder.
    """
    if given is not None and Path(given).is_dir():
        os.environ[VARIABLE] = str(Path(given).resolve())
    elif given is not None:
        os.environ.pop(VARIABLE, None)
    return find_encoder(given or "")


_in_folder = cache(SpeechEncoder)


@cache
def _on_hub(name: str, sha256: str) -> SpeechEncoder:
    if not HUB_NAME.fullmatch(name):
        given = f"speech encoder {name!r} is no folder here" if name else "no speech encoder is given"
        raise InputError(
            f"{given}: expected --speech-encoder with its folder or a hub name such as "
            f"openai/whisper-tiny.en, or {VARIABLE} set to its folder"
        )
    if sha256 and (there := _fetched(name, sha256)):  # need not be asked for again, by every worker
        return there
    require("pretrained", "huggingface_hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # the hub, its HTTP client and the file system each raise their own
        status = f" {error.response.status_code}" if isinstance(error, HfHubHTTPError) else ""
        raise InputError(
            f"speech encoder {name} is no folder here and cannot be fetched from the hub "
            f"({type(error).__name__}{status}): expected a network and a public model of that name; "
            f"or fetch it elsewhere and set {VARIABLE} to its folder"
        ) from None
    return SpeechEncoder(folder, name)


def _fetched(name: str, sha256: str) -> SpeechEncoder | None:
    """Find an encoder that was fetched from the hub before."""
    with suppress(ImportError, OSError, InputError):  # OSError: the hub's own, where it is not there
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=FILES, local_files_only=True))
        if (there := SpeechEncoder(folder, name)).sha256 == sha256:
            return there
    return None


def is_here(name: str, sha256: str) -> bool:
    """True if nothing has to be fetched: `CFNSR_SPEECH_ENCODER` names a folder, or it was fetched before."""
    return bool(os.environ.get(VARIABLE)) or _fetched(name, sha256) is not None


def _weights(folder: Path) -> list[Path]:
    """Find the safetensors of a folder: one file, or those an index names."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder} has no {WEIGHTS}: expected safetensors, because pickled weights are never read; "
            "write them with save_pretrained of transformers"
        )
    files = read_json(folder / INDEX, "the names of the weights' files").get("weight_map")
    names = sorted(set(map(str, files.values()))) if isinstance(files, dict) else []
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise InputError(f"{folder / INDEX} names no safetensors beside it: copy the encoder again")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{folder} lacks {', '.join(missing)}: copy the encoder again")
    return [folder / INDEX, *(folder / name for name in names)]


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence progress bars and reports of transformers; what matters of it becomes an error of cfnsr."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
