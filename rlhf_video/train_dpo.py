"""Train a LoRA of a video model on preference pairs of clips (Video-DPO).

Without arguments it learns on the built-in sprite world from the pairs of configs/dpo/sprite.yaml. `accelerate launch`
runs it on several processes with the same result.
"""

from pathlib import Path

from rlhf_video.algorithms.dpo import DpoConfig, train
from rlhf_video.algorithms.dpo_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "dpo" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(DpoConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        outcome = train(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            print(f"\nBase against adapter on {outcome.prompts_name}:\n")
            print(outcome.text())
        accelerator.end_training()


if __name__ == "__main__":
    main()
