"""A LoRA training step of a Wan transformer under attention plans against the stock model, beside Amdahl's prediction.

    python benchmarks/attention_step.py --device cuda                    # Wan 2.1 1.3B at 480p and 720p, bfloat16
    OMP_NUM_THREADS=1 python benchmarks/attention_step.py --device cpu   # a small geometry that proves that it runs

Weights are random: time and memory do not depend on them. A step is flow matching of one clip: forward and backward
with gradient checkpointing, AdamW on a LoRA of q, k, v and out. "dense" is the stock diffusers model without a plan;
the plans take turns with it. The prediction takes the dense step, subtracts the time of its self-attention calls and
adds that of the plan's, both measured alone in the same run (a checkpointed layer computes two forward passes and a
backward pass). `--markdown FILE` puts the table into a file, between marks named after the device.
"""

import argparse
import functools
import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import peft
import torch
from attention_cases import Attend, Dense, Geometry
from attention_timing import amdahl, hardware, peak_bytes, take_turns, typical, write_section
from diffusers import WanTransformer3DModel
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rlhf_video.attention import (
    AttentionPlan,
    Full,
    Grid,
    WindowSpec,
    apply_attention_plan,
    preset_plan,
    windowed_attention,
)
from rlhf_video.report.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
WAN_1_3B = ROOT / "configs" / "backbones" / "wan2.1-t2v-1.3b" / "transformer"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
PLANS = ("hybrid_middle", "all_but_edges")
SMALL = {"num_layers": 8, "num_attention_heads": 2, "attention_head_dim": 64, "ffn_dim": 512, "text_dim": 64}
"""What the small geometry changes in Wan's config."""


@dataclass(frozen=True)
class Setting:
    """A model and the size of its clip."""

    grid: Grid
    num_text: int
    dtype: torch.dtype
    changes: dict[str, int] = field(default_factory=dict)


SETTINGS = {
    "small": Setting(Grid(8, 16, 16), 32, torch.float32, SMALL),
    "wan-1.3b-480p": Setting(Grid(21, 30, 52), 512, torch.bfloat16),
    "wan-1.3b-720p": Setting(Grid(21, 45, 80), 512, torch.bfloat16),
}


@dataclass(frozen=True)
class Row:
    """What was measured of one plan."""

    plan: str
    windowed_layers: int
    num_layers: int
    density: float
    """Share of all query-key pairs that are computed, mean over layers."""
    step_ms: float
    attention_ms: float
    """All self-attention calls of a step, measured alone."""
    predicted: float
    """Speed-up of the step by Amdahl's law."""
    peak_gib: float | None


class Trainer:
    """One model, its LoRA and the batch that every step repeats."""

    def __init__(self, setting: Setting, device: torch.device, rank: int) -> None:
        """Build the model with random weights."""
        self.setting, self.device = setting, device
        self.config = {**WanTransformer3DModel.load_config(WAN_1_3B), **setting.changes}
        torch.manual_seed(0)
        with device:
            self.model = WanTransformer3DModel.from_config(self.config).requires_grad_(False)
            frames, height, width = setting.grid
            latents = torch.randn(1, self.config["in_channels"], frames, 2 * height, 2 * width)
            text = torch.randn(1, setting.num_text, self.config["text_dim"])
        for name, parameter in self.model.named_parameters():  # as `from_pretrained(torch_dtype=...)` casts
            if not set(name.split(".")) & set(self.model._keep_in_fp32_modules):
                parameter.data = parameter.data.to(setting.dtype)
        self.latents, self.text = latents.to(setting.dtype), text.to(setting.dtype)
        self.noise, self.sigma = torch.randn_like(self.latents), torch.tensor([0.5], device=device)
        self.model.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
        self.model.enable_gradient_checkpointing(functools.partial(checkpoint, use_reentrant=False))
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    @property
    def geometry(self) -> Geometry:
        """The model's self-attention call."""
        heads, head_dim = self.config["num_attention_heads"], self.config["attention_head_dim"]
        return Geometry("step", self.setting.grid, heads, head_dim, {})

    def plan(self, name: str) -> AttentionPlan | None:
        """Return a preset for this model and clip; None for "dense"."""
        if name == "dense":
            return None
        num_layers, num_heads = self.config["num_layers"], self.config["num_attention_heads"]
        return preset_plan(name, num_layers=num_layers, num_heads=num_heads, grid=self.setting.grid)

    def step(self) -> None:
        """Take one step."""
        noisy = torch.lerp(self.latents, self.noise, self.sigma.to(self.latents.dtype))
        velocity = self.model(noisy, timestep=1000 * self.sigma, encoder_hidden_states=self.text).sample
        functional.mse_loss(velocity.float(), (self.noise - self.latents).float()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step_under(self, plan: AttentionPlan | None) -> None:
        """Take one step under a plan, or as the stock model."""
        if plan is None:
            self.step()
            return
        handle = apply_attention_plan(self.model, plan)
        self.step()
        handle.restore()


def attention_times(
    geometry: Geometry, windows: set[WindowSpec], setting: Setting, device: torch.device, rounds: int
) -> dict[WindowSpec, float]:
    """Return what one checkpointed layer spends in attention, in ms: forward, and forward and backward once more."""
    *inputs, gradient = geometry.tensors(setting.dtype, device)
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]

    def layer(attend: Attend) -> None:
        with torch.no_grad():
            attend(*inputs)
        torch.autograd.grad(attend(*leaves), leaves, gradient)

    attends: dict[WindowSpec, Attend] = {
        window: functools.partial(windowed_attention, grid=setting.grid, spec=window) for window in windows
    }
    attends[Full()] = Dense()
    calls = {str(window): functools.partial(layer, attend) for window, attend in attends.items()}
    samples = take_turns(calls, device, rounds=rounds, warm_ups=2)
    return {window: typical(samples[str(window)], device) for window in attends}


def measure(setting: Setting, names: list[str], device: torch.device, rank: int, rounds: int) -> list[Row]:
    """Measure steps in turns, then their attention alone."""
    trainer = Trainer(setting, device, rank)
    plans = {name: trainer.plan(name) for name in ("dense", *names)}
    calls = {name: functools.partial(trainer.step_under, plan) for name, plan in plans.items()}
    samples = take_turns(calls, device, rounds=rounds, warm_ups=2)
    steps = {name: typical(samples[name], device) for name in calls}
    peaks = {name: peak_bytes(call, device) for name, call in calls.items()}
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    num_layers = trainer.config["num_layers"]
    layers = {name: (Full(),) * num_layers if plan is None else plan.layers for name, plan in plans.items()}
    windows = {window for spec in layers.values() for window in spec}
    each = attention_times(trainer.geometry, windows, setting, device, 3 * rounds)
    attention = {name: sum(each[window] for window in spec) for name, spec in layers.items()}
    return [
        Row(
            plan=name,
            windowed_layers=sum(not isinstance(window, Full) for window in layers[name]),
            num_layers=num_layers,
            density=sum(window.density(setting.grid) for window in layers[name]) / num_layers,
            step_ms=steps[name],
            attention_ms=attention[name],
            predicted=amdahl(steps["dense"], attention["dense"], attention[name]),
            peak_gib=None if peaks[name] is None else (held + peaks[name]) / 2**30,
        )
        for name in plans
    ]


HEADER = ("plan", "windowed layers", "density", "step, s", "tokens/s", "attention's share", "faster",
          "predicted (Amdahl)", "measured / predicted", "peak, GiB")  # fmt: skip


def table(rows: list[Row], num_tokens: int) -> str:
    """Return the Markdown table of one setting."""
    dense = rows[0].step_ms
    cells = [
        [
            row.plan,
            f"{row.windowed_layers} of {row.num_layers}",
            f"{100 * row.density:.1f}%",
            f"{row.step_ms / 1e3:.3f}",
            f"{1e3 * num_tokens / row.step_ms:,.0f}",
            f"{100 * row.attention_ms / row.step_ms:.0f}%",
            f"{dense / row.step_ms:.2f}x",
            f"{row.predicted:.2f}x",
            f"{dense / row.step_ms / row.predicted:.2f}",
            "not measured" if row.peak_gib is None else f"{row.peak_gib:.1f}",
        ]
        for row in rows
    ]
    return markdown_table(HEADER, cells, align="l" + "r" * 9)


def empty_table(names: list[str]) -> str:
    """Return the table where there is no GPU."""
    cells = [[name, *["not measured"] * 9] for name in ("dense", *names)]
    return markdown_table(HEADER, cells, align="l" + "r" * 9) + "\nNo GPU was at hand.\n"


def describe(name: str, setting: Setting, rank: int) -> str:
    """Return the heading of a table."""
    config = {**WanTransformer3DModel.load_config(WAN_1_3B), **setting.changes}
    small = "a small geometry, not a real model" if setting.changes else "Wan 2.1 1.3B"
    return (
        f"### {name}: {small}, {config['num_layers']} layers, {config['num_attention_heads']} heads of "
        f"{config['attention_head_dim']}, feed-forward {config['ffn_dim']}; {setting.grid} = "
        f"{setting.grid.num_tokens:,} tokens, batch 1, {str(setting.dtype).removeprefix('torch.')}, LoRA rank {rank}"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), help="small on a CPU, the others on a GPU")
    parser.add_argument("--plans", nargs="+", default=list(PLANS), help="presets to compare with dense")
    parser.add_argument("--rank", type=int, default=64, help="of the LoRA")
    parser.add_argument("--rounds", type=int, default=5, help="that count: the fastest on a CPU, the median on a GPU")
    parser.add_argument("--markdown", type=Path, help="file to put the tables into, between marks")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    flags = parser.parse_args()
    device = torch.device(flags.device)
    is_ready = flags.device == "cpu" or torch.cuda.is_available()
    names = flags.settings or (["small"] if flags.device == "cpu" else [name for name in SETTINGS if name != "small"])
    texts, rows = [], {}
    for name in names:
        setting = SETTINGS[name]
        if is_ready:
            rows[name] = measure(setting, flags.plans, device, flags.rank, flags.rounds)
        found = table(rows[name], setting.grid.num_tokens) if is_ready else empty_table(flags.plans)
        texts.append(f"{describe(name, setting, flags.rank)}\n\n{found}")
        print(texts[-1], flush=True)
    command = shlex.join(["python", "benchmarks/attention_step.py", *sys.argv[1:]])
    if flags.markdown:
        text = f"{hardware(device)}.\nCommand: `{command}`.\n\n" + "\n".join(texts)
        write_section(flags.markdown, f"attention_step {flags.device}", text)
    if flags.json:
        values = {"hardware": hardware(device), "command": command,
                  "rows": {name: [asdict(row) for row in found] for name, found in rows.items()}}  # fmt: skip
        flags.json.write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
