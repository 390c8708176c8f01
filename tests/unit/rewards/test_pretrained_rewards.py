"""CLIP and X-CLIP rewards compute what the models compute, and refuse folders that would score nonsense."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, XCLIPModel

from rewards.clip_preference import ClipPreference
from rewards.errors import RewardError
from rewards.video_ops import CLIP_MEAN, CLIP_STD, normalise
from rewards.video_text import VideoText

PROMPTS = ["a red circle moving left", "a blue square", "a green star moving up"]


def clips(num_frames: int = 5, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, num_frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def clip_copy(clip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip_folder, tmp_path / "clip"))


@pytest.fixture
def xclip_copy(xclip_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xclip_folder, tmp_path / "xclip"))


def test_clip_preference_equals_the_models_own_logits(clip_folder: Path) -> None:
    video = clips()
    tokens = AutoTokenizer.from_pretrained(clip_folder)(PROMPTS, padding=True, return_tensors="pt")
    model = CLIPModel.from_pretrained(clip_folder)
    pixels = normalise(video, CLIP_MEAN, CLIP_STD).flatten(0, 1)
    with torch.no_grad():
        logits = model(input_ids=tokens["input_ids"], pixel_values=pixels).logits_per_image.unflatten(0, (3, 5))
    expected = torch.stack([logits[i, :, i].mean() for i in range(3)])
    scores = ClipPreference(clip_folder)(video, PROMPTS, fps=8).values["preference"]
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_video_text_equals_the_diagonal_of_the_models_own_logits(xclip_folder: Path) -> None:
    video = clips()
    tokens = AutoTokenizer.from_pretrained(xclip_folder)(PROMPTS, padding=True, return_tensors="pt")
    model = XCLIPModel.from_pretrained(xclip_folder)
    with torch.no_grad():
        logits = model(**tokens, pixel_values=normalise(video, CLIP_MEAN, CLIP_STD)).logits_per_video
    scores = VideoText(xclip_folder)(video, PROMPTS, fps=8).values["alignment"]
    torch.testing.assert_close(scores, logits.diagonal(), rtol=1e-5, atol=1e-5)


def test_video_text_sees_the_order_of_frames_and_clip_preference_does_not(
    clip_folder: Path, xclip_folder: Path
) -> None:
    video = clips()
    forward = VideoText(xclip_folder)(video, PROMPTS, fps=8).values["alignment"]
    backward = VideoText(xclip_folder)(video.flip(1), PROMPTS, fps=8).values["alignment"]
    assert (forward - backward).abs().min() > 1e-3
    image_reward = ClipPreference(clip_folder)
    torch.testing.assert_close(
        image_reward(video, PROMPTS, fps=8).values, image_reward(video.flip(1), PROMPTS, fps=8).values
    )


def test_video_text_resamples_other_lengths_uniformly(xclip_folder: Path) -> None:
    reward, video = VideoText(xclip_folder), clips(num_frames=9)
    expected = reward(video[:, [0, 2, 4, 6, 8]], PROMPTS, fps=8).values["alignment"]
    torch.testing.assert_close(reward(video, PROMPTS, fps=8).values["alignment"], expected)
    repeated = reward(video[:, [0, 0, 1, 1, 1]], PROMPTS, fps=8)
    shorter = reward(video[:, :2], PROMPTS, fps=8)
    assert reward.spec.frames.select(2) == (0, 0, 1, 1, 1)
    torch.testing.assert_close(shorter.values, repeated.values)


def test_frame_policy_limits_what_clip_preference_looks_at(clip_folder: Path) -> None:
    reward, video = ClipPreference(clip_folder, frames="first"), clips().requires_grad_()
    (gradient,) = torch.autograd.grad(reward(video, PROMPTS, fps=8).values["preference"].sum(), video)
    assert gradient[:, 0].abs().sum() > 0
    assert not gradient[:, 1:].any()


def test_uniform_policy_does_not_weigh_repeated_frames(clip_folder: Path) -> None:
    video = clips(num_frames=2)
    few = ClipPreference(clip_folder, frames={"kind": "uniform", "count": 5})(video, PROMPTS, fps=8)
    torch.testing.assert_close(few.values, ClipPreference(clip_folder)(video, PROMPTS, fps=8).values)


@pytest.mark.parametrize("size", [7, 12, 40])
def test_any_clip_size_reaches_the_model_with_gradient(clip_folder: Path, size: int) -> None:
    video = clips(size=size).requires_grad_()
    (gradient,) = torch.autograd.grad(
        ClipPreference(clip_folder)(video, PROMPTS, fps=8).values["preference"].sum(), video
    )
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_passes_change_neither_scores_nor_gradients(clip_folder: Path, xclip_folder: Path, rows: int) -> None:
    for whole, passes in (
        (ClipPreference(clip_folder), ClipPreference(clip_folder, frames_per_pass=rows)),
        (VideoText(xclip_folder), VideoText(xclip_folder, clips_per_pass=rows)),
    ):
        results = []
        for reward in (whole, passes):
            video = clips().requires_grad_()
            score = next(iter(reward(video, PROMPTS, fps=8).values.values()))
            results.append((score.detach(), *torch.autograd.grad(score.sum(), video)))
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def test_weights_are_frozen_and_get_no_gradient(clip_folder: Path) -> None:
    reward, video = ClipPreference(clip_folder), clips().requires_grad_()
    reward(video, PROMPTS, fps=8).values["preference"].sum().backward()
    assert video.grad is not None
    for parameter in reward._towers.model.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None


def test_each_prompt_is_encoded_once_and_the_oldest_leaves_the_cache(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, encoded = ClipPreference(clip_folder, cache_size=2), []
    encode = reward._towers.text._encode
    monkeypatch.setattr(reward._towers.text, "_encode", lambda ids: encoded.append(ids) or encode(ids))
    first = reward(clips()[:2], PROMPTS[:2], fps=8)
    again = reward(clips()[:2], PROMPTS[:2], fps=8)
    assert len(encoded) == 2
    assert torch.equal(first.values["preference"], again.values["preference"])
    reward(clips()[:1], PROMPTS[2:], fps=8)
    assert (len(encoded), len(reward._towers.text)) == (3, 2)
    reward(clips()[:1], PROMPTS[:1], fps=8)
    assert len(encoded) == 4


def test_long_prompt_is_cut_with_a_warning_and_empty_one_refused(
    clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reward = ClipPreference(clip_folder)
    output = reward(clips()[:1], ["red " * 30], fps=8)
    assert output.values["preference"].isfinite().all()
    assert "32 tokens is cut to 12" in caplog.text
    with pytest.raises(RewardError, match="empty"):
        reward(clips()[:1], [" "], fps=8)


def test_folder_states_its_own_image_statistics(clip_copy: Path) -> None:
    before = ClipPreference(clip_copy)(clips(), PROMPTS, fps=8).values["preference"]
    (clip_copy / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    after = ClipPreference(clip_copy)(clips(), PROMPTS, fps=8).values["preference"]
    assert not torch.allclose(before, after)
    (clip_copy / "preprocessor_config.json").write_text("{")
    with pytest.raises(RewardError, match="not valid JSON"):
        ClipPreference(clip_copy)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere", "rewards/nowhere", "../nowhere", "sprite-clip"):
        with pytest.raises(RewardError, match=r"no reward model folder .*(nowhere|sprite-clip)"):
            ClipPreference(missing)


def test_hub_id_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(RewardError, match="Cannot load CLIPModel from nobody-here/no-such-model"):
        ClipPreference("nobody-here/no-such-model")


def test_folder_of_another_class_is_refused(clip_folder: Path, xclip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="type 'xclip', not 'clip'"):
        ClipPreference(xclip_folder)
    with pytest.raises(RewardError, match="type 'clip', not 'xclip'"):
        VideoText(clip_folder)
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    with pytest.raises(RewardError, match="diffusers pipeline"):
        VideoText(tmp_path)


def test_truncated_missing_and_incomplete_weights_are_refused(clip_copy: Path) -> None:
    weights = clip_copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(RewardError, match="Cannot load CLIPModel"):
        ClipPreference(clip_copy)
    weights.unlink()
    with pytest.raises(RewardError, match="Cannot load CLIPModel"):
        ClipPreference(clip_copy)
    model = CLIPModel(CLIPConfig.from_pretrained(clip_copy))
    state = {key: value for key, value in model.state_dict().items() if "visual_projection" not in key}
    model.save_pretrained(clip_copy, state_dict=state)
    with pytest.raises(RewardError, match="lacks 1 weights of CLIPModel"):
        ClipPreference(clip_copy)


def test_broken_config_is_refused(clip_copy: Path) -> None:
    (clip_copy / "config.json").write_text("{")
    with pytest.raises(RewardError, match="Cannot load CLIPModel"):
        ClipPreference(clip_copy)


def test_folder_without_tokenizer_is_refused_and_another_can_be_named(clip_copy: Path, clip_folder: Path) -> None:
    for file in clip_copy.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(RewardError, match="option 'tokenizer'"):
        ClipPreference(clip_copy)
    assert ClipPreference(clip_copy, tokenizer=clip_folder).spec.uses_prompt


def test_tokenizer_that_cannot_be_loaded_or_has_no_end_token_is_refused(clip_copy: Path) -> None:
    with pytest.raises(RewardError, match="Cannot load a tokenizer from nobody-here/no-such-model"):
        ClipPreference(clip_copy, tokenizer="nobody-here/no-such-model")
    config = json.loads((clip_copy / "tokenizer_config.json").read_text())
    (clip_copy / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    with pytest.raises(RewardError, match="has no end token"):
        ClipPreference(clip_copy)


@pytest.mark.gpu
def test_model_follows_the_clip_to_the_gpu_and_back(clip_folder: Path, xclip_folder: Path) -> None:
    for reward in (ClipPreference(clip_folder), VideoText(xclip_folder)):
        results = []
        for device in ("cpu", "cuda", "cpu"):
            video = clips().to(device).requires_grad_()
            score = next(iter(reward(video, PROMPTS, fps=8).values.values()))
            assert score.device == video.device
            results.append((score.detach().cpu(), torch.autograd.grad(score.sum(), video)[0].cpu()))
        torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(results[0], results[2], rtol=0, atol=0)


def edit_text_config(folder: Path, **values: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"].update(values)
    (folder / "config.json").write_text(json.dumps(config))


def test_text_model_that_reads_another_token_is_refused(clip_copy: Path) -> None:
    edit_text_config(clip_copy, eos_token_id=5)
    with pytest.raises(RewardError, match=r"set text_config\.eos_token_id"):
        ClipPreference(clip_copy)


def test_end_token_must_be_the_highest_where_the_model_reads_the_highest(clip_copy: Path, xclip_copy: Path) -> None:
    edit_text_config(clip_copy, eos_token_id=2)  # the mark of old folders: read at the highest id, which fits here
    assert ClipPreference(clip_copy).spec.uses_prompt
    from_config = json.loads((xclip_copy / "tokenizer.json").read_text())
    vocabulary = from_config["model"]["vocab"]
    vocabulary["a"], vocabulary["<eos>"] = vocabulary["<eos>"], vocabulary["a"]
    for token in from_config["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    special = from_config["post_processor"]["special_tokens"]["<eos>"]
    special["ids"] = [vocabulary["<eos>"]]
    (xclip_copy / "tokenizer.json").write_text(json.dumps(from_config))
    with pytest.raises(RewardError, match="last place in the vocabulary"):
        VideoText(xclip_copy)


def test_tokenizer_of_another_model_is_refused(clip_copy: Path) -> None:
    content = json.loads((clip_copy / "tokenizer.json").read_text())
    content["model"]["vocab"]["extra"] = 14
    (clip_copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RewardError, match="do not belong together"):
        ClipPreference(clip_copy)


def test_tokenizer_that_appends_no_end_token_is_refused(clip_copy: Path) -> None:
    content = json.loads((clip_copy / "tokenizer.json").read_text())
    content["post_processor"] = None
    (clip_copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(RewardError, match="does not append its end token"):
        ClipPreference(clip_copy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames_per_pass": 0}, "1 or more"),
        ({"cache_size": -1}, "0 or more"),
        ({"fit": "stretch"}, "Unknown fit"),
        ({"frames": "some"}, "Unknown frame policy"),
        ({"frames": {"kind": "uniform", "number": 3}}, "not understood"),
    ],
)
def test_bad_options_are_refused(clip_folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        ClipPreference(clip_folder, **options)  # type: ignore[arg-type]


def test_bad_option_of_video_text_is_refused(xclip_folder: Path) -> None:
    with pytest.raises(RewardError, match="1 or more"):
        VideoText(xclip_folder, clips_per_pass=0)
