"""One battery that every model of the zoo passes, and what each published count says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cfnsr
from cfnsr.errors import InputError
from cfnsr.models import listing, zoo
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.heads.late import Averaging
from cfnsr.training.checkpoint import load_weights, save_weights

NAMES = cfnsr.list_models()
PARAMETERS = {
    "video": 25_882_056,
    "audio": 34_024,
    "averaging": 25_916_080,
    "multiplicative": 25_916_080,
    "multiplication": 25_916_080,
    "concat_fc": 26_868_664,
    "mcbp": 26_014_376,
    "mmtm": 31_793_264,
    "msaf": 25_940_724,
    "eranns": 24_021_578,
    "cfn_sr": 26_301_417,
    "cfn_sr_no_cross_modal": 25_916_072,
    "cfn_sr_video_to_audio": 26_305_577,
    "cfn_sr_no_self_attention": 26_051_369,
    "cfn_sr_no_residual": 26_301_417,
}
OTHER_RECIPE = {"mcbp", "mmtm", "cfn_sr_video_to_audio"}  # the paper's cannot be known


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small(name: str, **settings: int) -> nn.Module:
    torch.manual_seed(0)
    return zoo.create_model(name, width=1 / 8, **settings)  # type: ignore[arg-type]


def clips(
    count: int, frames: int = 8, size: int = 64, steps: int = 212, model: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """Made-up input: pictures, and MFCCs or whatever sound the model reads."""
    generator = torch.Generator().manual_seed(count)
    video = torch.randn(count, 3, frames, size, size, generator=generator)
    spectrogram = model is not None and "log_mel" in model.reads.values()  # type: ignore[union-attr, operator]
    rows, scale = (128, 1) if spectrogram else (13, 20)
    return video, scale * torch.randn(count, rows, steps, generator=generator)


def test_every_row_has_a_known_count() -> None:
    assert set(PARAMETERS) == set(NAMES)


def test_published_parameter_count(name: str) -> None:
    model = cfnsr.create_model(name)
    entry = zoo.ENTRIES[name]
    assert zoo.count_parameters(model) == PARAMETERS[name]
    if entry.paper_params is None:
        assert name == "eranns", "the paper gives no count for it"
    elif name in OTHER_RECIPE:
        assert entry.note, "a count that is not the paper's is explained"
    else:
        assert zoo.count_parameters(model) / 1e6 == pytest.approx(entry.paper_params, abs=0.0051)
        assert not entry.note


def test_table_tells_the_counts_of_real_models(name: str) -> None:
    row = next(row for row in listing.as_json() if row["name"] == name)
    assert set(row) == {"name", "params", "paper_params", "paper_accuracy", "fusion"}
    assert row["params"] == PARAMETERS[name]


def test_log_probabilities(name: str) -> None:
    model = small(name, classes=6)
    scores = model(*clips(3, model=model))
    assert scores.shape == (3, 6)
    assert torch.allclose(scores.exp().sum(1), torch.ones(3), atol=1e-5)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name)
    model(*clips(4, frames=16, size=96, model=model))[:, 2].sum().backward()
    # A softmax does not see what moves all places alike, nor a batch norm what moves all clips alike.
    silent = {"exchanges.2.agreement.score.bias", "exchanges.1.joint.0.bias", "exchanges.2.joint.0.bias"}
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if parameter_name not in silent:
            assert parameter.grad.abs().sum() > 0, parameter_name


def test_a_clip_does_not_depend_on_its_neighbours(name: str) -> None:
    model = small(name).eval()
    video, audio = clips(5, model=model)
    with torch.no_grad():
        together = model(video, audio)
        alone = torch.cat([model(video[i : i + 1], audio[i : i + 1]) for i in range(5)])
    assert together.std(0).max() > 1e-3, "the clips must differ for this to prove anything"
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_batch_independence_at_paper_size() -> None:
    torch.manual_seed(0)
    model = cfnsr.create_model("cfn_sr").eval()
    video, audio = clips(5, frames=8, size=64)
    with torch.no_grad():
        together = model(video, audio)
        alone = torch.cat([model(video[i : i + 1], audio[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "size"), [(8, 64), (9, 65), (30, 96), (64, 64), (8, 288), (13, 224)])
def test_any_clip_length_and_picture_size(name: str, frames: int, size: int) -> None:
    model = small(name).eval()
    with torch.no_grad():
        assert torch.isfinite(model(*clips(1, frames, size, model=model))).all()


@pytest.mark.parametrize("steps", [60, 210, 400])
def test_other_mfcc_lengths(name: str, steps: int) -> None:
    model = small(name, mfcc_steps=steps)
    assert model(*clips(2, steps=steps, model=model)).shape == (2, 8)


def test_saved_and_loaded_it_is_the_same_model(name: str, tmp_path: Path) -> None:
    model = small(name).eval()
    other = zoo.create_model(name, width=1 / 8).eval()
    inputs = clips(2, model=model)
    with torch.no_grad():
        expected = model(*inputs)
        assert not torch.equal(other(*inputs), expected)
        save_weights(model, tmp_path)
        load_weights(other, tmp_path)
        assert torch.equal(other(*inputs), expected)


def test_compiles_in_one_graph(name: str) -> None:
    model = small(name).eval()
    inputs = clips(2, model=model)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), model(*inputs), atol=1e-5, rtol=1e-5)


def test_exports_with_any_number_of_clips(name: str) -> None:
    model = small(name).eval()
    batch = torch.export.Dim("batch", max=64)
    inputs = clips(2, model=model)
    shapes = {"video": {0: batch}, "audio": {0: batch}}
    exported = torch.export.export(model, inputs, dynamic_shapes=shapes).module()
    more = clips(5, model=model)
    with torch.no_grad():
        torch.testing.assert_close(exported(*more), model(*more), atol=1e-5, rtol=1e-5)


def test_learns_to_tell_two_clips_apart(name: str) -> None:
    model = small(name).train()
    inputs = clips(4, model=model)
    labels = torch.tensor([0, 1, 0, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.nll_loss(model(*inputs), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert min(losses[-3:]) < losses[0]
    assert torch.isfinite(torch.tensor(losses)).all()


def test_the_paper_has_two_tables_of_eleven_and_six_rows() -> None:
    first, second = ([name for _, name in zoo.TABLES[number]] for number in (1, 2))
    assert len(first) == 11 and len(second) == 6 and second.count("cfn_sr") == 2
    assert list(dict.fromkeys([*first, *second])) == NAMES, "the zoo is in the order of the tables"
    assert len(NAMES) == 15


def test_an_ablation_is_what_differs_from_cfn_sr() -> None:
    base = dict(small("cfn_sr").named_parameters())
    for name, gone in (
        ("cfn_sr_no_cross_modal", "exchanges."),
        ("cfn_sr_no_self_attention", "exchanges.2.selection."),
        ("cfn_sr_no_residual", "nothing"),
    ):
        ablated = {key: value.shape for key, value in small(name).named_parameters()}
        assert ablated == {key: value.shape for key, value in base.items() if not key.startswith(gone)}


def test_an_entry_of_ones_own() -> None:
    try:

        @zoo.entry("mine", fusion="model")
        def mine(settings: zoo.Settings) -> zoo.Model:
            return settings.fuse(MMTM, head=Averaging)

        model = cfnsr.create_model("mine", width=1 / 8)
        kinds = [type(exchange).__name__ for exchange in model.exchanges]  # type: ignore[union-attr, operator]
        assert kinds == ["Silent", "Silent", "MMTM"]
        with pytest.raises(InputError, match="'mine' is registered already"):
            zoo.entry("mine", fusion="late")(mine)
    finally:
        zoo.ENTRIES.pop("mine", None)
    with pytest.raises(InputError, match=r"model name '\.\./mine': expected letters"):
        zoo.entry("../mine", fusion="late")(mine)
    with pytest.raises(InputError, match="4 exchanges: expected at most 3"):
        zoo.Settings(width=1 / 8).fuse(MMTM, MMTM, MMTM, MMTM)


def test_wrong_inputs_say_what_is_expected() -> None:
    model = small("cfn_sr")
    video, audio = clips(1)
    with pytest.raises(InputError, match=r"audio is \(1, 13, 100\).*\(B, 13, 212\).*mfcc_steps"):
        model(video, audio[:, :, :100])
    with pytest.raises(InputError, match=r"video is \(1, 1, 8, 64, 64\).*\(B, 3, frames, height, width\)"):
        model(video[:, :1], audio)
    with pytest.raises(InputError, match=r"video is torch\.uint8: expected normalised pictures"):
        model(video.to(torch.uint8), audio)
    with pytest.raises(InputError, match="1 clips of video and 2 of audio"):
        model(video, audio.expand(2, -1, -1))
    with pytest.raises(InputError, match="video is none"):
        model(None, audio)
    with pytest.raises(InputError, match="audio is none"):
        small("audio")(video, None)


def test_one_stream_leaves_the_other_input_alone() -> None:
    video, audio = clips(2)
    for name, kept in (("video", (video, None)), ("audio", (None, audio))):
        model = small(name).eval()
        assert torch.equal(model(video, audio), model(*kept))


def test_unknown_model_and_impossible_settings() -> None:
    with pytest.raises(InputError, match=r"'cfnsr' is unknown: expected one of video, audio, averaging"):
        cfnsr.create_model("cfnsr")
    with pytest.raises(InputError, match=r"width is 0\.3"):
        cfnsr.create_model("video", width=0.3)
    with pytest.raises(InputError, match="mfcc_steps is 3"):
        cfnsr.create_model("audio", mfcc_steps=3)


@pytest.mark.parametrize("name", [name for name in NAMES if zoo.ENTRIES[name].fusion != "none"])
def test_fused_model_takes_over_trained_streams(name: str) -> None:
    video, audio, fused = small("video"), small("audio"), small(name)
    with torch.no_grad():
        for parameter in (*video.parameters(), *audio.parameters()):
            parameter.add_(0.1)
    fused.start_from(video, audio)  # type: ignore[operator]
    for ours, theirs in ((fused.video, video.encoder), (fused.audio, audio.encoder)):
        assert isinstance(ours, nn.Module) and isinstance(theirs, nn.Module)
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["multiplication", "cfn_sr_no_cross_modal"])
def test_rows_start_alike(name: str) -> None:
    """A spliced linear layer starts as the product of the two streams' probabilities, as late fusion does."""
    video, audio, fused = (small(one).eval() for one in ("video", "audio", name))
    fused.start_from(video, audio)  # type: ignore[operator]
    inputs = clips(3)
    with torch.no_grad():
        product = (video(*inputs) + audio(*inputs)).log_softmax(1)
        torch.testing.assert_close(fused(*inputs), product, atol=1e-4, rtol=1e-4)
