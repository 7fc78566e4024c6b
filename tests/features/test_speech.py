"""Speech features: equal to transformers' own, of any length, from safe files, and told apart by hash."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cfnsr.cli import app
from cfnsr.corpus.scan import scan
from cfnsr.corpus.take import Take
from cfnsr.data.clip import prepare_clip
from cfnsr.data.prepare import Outcome, prepare_corpus
from cfnsr.data.store import Store
from cfnsr.errors import InputError
from cfnsr.features import speech_encoder as speech
from cfnsr.features.preparation import Preparation
from cfnsr.features.speech import speech_at
from cfnsr.features.speech_encoder import SpeechEncoder, choose_encoder, find_encoder
from cfnsr.media import mfcc
from cfnsr.media.decode import decode
from cfnsr.media.encode import write_audio
from cfnsr.media.errors import MediaError

KINDS = ("whisper", "wav2vec2", "hubert", "wavlm")
WIDTH, LAYERS = 16, 2

Write = Callable[..., Path]


def model_of(kind: str, **settings: object) -> Any:
    """A random model of waveforms of transformers' own, as small as can be."""
    import transformers

    torch.manual_seed(0)
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[kind]
    config = getattr(transformers, f"{name}Config")(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(WIDTH,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=8,
        **settings,
    )
    return getattr(transformers, f"{name}Model")(config).eval()


@pytest.fixture(scope="session")
def write(write_whisper: Write) -> Write:
    """Writes the folder of such a model, or of a Whisper encoder, as save_pretrained does."""

    def write(folder: Path, kind: str, **settings: object) -> Path:
        if kind == "whisper":
            return write_whisper(folder, **settings)
        model_of(kind, **settings).save_pretrained(folder)
        return folder

    return write


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(round(seconds * speech.SAMPLE_RATE))).astype(np.float32)


def by_fours(states: np.ndarray) -> np.ndarray:
    """The means of four tokens, one by one."""
    firsts = range(0, states.shape[1], 4)
    return np.stack([states[:, first : first + 4].mean(axis=1) for first in firsts], axis=1)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, write: Write) -> Path:
    return write(tmp_path_factory.mktemp("models") / f"tiny-{request.param}", request.param)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory, write_whisper: Write) -> Path:
    return write_whisper(tmp_path_factory.mktemp("models") / "tiny-whisper")


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(speech.VARIABLE, "")


def test_shapes_of_any_length(folder: Path) -> None:
    """Every layer and the embedding, a step each 80 ms; a sound shorter than a token gives one step."""
    encoder = SpeechEncoder(folder)
    for seconds, steps in ((2.94, 37), (1, 13), (0.08, 1), (0.02, 1), (0.001, 1), (0, 1)):
        features = encoder.features(noise(seconds))
        assert features.shape == (1 + LAYERS, steps, WIDTH), seconds
        assert features.dtype == np.float16 and np.isfinite(features).all()
    assert np.array_equal(encoder.features(np.zeros(100)), encoder.features(np.zeros(0))), "silence follows"


def test_a_take_depends_on_itself_alone(folder: Path) -> None:
    """Not on what was read before it, at whatever length; nor on the number of threads, nor the process."""
    encoder = SpeechEncoder(folder)
    take, number = noise(1.7), torch.get_num_threads()
    alone = encoder.features(take)
    encoder.features(noise(3, seed=1))
    assert np.array_equal(encoder.features(take), alone)
    assert np.abs(encoder.features(take, threads=2) - alone).max() < 4e-3
    assert torch.get_num_threads() == number
    assert np.array_equal(SpeechEncoder(folder).features(take), alone)
    assert not np.allclose(encoder.features(noise(1.7, seed=2)), alone, atol=0.01)


def test_whisper_equals_transformers_on_its_whole_window(whisper: Path) -> None:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    take = noise(30)
    mel = WhisperFeatureExtractor(feature_size=40)(take, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        output = WhisperEncoder.from_pretrained(whisper)(mel.input_features, output_hidden_states=True)
    expected = torch.cat(output.hidden_states).numpy()
    encoder = SpeechEncoder(whisper)
    tokens = encoder._tokens(torch.from_numpy(take)).detach().numpy()
    assert np.abs(tokens - expected).max() < 1e-5
    assert np.array_equal(tokens[-1], output.last_hidden_state[0].numpy()), "the final layer norm is there"
    assert np.abs(encoder.features(take) - by_fours(expected)).max() < 4e-3  # of a float16


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(("stable", "normalised"), [(False, False), (True, True), (False, None)])
def test_waveform_encoders_equal_transformers(
    tmp_path: Path, write: Write, kind: str, stable: bool, normalised: bool | None
) -> None:
    """With group or layer norm, pre- or post-norm, and whatever its preprocessor is told."""
    from transformers import Wav2Vec2FeatureExtractor

    settings = {"do_stable_layer_norm": stable, "feat_extract_norm": "layer" if stable else "group"}
    write(tmp_path, kind, **settings)
    extractor = Wav2Vec2FeatureExtractor()
    if normalised is not None:
        extractor = Wav2Vec2FeatureExtractor(do_normalize=normalised)
        extractor.save_pretrained(tmp_path)
    take = 0.3 + noise(2.94)
    values = extractor(take, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        output = model_of(kind, **settings)(values, output_hidden_states=True)
    states = (*output.hidden_states[:-1], output.last_hidden_state)
    expected = by_fours(torch.cat(states).numpy())
    assert np.abs(SpeechEncoder(tmp_path).features(take) - expected).max() < 4e-3


def test_the_shared_whisper_on_a_real_take(shared: Path) -> None:
    """Frame by frame what transformers makes of the take in a window of 30 s whose rest is cut away."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    folder = shared / "models" / "whisper-tiny-en-encoder"
    weights = load_file(folder / "model.safetensors")
    model = WhisperEncoder(WhisperConfig.from_pretrained(folder)).eval()
    model.load_state_dict({name.removeprefix("encoder."): value.float() for name, value in weights.items()})
    path = sorted((shared / "ravdess" / "audio").rglob("*.flac"))[0]
    sound = decode(path, video=False)
    assert sound.waveform is not None
    once = mfcc.resample(sound.waveform, sound.sample_rate, 16_000)
    take = np.tile(once, 12)[: 30 * 16_000]
    mel = WhisperFeatureExtractor()(take, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = torch.cat(model(mel, output_hidden_states=True).hidden_states).numpy()
    encoder = SpeechEncoder(folder)
    assert np.abs(encoder._tokens(torch.from_numpy(take)).detach().numpy() - expected).max() < 1e-3  # of 100
    features = encoder.features(once)
    assert features.shape == (5, -(-(len(once) // 320) // 4), 384)
    # The embedding of a place depends on its neighbourhood alone: the window need not be computed whole.
    inside = features.shape[1] - 2
    assert np.abs(features[0, :inside] - by_fours(expected)[0, :inside]).max() < 0.01


@pytest.mark.parametrize("kind", ["whisper", "wav2vec2"])
def test_a_long_take_is_heard_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, kind: str
) -> None:
    """Windows of one second here: each is heard as if it were alone, and no token is lost between them."""
    monkeypatch.setattr(speech, "LONGEST", 50)
    encoder = SpeechEncoder(
        write(tmp_path, kind, **({"max_source_positions": 50} if kind == "whisper" else {}))
    )
    monkeypatch.setattr(encoder, "_normalise", lambda sound: sound)
    reach = 0 if kind == "whisper" else 80
    take = np.concatenate([noise(2.5), noise(1)[:reach]])
    parts = [take[first : first + 16_000 + reach] for first in (0, 16_000, 32_000)]
    tokens = [encoder._tokens(torch.from_numpy(part)).detach().numpy() for part in parts]
    assert [part.shape[1] for part in tokens] == [50, 50, 25]
    expected = by_fours(np.concatenate(tokens, axis=1))
    assert np.abs(encoder.features(take) - expected).max() < 4e-3


@pytest.mark.parametrize("prefix", ["", "encoder.", "model.encoder."])
def test_whisper_files_name_their_weights_differently(whisper: Path, tmp_path: Path, prefix: str) -> None:
    """The encoder alone or in a whole Whisper, in one file or two: the same features."""
    weights = load_file(whisper / "model.safetensors")
    named = {f"{prefix}{name}": value.contiguous() for name, value in weights.items()}
    if prefix == "model.encoder.":
        named["model.decoder.layers.0.fc1.weight"] = torch.zeros(2, 2)
    shutil.copy(whisper / "config.json", tmp_path)
    halves = {"model-00001-of-00002.safetensors": 0, "model-00002-of-00002.safetensors": 1}
    where = {name: file for file, half in halves.items() for name in sorted(named)[half::2]}
    for file in halves:
        part = {name: value for name, value in named.items() if where[name] == file}
        save_file(part, tmp_path / file, {"format": "pt"})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    take = noise(1)
    expected = SpeechEncoder(whisper).features(take)
    assert np.array_equal(SpeechEncoder(tmp_path).features(take), expected)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks model-00002-of-00002\.safetensors: copy"):
        SpeechEncoder(tmp_path)


def test_an_encoder_inside_a_task_model(tmp_path: Path, write: Write) -> None:
    """A recogniser's file has the encoder's weights under its name, and others."""
    write(tmp_path, "wav2vec2")
    expected = SpeechEncoder(tmp_path).features(noise(1))
    weights = load_file(tmp_path / "model.safetensors")
    named = {f"wav2vec2.{name}": value for name, value in weights.items() if name != "masked_spec_embed"}
    save_file(
        named | {"lm_head.weight": torch.zeros(8, WIDTH)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    assert np.array_equal(SpeechEncoder(tmp_path).features(noise(1)), expected)


def test_the_hash_tells_encoders_apart(whisper: Path, tmp_path: Path, write: Write) -> None:
    """It changes with a weight or a setting, not with the folder or what is not read."""
    first = SpeechEncoder(whisper)
    assert len(first.sha256) == 64 and first.name == "tiny-whisper"
    same = Path(shutil.copytree(whisper, tmp_path / "same"))
    (same / "README.md").write_text("a card")
    (same / "preprocessor_config.json").write_text("{}")  # Whisper's input is fixed
    assert SpeechEncoder(same).sha256 == first.sha256
    weights = load_file(same / "model.safetensors")
    weights["conv1.bias"][0] += 1e-3
    save_file(weights, same / "model.safetensors", {"format": "pt"})
    others = {first.sha256, SpeechEncoder(same).sha256}
    told = json.loads((whisper / "config.json").read_text())
    shutil.copy(whisper / "model.safetensors", same)
    (same / "config.json").write_text(json.dumps({**told, "activation_function": "relu"}))
    assert len(others | {SpeechEncoder(same).sha256}) == 3
    waves = SpeechEncoder(write(tmp_path / "waves", "wavlm")).sha256
    (tmp_path / "waves" / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert SpeechEncoder(tmp_path / "waves").sha256 != waves


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def renamed(folder: Path, **changes: object) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **changes}))


def lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("layers.1.fc1.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def pointing_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "x.safetensors")
    told = {"weight_map": {"conv1.bias": "../x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(told))


def test_one_encoder_in_files_of_two_kinds_counts_as_one(shared: Path, tmp_path: Path) -> None:
    """The hub's file of Whisper tiny.en has 32 bits, other names and a decoder beside it."""
    folder = shared / "models" / "whisper-tiny-en-encoder"
    there = load_file(folder / "model.safetensors")
    whole = {f"model.{name}": value.float() for name, value in there.items()}
    save_file({**whole, "model.decoder.layer_norm.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    assert SpeechEncoder(tmp_path).sha256 == SpeechEncoder(folder).sha256
    whole["model.encoder.conv1.weight"] *= 1.001  # trained further
    save_file(whole, tmp_path / "model.safetensors")
    assert SpeechEncoder(tmp_path).sha256 != SpeechEncoder(folder).sha256


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (pickled, "has no model.safetensors: expected safetensors, because pickled"),
        (partial(renamed, model_type="bert"), "model of type bert: expected one of whisper, wav2vec2"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing: expected the folder"),
        (lambda folder: (folder / "config.json").write_text("["), "config.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be read as a Whisper"),
        (
            lambda folder: (folder / "model.safetensors").write_text(
                "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
            ),
            "git lfs pull",
        ),
        (partial(renamed, d_model=24), "cannot be read as a WhisperEncoder"),
        (lacking, "lacks 1 of the weights that its config.json names, such as layers.1.fc1.weight"),
        (pointing_outside, "names no safetensors beside it"),
        (partial(renamed, model_type="wavlm", conv_stride=[5, 2, 2, 2, 2, 2, 1]), "every 160 samples"),
    ],
)
def test_folders_that_hold_no_encoder(
    whisper: Path, tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "encoder"))
    harm(folder)
    with pytest.raises(InputError, match=message) as error:
        SpeechEncoder(folder).features(noise(0.1))
    assert "\n" not in str(error.value)


def test_code_of_the_folder_is_never_run(whisper: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "encoder"))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    renamed(folder, auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})
    SpeechEncoder(folder).features(noise(0.1))
    assert not (tmp_path / "ran").exists()


def test_without_transformers_one_line_says_what_to_install(
    whisper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfnsr.errors.find_spec", lambda package: None)
    with pytest.raises(
        InputError, match=r"^transformers is not installed: run pip install 'cfnsr\[pretrained\]'"
    ):
        SpeechEncoder(whisper)
    with pytest.raises(InputError, match=r"^huggingface-hub is not installed.*'cfnsr\[pretrained\]'"):
        find_encoder("tiny/never-asked-for")


def test_the_variable_names_a_folder(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the name; the hash decides whether it is the right one. One object serves a process."""
    monkeypatch.setenv(speech.VARIABLE, str(whisper))
    encoder = find_encoder("openai/whatever")
    assert find_encoder("openai/whatever", encoder.sha256) is encoder
    monkeypatch.setenv(speech.VARIABLE, str(whisper.parent / "." / whisper.name))
    assert find_encoder("other") is encoder and encoder.name == "tiny-whisper"
    with pytest.raises(InputError, match=rf"{encoder.sha256}: expected {'0' * 64} \(openai/whatever\)"):
        find_encoder("openai/whatever", "0" * 64)
    monkeypatch.setenv(speech.VARIABLE, str(whisper / "nowhere"))
    with pytest.raises(InputError, match=r"nowhere/config\.json is missing"):
        find_encoder("")


def test_a_folder_is_chosen_by_any_path(
    whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whisper)
    encoder = choose_encoder(".")
    monkeypatch.chdir(tmp_path)
    assert find_encoder("") is encoder, "the processes it starts may stand elsewhere"
    (tmp_path / "link").symlink_to(whisper)
    assert choose_encoder("link") is encoder and encoder.name == "tiny-whisper"
    assert choose_encoder(None) is encoder
    with pytest.raises(
        InputError, match=rf"'no-such-folder' is no folder here: expected .*{speech.VARIABLE}"
    ):
        choose_encoder("no-such-folder")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's interface as fetching a public model needs."""

    root: Path
    asked: list[str]
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        parts = re.split("/(resolve|revision|tree)/", path.removeprefix("/api/models")[1:])
        name, action, rest = (*parts, "", "")[:3]
        folder = self.root / name
        files = sorted(folder.glob("*"))
        file = folder / rest.partition("/")[2]
        if not files or (action == "resolve" and not file.is_file()):
            self.answer(b'{"error": "not found"}', 404, {"X-Error-Code": "RepoNotFound"})
        elif action == "resolve":
            self.answer(file.read_bytes(), 200, {"ETag": f'"{file.name}"', "X-Repo-Commit": self.commit})
        elif action == "tree":
            sizes = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": one.name}
                for one in files
            ]
            self.answer(json.dumps(sizes).encode(), 200, {})
        else:
            self.answer(json.dumps({"id": name, "sha": self.commit, "siblings": []}).encode(), 200, {})

    def answer(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine; its models lie in `root/owner/name`. An empty cache."""
    from huggingface_hub import constants

    here = type("Here", (Hub,), {"root": tmp_path / "hub", "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), here)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    speech._on_hub.cache_clear()
    yield here
    server.shutdown()
    server.server_close()
    speech._on_hub.cache_clear()


def test_an_encoder_is_fetched_from_the_hub_once(
    hub: type[Hub], whisper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(shutil.copytree(whisper, hub.root / "tiny" / "whisper"))
    (there / "pytorch_model.bin").write_bytes(b"a pickle")
    (there / "model.fp32.safetensors").write_bytes(b"another precision")
    encoder = choose_encoder("tiny/whisper")
    assert (encoder.name, encoder.sha256) == ("tiny/whisper", SpeechEncoder(whisper).sha256)
    fetched = {path.rpartition("/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"config.json", "model.safetensors"}, "no pickle, and nothing that is not read"
    assert encoder.features(noise(0.5)).shape == (3, 7, WIDTH)

    asked = len(hub.asked)
    speech._on_hub.cache_clear()  # as in a new process
    assert find_encoder("tiny/whisper", encoder.sha256).sha256 == encoder.sha256
    assert len(hub.asked) == asked, "a worker asks nobody for what is there"
    with pytest.raises(InputError, match=rf"the hub's tiny/whisper has the SHA-256 {encoder.sha256}: exp"):
        find_encoder("tiny/whisper", "1" * 64)

    speech._on_hub.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert choose_encoder("tiny/whisper").sha256 == encoder.sha256, "offline the cache serves"
    with pytest.raises(InputError, match=rf"tiny/other .* cannot be fetched.*{speech.VARIABLE}"):
        choose_encoder("tiny/other")
    assert not hub.asked


def test_what_the_hub_does_not_have(hub: type[Hub], whisper: Path) -> None:
    with pytest.raises(InputError, match=r"tiny/none is no folder here.*\(RepositoryNotFoundError 404\)"):
        choose_encoder("tiny/none")
    pickled(Path(shutil.copytree(whisper, hub.root / "tiny" / "pickled")))
    with pytest.raises(InputError, match=r"has no model\.safetensors: expected safetensors"):
        choose_encoder("tiny/pickled")
    assert not any(path.endswith(".bin") for path in hub.asked)


@pytest.fixture
def settings(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> Preparation:
    """A preparation of speech alone, whose encoder the variable names."""
    monkeypatch.setenv(speech.VARIABLE, str(whisper))
    encoder = find_encoder("")
    return Preparation(("speech",), speech_encoder=encoder.name, speech_sha256=encoder.sha256)


def test_a_clip_has_its_speech_at_every_speed(settings: Preparation, synthetic: Path, whisper: Path) -> None:
    """The whole take from its first sample to its last, and what says how loud and how long it is."""
    take = scan(synthetic).takes[0]
    assert take.audio is not None
    clip = prepare_clip(take, settings)
    assert set(clip.tensors) == {"speech", "speech_0.9", "speech_1.1", "level", "duration", "sound_map"}
    sound = decode(take.audio, video=False)
    assert sound.waveform is not None
    encoder, seconds = SpeechEncoder(whisper), len(sound.waveform) / sound.sample_rate
    for speed in (1, 0.9, 1.1):
        features = clip.tensors[speech_at(speed)]
        assert features.dtype == np.float16
        assert abs(features.shape[1] - seconds / speed / 0.08) <= 1, speed
        heard = mfcc.resample(sound.waveform, round(speed * sound.sample_rate), 16_000)
        assert np.array_equal(features, encoder.features(heard)), speed
    told = json.dumps(dict(clip.header.preparation))
    assert encoder.sha256 in told and '"tiny-whisper"' in told and str(whisper.parent) not in told
    assert Preparation.from_json(json.loads(told)) == settings


def test_other_tensors_stay_as_they_are(settings: Preparation, synthetic: Path) -> None:
    take = scan(synthetic).takes[0]
    alone = prepare_clip(take, replace(settings, modalities=("audio", "log_mel"))).tensors
    both = prepare_clip(take, replace(settings, modalities=("speech", "audio", "log_mel"))).tensors
    assert set(both) - set(alone) == {"speech", "speech_0.9", "speech_1.1"}
    assert all(np.array_equal(both[name], tensor) for name, tensor in alone.items())


def test_prediction_asks_for_the_take_as_it_is(settings: Preparation, synthetic: Path) -> None:
    """A checkpoint's settings without its speeds give the tensors its training clips have, and no more."""
    take = scan(synthetic).takes[0]
    trained = prepare_clip(take, settings).tensors
    asked = replace(settings, modalities=("openface", "speech"), speech_speeds=())
    tensors = prepare_clip(take, asked).tensors
    assert {name for name in tensors if name.startswith("speech")} == {"speech"}
    assert np.array_equal(tensors["speech"], trained["speech"]) and "openface" in tensors


def test_a_stereo_take_and_a_short_one(settings: Preparation, tmp_path: Path) -> None:
    """The mean of the channels, at any rate; RAVDESS's shortest take has 2.94 s."""
    import soundfile

    left, right = noise(2.94, seed=1), noise(2.94, seed=2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", (left + right) / 2, 16_000, subtype="FLOAT")
    write_audio(tmp_path / "fine.wav", mfcc.resample(noise(2.94), 16_000, 48_000), 48_000)
    stereo, mono, fine = (
        prepare_clip(Take(name, "calm", 1, audio=tmp_path / f"{name}.wav"), settings).tensors["speech"]
        for name in ("stereo", "mono", "fine")
    )
    assert np.array_equal(stereo, mono) and stereo.shape == fine.shape == (3, 37, WIDTH)


def test_a_take_under_a_second_speaks(settings: Preparation, tmp_path: Path) -> None:
    """MFCCs need half a second after the first; speech has all of it, and so has its level."""
    sound = noise(0.6)
    take = Take("short", "calm", 1, audio=write_audio(tmp_path / "short.wav", sound, 16_000))
    tensors = prepare_clip(take, settings).tensors
    assert tensors["speech"].shape == (3, 8, WIDTH)
    assert tensors["level"][0] == pytest.approx(10 * np.log10(np.square(sound).mean()), abs=0.1)
    with pytest.raises(MediaError, match=r"0\.60 s of sound: expected at least 1 s"):
        prepare_clip(take, replace(settings, modalities=("speech", "audio")))


def prepare(corpus: Path, out: Path, preparation: Preparation, workers: int = 1) -> Outcome:
    found = scan(corpus)
    store = Store.create(out, found.name, found.labels, preparation.as_json())
    return prepare_corpus(found.takes[:2], store, preparation, workers=workers)


def test_workers_give_the_same_speech_and_another_encoder_stops_the_run(
    settings: Preparation,
    synthetic: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_whisper: Write,
) -> None:
    """Neither its own features under the old one's name, nor a failure of every take."""
    out = tmp_path / "one"
    assert len(prepare(synthetic, tmp_path / "two", settings, workers=2).made) == 2
    assert len(prepare(synthetic, out, settings).made) == 2
    for path in (out / "clips").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "clips" / path.name).read_bytes()
    monkeypatch.setenv(speech.VARIABLE, str(write_whisper(tmp_path / "other", seed=1)))
    assert len(prepare(synthetic, out, settings).kept) == 2, "nothing is to be made"
    next((out / "clips").iterdir()).unlink()
    with pytest.raises(InputError, match=rf"expected {settings.speech_sha256} \(tiny-whisper\)"):
        prepare(synthetic, out, settings)
    other = find_encoder("")
    changed = replace(settings, speech_encoder=other.name, speech_sha256=other.sha256)
    with pytest.raises(InputError, match=r"clips made with speech_encoder tiny-whisper \(now other\)"):
        prepare(synthetic, out, changed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speech_sha256": ""}, "speech_sha256 is '': expected the 64 hexadecimal digits"),
        ({"speech_sha256": "../x"}, "expected the 64 hexadecimal digits"),
        ({"speech_speeds": (0.4,)}, "speech_speeds is 0.4: expected at most 4 from 0.5 to 2"),
        ({"speech_speeds": (1, 1.1, 1.2, 1.3, 1.4)}, "expected at most 4"),
        ({"speech_speeds": (float("nan"),)}, "speech_speeds is nan: expected"),
    ],
)
def test_impossible_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preparation(("speech",), **{"speech_sha256": "0" * 64, **changes})


def test_the_command_line(
    whisper: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run keeps the clips, from wherever the folder is named."""

    def cfnsr(*arguments: object) -> str:
        command = ["prepare", str(synthetic), str(tmp_path / "out"), "--workers", "1", *map(str, arguments)]
        result = CliRunner().invoke(app, command)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    speaking = ("--modalities", "speech")
    with pytest.raises(InputError, match="no speech encoder is given: expected --speech-encoder"):
        cfnsr(*speaking)
    with pytest.raises(InputError, match="with modalities video, audio: expected speech among them"):
        cfnsr("--speech-encoder", whisper)
    assert not (tmp_path / "out").exists()
    assert "12 clips made, 0 kept, 0 failed" in cfnsr(*speaking, "--speech-encoder", whisper)
    monkeypatch.chdir(whisper.parent)
    monkeypatch.setenv(speech.VARIABLE, whisper.name)
    assert "0 clips made, 12 kept" in cfnsr(*speaking)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_layers": 10**9}, "encoder_layers 1000000000: expected at most 200"),
        ({"encoder_attention_heads": "many"}, "cannot be read as a WhisperEncoder"),
        ({"max_source_positions": []}, "cannot be read as a WhisperEncoder"),
    ],
)
def test_a_configuration_that_no_encoder_has(
    whisper: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(whisper, tmp_path / "encoder"))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(InputError, match=message):
        assert SpeechEncoder(folder).parameters
