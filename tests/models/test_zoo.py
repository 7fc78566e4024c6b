"""One battery that every model of the zoo passes, and what each published count says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cfnsr
from cfnsr.errors import InputError
from cfnsr.models import listing, zoo
from cfnsr.models.encoders.openface import InTime
from cfnsr.models.exchanges.mmtm import MMTM
from cfnsr.models.heads.late import Averaging
from cfnsr.training.checkpoint import load_weights, save_weights

NAMES = cfnsr.list_models()
OURS = "cfn_sr_features"
VARIANTS = [
    "cfn_sr_map",
    "cfn_sr_k_maps",
    "cfn_sr_released",
    "concat_fc_heads",
]  # other readings of the paper's rows
SOLVED = [name for name in NAMES if zoo.ENTRIES[name].solver]
PAPERS = [name for name in NAMES if name not in (OURS, *VARIANTS, *SOLVED)]
BASELINES = ["lda_video", "lda_audio", "lda", "lda_late"]  # the other solver has the same networks
FUSED = [name for name in PAPERS if zoo.ENTRIES[name].fusion != "none"]
ON_FEATURES = ["video+openface", "audio+speech", OURS, *(f"{name}+openface+speech" for name in FUSED)]
SOLVED_FEATURES = ["lda_audio+speech", "lda+openface+speech", "logistic_late+openface+speech"]
GRAPHS = [
    *PAPERS,
    *VARIANTS,
    *ON_FEATURES[:3],
    *BASELINES,
    *SOLVED_FEATURES,
]  # all encoders, and all exchanges and heads: their pairs take minutes
MIXTURES = ["cfn_sr+speech", "cfn_sr+openface", "mmtm+speech", "mcbp+openface", "cfn_sr_released+openface"]
PARAMETERS = {
    "video": 25_882_056,
    "audio": 34_024,
    "averaging": 25_916_080,
    "multiplicative": 25_916_080,
    "multiplication": 25_916_080,
    "concat_fc": 26_838_952,
    "mcbp": 26_044_088,
    "mmtm": 31_793_264,
    "msaf": 25_940_724,
    "eranns": 24_021_578,
    "cfn_sr": 26_301_417,
    "cfn_sr_no_cross_modal": 25_916_072,
    "cfn_sr_video_to_audio": 26_305_577,
    "cfn_sr_no_self_attention": 26_051_369,
    "cfn_sr_no_residual": 26_301_417,
}
OTHER_RECIPE = {"concat_fc", "mcbp", "mmtm", "cfn_sr_video_to_audio"}  # the paper's cannot be known


@pytest.fixture(
    scope="module", params=[*PAPERS, *VARIANTS, *ON_FEATURES, *MIXTURES, *BASELINES, *SOLVED_FEATURES]
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small(name: str, **settings: int) -> nn.Module:
    torch.manual_seed(0)
    return zoo.create_model(name, width=1 / 8, **settings)  # type: ignore[arg-type]


def clips(
    count: int, frames: int = 8, size: int = 64, steps: int = 212, model: nn.Module | None = None
) -> tuple[Tensor, Tensor]:
    """Made-up input: pictures and MFCCs, or whatever else the model reads."""
    generator = torch.Generator().manual_seed(count)
    shapes = {
        "video": (3, frames, size, size),
        "openface": (35, frames),
        "audio": (13, steps),
        "log_mel": (128, steps),
        "speech": (5, steps, 384),
    }
    # Features of clips that are but noise would have the same means.
    lasting = {"openface": (35, 1), "speech": (1, 1, 384)}
    reads: dict[str, str] = getattr(model, "reads", {})

    def draw(name: str) -> Tensor:
        drawn = torch.randn(count, *shapes[name], generator=generator)
        return (
            drawn + 4 * torch.randn(count, *lasting[name], generator=generator) if name in lasting else drawn
        )

    heard = reads.get("audio", "audio")
    return draw(reads.get("video", "video")), (20 if heard == "audio" else 1) * draw(heard)


def test_every_row_has_a_known_count() -> None:
    assert list(PARAMETERS) == PAPERS


@pytest.mark.parametrize("name", PAPERS)
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


def test_a_variant_says_what_the_paper_reports_for_no_row_of_its_own() -> None:
    assert [zoo.count_parameters(cfnsr.create_model(name)) for name in VARIANTS] == [
        PARAMETERS["cfn_sr"],
        PARAMETERS["cfn_sr"] - 65,  # no score
        PARAMETERS["cfn_sr"],
        26_868_664,  # the paper's 26.87 M of Concat + FC
    ]
    assert {zoo.ENTRIES[name].paper_accuracy for name in VARIANTS} == {None}


def test_table_tells_the_counts_of_real_models() -> None:
    rows = {row["name"]: row for row in listing.as_json()}
    assert list(rows) == [*PAPERS, *VARIANTS, OURS, *SOLVED]
    for row in rows.values():
        assert set(row) == {"name", "params", "paper_params", "paper_accuracy", "fusion", "trained_params"}
    for key in ("params", "trained_params"):  # the paper's rows have no encoder but their own
        assert {name: rows[name][key] for name in PAPERS} == PARAMETERS
    assert rows[OURS]["paper_params"] is None and rows[OURS]["paper_accuracy"] is None


def test_log_probabilities(name: str) -> None:
    model = small(name, classes=6)
    scores = model(*clips(3, model=model))
    assert scores.shape == (3, 6)
    assert torch.allclose(scores.exp().sum(1), torch.ones(3), atol=1e-5)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name)
    for module in model.modules():
        if isinstance(module, InTime):
            nn.init.ones_(module.weight)  # it begins as nothing, so that what it weighs gets no gradient
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
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_batch_independence_at_paper_size() -> None:
    torch.manual_seed(0)
    model = cfnsr.create_model("cfn_sr").eval()
    video, audio = clips(5, frames=8, size=64)
    with torch.no_grad():
        together = model(video, audio)
        alone = torch.cat([model(video[i : i + 1], audio[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


@pytest.mark.every_row
@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize(("frames", "size"), [(8, 64), (9, 65), (30, 96), (64, 64), (8, 288), (13, 224)])
def test_any_clip_length_and_picture_size(name: str, frames: int, size: int) -> None:
    model = small(name).eval()
    with torch.no_grad():
        assert torch.isfinite(model(*clips(1, frames, size, model=model))).all()


@pytest.mark.parametrize("name", [*ON_FEATURES, *SOLVED_FEATURES])
@pytest.mark.parametrize(("frames", "steps"), [(1, 1), (1, 60), (20, 1), (20, 130)])
def test_any_length_of_features(name: str, frames: int, steps: int) -> None:
    """From a table of clip means, with one step, on; in training too.

    V->A attends between all places of the video map, here 20 x 35: its memory grows with their square.
    """
    model = small(name)
    inputs = clips(3, frames=frames, steps=steps, model=model)
    nn.functional.nll_loss(model(*inputs), torch.tensor([0, 1, 2])).backward()  # type: ignore[no-untyped-call]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        assert torch.isfinite(model.eval()(*inputs)).all()


@pytest.mark.parametrize("name", PAPERS)
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


@pytest.mark.every_row
@pytest.mark.parametrize("name", GRAPHS)
def test_compiles_in_one_graph(name: str) -> None:
    model = small(name).eval()
    inputs = clips(2, model=model)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), model(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.every_row
@pytest.mark.parametrize("name", GRAPHS)
def test_exports_with_any_number_of_clips(name: str) -> None:
    model = small(name).eval()
    batch = torch.export.Dim("batch", max=64)
    inputs = clips(2, model=model)
    shapes = {"video": {0: batch}, "audio": {0: batch}}
    exported = torch.export.export(model, inputs, dynamic_shapes=shapes).module()
    more = clips(5, model=model)
    with torch.no_grad():
        torch.testing.assert_close(exported(*more), model(*more), atol=1e-5, rtol=1e-5)


@pytest.mark.every_row
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
    assert list(dict.fromkeys([*first, *second])) == PAPERS, "the zoo is in the order of the tables"
    assert len(PAPERS) == 15 and NAMES[-1 - len(SOLVED)] == OURS


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


@pytest.mark.parametrize(
    "name", [*FUSED, *VARIANTS, *ON_FEATURES[2:], *MIXTURES, "lda", *SOLVED_FEATURES[1:]]
)
def test_fused_model_takes_over_trained_streams(name: str) -> None:
    video, audio = map(small, zoo.find(name).starts_from)
    fused = small(name)
    with torch.no_grad():
        for parameter in (*video.parameters(), *audio.parameters()):
            parameter.add_(0.1)
    fused.start_from(video, audio)  # type: ignore[operator]
    for ours, theirs in ((fused.video, video.encoder), (fused.audio, audio.encoder)):
        assert isinstance(ours, nn.Module) and isinstance(theirs, nn.Module)
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key


# Two late rules are other sums; uniform weights scale the map; the released code begins anew.
OTHER_STARTS = ["averaging", "multiplicative", "cfn_sr_map", "cfn_sr_released"]
SUMS = [name for name in (*FUSED, *VARIANTS) if name not in OTHER_STARTS]


@pytest.mark.parametrize("name", [*SUMS, "cfn_sr_features", *(f"{name}+openface+speech" for name in SUMS)])
def test_rows_start_as_the_sum_of_their_parts(name: str) -> None:
    """As the product of the two streams' probabilities; a block does so under uniform weights."""
    video, audio, fused = (small(one).eval() for one in (*zoo.find(name).starts_from, name))
    fused.start_from(video, audio)  # type: ignore[operator]
    for exchange in fused.exchanges:  # type: ignore[union-attr]
        if hasattr(exchange, "agreement"):  # its scores begin at random: near uniform weights, see below
            scoring = getattr(exchange.agreement, "score", exchange.agreement.places)
            nn.init.zeros_(scoring.weight)
    inputs = clips(3, model=fused)
    with torch.no_grad():
        product = (video(*inputs) + audio(*inputs)).log_softmax(1)
        torch.testing.assert_close(fused(*inputs), product, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["cfn_sr", "cfn_sr_k_maps", "cfn_sr_video_to_audio", "cfn_sr_no_residual"])
def test_a_block_begins_near_uniform_weights(name: str) -> None:
    """So its row begins near the sum of its parts: no probability differs by more than a few per cent."""
    video, audio, fused = (small(one).eval() for one in (*zoo.find(name).starts_from, name))
    fused.start_from(video, audio)  # type: ignore[operator]
    inputs = clips(3, model=fused)
    with torch.no_grad():
        product = (video(*inputs) + audio(*inputs)).softmax(1)
        assert (fused(*inputs).exp() - product).abs().max() < 0.05


@pytest.mark.parametrize(
    ("name", "encoders", "starts_from"),
    [
        ("cfn_sr", {"video": "pixels", "audio": "mfcc"}, ("video", "audio")),
        ("cfn_sr+speech", {"video": "pixels", "audio": "speech"}, ("video", "audio+speech")),
        ("cfn_sr+openface", {"video": "openface", "audio": "mfcc"}, ("video+openface", "audio")),
        (
            "msaf+openface+speech",
            {"video": "openface", "audio": "speech"},
            ("video+openface", "audio+speech"),
        ),
        (OURS, {"video": "openface", "audio": "speech"}, ("video+openface", "audio+speech")),
        ("audio+speech", {"audio": "speech"}, ()),
        ("video", {"video": "pixels"}, ()),
        ("eranns", {"audio": "log_mel"}, ()),
    ],
)
def test_a_name_chooses_the_encoders(
    name: str, encoders: dict[str, str], starts_from: tuple[str, ...]
) -> None:
    found = zoo.find(name)
    assert zoo.encoders_of(name) == encoders == found.by_modality
    assert found.starts_from == starts_from
    reads = {"pixels": "video", "mfcc": "audio"}
    assert small(name).reads == {modality: reads.get(one, one) for modality, one in encoders.items()}
    base = zoo.ENTRIES[zoo.base_name(name)]
    assert (found.paper_accuracy, found.fusion) == (base.paper_accuracy, base.fusion)


def test_every_starting_point_is_a_model() -> None:
    for name in [*FUSED, *ON_FEATURES[2:], *MIXTURES, *SOLVED_FEATURES[1:]]:
        video, audio = map(zoo.find, zoo.find(name).starts_from)
        assert video.by_modality | audio.by_modality == zoo.encoders_of(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cfn_sr+speech+openface", r"'cfn_sr\+speech\+openface': expected cfn_sr\+openface\+speech"),
        ("cfn_sr+speech+speech", r"expected cfn_sr\+speech,"),
        ("cfn_sr+pixels+mfcc", "expected cfn_sr,"),
        ("cfn_sr+speech+mfcc", "has the audio encoder speech: it cannot have mfcc"),
        ("cfn_sr+wav2vec", r"'wav2vec' .* unknown: expected pixels or openface \(video\), or mfcc or speech"),
        ("cfn_sr+", "encoder '' of model"),
        ("cfn_sr+log_mel", "encoder 'log_mel' of model"),
        ("audio+openface", "audio has no video: leave out its encoder openface"),
        ("video+speech", "video has no audio: leave out its encoder speech"),
        ("eranns+speech", "eranns has the audio encoder log_mel: it cannot have speech"),
        ("eranns+mfcc", "eranns has the audio encoder log_mel: it cannot have mfcc"),
        (f"{OURS}+speech", f"expected {OURS},"),
        ("nothing+speech", "'nothing' is unknown: expected one of video"),
        ("+speech", "'' is unknown"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    for use in (zoo.find, zoo.encoders_of, cfnsr.create_model):
        with pytest.raises(InputError, match=message) as error:
            use(name)
        assert "\n" not in str(error.value)


def test_encoders_are_put_behind_a_name_as_far_as_it_has_the_modality() -> None:
    both = {"video": "openface", "audio": "speech"}
    assert [zoo.with_encoders(name, **both) for name in ("video", "audio", "mmtm", OURS)] == [
        "video+openface",
        "audio+speech",
        "mmtm+openface+speech",
        OURS,
    ]
    assert zoo.with_encoders("cfn_sr+openface", audio="speech") == "cfn_sr+openface+speech"
    assert zoo.with_encoders("cfn_sr", video="pixels", audio="mfcc") == "cfn_sr"
    assert zoo.with_encoders("eranns", video="openface") == "eranns"
    with pytest.raises(InputError, match="eranns has the audio encoder log_mel"):
        zoo.with_encoders("eranns", audio="speech")
    with pytest.raises(InputError, match=r"cfn_sr\+openface has the video encoder openface"):
        zoo.with_encoders("cfn_sr+openface", video="pixels")
    with pytest.raises(InputError, match=r"video encoder 'speech' is unknown: expected pixels or openface"):
        zoo.with_encoders("cfn_sr", video="speech")
    assert zoo.base_name("their_own+speech") == "their_own", "of a plugin that is not there too"


def test_an_entry_of_ones_own_with_other_encoders() -> None:
    try:

        @zoo.entry("mine", fusion="model", modalities=("audio", "video"))
        def mine(settings: zoo.Settings) -> zoo.Model:
            return settings.fuse(MMTM, head=Averaging)

        @zoo.entry("stubborn", fusion="model")
        def stubborn(settings: zoo.Settings) -> zoo.Model:
            return zoo.Settings(settings.classes, settings.mfcc_steps, settings.width).fuse(MMTM)

        model = small("mine+openface+speech")
        assert model(*clips(2, model=model)).shape == (2, 8)
        assert zoo.find("mine+speech").starts_from == ("video", "audio+speech")
        assert zoo.find("mine+speech").source == zoo.find("mine").source != ""
        with pytest.raises(InputError, match=r"stubborn\+speech reads audio and not speech: its @entry"):
            small("stubborn+speech")
    finally:
        zoo.ENTRIES.pop("mine", None)
        zoo.ENTRIES.pop("stubborn", None)
    with pytest.raises(InputError, match=r"modalities of model mine are \('sound',\): expected video, audio"):
        zoo.entry("mine", fusion="none", modalities=("sound",))(mine)


def test_encoders_fit_the_features() -> None:
    model = small("cfn_sr+openface+speech", openface_features=185, speech_layers=13, speech_width=64)
    assert model(torch.randn(2, 185, 9), torch.randn(2, 13, 7, 64)).shape == (2, 8)
    with pytest.raises(InputError, match=r"openface is \(2, 35, 9\).*\(B, 185, steps\).*openface_features"):
        model(torch.randn(2, 35, 9), torch.randn(2, 13, 7, 64))
    with pytest.raises(InputError, match=r"speech is \(2, 5, 7, 384\).*\(B, 13, steps, 64\).*speech_layers"):
        model(torch.randn(2, 185, 9), torch.randn(2, 5, 7, 384))
    with pytest.raises(InputError, match="video encoder 'film' is unknown: expected one of pixels, openface"):
        zoo.Settings(video="film").fuse()
