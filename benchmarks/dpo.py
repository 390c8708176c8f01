"""Pairs per second and memory of one optimiser step of Video-DPO, against the plain recipe, beside the arithmetic.

    OMP_NUM_THREADS=1 python benchmarks/dpo.py --device cpu    # sprite geometry, a mid-size Wan transformer
    python benchmarks/dpo.py --device cuda                     # Wan 2.1 1.3B at 480x832x81, bfloat16
    python benchmarks/dpo.py --quick --device cpu              # a tiny geometry that proves that it runs

"plain" is what public scripts do, diffusers' Diffusion-DPO for one: both clips of a pair in one batch, the trained
model with a gradient, then the same model with its adapter disabled. The others are rlhf_video's: "joint" keeps the
activations of both clips, "two passes" of one (dpo_passes.py), "cached" looks the reference's errors up
(dpo_reference.py). Weights are random: time and memory do not depend on them. All take turns in one process; speed-ups
are median and quartiles, over rounds, of plain's time / theirs in the same round.

Arithmetic: the unit is one clip's forward pass. A full backward pass is two, or three where blocks are recomputed
("ideal"); behind frozen weights it is cheaper. So one clip's passes are also measured alone, in the same turns, and
"predicted" adds these up. The optimiser's step is in no prediction.

Memory: "kept" is the most that autograd holds for backward at once, weights left out; "peak" how far the allocator goes
above what it held before (CPU: torch.profiler's allocations; CUDA: max_memory_allocated).

The last column is the largest difference from the gradient of "joint" / its largest element. Plain's is not 0: a batch
twice as large rounds otherwise, by 1e-7 of an error, and beta / 2 = 250 multiplies that.
"""

import argparse
import shlex
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import diffusers
import peft
import torch
from attention_timing import Call, hardware, peak_bytes, take_turns, write_section
from dpo_step import DEFAULTS, RECIPES, SETTINGS, Setting, Step

from rlhf_video.report.markdown import markdown_table
from rlhf_video.testing.live_bytes import LiveBytes


def allocated_peak(call: Call, device: torch.device) -> int:
    """Return how far a call goes above what was allocated before it, in bytes."""
    on_gpu = peak_bytes(call, device)
    if on_gpu is not None:
        return on_gpu
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@dataclass(frozen=True)
class Row:
    """What was measured of one recipe."""

    recipe: str
    ideal: float
    """Speed-up over plain where a backward pass is two forward passes (three where blocks are recomputed)."""
    predicted: float
    """The same from one clip's passes, measured alone."""
    faster: tuple[float, float, float]
    """Speed-up over plain, over the rounds: lower quartile, median, upper quartile."""
    pairs_per_s: float
    kept: int
    """Most bytes that autograd held."""
    peak: int
    """Most bytes allocated."""
    differs: float
    """Largest difference from the gradient of "joint" / largest element of that."""


def measure(setting: Setting, device: torch.device, *, rounds: int) -> list[Row]:
    """Measure all recipes and single passes in turns, then the memory of each recipe."""
    step = Step(setting, device)
    recipes = step.recipes()
    gradients = {name: step.gradient(recipe) for name, recipe in recipes.items()}
    joint = gradients["joint"]
    singles = step.single_passes()
    steps: dict[str, Call] = {name: partial(step.take, recipe) for name, recipe in recipes.items()}
    times = take_turns(steps | singles, device, rounds=rounds, warm_ups=1)
    alone = {name: statistics.median(times[name]) for name in singles}
    weights = [*step.transformer.parameters(), *step.transformer.buffers()]
    rows = []
    for name, passes in RECIPES.items():
        ratios = [base / own for base, own in zip(times["plain"], times[name], strict=True)]
        lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        row = Row(
            recipe=name,
            ideal=RECIPES["plain"].cost(1, 1, 1 + setting.backward) / passes.cost(1, 1, 1 + setting.backward),
            predicted=RECIPES["plain"].cost(**alone) / passes.cost(**alone),
            faster=(lower, middle, upper),
            pairs_per_s=1e3 * setting.pairs / statistics.median(times[name]),
            kept=LiveBytes(weights).measure(steps[name]),
            peak=allocated_peak(steps[name], device),
            differs=float((gradients[name] - joint).abs().max() / joint.abs().max()),
        )
        rows.append(row)
    return rows


HEADER = ("recipe", "reference + extra + trained", "ideal", "predicted", "faster", "quartiles", "pairs/s", "kept, MiB",
          "of plain", "peak, MiB", "of plain", "gradient differs by")  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return the Markdown table of one setting, and whether it meets the targets."""
    plain = rows[0]
    cells = [
        [
            row.recipe,
            str(RECIPES[row.recipe]),
            f"{row.ideal:.2f}x",
            f"{row.predicted:.2f}x",
            f"{row.faster[1]:.2f}x",
            f"{row.faster[0]:.2f} to {row.faster[2]:.2f}",
            f"{row.pairs_per_s:.3g}",
            f"{row.kept / 2**20:.1f}",
            f"{row.kept / plain.kept:.2f}x",
            f"{row.peak / 2**20:.1f}",
            f"{row.peak / plain.peak:.2f}x",
            f"{row.differs:.1e}",
        ]
        for row in rows
    ]
    return f"{markdown_table(HEADER, cells, align='l' + 'r' * 11)}\n{verdict(rows)}\n"


def verdict(rows: list[Row]) -> str:
    """Return how the cached recipes stand against what they are for."""
    by_name = {row.recipe: row for row in rows}
    joint, two = by_name["joint + cached"], by_name["two passes + cached"]
    share = two.kept / rows[0].kept
    fast = "met" if joint.faster[1] >= 1.25 else "missed"
    small = "met" if two.faster[1] >= 0.95 and share <= 0.6 else "missed"
    return (
        f"Joint + cached, target 1.25x: {fast} ({joint.faster[1]:.2f}x). Two passes + cached, target 0.95x with 0.6x "
        f"of the activations: {small} ({two.faster[1]:.2f}x with {share:.2f}x)."
    )


def empty_table(setting: Setting) -> str:
    """Return the table where there is no GPU: the arithmetic alone."""
    plain = RECIPES["plain"].cost(1, 1, 1 + setting.backward)
    cells = [
        [name, str(passes), f"{plain / passes.cost(1, 1, 1 + setting.backward):.2f}x", *["not measured"] * 9]
        for name, passes in RECIPES.items()
    ]
    return f"{markdown_table(HEADER, cells, align='l' + 'r' * 11)}\nNo GPU was at hand.\n"


def describe(name: str, setting: Setting) -> str:
    """Return the heading of a table."""
    config, (frames, height, width) = setting.config, setting.latents
    tokens = frames * (height // config["patch_size"][1]) * (width // config["patch_size"][2])
    blocks = "recomputed" if setting.is_checkpointed else "stored"
    return (
        f"### {name}: {config['num_layers']} layers, {config['num_attention_heads']} heads of "
        f"{config['attention_head_dim']}, feed-forward {config['ffn_dim']}; {setting.pairs} pair(s) of latents "
        f"16x{frames}x{height}x{width} = {tokens:,} tokens a clip, {str(setting.dtype).removeprefix('torch.')}, LoRA "
        f"rank {setting.rank}, blocks {blocks}"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), help="sprite and mid on a CPU, wan on a GPU")
    parser.add_argument("--rounds", type=int, default=15, help="that count, at least 2")
    parser.add_argument("--quick", action="store_true", help="two rounds of a tiny geometry")
    parser.add_argument("--markdown", type=Path, help="file to put the tables into, between marks")
    flags = parser.parse_args()
    device = torch.device(flags.device)
    names = ["tiny"] if flags.quick else flags.settings or DEFAULTS[flags.device]
    texts = []
    for name in names:
        is_ready = flags.device == "cpu" or torch.cuda.is_available()
        rounds = 2 if flags.quick else flags.rounds
        found = table(measure(SETTINGS[name], device, rounds=rounds)) if is_ready else empty_table(SETTINGS[name])
        texts.append(f"{describe(name, SETTINGS[name])}\n\n{found}")
        print(texts[-1], flush=True)
    command = shlex.join(["python", "benchmarks/dpo.py", *sys.argv[1:]])
    versions = f"diffusers {diffusers.__version__}, peft {peft.__version__}"
    text = f"{hardware(device)}, {versions}.\nCommand: `{command}`.\n\n" + "\n".join(texts)
    if flags.markdown:
        write_section(flags.markdown, f"dpo {flags.device}", text)


if __name__ == "__main__":
    main()
