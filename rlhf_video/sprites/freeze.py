"""Hash what the README's numbers depend on, before the test prompts are used: `python -m rlhf_video.sprites.freeze`."""

import argparse
import hashlib
import json
from pathlib import Path

from rlhf_video.errors import DataError, exit_on_user_error

_ROOT = Path(__file__).resolve().parents[2]
_FROZEN = {
    "grammar": ("rlhf_video/sprites/grammar.py", "rlhf_video/sprites/renderer.py"),
    "verifier": ("rlhf_video/sprites/verifier.py", "rlhf_video/sprites/judge.py"),
    "base": (
        "assets/sprite-wan/transformer/diffusion_pytorch_model.safetensors",
        "assets/sprite-wan/vae/diffusion_pytorch_model.safetensors",
        "assets/sprite-wan/text_encoder/model.safetensors",
    ),
    "rewards": tuple(
        f"assets/{name}/model.safetensors" for name in ("sprite-clip", "sprite-clip-heldout", "sprite-motion")
    ),
    "test prompts": ("assets/prompts/sprite-test.txt",),
}


def frozen_hashes() -> dict[str, str]:
    """Return the sha256 of each frozen part, over its files in order."""
    return {
        name: hashlib.sha256(b"".join((_ROOT / file).read_bytes() for file in files)).hexdigest()
        for name, files in _FROZEN.items()
    }


def main() -> None:
    """Write the hashes; refuse to replace others unless asked, for then every number must be measured again."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_video.sprites.freeze", description=__doc__)
    parser.add_argument("--replace", action="store_true", help="the README's numbers will be measured again")
    replace = parser.parse_args().replace
    file = _ROOT / "assets" / "frozen.json"
    with exit_on_user_error():
        hashes = frozen_hashes()
        if file.exists() and json.loads(file.read_text()) != hashes and not replace:
            raise DataError(
                f"{file.name} holds other hashes: what the README's numbers were measured on has changed. Measure "
                "them again, say so in docs/log.md, and call this with --replace."
            )
        file.write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
