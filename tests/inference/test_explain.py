"""Explanations: every figure by hand, planted causes that must show, and a model that stays as it was."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cfnsr
from cfnsr.corpus.scan import scan
from cfnsr.data.augment import normalise
from cfnsr.data.clip import prepare_clip
from cfnsr.data.dataset import Batch
from cfnsr.emotions import CREMAD
from cfnsr.errors import InputError
from cfnsr.features.mel import MFCC
from cfnsr.features.preparation import Preparation
from cfnsr.features.spec import ModelSpec
from cfnsr.inference.explain import Explanation, explain
from cfnsr.inference.recogniser import TorchRecogniser
from cfnsr.logarithmic import compressed
from cfnsr.media.log_mel import log_mel
from cfnsr.media.mfcc import mfcc
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.entries import Model
from cfnsr.models.exchanges.cross_modal import CrossModal
from cfnsr.models.exchanges.none import NoExchange
from cfnsr.models.exchanges.video_to_audio import VideoToAudio
from cfnsr.models.streams import TwoStream

NONE = torch.empty(0)
MIXED = ["cfn_sr+openface", "cfn_sr+speech", "cfn_sr_video_to_audio+openface+speech", "mmtm+openface+speech"]
NAMES = [*cfnsr.list_models(), *MIXED, "video+openface", "audio+speech"]
TEMPERATURE = 1.7
BANDS = 128


def small(name: str) -> Model:
    """A model that has met clips, so that its normalisations are not those it begins with."""
    torch.manual_seed(1)
    return copy.deepcopy(_small(name))


@cache
def _small(name: str) -> Model:
    model = cfnsr.create_model(name, width=1 / 8)
    with torch.no_grad():
        for seed in range(3):
            batch = clip(model, seed, clips=4)
            model(normalise(batch.video) if batch.video.dim() == 5 else batch.video, one_speed(batch.audio))
    for module in model.modules():
        if isinstance(module, CrossModal | VideoToAudio):
            scoring = getattr(module.agreement, "score", module.agreement.places)
            nn.init.normal_(scoring.weight, std=3)  # so that it looks somewhere
    model.config = ModelSpec(name, {}, temperature=TEMPERATURE)  # type: ignore[assignment]
    return model.eval()


def one_speed(audio: Tensor) -> Tensor:
    return audio[:, 0] if audio.dim() == 5 else audio


def clip(model: Model, seed: int, clips: int = 1) -> Batch:
    """Made-up pictures, MFCCs or whatever else a model reads."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(clips, *shape, generator=generator)

    pictures = (60 * draw(3, 17, 64, 64) + 120).clamp(0, 255).to(torch.uint8)
    made = {
        "video": pictures,
        "openface": (draw(35, 6) + 1 + 2 * draw(35, 1)).clamp(0, 5),
        "audio": 20 * draw(13, 212),
        "log_mel": 20 * draw(128, 314),
        "speech": draw(3, 5, 24, 384) + 2 * draw(1, 1, 1, 384),
    }
    return Batch(
        *(made.get(model.reads.get(modality, ""), NONE) for modality in ("video", "audio")), NONE, NONE
    )


def answer(model: Model, video: Tensor, audio: Tensor) -> np.ndarray:
    """What the model makes of input that is ready: log-probabilities (classes,), tempered."""
    if audio.dim() == 5:
        audio = audio[0]
        video = video.expand(len(audio), *video.shape[1:]) if video.dim() > 1 else video
    with torch.no_grad():
        each = model(video, audio)
    scores = each.mean(dim=0).double().numpy() / TEMPERATURE
    values: np.ndarray = scores - np.log(np.exp(scores).sum())
    return values


def shown(model: Model, batch: Batch) -> Tensor:
    return normalise(batch.video) if model.reads.get("video") == "video" else batch.video


@pytest.mark.every_row
@pytest.mark.parametrize("name", NAMES)
def test_every_model_is_explained_by_what_it_has(name: str) -> None:
    model = small(name)
    batch = clip(model, 9)
    state = copy.deepcopy(model.state_dict())
    inside = {place: dict(vars(module)) for place, module in model.named_modules()}
    found = explain(model, batch)
    answered = answer(model, shown(model, batch), batch.audio)
    np.testing.assert_allclose(found.probabilities, np.exp(answered), atol=1e-5)
    assert found.emotion == found.emotions[int(answered.argmax())]

    exchanges = list(getattr(model, "exchanges", ()))
    blocks = [exchange for exchange in exchanges if isinstance(exchange, CrossModal | VideoToAudio)]
    assert len(found.blocks) == len(blocks)
    assert (found.places is None, found.steps is None) == (not blocks, not blocks)
    places = (6, 35, 1) if model.reads.get("video") == "openface" else (2, 2, 2)
    steps = 24 if model.reads.get("audio") == "speech" else 26
    for block in found.blocks:
        assert (block.stage, block.places.shape, block.steps.shape) == (3, places, (steps,))
        assert block.places.sum() == pytest.approx(1) == block.steps.sum()
        assert block.places.min() >= 0 <= block.steps.min()
        assert tuple(map(len, block.centres)) == places
        assert all(0 < centre < 1 for axis in block.centres for centre in axis)
        assert block.weighted == ("audio" if "video_to_audio" in name else "video")
    assert [each.modality for each in found.contributions] == (
        ["video", "audio"] if len(model.reads) == 2 else []
    )
    for each in found.contributions:
        place = int(answered.argmax())
        assert each.probabilities.sum() == pytest.approx(1)
        difference = found.probabilities[place] - each.probabilities[place]
        ratio = found.probabilities[place] / each.probabilities[place]
        assert (each.change, np.exp(each.log_change)) == (pytest.approx(difference), pytest.approx(ratio))
    units = model.reads.get("video") == "openface"
    assert (len(found.features), found.features[:1]) == ((35, ("AU01_r",)) if units else (0, ()))

    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert {place: dict(vars(module)) for place, module in model.named_modules()} == inside
    assert set(found.as_json()["probabilities"]) == set(found.emotions)


def stages(model: TwoStream, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """The maps behind the last stage, where only the last exchange talks."""
    with torch.no_grad():
        for seen, heard in zip(model.video.stages, model.audio.stages, strict=True):  # type: ignore[arg-type]
            video, audio = seen(video), heard(audio)
    return video, audio


@pytest.mark.parametrize("name", ["cfn_sr", "cfn_sr_no_self_attention", "cfn_sr_features"])
def test_maps_are_those_of_the_block(name: str) -> None:
    model = small(name)
    assert isinstance(model, TwoStream)
    batch = clip(model, 1)
    block = model.exchanges[2]
    assert isinstance(block, CrossModal)
    heard = batch.audio[0] if batch.audio.dim() == 5 else batch.audio
    places, steps = [], []
    for each in heard:  # at every speed
        maps = stages(model, shown(model, batch), each[None])
        with torch.no_grad():
            places.append(block.weights(*maps)[0, 0].numpy())
            steps.append(block.selection.token_weights(maps[1].transpose(1, 2))[0].numpy())
    found = explain(model, batch)
    assert found.places is not None and found.steps is not None
    np.testing.assert_allclose(found.places, np.mean(places, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.steps, np.mean(steps, axis=0), atol=1e-6)
    assert found.places.max() > 1.2 / found.places.size, "a uniform map would show nothing"


@pytest.mark.parametrize("name", ["cfn_sr", "cfn_sr_no_residual", "cfn_sr_video_to_audio"])
def test_effect_of_the_weights_on_the_answer(name: str) -> None:
    """The answer less that of uniform weights, under which the vector that is added is the map's mean."""
    model = small(name)
    assert isinstance(model, TwoStream)
    batch = clip(model, 1)
    found = explain(model, batch)
    video, audio = stages(model, shown(model, batch), batch.audio)
    if name == "cfn_sr_video_to_audio":
        audio = audio + audio.mean(dim=2, keepdim=True)
    else:
        mean = video.mean(dim=(2, 3, 4), keepdim=True)
        video = mean.expand_as(video) if name == "cfn_sr_no_residual" else video + mean
    with torch.no_grad():
        uniform = model.head(model.video.pool(video), model.audio.pool(audio))[0]  # type: ignore[operator]
    place = int(found.probabilities.argmax())
    expected = np.log(found.probabilities[place]) - (uniform / TEMPERATURE).log_softmax(0)[place].item()
    assert found.blocks[0].moved == pytest.approx(expected, abs=1e-5)
    assert abs(expected) > 1e-4, "a block that moves nothing would show nothing"


@pytest.mark.parametrize("name", ["cfn_sr", "averaging", "mmtm", "msaf"])
def test_contributions_are_answers_to_plain_pictures_and_silence(name: str) -> None:
    model = small(name)
    batch = clip(model, 2)
    video = shown(model, batch)
    expected = [
        answer(model, torch.zeros_like(video), batch.audio),
        answer(model, video, torch.from_numpy(mfcc(np.zeros(211 * 512)))[None]),
    ]
    found = explain(model, batch)
    for each, answered in zip(found.contributions, expected, strict=True):
        np.testing.assert_allclose(each.probabilities, np.exp(answered), atol=1e-5)
        assert abs(each.log_change) > 1e-4


def test_a_model_of_both_that_hears_by_a_spectrogram() -> None:
    """Silence is that of what the model reads; made-up, because no model of the zoo has both."""
    model = TwoStream(Pictures(), Sound(), [NoExchange(3, BANDS)], Head(3, BANDS))
    batch = Batch(torch.zeros(1, 3, 1, 1, 1, dtype=torch.uint8), noise(9), NONE, NONE)
    silent = explain(model, batch).contributions[1]
    with torch.no_grad():
        expected = model(normalise(batch.video), torch.from_numpy(log_mel(np.zeros(8 * 345)))[None])[0]
    np.testing.assert_allclose(silent.probabilities, expected.exp(), atol=1e-6)


def test_nothing_of_features_is_no_judgement() -> None:
    """Where the streams are judged apart and multiplied, what is left is the other one's judgement."""
    model = small("multiplication+openface+speech")
    assert isinstance(model, TwoStream)
    batch = clip(model, 3)
    found = explain(model, batch)
    streams = model.head.streams
    assert isinstance(streams, nn.Module)
    with torch.no_grad():
        track = model.video.pool(stages(model, batch.video, batch.audio[:, 0])[0])  # type: ignore[operator]
        speech = torch.cat(
            [
                model.audio.pool(stages(model, batch.video, batch.audio[:, speed])[1])  # type: ignore[operator]
                for speed in range(3)
            ]
        )
        by_video, by_audio = streams(track.expand(3, -1), speech)
        no_video, no_audio = streams(torch.zeros_like(track), torch.zeros_like(speech[:1]))
    for each, scores in zip(found.contributions, (no_video + by_audio, by_video + no_audio), strict=True):
        expected = (scores.log_softmax(dim=1).mean(dim=0) / TEMPERATURE).softmax(dim=0)
        np.testing.assert_allclose(each.probabilities, expected, atol=1e-5)


def test_nothing_of_features_is_the_mean_of_the_training_clips() -> None:
    """What the other modality may still learn of it through an exchange is of no clip at all."""
    model = small("mmtm+openface+speech")
    batch = clip(model, 3)
    assert isinstance(model, TwoStream)
    scale = model.video.stages[0].embedding.scale  # type: ignore[index,union-attr]
    given: list[Tensor] = []
    hook = model.video.stages[0].register_forward_hook(  # type: ignore[index,union-attr]
        lambda module, taken, out: given.append(taken[0])
    )
    explain(model, batch)
    hook.remove()
    torch.testing.assert_close(given[0][:1], batch.video)
    torch.testing.assert_close(
        compressed(given[1]).mean(dim=(0, 2)), scale.running_mean, atol=1e-5, rtol=1e-5
    )


class Pictures(nn.Module):
    """An encoder whose map is the picture itself."""

    reads = "video"
    channels = (3,)
    dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Identity()])

    def check(self, given: Tensor) -> Tensor:
        return given

    def pool(self, features: Tensor) -> Tensor:
        return features.flatten(2).mean(dim=2)


class Sound(Pictures):
    """One whose map is a spectrogram."""

    reads = "log_mel"
    channels = (BANDS,)
    dim = BANDS


class Head(nn.Module):
    """Two classes by one linear layer."""

    def __init__(self, video: int, audio: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.classify = nn.Linear(video + audio, 2)

    def forward(self, video: Tensor, audio: Tensor) -> Tensor:
        scores: Tensor = self.classify(torch.cat([video, audio], dim=1))
        return scores.log_softmax(dim=1)


@pytest.fixture
def planted() -> TwoStream:
    """A model that looks for red, listens for the first feature, and answers by the sound alone."""
    block = CrossModal(3, BANDS, depth=1)
    layer = block.selection.layers[0]
    assert isinstance(layer, nn.TransformerEncoderLayer)
    head = Head(3, BANDS)
    with torch.no_grad():
        for parameter in (*block.agreement.parameters(), *layer.self_attn.parameters()):
            parameter.zero_()
        block.agreement.places.weight[0, 0] = 1
        block.agreement.score.weight[0, 0] = 20
        layer.self_attn.in_proj_bias[:BANDS] = 1  # the queries
        layer.self_attn.in_proj_weight[BANDS : 2 * BANDS, 0] = 9  # the keys
        head.classify.weight.zero_()
        head.classify.weight[0, 3] = 0.2
    return TwoStream(Pictures(), Sound(), [block], head).eval()


def noise(steps: int) -> Tensor:
    return torch.randn(1, BANDS, steps, generator=torch.Generator().manual_seed(0))


def test_a_planted_place_and_step_show(planted: TwoStream) -> None:
    pictures = torch.zeros(1, 3, 4, 5, 6, dtype=torch.uint8)
    pictures[0, 0, 2, 1, 4] = 255
    sound = noise(7)
    sound[:, 0] = -9
    sound[0, 0, 5] = 40
    found = explain(planted, Batch(pictures, sound, NONE, NONE))
    assert found.places is not None and found.steps is not None
    assert np.unravel_index(found.places.argmax(), found.places.shape) == (2, 1, 4)
    assert found.places.max() > 0.99
    np.testing.assert_allclose(found.steps, np.where(np.arange(7) == 5, 0.5, 0) + 0.5 / 7, atol=1e-3)
    seen, heard = found.contributions
    assert (seen.log_change, seen.change) == (0, 0), "the answer is by the sound alone"
    assert found.blocks[0].moved == 0 and not found.blocks[0].effective
    assert found.emotions == ("class 0", "class 1"), "no names are made up"
    # The head's first score is a fifth of the first band's mean, with both and in silence.
    bias = planted.head.classify.bias.detach().numpy()  # type: ignore[union-attr,operator]
    scores = [
        np.array([bias[0] + 0.2 * band.mean(), bias[1]])
        for band in (sound[0, 0].numpy(), log_mel(np.zeros(6 * 345))[0])
    ]
    with_both, silent = (each - np.log(np.exp(each).sum()) for each in scores)
    place = int(with_both.argmax())
    assert heard.log_change == pytest.approx(with_both[place] - silent[place], abs=1e-5)


def test_blocks_stand_last_first_with_their_stage(planted: TwoStream) -> None:
    blocks = [copy.deepcopy(planted.exchanges[0]), NoExchange(3, BANDS), planted.exchanges[0]]
    video, audio = Pictures(), Sound()
    video.stages = nn.ModuleList([nn.Identity()] * 3)
    audio.stages = nn.ModuleList([nn.Identity()] * 3)
    model = TwoStream(video, audio, blocks, planted.head).eval()
    batch = Batch(torch.zeros(1, 3, 2, 2, 2, dtype=torch.uint8), noise(7), NONE, NONE)
    assert [block.stage for block in explain(model, batch).blocks] == [3, 1]


def test_centres_are_where_a_place_sees_most() -> None:
    """The gradients of a place lie around its centre, as far as the picture's edge does not cut them off."""
    torch.manual_seed(0)
    model = small("cfn_sr")
    assert isinstance(model, TwoStream) and isinstance(model.video, ResNeXt3D)
    video = torch.randn(1, 3, 24, 96, 96, requires_grad=True)
    seen: Tensor = video
    for stage in model.video.stages:
        seen = stage(seen)
    assert seen.shape[2:] == (2, 3, 3)
    raw = torch.zeros(1, 3, 24, 96, 96, dtype=torch.uint8)
    centres = explain(model, Batch(raw, torch.zeros(1, 13, 212), NONE, NONE)).blocks[0].centres
    mixed = torch.randn(seen.shape[1])
    for place in ((1, 1, 1), (1, 2, 1), (1, 1, 2)):
        (slope,) = torch.autograd.grad((seen[0, :, *place] @ mixed), video, retain_graph=True)
        energy = slope.square().sum(dim=1)[0]
        for axis, size in enumerate(energy.shape):
            profile = energy.sum(dim=tuple(other for other in range(3) if other != axis))
            middle = ((profile * torch.arange(size)).sum() / profile.sum() + 0.5).item() / size
            assert middle == pytest.approx(centres[axis][place[axis]], abs=0.06), (place, axis)


def test_centres_by_hand() -> None:
    """16 frames and 32 pixels apart; some are cut off at an edge, and a single one sees all."""
    model = small("cfn_sr")
    for frames, size, expected in (
        (17, 64, ([4.25 / 17, 12.75 / 17], [8.25 / 64, 32.5 / 64], [8.25 / 64, 32.5 / 64])),
        (8, 96, ([0.5], *[[8.25 / 96, 32.5 / 96, 64.5 / 96]] * 2)),
    ):
        raw = torch.zeros(1, 3, frames, size, size, dtype=torch.uint8)
        found = explain(model, Batch(raw, torch.zeros(1, 13, 212), NONE, NONE)).blocks[0]
        for axis, each in zip(found.centres, expected, strict=True):
            assert axis.tolist() == pytest.approx(each)
    track = explain(small("cfn_sr+openface"), clip(small("cfn_sr+openface"), 1)).blocks[0]
    np.testing.assert_allclose(track.centres[0], (np.arange(6) + 0.5) / 6)


def test_a_clip_is_read_as_a_prediction_reads_it(synthetic: Path) -> None:
    torch.manual_seed(0)
    model = cfnsr.create_model("cfn_sr", classes=6, width=1 / 8).eval()
    model.config = ModelSpec(  # type: ignore[assignment]
        "cfn_sr",
        labels=CREMAD,
        frames=8,
        size=64,
        preparation=Preparation(frames=10, size=80),
        temperature=2.0,
        modality_dropout=0.3,
    )
    recogniser = TorchRecogniser(model)
    tensors = prepare_clip(scan(synthetic).takes[0], recogniser.preparation).tensors
    found = explain(model, tensors)
    np.testing.assert_allclose(found.probabilities, recogniser.probabilities([tensors])[0], atol=1e-6)
    assert (found.emotions, found.tolerant) == (CREMAD.emotions, True)
    assert found.places is not None and found.places.shape == (1, 2, 2)
    ready = explain(model, recogniser.batch([tensors]))
    np.testing.assert_array_equal(ready.probabilities, found.probabilities)


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.fixture
def torn() -> Iterator[TwoStream]:
    """A model in training whose encoders are frozen in evaluation."""
    model = small("cfn_sr")
    assert isinstance(model, TwoStream)
    model.freeze()
    yield model.train()


def test_a_model_in_training_stays_there(torn: TwoStream) -> None:
    batch, before = clip(torn, 4), flags(torn)
    assert True in before and False in before
    found = explain(torn, batch)
    assert flags(torn) == before
    again = explain(torn.eval(), batch)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)


def test_bad_clips_are_refused_and_leave_no_trace(torn: TwoStream) -> None:
    before = flags(torn)
    with pytest.raises(InputError, match=r"audio is .*: expected MFCCs"):
        explain(torn, clip(torn, 4)._replace(audio=torch.zeros(1, 13, 99)))
    with pytest.raises(InputError, match="2 clips: expected one"):
        explain(torn, clip(torn, 4, clips=2))
    assert flags(torn) == before


def test_threads_share_a_model() -> None:
    model = small("cfn_sr")
    batches = [clip(model, seed) for seed in range(4)]
    alone = [explain(model, batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: explain(model, batch), batches))
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def assert_same(one: Explanation, other: Explanation) -> None:
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert one.places is not None and other.places is not None
    np.testing.assert_allclose(one.places, other.places, atol=1e-6)
    for first, second in zip(one.contributions, other.contributions, strict=True):
        np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-6)


def test_silence_can_still_be_trained_with() -> None:
    """It is kept for the whole process: a tensor of inference mode would fail in the next training."""
    MFCC.silence.cache_clear()
    model = small("cfn_sr")
    explain(model, clip(model, 5))
    assert not torch.from_numpy(MFCC.silence(211 * 512)).is_inference()
