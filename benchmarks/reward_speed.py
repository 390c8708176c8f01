"""Rewards against the original packages: time to score a clip, time of a gradient step, memory; published sizes.

    rlhf-video rewards env create hpsv2 && rlhf-video rewards env create image-reward
    python benchmarks/reward_speed.py                                   # CPU or GPU
    python benchmarks/reward_speed.py --markdown benchmarks/rewards.md  # write the table

Weights are random, the same on both sides (rewards/random_weights.py): time and memory do not depend on them. In
"original" the package's own call scores frame by frame with the model resident, in the package's own environment;
hpsv2's `score` reads its checkpoint again at every call, which stands apart as "load". Its gradient step is the same
call on a tensor, with a graph, frame by frame. "ours" scores the whole clip: the prompt encoded once, frames in one
batch. Each row runs in a process of its own; both sides must agree in score and gradient or the row fails.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rewards import random_weights, registry
from rewards.workers import environments
from rlhf_video.report.markdown import markdown_table
from rlhf_video.runtime import measure_peak

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red fox runs through fresh snow at sunrise, cinematic"
WORKERS = {"hps_v2_1": "hpsv2", "image_reward": "image-reward"}
NUM_FRAMES, HEIGHT, WIDTH = 4, 480, 832


def clock(device: torch.device) -> float:
    """Return the process's own seconds on a CPU with one thread (a shared machine), wall-clock seconds elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def clip_tokenizer(vocabulary: Path, folder: Path) -> Path:
    """Write the tokenizer of OpenAI's CLIP as a `transformers` folder, from the vocabulary that its packages ship."""
    import gzip

    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(line.split()) for line in lines)]
    vocab = {word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocab, merges=[tuple(line.split()) for line in lines]).save_pretrained(folder)
    return folder


def bert_tokenizer(folder: Path) -> Path:
    """Write a BERT tokenizer with a stand-in vocabulary of the published size."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PROMPT.replace(",", " , ").split()]
    words += [f"word{index}" for index in range(30522 - len(words))]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    return folder


def measure(settings: dict) -> dict[str, float]:
    """Measure our reward in this process; its first call, which encodes the prompt, stands apart."""
    device = torch.device(settings["device"])
    start = clock(device)
    options = {name: settings[name] for name in ("tokenizer", "frames_per_pass", "precision")} | {
        "weights": settings["checkpoint"]
    }
    reward = registry.build(settings["reward"], **options)
    load_s = clock(device) - start
    frames, prompts = np.load(settings["frames"]), [settings["prompt"]]
    video = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float().div(255)[None]
    key = reward.spec.dimensions[0]
    score_s, gradient_s = [], []
    with measure_peak(device) as memory:
        for _ in range(settings["repeats"] + 1):
            start = clock(device)
            with torch.no_grad():
                score = float(reward(video, prompts, fps=8.0).values[key])
            score_s.append(clock(device) - start)
            leaf = video.clone().requires_grad_()
            start = clock(device)
            (gradient,) = torch.autograd.grad(reward(leaf, prompts, fps=8.0).values[key].sum(), leaf)
            gradient_s.append(clock(device) - start)
    return {
        "load_s": load_s,
        "first_score_s": score_s[0],
        "score_s": min(score_s[1:]),
        "gradient_s": min(gradient_s[1:]),
        "score": score,
        "gradient_norm": float(gradient.norm()),
        "bytes": memory.increase,
    }


def run(python: str | Path, script: Path, arguments: list[str]) -> dict[str, float]:
    """Run one side in a process of its own and return what it measured."""
    done = subprocess.run([str(python), str(script), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script.name} {arguments[0][:40]} ...: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, work: Path, device: str, repeats: int, passes: int | None) -> list[list[str]]:
    """Measure both sides of one reward; return their rows."""
    worker = WORKERS[name]
    python = environments.require(worker).python
    frames = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    np.save(work / "frames.npy", frames.repeat(16, axis=1).repeat(16, axis=2))
    tokenizer = bert_tokenizer(work / "bert") if name == "image_reward" else None
    settings = {
        "worker": worker,
        "reward": name,
        "scorer": str(ROOT / "rewards" / "workers" / f"{worker.replace('-', '_')}_scorer.py"),
        "random_weights": random_weights.__file__,
        "checkpoint": str(work / f"{name}.pt"),
        "frames": str(work / "frames.npy"),
        "prompt": PROMPT,
        "device": device,
        "repeats": repeats,
        "frames_per_pass": passes,
        "config": str(med_config(work / "med_config.json")),
        "tokenizer": str(tokenizer) if tokenizer else None,
    }
    original = run(python, ROOT / "benchmarks" / "reward_speed_original.py", [json.dumps(settings)])
    if tokenizer is None:
        packages = python.parents[1].glob("lib/python*/site-packages/hpsv2/src/open_clip")
        vocabulary = next(packages) / "bpe_simple_vocab_16e6.txt.gz"
        settings["tokenizer"] = str(clip_tokenizer(vocabulary, work / "clip"))
    rows = [cells(name, "original, per frame", original, None)]
    # ImageReward's package resizes 8-bit pictures, ours tensors: float32 scores are about a grey level apart.
    for precision, tolerance in (("float32", 5e-3), ("bfloat16", 5e-2)):
        ours = run(sys.executable, Path(__file__), ["--child", json.dumps(settings | {"precision": precision})])
        rows.append(cells("", f"ours, {precision}", ours, original))
        for key in ("score", "gradient_norm"):
            apart = abs(ours[key] - original[key]) / (max(1.0, abs(original[key])) if key == "score" else original[key])
            if apart > tolerance:
                raise SystemExit(f"{name}, {precision}: the two sides disagree in {key} by {apart:.2g}")
    return rows


def cells(name: str, side: str, result: dict[str, float], original: dict[str, float] | None) -> list[str]:
    """Return one row of the table."""
    row = [name, side, f"{result['load_s']:.1f}", f"{result['score_s']:.2f}", f"{1 / result['score_s']:.3f}"]
    row += [f"{result['gradient_s']:.2f}", f"{result['bytes'] / 2**20:.0f}"]
    if original is None:
        return [*row, "", "", "", ""]
    row += [f"{original[key] / result[key]:.2f}x" for key in ("score_s", "gradient_s")]
    row.append(f"{abs(result['score'] - original['score']):.1e}")
    return [*row, f"{abs(result['gradient_norm'] / original['gradient_norm'] - 1):.1e}"]


def med_config(path: Path) -> Path:
    """Write the published sizes of ImageReward, which its package reads from the Hub."""
    text = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
        "num_hidden_layers": 12, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": 30524, "encoder_width": 1024,
        "add_cross_attention": True,
    }  # fmt: skip
    path.write_text(json.dumps({"text": text, "vision": {"embed_dim": 1024, "depth": 24, "num_heads": 16}}))
    return path


HEADER = ("reward", "side", "load, s", "clip, s", "clips/s", "gradient step, s", "memory above the model, MiB",
          "clip faster", "step faster", "score apart", "gradient norm apart")  # fmt: skip


def environment(device: str) -> str:
    """Return hardware and versions in one sentence."""
    import transformers

    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    return (
        f"{name}, {platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}, Python "
        f"{platform.python_version()}; one clip of {NUM_FRAMES} frames of {HEIGHT}x{WIDTH}, published sizes"
    )


def main() -> None:
    """Run the command line."""
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        print(json.dumps(measure(json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward", choices=(*WORKERS, "all"), default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="runs per row; the fastest counts")
    parser.add_argument("--frames-per-pass", type=int, help="frames at a time in ours, all by default")
    parser.add_argument("--work", type=Path, help="folder for checkpoints (6 GB), a temporary one by default")
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = flags.work or Path(folder)
        names = WORKERS if flags.reward == "all" else (flags.reward,)
        rows = [
            row for name in names for row in compare(name, work, flags.device, flags.repeats, flags.frames_per_pass)
        ]
    text = f"{environment(flags.device)}\n\n{markdown_table(HEADER, rows, align='llrrrrrrrrr')}"
    print(text)
    if flags.markdown:
        flags.markdown.write_text(text)


if __name__ == "__main__":
    main()
