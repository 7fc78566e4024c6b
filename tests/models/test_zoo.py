"""One battery that every model of the zoo passes, and what each published count says."""

import pytest
import torch
from torch import Tensor, nn

import cfnsr
from cfnsr.errors import InputError
from cfnsr.models import zoo

NAMES = cfnsr.list_models()
PARAMETERS = {"video": 25_882_056, "audio": 34_024, "cfn_sr": 26_301_417}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small(name: str, **settings: int) -> nn.Module:
    torch.manual_seed(0)
    return zoo.create_model(name, video_width=1 / 8, **settings)  # type: ignore[arg-type]


def clips(count: int, frames: int = 8, size: int = 64, steps: int = 212) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    video = torch.randn(count, 3, frames, size, size, generator=generator)
    return video, 20 * torch.randn(count, 13, steps, generator=generator)


def test_every_row_has_a_known_count() -> None:
    assert set(PARAMETERS) == set(NAMES)


def test_published_parameter_count(name: str) -> None:
    model = cfnsr.create_model(name)
    entry = zoo.ENTRIES[name]
    assert zoo.count_parameters(model) == PARAMETERS[name]
    assert entry.paper_params is not None
    assert zoo.count_parameters(model) / 1e6 == pytest.approx(entry.paper_params, abs=0.0051)


def test_table_tells_the_counts_of_real_models(name: str) -> None:
    row = next(row for row in zoo.table() if row["name"] == name)
    assert set(row) == {"name", "params", "paper_params", "paper_accuracy", "fusion"}
    assert row["params"] == PARAMETERS[name]


def test_log_probabilities(name: str) -> None:
    scores = small(name, classes=6)(*clips(3))
    assert scores.shape == (3, 6)
    assert torch.allclose(scores.exp().sum(1), torch.ones(3), atol=1e-5)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small(name)
    model(*clips(4))[:, 2].sum().backward()
    # The score's bias moves all places alike, and a softmax does not see that.
    silent = {"exchanges.2.score.bias"}
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if parameter_name not in silent:
            assert parameter.grad.abs().sum() > 0, parameter_name


def test_a_clip_does_not_depend_on_its_neighbours(name: str) -> None:
    model = small(name).eval()
    video, audio = clips(5)
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
        assert torch.isfinite(model(*clips(1, frames, size))).all()


@pytest.mark.parametrize("steps", [60, 210, 400])
def test_other_mfcc_lengths(name: str, steps: int) -> None:
    assert small(name, mfcc_steps=steps)(*clips(2, steps=steps)).shape == (2, 8)


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
    with pytest.raises(InputError, match=r"'cfnsr' is unknown: expected one of video, audio, cfn_sr"):
        cfnsr.create_model("cfnsr")
    with pytest.raises(InputError, match=r"video_width is 0\.3"):
        cfnsr.create_model("video", video_width=0.3)
    with pytest.raises(InputError, match="mfcc_steps is 3"):
        cfnsr.create_model("audio", mfcc_steps=3)


def test_fused_model_takes_over_trained_encoders() -> None:
    video, audio, fused = small("video"), small("audio"), small("cfn_sr")
    with torch.no_grad():
        for parameter in (*video.parameters(), *audio.parameters()):
            parameter.add_(1.0)
    fused.start_from(video, audio)  # type: ignore[operator]
    for ours, theirs in ((fused.video, video.encoder), (fused.audio, audio.encoder)):
        assert isinstance(ours, nn.Module) and isinstance(theirs, nn.Module)
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value), name
