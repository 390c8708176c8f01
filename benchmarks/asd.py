"""Clips per second of a causal few-step student against the guided teacher, latency of its first frames, and memory.

    OMP_NUM_THREADS=1 python benchmarks/asd.py --device cpu    # sprite geometry
    python benchmarks/asd.py --device cuda                     # Wan 2.1 1.3B at 480x832x81, bfloat16
    python benchmarks/asd.py --quick --device cpu              # two rounds, batch 1: proves that it runs

Teacher: all frames at once, Euler steps with guidance (twice the batch a step). Student: chunk after chunk with
First-Frame Enhancement (4 steps for the first chunk), clean context, its keys and values cached, no guidance. Prompt
embeddings are there for both; the student projects them to keys once a roll-out. Weights are random: time does not
depend on them. The adapter is either beside the base's weights ("beside", as in training) or added into them
("merged").

All take turns in one process; "faster" is median and quartiles, over rounds, of the teacher's time / theirs in the same
round, denoising alone. "First frame": denoising of the first chunk (for the teacher: of the clip) and decoding of it.

Memory is counted, not measured: bytes of weights, and of what training keeps for each weight that learns (gradient and
two moments of AdamW in float32), on the meta device. Activations, text encoder and VAE are the same for all designs.
"""

import argparse
import itertools
import shlex
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from attention_timing import Call, hardware, take_turns, typical, write_section
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rlhf_video.algorithms.discriminator import Discriminator, DiscriminatorConfig
from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.backbones import Conditioning, VideoShape, meta_backbone
from rlhf_video.backbones.causal_recipe import CausalRecipe
from rlhf_video.backbones.causal_sampling import causal_backbone, sample_chunks
from rlhf_video.backbones.wan import WanBackbone, in_precision
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.lora import LoraConfig, adapter_parameters, attach
from rlhf_video.report.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
STEPS = (1, 2, 4)
TARGET = 8.0
"""Denoising throughput at two steps over the teacher's, at the largest batch."""


@dataclass(frozen=True)
class Setting:
    """A model's geometry and its clips."""

    folder: Path
    frames: int
    height: int
    width: int
    chunk: int
    rank: int
    batches: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    teacher_steps: int = 20
    guidance: float = 5.0

    def shape(self, batch: int) -> VideoShape:
        """Return the size of a batch of clips."""
        return VideoShape(batch=batch, frames=self.frames, height=self.height, width=self.width)

    def recipe(self) -> CausalRecipe:
        """Return how the student generates."""
        return CausalRecipe(layout=CausalLayout(chunk_frames=self.chunk), shift=3.0, steps=STEPS, first_chunk_steps=4)


SETTINGS = {
    "sprite": Setting(ROOT / "assets" / "sprite-wan", 21, 64, 64, chunk=2, rank=32, batches=(1, 16)),
    "wan": Setting(
        ROOT / "configs" / "backbones" / "wan2.1-t2v-1.3b",
        *(81, 480, 832),
        chunk=3,
        rank=128,
        batches=(1,),
        dtype=torch.bfloat16,
        teacher_steps=50,
    ),
}


def random_backbone(setting: Setting, device: torch.device) -> WanBackbone:
    """Return the model of a folder's config files with random weights; it has no text encoder."""
    meta = meta_backbone(setting.folder)
    config = WanTransformer3DModel.load_config(setting.folder / "transformer")
    with torch.device(device):
        transformer = in_precision(WanTransformer3DModel.from_config(config), setting.dtype)
        vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(setting.folder / "vae"))
    return WanBackbone(
        spec=meta.spec,
        transformers={"transformer": transformer},
        vae=vae,
        prompts=None,
        text_width=config["text_dim"],
        boundary_sigma=None,
        dtype=setting.dtype,
        device=device,
    )


class Contestants:
    """Teacher and students on the same geometry."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        """Build the models: the teacher, and students with the adapter beside the weights and merged into them."""
        self.setting, self.recipe, self.device = setting, setting.recipe(), device
        self.teacher = random_backbone(setting, device)
        self.students: dict[str, WanBackbone] = {}
        for name in ("beside", "merged"):
            student = random_backbone(setting, device)
            attach(student, LoraConfig(rank=setting.rank, alpha=float(setting.rank)), seed=0)
            for parameter in adapter_parameters(student):
                parameter.data = torch.randn_like(parameter).mul_(0.01).to(setting.dtype)
            if name == "merged":
                merge(student.transformers["transformer"])
            self.students[name] = causal_backbone(student, self.recipe)

    def cond(self, batch: int) -> Conditioning:
        """Return random prompt embeddings."""
        spec, width = self.teacher.spec, self.teacher.transformers["transformer"].config.text_dim
        embeds = torch.randn(batch, spec.text_length, width, generator=torch.Generator().manual_seed(0))
        return Conditioning(embeds.to(self.device), torch.zeros_like(embeds).to(self.device))

    @torch.no_grad()
    def teach(self, batch: int) -> Tensor:
        """Sample the teacher's clips."""
        noise = self.teacher.noise(self.setting.shape(batch), torch.Generator().manual_seed(0))
        cond, sigmas = self.cond(batch), flow_sigmas(self.setting.teacher_steps, 3.0)
        guidance = self.setting.guidance
        return sample(lambda x, sigma: self.teacher.velocity(x, sigma, cond, guidance=guidance), noise, sigmas)

    @torch.no_grad()
    def roll_out(self, name: str, batch: int, num_steps: int, *, num_chunks: int | None = None) -> Tensor:
        """Sample the student's clips, or their first chunks."""
        chunks = sample_chunks(
            self.students[name],
            self.cond(batch),
            self.recipe,
            num_steps=num_steps,
            shape=self.setting.shape(batch),
            generators=torch.Generator().manual_seed(0),
        )
        return torch.cat(list(itertools.islice(chunks, num_chunks)), 2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode clips."""
        return self.teacher.decode(latents)


def merge(transformer: nn.Module) -> None:
    """Add every adapter into the weights beside it; the forward pass then has no adapter."""
    for layer in [module for module in transformer.modules() if isinstance(module, LoraLayer)]:
        layer.merge()


@dataclass(frozen=True)
class Row:
    """What was measured of one contestant at one batch size."""

    batch: int
    name: str
    calls: str
    clips_per_s: float
    frames_per_s: float
    faster: tuple[float, float, float]
    """Lower quartile, median, upper quartile over rounds."""
    denoise_first: float
    """Milliseconds until the first frames' latents are clean."""
    decode_first: float
    """Milliseconds to decode these."""


def measure(setting: Setting, device: torch.device, *, rounds: int) -> list[Row]:
    """Measure all contestants in turns, one batch size after the other."""
    rivals, rows = Contestants(setting, device), []
    num_latent = rivals.teacher.spec.num_latent_frames(setting.frames)
    for batch in setting.batches:
        whole = rivals.teach(batch)
        calls: dict[str, Call] = {"teacher": partial(rivals.teach, batch)}
        for name, n in itertools.product(rivals.students, STEPS):
            calls[f"{n} steps, {name}"] = partial(rivals.roll_out, name, batch, n)
        for name in rivals.students:  # the first chunk has 4 steps whatever n is
            calls[f"first, {name}"] = partial(rivals.roll_out, name, batch, 1, num_chunks=1)
        calls["decode clip"] = partial(rivals.decode, whole)
        calls["decode chunk"] = partial(rivals.decode, whole[:, :, : setting.chunk])
        times = take_turns(calls, device, rounds=rounds, warm_ups=1)
        best = {name: typical(samples, device) for name, samples in times.items()}
        for name in calls:
            if name.startswith(("first", "decode")):
                continue
            ratios = [base / own for base, own in zip(times["teacher"], times[name], strict=True)]
            teaches, kind = name == "teacher", name.rpartition(", ")[2]
            steps = 0 if teaches else int(name.split()[0])
            rows.append(
                Row(
                    batch=batch,
                    name=name,
                    calls=f"{setting.teacher_steps} x 2" if teaches
                    else str(rivals.recipe.num_evaluations(steps, num_latent)),
                    clips_per_s=1e3 * batch / best[name],
                    frames_per_s=1e3 * batch * setting.frames / best[name],
                    faster=tuple(statistics.quantiles(ratios, n=4, method="inclusive")),
                    denoise_first=best[name] if teaches else best[f"first, {kind}"],
                    decode_first=best["decode clip" if teaches else "decode chunk"],
                )
            )  # fmt: skip
    return rows


HEADER = ("batch", "model", "calls a clip", "clips/s", "frames/s", "faster", "quartiles", "first frame: denoise, ms",
          "+ decode, ms")  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return the Markdown table of a setting, and whether the target is met."""
    cells = [
        [
            str(row.batch),
            row.name,
            row.calls,
            f"{row.clips_per_s:.3g}",
            f"{row.frames_per_s:.4g}",
            f"{row.faster[1]:.2f}x",
            f"{row.faster[0]:.2f} to {row.faster[2]:.2f}",
            f"{row.denoise_first:.0f}",
            f"{row.decode_first:.0f}",
        ]
        for row in rows
    ]
    return f"{markdown_table(HEADER, cells, align='rl' + 'r' * 7)}\n{verdict(rows)}\n"


def verdict(rows: list[Row]) -> str:
    """Return how two steps at the largest batch stand against the target."""
    largest = max(row.batch for row in rows)
    said = []
    for row in rows:
        if row.batch == largest and row.name.startswith("2 steps"):
            met = "met" if row.faster[1] >= TARGET else "missed"
            said.append(f"{row.name}: {met} ({row.faster[1]:.2f}x)")
    return f"Target {TARGET:g}x at 2 steps, batch {largest}: {'; '.join(said)}."


def empty_table(setting: Setting) -> str:
    """Return the table where there is no GPU: the calls alone."""
    num_latent = meta_backbone(setting.folder).spec.num_latent_frames(setting.frames)
    names = [("teacher", f"{setting.teacher_steps} x 2")]
    names += [(f"{n} steps", str(setting.recipe().num_evaluations(n, num_latent))) for n in STEPS]
    cells = [[str(setting.batches[0]), name, calls, *["not measured"] * 6] for name, calls in names]
    return f"{markdown_table(HEADER, cells, align='rl' + 'r' * 7)}\nNo GPU was at hand.\n"


def memory(setting: Setting) -> Mapping[str, tuple[int, int]]:
    """Return design -> (bytes of weights, bytes of what training keeps for those that learn)."""
    backbone = meta_backbone(setting.folder, dtype=setting.dtype)
    base_numbers = _numbers(backbone.transformers.values())
    base = sum(p.nbytes for module in backbone.transformers.values() for p in module.parameters())
    adapter = sum(p.numel() for p in attach(backbone, LoraConfig(rank=setting.rank, alpha=1.0), seed=0))
    model: Any = backbone.transformers["transformer"]
    with torch.device("meta"):
        heads = Discriminator(
            DiscriminatorConfig(),
            num_blocks=backbone.num_layers,
            width=model.config.num_attention_heads * model.config.attention_head_dim,
            num_logits=len(STEPS),
            seed=0,
        )
    head = _numbers([heads])
    small, large = 2 * adapter + head, 2 * base_numbers + head
    return {  # weights that learn are float32; their average of the student is one more copy of it
        "one base, two adapters, heads": (base + 4 * (small + adapter), 12 * small),
        "three copies, two adapters, heads": (3 * base + 4 * (small + adapter), 12 * small),
        "three copies, two of them learn, heads": (base + 4 * (large + base_numbers), 12 * large),
    }


def _numbers(modules: Any) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def memory_table(name: str, setting: Setting) -> str:
    """Return the Markdown table of the designs' memory."""
    designs = memory(setting)
    ours = sum(next(iter(designs.values())))
    cells = [
        [
            design,
            *(f"{part / 2**20:,.1f}" for part in (weights, state, weights + state)),
            f"{(weights + state) / ours:.2f}x",
        ]
        for design, (weights, state) in designs.items()
    ]
    header = ("design", "weights, MiB", "gradients and moments, MiB", "together", "of ours")
    dtype = str(setting.dtype).removeprefix("torch.")
    return f"### Memory, {name}: {dtype}, rank {setting.rank}\n\n{markdown_table(header, cells, align='lrrrr')}\n"


def describe(name: str, setting: Setting) -> str:
    """Return the heading of a table of times."""
    spec = meta_backbone(setting.folder).spec
    grid = spec.token_grid(setting.shape(1))
    return (
        f"### {name}: {setting.frames} frames of {setting.height}x{setting.width} = {grid.frames} latent frames of "
        f"{grid.frame_tokens} tokens, chunks of {setting.chunk}, {str(setting.dtype).removeprefix('torch.')}, rank "
        f"{setting.rank}; teacher {setting.teacher_steps} steps, guidance {setting.guidance:g}"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=7, help="that count, at least 2")
    parser.add_argument("--quick", action="store_true", help="two rounds, batch 1")
    parser.add_argument("--markdown", type=Path, help="file to put the tables into, between marks")
    flags = parser.parse_args()
    device = torch.device(flags.device)
    name = "sprite" if flags.device == "cpu" else "wan"
    setting = SETTINGS[name]
    if flags.quick:
        setting = Setting(**{**vars(setting), "batches": (1,)})
    is_ready = flags.device == "cpu" or torch.cuda.is_available()
    found = table(measure(setting, device, rounds=2 if flags.quick else flags.rounds)) if is_ready else ""
    text = f"{describe(name, setting)}\n\n{found or empty_table(setting)}\n{memory_table(name, setting)}"
    print(text)
    if flags.markdown:
        command = shlex.join(["python", "benchmarks/asd.py", *sys.argv[1:]])
        versions = f"diffusers {diffusers.__version__}, peft {peft.__version__}"
        text = f"{hardware(device)}, {versions}.\nCommand: `{command}`.\n\n{text}"
        write_section(flags.markdown, f"asd {flags.device}", text)


if __name__ == "__main__":
    main()
