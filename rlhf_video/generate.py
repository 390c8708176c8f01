"""Generate clips with a base model, or with base and adapter, over a prompt suite; run again to finish a killed run.

Without arguments it makes the clips of the built-in model on the validation prompts, without an adapter; with --causal
those of the built-in causal adapter, chunk after chunk.
"""

from dataclasses import replace
from pathlib import Path

from rlhf_video.algorithms.generate import GenerateConfig, describe, generate
from rlhf_video.backbones.causal_recipe import CausalConfig
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.settings import Shortcut, parse_arguments

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "generate"
SHORTCUTS = (
    Shortcut(
        flag="--causal",
        help="chunk after chunk, by an adapter that was trained so; without --config: sprite-causal.yaml",
        default_config=CONFIGS / "sprite-causal.yaml",
    ),
    Shortcut(flag="--steps", help="denoising steps, short for num_steps=N", sets="num_steps={}"),
    Shortcut(flag="--stream", help="write frames as their chunks come, short for stream=true", sets="stream=true"),
)


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(
            GenerateConfig, default_config=CONFIGS / "sprite.yaml", description=__doc__, shortcuts=SHORTCUTS
        )
        if "--causal" in flags.shortcuts and config.causal is None:
            config = replace(config, causal=CausalConfig())
        if flags.dry_run:
            print(describe(config))
            return
        start_logging()
        print(f"manifest         {generate(config)}")


if __name__ == "__main__":
    main()
