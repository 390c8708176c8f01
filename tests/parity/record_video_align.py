"""Run VideoAlign's own code at two layers and write what it computes to golden/video_align.json.

Once, in an environment as it pins it, on a CPU (about 20 s):
    python -m venv old && old/bin/pip install torch==2.13.0 transformers==4.45.2 trl==0.12.2 peft==0.13.2 \
        accelerate==1.1.1 pandas matplotlib tensorboard
    git clone https://github.com/KwaiVGI/VideoAlign checkout        (recorded at 219ab9d)
    PYTHONPATH=. old/bin/python tests/parity/record_video_align.py checkout

Decord is replaced by a reader of made clips, torchvision's `resize` by the `interpolate` call that it makes, rounded to
8 bits as it does; frame policy, sizes, processor, template, LoRA (by peft), forward pass and statistics are theirs.
Position tables are rounded to bfloat16 as by their `model.to(bfloat16)`, arithmetic is float32.
"""

import runpy
import site
import sys
import types
from pathlib import Path

import record_qwen2_vl
import torch
from peft import LoraConfig, get_peft_model

HERE = Path(__file__).parent
REWARD_TOKENS = ["<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>"]
# frames, fps, height, width: the first is at its size already, so nothing is rounded; the others are resized.
CLIPS = [(8, 4.0, 252, 420), (9, 8.0, 120, 200), (6, 3.0, 600, 720)]
FRAME_CASES = [(2, 8.0), (3, 8.0), (5, 16.0), (33, 8.0), (49, 8.0), (81, 16.0), (81, 15.0), (121, 24.0), (240, 29.97)]
SIZE_CASES = [(480, 832), (720, 1280), (256, 256), (448, 448), (100, 900), (391, 500), (30, 2000), (1080, 1920)]
SIZE_CASES += [(41, 57), (42, 70), (350, 462)]  # halves of 28, which Python rounds to even
SEED = 13
STATISTICS = {"VQ_mean": 3.6757, "VQ_std": 2.2476, "MQ_mean": 1.1646, "MQ_std": 1.3811}
STATISTICS |= {"TA_mean": 2.8105, "TA_std": 2.5121}  # inference_config of the released model_config.json


def main(checkout: str) -> None:
    """Record frames, sizes, patches' gradient, features and scores of three batches."""
    site.addsitedir(checkout)
    record_qwen2_vl.install_stubs()
    stand_in = runpy.run_path(str(HERE / "qwen2_vl_stand_in.py"))
    sys.modules["decord"] = _decord(stand_in)
    import prompt_template
    import vision_process
    from data import DataConfig
    from inference import VideoVLMRewardInference
    from train_reward import find_target_linear_names
    from trainer import Qwen2VLRewardModelBT

    processor = record_qwen2_vl.processor(stand_in, prompt_template.DETAILED_PROMPT_WITH_SPECIAL_TOKEN, REWARD_TOKENS)

    def with_lora(model: torch.nn.Module) -> torch.nn.Module:
        targets = find_target_linear_names(
            model, lora_namespan_exclude=["lm_head", "rm_head", "embed_tokens", "visual"]
        )
        # peft_lora_config of train.sh and the released model_config.json.
        options = {"r": 64, "lora_alpha": 128, "lora_dropout": 0.05, "task_type": "CAUSAL_LM"}
        return get_peft_model(model, LoraConfig(target_modules=targets, **options))

    model = record_qwen2_vl.build(
        Qwen2VLRewardModelBT, stand_in, processor, REWARD_TOKENS, SEED, wrap=with_lora, output_dim=1
    )
    inferencer = object.__new__(VideoVLMRewardInference)
    inferencer.device, inferencer.model, inferencer.processor = "cpu", model, processor
    inferencer.data_config = DataConfig(
        max_frame_pixels=200704, fps=2.0, eval_dim=["VQ", "MQ", "TA"], prompt_template_type="detailed_special"
    )
    inferencer.inference_config = STATISTICS
    cases = [_case(inferencer, list(stand_in["PROMPTS"]), *sizes) for sizes in CLIPS]
    frames = [[count, fps, _frames(vision_process, count, fps)] for count, fps in FRAME_CASES]
    sizes = [
        [*size, *vision_process.smart_resize(*size, min_pixels=vision_process.VIDEO_MIN_PIXELS, max_pixels=200704)]
        for size in SIZE_CASES
    ]
    record_qwen2_vl.write("video_align", SEED, cases, frames=frames, sizes=sizes)


def _case(inferencer: object, prompts: list[str], count: int, fps: float, height: int, width: int) -> dict[str, object]:
    paths = [f"{count}_{fps}_{height}_{width}_{seed}" for seed in range(2)]
    batch = inferencer.prepare_batch(paths, prompts)
    pixels = batch["pixel_values_videos"].requires_grad_()
    features = record_qwen2_vl.watch_head(inferencer.model)
    raw = inferencer.model(return_dict=True, **batch)["logits"]
    gradients = [torch.autograd.grad(raw[:, i].sum(), pixels, retain_graph=True)[0] for i in range(3)]
    with torch.no_grad():
        scores = inferencer.reward(paths, prompts)
    return {
        "frames": count,
        "fps": fps,
        "height": height,
        "width": width,
        "ids": record_qwen2_vl.digests(batch),
        "grid": batch["video_grid_thw"].tolist(),
        "patches": record_qwen2_vl.samples(pixels.detach()),
        "features": record_qwen2_vl.samples(features()),
        "raw": raw.tolist(),
        "scores": [[score[key] for key in ("VQ", "MQ", "TA", "Overall")] for score in scores],
        "gradients": [record_qwen2_vl.samples(gradient) for gradient in gradients],
    }


def _frames(vision_process: types.ModuleType, count: int, fps: float) -> list[int]:
    wanted = vision_process.smart_nframes({"fps": 2.0}, total_frames=count, video_fps=fps)
    return torch.linspace(0, count - 1, wanted).round().long().tolist()


def _decord(stand_in: dict[str, object]) -> types.ModuleType:
    """Return a module with decord's reader, over made clips named frames_fps_height_width_seed."""

    class VideoReader:
        def __init__(self, path: str) -> None:
            frames, fps, *rest = path.removeprefix("file://").split("_")
            self._clip, self._fps = stand_in["clip"](int(frames), *map(int, rest)), float(fps)

        def __len__(self) -> int:
            return len(self._clip)

        def get_avg_fps(self) -> float:
            return self._fps

        def get_batch(self, indices: list[int]) -> types.SimpleNamespace:
            return types.SimpleNamespace(asnumpy=lambda: self._clip[indices])

    module = types.ModuleType("decord")
    module.VideoReader = VideoReader
    module.__spec__ = types.SimpleNamespace()
    return module


if __name__ == "__main__":
    main(sys.argv[1])
