"""One battery that every model of the zoo passes, how fused models begin, and entries of one's own."""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cfnsr
from cfnsr.errors import InputError
from cfnsr.models import zoo
from cfnsr.models.encoders.openface import TemporalConvolution
from cfnsr.models.encoders.resnext import ResNeXt3D
from cfnsr.models.entries import ENTRIES, Model
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.heads.late import Averaging
from cfnsr.models.names import find
from cfnsr.models.settings import ENCODERS, Settings
from cfnsr.training.checkpoint import load_weights, save_weights

NAMES = cfnsr.list_models()
OURS = "cfn_sr_features"
# Other readings of the paper's rows.
VARIANTS = ["cfn_sr_map", "cfn_sr_k_maps", "cfn_sr_released", "concat_fc_heads"]
SOLVED = [name for name in NAMES if ENTRIES[name].solver]
PAPERS = [name for name in NAMES if name not in (OURS, *VARIANTS, *SOLVED)]
FUSED = [name for name in PAPERS if ENTRIES[name].fusion != "none"]
ON_FEATURES = ["video+openface", "audio+speech", OURS, *(f"{name}+openface+speech" for name in FUSED)]
MIXTURES = ["cfn_sr+speech", "cfn_sr+openface", "mmtm+speech", "mcbp+openface", "cfn_sr_released+openface"]
MIXTURES += ["video+expression", "cfn_sr+expression", "multiplication+expression+speech"]
# The other solver has the same networks.
BASELINES = ["lda_video", "lda_audio", "lda", "lda_late"]
SOLVED_FEATURES = [
    "lda_audio+speech",
    "lda+openface+speech",
    "logistic_late+openface+speech",
    "lda+expression",
]
# All encoders, and all exchanges and heads: their pairs take minutes.
GRAPHS = [*PAPERS, *VARIANTS, *ON_FEATURES[:3], *BASELINES, *SOLVED_FEATURES]


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """One bottleneck a layer instead of three to six: a third of the time, and nothing here asks for more."""
    with pytest.MonkeyPatch.context() as patch:
        build = partial(ResNeXt3D, depths=(1, 1, 1, 1))
        patch.setitem(ENCODERS["video"], "pixels", lambda settings: build(width=settings.width))
        yield


@pytest.fixture(
    scope="module", params=[*PAPERS, *VARIANTS, *ON_FEATURES, *MIXTURES, *BASELINES, *SOLVED_FEATURES]
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> nn.Module:
    """In evaluation, of six classes; a test that changes it takes a copy."""
    return small(name, classes=6).eval()


def small(name: str, seed: int = 0, **settings: int) -> nn.Module:
    torch.manual_seed(seed)
    return zoo.create_model(name, width=1 / 8, **settings)  # type: ignore[arg-type]


def clips(model: nn.Module, count: int, frames: int = 8, size: int = 64, steps: int = 212) -> list[Tensor]:
    """Made-up input of a model, for video and for audio."""
    generator = torch.Generator().manual_seed(count)
    shapes = {
        "video": (3, frames, size, size),
        "openface": (35, frames),
        "expression": (263, frames),
        "audio": (13, steps),
        "log_mel": (128, steps),
        "speech": (5, steps, 384),
    }
    # Features of clips that are but noise would have the same means.
    lasting = {"openface": (35, 1), "expression": (263, 1), "speech": (1, 1, 384)}
    drawn = []
    for modality in ("video", "audio"):
        reads = model.reads.get(modality, modality)  # type: ignore[union-attr, operator]
        values = torch.randn(count, *shapes[reads], generator=generator)
        if reads in lasting:
            values += 4 * torch.randn(count, *lasting[reads], generator=generator)
        drawn.append(20 * values if reads == "audio" else values)
    return drawn


def test_log_probabilities_of_a_clip_are_its_own(model: nn.Module) -> None:
    video, audio = clips(model, 5)
    with torch.no_grad():
        together = model(video, audio)
        alone = torch.cat([model(video[i : i + 1], audio[i : i + 1]) for i in range(5)])
    assert together.shape == (5, 6)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(5))
    assert together.std(0).max() > 1e-3, "the clips must differ for this to prove anything"
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient(model: nn.Module) -> None:
    model = deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, TemporalConvolution):
            nn.init.ones_(module.weight)  # it begins as nothing, so that its convolution gets no gradient
    model(*clips(model, 4, frames=16, size=96))[:, 2].sum().backward()
    # A softmax does not see what moves all places alike, nor a batch norm what moves all clips alike.
    cancelled = {"exchanges.2.agreement.score.bias", "exchanges.1.joint.0.bias", "exchanges.2.joint.0.bias"}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert name in cancelled or parameter.grad.abs().sum() > 0, name


def test_saved_and_loaded_it_is_the_same_model(name: str, model: nn.Module, tmp_path: Path) -> None:
    other = small(name, 1, classes=6).eval()
    inputs = clips(model, 2)
    with torch.no_grad():
        expected = model(*inputs)
        assert not torch.equal(other(*inputs), expected)
        save_weights(model, tmp_path)
        load_weights(other, tmp_path)
        assert torch.equal(other(*inputs), expected)


@pytest.mark.long
def test_batch_independence_at_paper_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS["video"], "pixels", lambda settings: ResNeXt3D(width=settings.width))
    torch.manual_seed(0)
    model = cfnsr.create_model("cfn_sr").eval()
    video, audio = clips(model, 3)
    with torch.no_grad():
        alone = torch.cat([model(video[i : i + 1], audio[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(model(video, audio), alone, atol=1e-5, rtol=0)


@pytest.mark.every_row
@pytest.mark.parametrize("name", ["video", *FUSED])
@pytest.mark.parametrize(("frames", "size"), [(9, 65), (64, 64), (8, 288)])
def test_any_clip_length_and_picture_size(name: str, frames: int, size: int) -> None:
    model = small(name).eval()
    with torch.no_grad():
        assert torch.isfinite(model(*clips(model, 1, frames, size))).all()


@pytest.mark.parametrize("name", [*ON_FEATURES, *SOLVED_FEATURES])
@pytest.mark.parametrize(("frames", "steps"), [(1, 1), (20, 60)])
def test_any_length_of_features(name: str, frames: int, steps: int) -> None:
    """From a table of clip means, with one step, on; in training too."""
    model = small(name)
    inputs = clips(model, 3, frames=frames, steps=steps)
    nn.functional.nll_loss(model(*inputs), torch.tensor([0, 1, 2])).backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert torch.isfinite(model.eval()(*inputs)).all()


@pytest.mark.parametrize("name", ["audio", "eranns", "cfn_sr", "lda"])
@pytest.mark.parametrize("steps", [60, 400])
def test_other_mfcc_lengths(name: str, steps: int) -> None:
    model = small(name, mfcc_steps=steps)
    assert model(*clips(model, 2, steps=steps)).shape == (2, 8)


def test_encoders_fit_the_features() -> None:
    model = small("cfn_sr+openface+speech", openface_features=185, speech_layers=13, speech_width=64)
    assert model(torch.randn(2, 185, 9), torch.randn(2, 13, 7, 64)).shape == (2, 8)


@pytest.mark.every_row
@pytest.mark.parametrize("name", GRAPHS)
def test_compiles_in_one_graph(name: str) -> None:
    model = small(name).eval()
    inputs = clips(model, 2)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), model(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.every_row
@pytest.mark.parametrize("name", GRAPHS)
def test_exports_with_any_number_of_clips(name: str) -> None:
    model = small(name).eval()
    batch = torch.export.Dim("batch", max=64)
    shapes = {"video": {0: batch}, "audio": {0: batch}}
    exported = torch.export.export(model, tuple(clips(model, 2)), dynamic_shapes=shapes).module()
    more = clips(model, 5)
    with torch.no_grad():
        torch.testing.assert_close(exported(*more), model(*more), atol=1e-5, rtol=1e-5)


@pytest.mark.every_row
def test_learns_to_tell_two_clips_apart(name: str) -> None:
    model = small(name)
    inputs = clips(model, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.nll_loss(model(*inputs), torch.tensor([0, 1, 0, 1]))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert min(losses[-3:]) < losses[0]
    assert torch.isfinite(torch.tensor(losses)).all()


def test_an_ablation_is_what_differs_from_cfn_sr() -> None:
    base = dict(small("cfn_sr").named_parameters())
    for name, gone in (
        ("cfn_sr_no_cross_modal", "exchanges."),
        ("cfn_sr_no_self_attention", "exchanges.2.selection."),
        ("cfn_sr_no_residual", "nothing"),
    ):
        ablated = {key: value.shape for key, value in small(name).named_parameters()}
        assert ablated == {key: value.shape for key, value in base.items() if not key.startswith(gone)}


def test_wrong_inputs_say_what_is_expected() -> None:
    model = small("cfn_sr")
    video, audio = clips(model, 1)
    for given, message in (
        ((video.to(torch.uint8), audio), r"video is torch\.uint8: expected normalised pictures"),
        ((video, audio.expand(2, -1, -1)), "1 clips of video and 2 of audio"),
        ((None, audio), "video is none"),
        ((video, None), "audio is none"),
    ):
        with pytest.raises(InputError, match=message):
            model(*given)


def test_one_stream_leaves_the_other_input_alone() -> None:
    for name, read in (("video", 0), ("audio", 1)):
        model = small(name).eval()
        inputs = clips(model, 2)
        kept = [given if place == read else None for place, given in enumerate(inputs)]
        assert torch.equal(model(*inputs), model(*kept))


def test_an_encoder_that_is_none() -> None:
    with pytest.raises(InputError, match="video encoder 'film' is unknown: expected one of pixels, openface"):
        Settings(video="film").fuse()


def started(name: str) -> list[nn.Module]:
    """A fused model that starts from two of one modality, and those."""
    fused, video, audio = (
        small(one, seed).eval() for seed, one in enumerate((name, *find(name).starts_from))
    )
    fused.start_from(video, audio)  # type: ignore[operator]
    return [fused, video, audio]


# Two late rules are other sums; uniform weights scale the map; the released code begins anew.
OTHER_STARTS = ["averaging", "multiplicative", "cfn_sr_map", "cfn_sr_released"]
SUMS = [name for name in (*FUSED, *VARIANTS) if name not in OTHER_STARTS]


@pytest.mark.parametrize("name", [*OTHER_STARTS, "cfn_sr_released+openface", *SOLVED_FEATURES[1:]])
def test_a_fused_model_takes_trained_encoders(name: str) -> None:
    fused, video, audio = started(name)
    for ours, theirs in ((fused.video, video.encoder), (fused.audio, audio.encoder)):
        assert isinstance(ours, nn.Module) and isinstance(theirs, nn.Module)
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key


@pytest.mark.parametrize("name", [*SUMS, *MIXTURES[:4], OURS, *(f"{name}+openface+speech" for name in SUMS)])
def test_rows_start_as_the_sum_of_their_parts(name: str) -> None:
    """As the product of the two streams' probabilities; a block does so under uniform weights."""
    fused, video, audio = started(name)
    for exchange in fused.exchanges:  # type: ignore[union-attr]
        if hasattr(exchange, "agreement"):  # its scores begin at random: near uniform weights, see below
            scoring = getattr(exchange.agreement, "score", exchange.agreement.places)
            nn.init.zeros_(scoring.weight)
    inputs = clips(fused, 3)
    with torch.no_grad():
        product = (video(*inputs) + audio(*inputs)).log_softmax(1)
        torch.testing.assert_close(fused(*inputs), product, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["cfn_sr", "cfn_sr_k_maps", "cfn_sr_video_to_audio", "cfn_sr_no_residual"])
def test_a_block_begins_near_uniform_weights(name: str) -> None:
    """So its row begins near the sum of its parts: no probability differs by more than a few per cent."""
    fused, video, audio = started(name)
    inputs = clips(fused, 3)
    with torch.no_grad():
        product = (video(*inputs) + audio(*inputs)).softmax(1)
        assert (fused(*inputs).exp() - product).abs().max() < 0.05


def test_an_entry_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine", "stubborn"):
        monkeypatch.setitem(ENTRIES, name, ENTRIES["cfn_sr"])
        del ENTRIES[name]  # and gone again after the test

    @zoo.entry("mine", fusion="model", modalities=("audio", "video"))
    def mine(settings: Settings) -> Model:
        return settings.fuse(MMTM, head=Averaging)

    @zoo.entry("stubborn", fusion="model")
    def stubborn(settings: Settings) -> Model:
        return Settings(settings.classes, settings.mfcc_steps, settings.width).fuse(MMTM)

    model = small("mine+openface+speech")
    assert [type(each).__name__ for each in model.exchanges] == ["NoExchange", "NoExchange", "MMTM"]  # type: ignore[union-attr]
    assert model(*clips(model, 2)).shape == (2, 8)
    assert find("mine+speech").starts_from == ("video", "audio+speech")
    assert find("mine+speech").source == find("mine").source != ""
    with pytest.raises(InputError, match=r"stubborn\+speech reads audio and not speech: its @entry"):
        small("stubborn+speech")
    for name, about, message in (
        ("mine", {"fusion": "late"}, "'mine' is registered already"),
        ("../mine", {"fusion": "late"}, r"model name '\.\./mine': expected letters"),
        ("yours", {"fusion": "none", "modalities": ("sound",)}, r"yours are \('sound',\): expected video"),
    ):
        with pytest.raises(InputError, match=message):
            zoo.entry(name, **about)(mine)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="4 exchanges: expected at most 3"):
        Settings(width=1 / 8).fuse(MMTM, MMTM, MMTM, MMTM)
