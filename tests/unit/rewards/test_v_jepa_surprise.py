"""V-JEPA's surprise: transformers' own tokens without a leak of the future, and a model whose surprise is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from transformers import VJEPA2Config, VJEPA2Model

from rewards import registry
from rewards.catalogue import CATALOGUE
from rewards.errors import RewardError
from rewards.frame_difference import FrameDifference
from rewards.random_weights import random_array
from rewards.testing import RewardContract
from rewards.v_jepa_surprise import IMAGENET_MEAN, IMAGENET_STD, VJepaSurprise

CONFIG: dict[str, Any] = {
    "model_type": "vjepa2",
    "crop_size": 32,
    "patch_size": 16,
    "frames_per_clip": 8,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
}
WINDOW = {"window": 8, "context": 4}


def write(folder: Path, state: dict[str, Tensor], **changes: Any) -> dict[str, object]:
    """Write config and weights, and return the reward's options for them."""
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    torch.save(state, folder / "v_jepa.pt")
    return {"weights": folder / "v_jepa.pt", "config": folder, **WINDOW}


def random_state(**changes: Any) -> dict[str, Tensor]:
    model = VJEPA2Model(VJEPA2Config(**(CONFIG | changes)))
    return {name: torch.from_numpy(random_array(name, value.shape)) for name, value in model.state_dict().items()}


def mean_predictor() -> dict[str, Tensor]:
    """Return weights that encode each patch alone and predict that the future is the mean of the past.

    The predictor's attention weighs all tokens alike; what stands in for the future is 0 and adds nothing.
    """
    state = random_state(num_hidden_layers=0)
    for name, value in state.items():
        if name.startswith("predictor."):
            value.zero_()
            if name.endswith(("norm1.weight", "norm2.weight", "layernorm.weight")):
                value.fill_(1)
    state["encoder.layernorm.weight"].fill_(1)
    state["encoder.layernorm.bias"].zero_()
    for name in ("embeddings.predictor_embeddings", "layer.0.attention.value", "layer.0.attention.proj", "proj"):
        state[f"predictor.{name}.weight"] += torch.eye(24)
    return state


@pytest.fixture(scope="module")
def tiny_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return write(tmp_path_factory.mktemp("tiny-v-jepa"), random_state())


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> VJepaSurprise:
    options = write(tmp_path_factory.mktemp("simple-v-jepa"), mean_predictor(), num_hidden_layers=0)
    reward = registry.build("v_jepa_surprise", **options)
    assert isinstance(reward, VJepaSurprise)
    return reward


class TestVJepaSurprise(RewardContract):
    reward = "v_jepa_surprise"
    shape = (2, 10, 3, 20, 24)
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_options: dict[str, object]) -> None:
        type(self).options = tiny_options


def build(options: dict[str, object]) -> VJepaSurprise:
    reward = registry.build("v_jepa_surprise", **options)
    assert isinstance(reward, VJepaSurprise)
    return reward


def masks(num_clips: int, *, past: int, whole: int) -> dict[str, list[Tensor]]:
    places = torch.arange(whole).expand(num_clips, -1)
    return {"context_mask": [places[:, :past]], "target_mask": [places[:, past:]]}


def test_tokens_are_those_of_transformers_where_nothing_leaks(tmp_path: Path) -> None:
    # Without attention in the encoder the past does not see the future, and the library's own forward is right.
    reward = build(write(tmp_path, random_state(num_hidden_layers=0), num_hidden_layers=0))
    windows = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    predicted, encoded = reward._futures(windows)
    output = reward._model(windows, **masks(2, past=8, whole=16)).predictor_output
    torch.testing.assert_close(predicted, output.last_hidden_state, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded, output.target_hidden_state, rtol=0, atol=1e-6)


def test_encoder_and_predictor_are_those_of_transformers_on_the_past_alone(tiny_options: dict[str, object]) -> None:
    reward = build(tiny_options)
    windows = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    predicted, encoded = reward._futures(windows)
    whole = reward._model(windows, skip_predictor=True).last_hidden_state
    past = reward._model(windows[:, :4], skip_predictor=True).last_hidden_state
    torch.testing.assert_close(encoded, whole[:, 8:], rtol=0, atol=1e-6)
    unread = torch.full_like(encoded, float("nan"))
    given = torch.cat([past, unread], dim=1)
    own = reward._model.predictor(encoder_hidden_states=given, **masks(2, past=8, whole=16)).last_hidden_state
    torch.testing.assert_close(predicted, own, rtol=0, atol=1e-6)


def test_prediction_does_not_see_the_future_as_the_library_s_forward_does(tiny_options: dict[str, object]) -> None:
    reward = build(tiny_options)
    windows = torch.randn(1, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    changed = windows.clone()
    changed[:, 4:] = 0
    ours = [reward._futures(w)[0] for w in (windows, changed)]
    leaky = [
        reward._model(w, **masks(1, past=8, whole=16)).predictor_output.last_hidden_state for w in (windows, changed)
    ]
    assert torch.equal(*ours)
    assert (leaky[0] - leaky[1]).abs().max() > 0.01
    assert (leaky[0] - ours[0]).abs().max() > 0.01


def test_score_is_the_mean_of_one_minus_cosine_over_tokens_and_windows(tiny_options: dict[str, object]) -> None:
    reward = build(tiny_options)
    video = torch.rand(1, 13, 3, 36, 36, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = ((video - mean) / std)[..., 2:34, 2:34]  # short side 32 * 256 / 224 = 36: only the crop remains
    found = []
    for start in (0, 2, 4):  # the 13th frame fills no window
        tokens = (part[0].numpy().astype(np.float64) for part in reward._futures(pixels[:, start : start + 8]))
        predicted, encoded = ((part - part.mean(1, keepdims=True)) for part in tokens)
        norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(encoded, axis=1)
        found.append(np.mean(1 - (predicted * encoded).sum(1) / norms))
    assert reward(video, ["noise"], fps=8).values["surprise"].item() == pytest.approx(np.mean(found), abs=1e-5)


def colours(levels: list[float]) -> Tensor:
    """Return one clip of flat frames, reddish at 0 and bluish at 1."""
    red, blue = torch.tensor([0.9, 0.3, 0.1]), torch.tensor([0.1, 0.4, 0.8])
    mix = torch.tensor(levels)[:, None]
    return ((1 - mix) * red + mix * blue)[None, :, :, None, None].expand(1, len(levels), 3, 32, 32).contiguous()


def test_a_still_clip_surprises_nobody_so_it_needs_a_motion_reward_beside(simple: VJepaSurprise) -> None:
    still, changing = colours([0.3] * 8), colours([0, 0.1, 0.3, 0.4, 0.6, 0.8, 0.9, 1])
    surprises = [simple(video, ["a"], fps=8).values["surprise"].item() for video in (still, changing)]
    assert surprises[0] == pytest.approx(0, abs=1e-5)
    assert surprises[1] > 0.01
    # By surprise alone the frozen clip wins; the motion reward sees it.
    motions = [FrameDifference()(video, ["a"], fps=8).values["motion"].item() for video in (still, changing)]
    assert motions[0] == 0 < motions[1]


def test_surprise_at_a_cut_is_the_angle_between_what_was_seen_and_what_came(simple: VJepaSurprise) -> None:
    state = simple._model.state_dict()
    kernel, bias = (state[f"encoder.embeddings.patch_embeddings.proj.{part}"].double() for part in ("weight", "bias"))
    tokens = []
    for level in (0.0, 1.0):
        pixel = (colours([level])[0, 0, :, 0, 0] - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
        token = kernel.sum(dim=(2, 3, 4)) @ pixel.double() + bias
        tokens.append(token - token.mean())
    angle = 1 - torch.nn.functional.cosine_similarity(*tokens, dim=0).item()
    assert angle > 0.01
    cut = simple(colours([0] * 4 + [1] * 4), ["a"], fps=8).values["surprise"].item()
    assert cut == pytest.approx(angle, abs=1e-4)
    # Windows start at 0 and 2; the cut lies beyond the first and in the future's second half of the other.
    late = simple(colours([0] * 8 + [1] * 2), ["a"], fps=8).values["surprise"].item()
    assert late == pytest.approx(angle / 4, abs=1e-4)


def test_a_config_file_names_everything_as_text(tiny_options: dict[str, object]) -> None:
    config = (
        f"{{weights: {tiny_options['weights']}, config: {tiny_options['config']}, window: 6, context: 2, stride: 3}}"
    )
    reward = registry.build("v_jepa_surprise", **yaml.safe_load(config))
    assert reward(torch.rand(1, 6, 3, 20, 20), ["a"], fps=8).valid.all()
    entry = CATALOGUE["v_jepa_surprise"]
    assert (entry.is_differentiable, entry.licence) == (reward.spec.is_differentiable, reward.spec.licence)


def test_default_architecture_has_the_size_that_the_authors_state() -> None:
    with torch.device("meta"):
        encoder = VJEPA2Model(VJEPA2Config()).encoder
    assert 300e6 < sum(value.numel() for value in encoder.parameters()) < 305e6  # ViT-L/16, "300M"
    assert encoder.config.crop_size == 256


@pytest.mark.parametrize("size", [1, 3])
def test_passes_change_neither_scores_nor_gradients(tiny_options: dict[str, object], size: int) -> None:
    results = []
    for windows_per_pass in (None, size):
        video = torch.rand(2, 12, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
        reward = build({**tiny_options, "windows_per_pass": windows_per_pass})
        surprise = reward(video, ["a", "b"], fps=8).values["surprise"]
        results.append((surprise.detach(), *torch.autograd.grad(surprise.sum(), video)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_a_clip_shorter_than_a_window_is_refused(tiny_options: dict[str, object]) -> None:
    with pytest.raises(RewardError, match=r"8 frame\(s\)"):
        build(tiny_options)(torch.rand(1, 7, 3, 32, 32), ["a"], fps=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 8}, "multiples of 2 with 0 < context < window, got window=8, context=8"),
        ({"context": 3}, "multiples of 2"),
        ({"window": 9}, "multiples of 2"),
        ({"stride": 0}, "stride must be 1 or more"),
        ({"windows_per_pass": 0}, "windows_per_pass must be 1 or more"),
        ({"weights": "nowhere.pt"}, "no weight file"),
        ({"config": "nowhere"}, "Cannot read a config"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tiny_options: dict[str, object], options: dict[str, object], message: str
) -> None:
    with pytest.raises(RewardError, match=message):
        build({**tiny_options, **options})


def test_torn_or_foreign_weights_are_refused(tiny_options: dict[str, object], tmp_path: Path) -> None:
    torn = tmp_path / "torn.pt"
    torn.write_bytes(Path(str(tiny_options["weights"])).read_bytes()[:5_000])
    with pytest.raises(RewardError, match=r"Cannot read weights from .*torn\.pt"):
        build({**tiny_options, "weights": torn})
    state = random_state()
    state.pop("predictor.embeddings.mask_tokens")
    torch.save(state, torn)
    with pytest.raises(RewardError, match=r"lacks 'predictor\.embeddings\.mask_tokens'"):
        build({**tiny_options, "weights": torn})


def test_reward_backpropagation_trains_on_it(
    tiny_options: dict[str, object], train_by_config: Callable[..., None]
) -> None:
    train_by_config("v_jepa_surprise", tiny_options, frames=9, weight=-1.0)
