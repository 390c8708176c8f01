"""Step time and peak memory of reward backpropagation: roll-out + re-forward against everything in one graph.

    python benchmarks/reward_bp.py                                    # sprite geometry, CPU or GPU
    python benchmarks/reward_bp.py --geometry wan2.1-1.3b             # 480x832x81, random weights, needs a GPU
    python benchmarks/reward_bp.py --markdown benchmarks/reward_bp.md # write the table

Weights are random: time and memory do not depend on them. "plain" is what public scripts do (EasyAnimate, VideoX-Fun):
every step records a graph, inactive predictions are detached, the decoder is in the same graph. "ours" samples without
a graph, decodes chunk by chunk, and runs the active steps again one at a time. Both give the same gradient (tests/unit/
algorithms/test_gradient_estimators.py); the last column is how far the two differ here. Every row runs in a process of
its own; memory is the peak above what the loaded model takes.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor

from rlhf_video.algorithms.gradient_estimators import Segment, backward_through
from rlhf_video.backbones import VideoShape, meta_backbone
from rlhf_video.backbones.base import Conditioning
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.diffusion.samplers import rollout, sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.lora import LoraConfig, attach
from rlhf_video.report.markdown import markdown_table
from rlhf_video.runtime import measure_peak

ROOT = Path(__file__).resolve().parents[1]
ACTIVE = (1, 5, 10)
NUM_STEPS, GUIDANCE = 10, 5.0


def sprite(device: torch.device) -> tuple[WanBackbone, VideoShape]:
    """Build the built-in world's model with random weights, batch 4."""
    backbone = _random(ROOT / "assets" / "sprite-wan", torch.float32, device)
    return backbone, VideoShape(batch=4, frames=21, height=64, width=64)


def wan_1_3b(device: torch.device) -> tuple[WanBackbone, VideoShape]:
    """Build Wan 2.1 1.3B with random weights, bfloat16 transformer, at 480x832x81, batch 1, checkpointed blocks."""
    backbone = _random(ROOT / "configs" / "backbones" / "wan2.1-t2v-1.3b", torch.bfloat16, device)
    backbone.set_gradient_checkpointing(True)
    return backbone, VideoShape(batch=1, frames=81, height=480, width=832)


def _random(folder: Path, dtype: torch.dtype, device: torch.device) -> WanBackbone:
    """Build the model that a folder's config files describe."""
    with device:
        torch.manual_seed(0)
        config = WanTransformer3DModel.load_config(folder / "transformer")
        transformer = WanTransformer3DModel.from_config(config)
        vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(folder / "vae"))
    return WanBackbone(
        spec=meta_backbone(folder).spec, transformers={"transformer": transformer.to(dtype)}, vae=vae, prompts=None,
        text_width=config["text_dim"], boundary_sigma=None, dtype=dtype, device=device,
    )  # fmt: skip


def measure(geometry: str, method: str, num_active: int, frames: str, repeats: int) -> dict[str, float]:
    """Run a few steps in this process and return seconds, peak bytes and the gradient's norm."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone, shape = (sprite if geometry == "sprite" else wan_1_3b)(device)
    parameters = attach(backbone, LoraConfig(rank=16), seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(parameters):  # a zero second matrix would hide half of the gradient
            parameter.add_(
                1e-2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)).to(device)
            )
    embeds = torch.randn(
        shape.batch, backbone.spec.text_length, backbone._text_width, generator=torch.Generator().manual_seed(1)
    ).to(device)
    cond, sigmas = Conditioning(embeds, torch.zeros_like(embeds)), flow_sigmas(NUM_STEPS, 3.0).to(device)
    noise = backbone.noise(shape, torch.Generator().manual_seed(2))
    active = tuple(range(NUM_STEPS - num_active, NUM_STEPS))

    def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
        return backbone.velocity(latents, sigma, cond, guidance=GUIDANCE)

    step = {"plain": _plain, "ours": _ours}[method]
    seconds, norm = [], 0.0
    with measure_peak(device) as peak:
        for _ in range(repeats):
            for parameter in parameters:
                parameter.grad = None
            wall, cpu = time.perf_counter(), time.process_time()
            step(backbone, velocity, noise, sigmas, active, frames)
            if device.type == "cuda":
                torch.cuda.synchronize()
            # A shared CPU makes wall time a lottery; the process's own CPU time is not, with one thread.
            own_time = device.type == "cpu" and torch.get_num_threads() == 1
            seconds.append(time.process_time() - cpu if own_time else time.perf_counter() - wall)
            norm = float(torch.stack([p.grad.float().norm() for p in parameters if p.grad is not None]).norm())
    return {"seconds": min(seconds), "bytes": peak.increase, "norm": norm}


def _score(video: Tensor) -> Tensor:
    return (video - 0.5).square().sum()


def _plain(backbone, velocity, noise, sigmas, active, frames) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with torch.enable_grad():
        latents = sample_with_graph(velocity, noise, sigmas, active)
        video = backbone.decode(latents, frames=slice(0, 1) if frames == "first" else None)
        _score(video).backward()


def sample_with_graph(velocity, noise: Tensor, sigmas: Tensor, active: tuple[int, ...]) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Sample with the active steps in one graph."""
    return sample(velocity, noise, sigmas, grad_steps=active)


def _ours(backbone, velocity, noise, sigmas, active, frames) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    states = rollout(velocity, noise, sigmas)
    leaf = states[-1].detach().requires_grad_()
    video = backbone.decode_chunked(leaf, frames=[0] if frames == "first" else None)
    pixels = video.detach().requires_grad_()
    _score(pixels).backward()
    (gradient,) = torch.autograd.grad(video, leaf, pixels.grad)
    backward_through(
        Segment(states, sigmas, active), gradient, velocity=velocity, backward=lambda loss: loss.backward()
    )


def row(geometry: str, method: str, num_active: int, frames: str, repeats: int) -> dict[str, float] | str:
    """Measure in a process of its own; return what went wrong instead where it did."""
    arguments = [geometry, method, str(num_active), frames, str(repeats)]
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        return "out of memory" if "out of memory" in done.stderr else last[:60]
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(geometry: str, repeats: int) -> str:
    """Measure every row and return the Markdown table."""
    rows = []
    for frames in ("whole", "first"):
        for num_active in ACTIVE:
            plain, ours = (row(geometry, method, num_active, frames, repeats) for method in ("plain", "ours"))
            cells = [frames, str(num_active)]
            for result in (plain, ours):
                cells += (
                    [f"{result['seconds']:.2f}", f"{result['bytes'] / 2**20:.0f}"]
                    if isinstance(result, dict)
                    else [result, "-"]
                )
            both = isinstance(plain, dict) and isinstance(ours, dict)
            cells.append(f"{plain['bytes'] / max(ours['bytes'], 1):.1f}x" if both else "-")
            cells.append(f"{abs(plain['norm'] / ours['norm'] - 1):.1e}" if both else "-")
            rows.append(cells)
            print(cells, flush=True)
    header = ("decoded", "K", "plain, s", "plain, MiB", "ours, s", "ours, MiB", "memory", "gradient norm differs by")
    return markdown_table(header, rows, align="lrrrrrrr")


def environment() -> str:
    """Return hardware and versions in one sentence."""
    import diffusers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} thread(s)"
    return (
        f"{device}, {platform.machine()}, torch {torch.__version__}, diffusers {diffusers.__version__}, "
        f"Python {platform.python_version()}, {NUM_STEPS} sampling steps with guidance"
    )


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        geometry, method, num_active, frames, repeats = sys.argv[2:]
        print(json.dumps(measure(geometry, method, int(num_active), frames, int(repeats))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=("sprite", "wan2.1-1.3b"), default="sprite")
    parser.add_argument("--repeats", type=int, default=3, help="steps per row; the fastest counts")
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    arguments = parser.parse_args()
    text = f"{environment()}\n\n{table(arguments.geometry, arguments.repeats)}"
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text)


if __name__ == "__main__":
    main()
