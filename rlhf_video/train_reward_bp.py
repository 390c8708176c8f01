"""Fine-tune a LoRA of a video model by reward backpropagation: sample, score, back-propagate, compare with the base.

Without arguments it trains on the built-in sprite world. `accelerate launch` runs it on several processes with the
same result; configs/accelerate/ has their settings.
"""

from pathlib import Path

from rlhf_video.algorithms.reward_bp import train
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "reward_bp" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(RewardBpConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        outcome = train(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            print(f"\nBase against adapter (strength {outcome.scale:g}) on {outcome.prompts_name}:\n")
            print(outcome.text())
        accelerator.end_training()


if __name__ == "__main__":
    main()
