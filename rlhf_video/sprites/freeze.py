"""Hash what the README's numbers depend on, before the test prompts are used: `python -m rlhf_video.sprites.freeze`."""

import hashlib
import json
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_FROZEN = {
    "grammar": ("rlhf_video/sprites/grammar.py", "rlhf_video/sprites/renderer.py"),
    "verifier": ("rlhf_video/sprites/verifier.py", "rlhf_video/sprites/judge.py"),
    "base": (
        "assets/sprite-wan/transformer/diffusion_pytorch_model.safetensors",
        "assets/sprite-wan/vae/diffusion_pytorch_model.safetensors",
        "assets/sprite-wan/text_encoder/model.safetensors",
    ),
    "test prompts": ("assets/prompts/sprite-test.txt",),
}


def frozen_hashes() -> dict[str, str]:
    """Return the sha256 of each frozen part, over its files in order."""
    return {
        name: hashlib.sha256(b"".join((_ROOT / file).read_bytes() for file in files)).hexdigest()
        for name, files in _FROZEN.items()
    }


if __name__ == "__main__":
    (_ROOT / "assets" / "frozen.json").write_text(json.dumps(frozen_hashes(), indent=1) + "\n")
