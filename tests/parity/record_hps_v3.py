"""Run HPSv3's own code at two layers and write what it computes to golden/hps_v3.json.

Once, in an environment as the package pins it, on a CPU (about 10 s):
    python -m venv old && old/bin/pip install torch==2.13.0 transformers==4.45.2 trl==0.12.2 peft==0.13.2 \
        accelerate==1.1.1 pandas matplotlib tensorboard omegaconf prettytable fire
    pip download --no-deps hpsv3==1.0.0 && unzip hpsv3-1.0.0-py3-none-any.whl -d checkout
    PYTHONPATH=. old/bin/python tests/parity/record_hps_v3.py checkout

torchvision's `resize` is replaced by the `interpolate` call that it makes (equal bit for bit on float tensors); model,
processor for tensors, template and forward pass are theirs. Position tables are rounded to bfloat16 as by
their `model.to(bfloat16)`, arithmetic is float32, so that 1e-5 can be asked for.
"""

import runpy
import site
import sys
from pathlib import Path

import record_qwen2_vl
import torch

HERE = Path(__file__).parent
SIZES = [(448, 448), (300, 520), (97, 451)]
SEED = 7


def main(checkout: str) -> None:
    """Record pixels' gradient, features and scores of two pictures per size."""
    site.addsitedir(checkout)
    record_qwen2_vl.install_stubs()
    from hpsv3.dataset.data_collator_qwen import INSTRUCTION, prompt_with_special_token
    from hpsv3.inference import HPSv3RewardInferencer
    from hpsv3.model.differentiable_image_processor import Qwen2VLImageProcessor
    from hpsv3.model.qwen2vl_trainer import Qwen2VLRewardModelBT

    stand_in = runpy.run_path(str(HERE / "qwen2_vl_stand_in.py"))
    processor = record_qwen2_vl.processor(stand_in, INSTRUCTION + prompt_with_special_token, ["<|Reward|>"])
    processor.image_processor = Qwen2VLImageProcessor()
    model = record_qwen2_vl.build(
        Qwen2VLRewardModelBT, stand_in, processor, ["<|Reward|>"], SEED, output_dim=2, rm_head_type="ranknet"
    )
    inferencer = object.__new__(HPSv3RewardInferencer)
    inferencer.device, inferencer.use_special_tokens = "cpu", True
    inferencer.model, inferencer.processor = model, processor
    cases = []
    for i, (height, width) in enumerate(SIZES):
        pictures = torch.from_numpy(stand_in["clip"](2, height, width, i)).movedim(-1, 1).float().requires_grad_()
        prompts = list(stand_in["PROMPTS"])
        batch = inferencer.prepare_batch(list(pictures.unbind()), prompts)
        features = record_qwen2_vl.watch_head(model)
        scores = inferencer.reward(list(pictures.unbind()), prompts)
        (gradient,) = torch.autograd.grad(scores[:, 0].sum(), pictures)
        cases.append(
            {
                "height": height,
                "width": width,
                "seed": i,
                "ids": record_qwen2_vl.digests(batch),
                "grid": batch["image_grid_thw"].tolist(),
                "patches": record_qwen2_vl.samples(batch["pixel_values"]),
                "features": record_qwen2_vl.samples(features()),
                "scores": scores.tolist(),
                # With respect to pixels in [0, 1]; theirs are 0 to 255.
                "gradient": record_qwen2_vl.samples(gradient * 255),
            }
        )
    record_qwen2_vl.write("hps_v3", SEED, cases)


if __name__ == "__main__":
    main(sys.argv[1])
