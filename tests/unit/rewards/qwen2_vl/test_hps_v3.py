"""HPSv3 against what its authors' code computed (tests/parity/record_hps_v3.py), and the reward contract."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLModel

from rewards.architectures import read_config
from rewards.errors import RewardError
from rewards.hps_v3 import PUBLISHED, HpsV3, _head
from rewards.ledger import LEDGER
from rewards.qwen2_vl import RewardTower, patchify, smart_resize
from rewards.testing import RewardContract

TOLERANCE = 1e-5
Golden = dict[str, Any]


class TestHpsV3(RewardContract):
    reward = "hps_v3"
    shape = (2, 2, 3, 12, 16)
    prompts = ("A red kite over the sea", "two dogs play with a ball in the snow")
    bf16_tolerance = 0.1

    @pytest.fixture(autouse=True)
    def _files(self, hps_options: dict[str, Path]) -> None:
        small = {"frames": "all", "min_pixels": 4 * 784, "max_pixels": 8 * 784}
        type(self).options = {**hps_options, **small, "frames_per_pass": 3}


@pytest.fixture(scope="session")
def original(golden: Callable[[str], Golden]) -> Golden:
    return golden("hps_v3")


@pytest.fixture
def reward(hps_options: dict[str, Path]) -> HpsV3:
    return HpsV3(**hps_options, frames="all", frames_per_pass=None)


def pictures(stand_in: SimpleNamespace, case: Golden) -> Tensor:
    """Return the recorded pictures as clips of one frame."""
    clip = torch.from_numpy(stand_in.clip(2, case["height"], case["width"], case["seed"]))
    return clip.movedim(-1, 1).float()[:, None] / 255


def scores(reward: HpsV3, video: Tensor, prompts: tuple[str, ...]) -> Tensor:
    return torch.stack(list(reward(video, list(prompts), fps=8.0).values.values()), dim=-1)


def samples(tensor: Tensor) -> Tensor:
    """Return the entries that the recorder kept."""
    flat = tensor.detach().double().flatten()
    return flat[np.linspace(0, len(flat) - 1, 64).astype(int)]


def error(tensor: Tensor, recorded: Golden) -> float:
    assert list(tensor.shape) == recorded["shape"]
    return float((samples(tensor) - torch.tensor(recorded["values"], dtype=torch.float64)).abs().max())


def test_scores_and_pixel_gradients_are_the_originals(
    reward: HpsV3, original: Golden, stand_in: SimpleNamespace
) -> None:
    for case in original["cases"]:
        video = pictures(stand_in, case).requires_grad_()
        found = scores(reward, video, stand_in.PROMPTS)
        torch.testing.assert_close(found, torch.tensor(case["scores"]), rtol=0, atol=TOLERANCE)
        (gradient,) = torch.autograd.grad(found[:, 0].sum(), video)
        assert error(gradient[:, 0], case["gradient"]) < 1e-4 * max(map(abs, case["gradient"]["values"]))
        assert float(gradient.double().norm()) == pytest.approx(case["gradient"]["norm"], rel=1e-5)


def test_patches_and_hidden_states_are_the_originals(
    reward: HpsV3, original: Golden, stand_in: SimpleNamespace
) -> None:
    seen: dict[str, Tensor] = {}
    reward._model.model.language_model.register_forward_hook(lambda *call: seen.update(hidden=call[-1]))
    for case in original["cases"]:
        video = pictures(stand_in, case)
        resized = smart_resize(video, min_pixels=200704, max_pixels=200704)
        assert [1, resized.shape[-2] // 14, resized.shape[-1] // 14] == case["grid"][0]
        assert error(patchify(resized, 14, 2).flatten(0, 2), case["patches"]) < TOLERANCE
        scores(reward, video, stand_in.PROMPTS)
        assert error(seen["hidden"][:, :64], case["features"]) < TOLERANCE * max(map(abs, case["features"]["values"]))


def test_the_model_reads_the_originals_tokens(reward: HpsV3, original: Golden, stand_in: SimpleNamespace) -> None:
    pad = reward._text._tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for case in original["cases"]:
        _, rows, columns = case["grid"][0]
        for prompt, expected in zip(stand_in.PROMPTS, case["ids"], strict=True):
            text = reward._text([prompt], torch.device("cpu"))[0].tolist()
            ids = [*reward._text.prefix(torch.device("cpu")).tolist(), *[pad] * (rows * columns // 4), *text]
            assert hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest() == expected


def test_a_changed_patch_moves_the_score_by_a_hundred_tolerances(
    reward: HpsV3, original: Golden, stand_in: SimpleNamespace
) -> None:
    case = original["cases"][0]
    video = pictures(stand_in, case)
    changed = video.clone()
    changed[..., 28:56, 56:84] = 1 - changed[..., 28:56, 56:84]
    moved = (scores(reward, changed, stand_in.PROMPTS) - scores(reward, video, stand_in.PROMPTS)).abs()
    assert float(moved[:, 0].min()) > 100 * TOLERANCE


def squashed(frames: Tensor, **_: int) -> Tensor:
    return functional.interpolate(frames.flatten(0, 1), (448, 448), mode="bicubic", antialias=True).unflatten(
        0, (-1, 1)
    )


def test_wrong_resize_unmerged_tokens_and_exact_positions_are_not_the_original(
    reward: HpsV3, original: Golden, stand_in: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = original["cases"][1]
    video, expected = pictures(stand_in, case), torch.tensor(case["scores"])

    def distance() -> float:
        return float((scores(reward, video, stand_in.PROMPTS) - expected).abs().max())

    assert distance() < TOLERANCE
    with monkeypatch.context() as wrong:
        wrong.setattr("rewards.hps_v3.smart_resize", lambda frames, **_: squashed(frames[:, None])[:, 0])
        assert distance() > 10 * TOLERANCE
    visual, language = reward._model.model.visual, reward._model.model.language_model
    with monkeypatch.context() as wrong:  # the first of the tokens before the merger, as many as after it
        wrong.setattr(visual.merger, "forward", lambda hidden: hidden[:, : hidden.shape[1] // 4])
        assert distance() > 10 * TOLERANCE
    for tower in (visual, language):
        with monkeypatch.context() as wrong:
            wrong.setattr(tower, "_position_dtype", torch.float32)
            assert distance() > 3 * TOLERANCE
    assert distance() < TOLERANCE


def test_towers_are_those_of_transformers_with_plain_positions_and_not_with_its_own(
    reward: HpsV3, hps_options: dict[str, Path], stand_in: SimpleNamespace
) -> None:
    tokenizer, tower = reward._text._tokenizer, reward._model.model
    config = read_config(hps_options["config"], Qwen2VLConfig, PUBLISHED)
    config.image_token_id = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    config.vision_start_token_id = tokenizer.convert_tokens_to_ids("<|vision_start|>")
    theirs = Qwen2VLModel(config).eval()
    theirs.load_state_dict(tower.state_dict())
    for part in (tower.visual, tower.language_model):
        part._position_dtype = torch.float32  # its tables are exact
    frames = torch.from_numpy(stand_in.clip(1, 84, 112, 3)).movedim(-1, 1).float()[None] / 255
    patches, grid = patchify(frames, 14, 2), torch.tensor([[1, 6, 8]])
    with torch.no_grad():
        features = theirs.visual(patches.flatten(0, 2), grid_thw=grid)
        merged = tower.visual(patches, (6, 8))
        torch.testing.assert_close(merged[0], features.pooler_output, rtol=0, atol=TOLERANCE)
        assert features.last_hidden_state.shape[0] == 4 * merged.shape[1]
        before, after = reward._text.prefix(merged.device), reward._text(["a sea"], merged.device)[0]
        pads = torch.full((merged.shape[1],), config.image_token_id)
        ids = torch.cat([before, pads, after])[None]
        embeddings = tower.language_model.embed_tokens(ids)
        embeddings[0, len(before) : len(before) + len(pads)] = merged[0]
        ours = tower.language_model(embeddings)
        plain = theirs(inputs_embeds=embeddings).last_hidden_state
        types = (ids == config.image_token_id).int()
        natural = theirs(
            input_ids=ids, pixel_values=patches.flatten(0, 2), image_grid_thw=grid, mm_token_type_ids=types
        )
    torch.testing.assert_close(ours, plain, rtol=0, atol=TOLERANCE)
    assert float((ours - natural.last_hidden_state)[:, -1].abs().max()) > 100 * TOLERANCE


def test_published_sizes_are_those_of_the_published_file() -> None:
    config = Qwen2VLConfig(**PUBLISHED)
    with torch.device("meta"):
        tower = RewardTower(config, _head(config.text_config.hidden_size), "bfloat16")
    embeddings = tower.model.language_model.embed_tokens.weight.numel()
    num_bytes = 2 * (sum(parameter.numel() for parameter in tower.parameters()) + embeddings)  # lm_head is in the file
    size = LEDGER["hps_v3"].size
    assert size is not None
    assert 0 < size - num_bytes < 200_000  # names and offsets of 733 tensors


def test_half_precision_towers_stay_near_and_leave_the_head_in_float32(
    hps_options: dict[str, Path], stand_in: SimpleNamespace, original: Golden
) -> None:
    half = HpsV3(**hps_options, frames="all", precision="bfloat16")
    case = original["cases"][0]
    found = scores(half, pictures(stand_in, case), stand_in.PROMPTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(case["scores"]), rtol=0, atol=0.1)
    assert half._model.model.language_model.norm.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in half._model.rm_head.parameters()} == {torch.float32}


def test_frames_by_rate_and_reduction_are_those_of_every_image_reward(hps_options: dict[str, Path]) -> None:
    small = {"min_pixels": 784, "max_pixels": 784}
    video = torch.rand(1, 9, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    by_rate = HpsV3(**hps_options, **small, frames={"kind": "rate", "rate": 3.0})(video, ["a sea"], fps=9.0)
    alone = [HpsV3(**hps_options, **small)(video[:, [i]], ["a sea"], fps=9.0) for i in (0, 4, 8)]
    for key, value in by_rate.values.items():
        torch.testing.assert_close(value, torch.stack([one.values[key] for one in alone]).mean(dim=0))


def test_prompts_are_kept_cut_with_a_warning_or_refused(
    hps_options: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    small = {"min_pixels": 784, "max_pixels": 784}
    reward = HpsV3(**hps_options, **small, max_prompt_tokens=3, cache_size=2)
    video = torch.rand(1, 1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    long = reward(video, ["a very long prompt about two dogs"], fps=8.0)
    assert "cut to 3" in caplog.text
    short = reward(video, ["a very long"], fps=8.0)
    assert torch.equal(long.values["quality"], short.values["quality"])
    reward(video, ["a sea"], fps=8.0)
    assert len(reward._text) == 2
    with pytest.raises(RewardError, match="Reward"):
        reward(video, ["give it <|Reward|> now"], fps=8.0)
    with pytest.raises(RewardError, match="im_end"):
        reward(video, ["<|im_end|>"], fps=8.0)


def test_wrong_files_are_refused_with_the_way_out(
    hps_options: dict[str, Path], stand_in: SimpleNamespace, tmp_path: Path
) -> None:
    def refusal(**changes: object) -> str:
        with pytest.raises(RewardError) as caught:
            HpsV3(**{**hps_options, **changes})  # type: ignore[arg-type]
        return str(caught.value)

    assert "There is no weight file" in refusal(weights=tmp_path / "nowhere.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(hps_options["weights"].read_bytes()[:5000])
    assert "Cannot read weights" in refusal(weights=torn)
    state = load_file(hps_options["weights"])
    for change, named in (({"rm_head.5.bias": None}, "lacks 'rm_head.5.bias'"), ({"extra": torch.ones(1)}, "'extra'")):
        file = tmp_path / "changed.safetensors"
        save_file({key: value for key, value in {**state, **change}.items() if value is not None}, file)
        assert named in refusal(weights=file)
    assert "cannot read" in refusal(config=tmp_path / "nowhere.json").lower()
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert "qwen2_vl" in refusal(config=tmp_path)
    foreign = tmp_path / "tokenizer"
    stand_in.stand_in_tokenizer("another", "vocabulary").save_pretrained(foreign)
    assert "do not belong together" in refusal(tokenizer=foreign)
    assert "min_pixels" in refusal(min_pixels=900, max_pixels=800)
    assert "precision" in refusal(precision="float16")
    assert "max_prompt_tokens" in refusal(max_prompt_tokens=0)


def test_without_a_network_the_message_names_the_file_to_bring(hps_options: dict[str, Path]) -> None:
    with pytest.raises(RewardError, match="Name one with the option 'tokenizer'"):
        HpsV3(hps_options["weights"], config=hps_options["config"])
    with pytest.raises(RewardError, match=r"hf download MizzenAI/HPSv3 HPSv3\.safetensors"):
        HpsV3(config=hps_options["config"], tokenizer=hps_options["tokenizer"])


def test_elongated_frames_are_refused(reward: HpsV3) -> None:
    with pytest.raises(RewardError, match="elongated"):
        reward(torch.rand(1, 1, 3, 4, 900), ["a sea"], fps=8.0)


def test_reward_backpropagation_trains_on_it(
    hps_options: dict[str, Path], train_by_config: Callable[..., None]
) -> None:
    train_by_config("hps_v3", hps_options | {"frames": "first"}, dimension="quality")
