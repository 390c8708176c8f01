"""Generate clips with a base model, or with base and adapter, over a prompt suite; run again to finish a killed run.

Without arguments it makes the clips of the built-in model on the validation prompts, without an adapter.
"""

from pathlib import Path

from rlhf_video.algorithms.generate import GenerateConfig, describe, generate
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import start_logging
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "generate" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(GenerateConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        start_logging()
        print(f"manifest         {generate(config)}")


if __name__ == "__main__":
    main()
