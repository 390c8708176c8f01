"""Fit a reward on preference pairs: a head, a LoRA or the whole model, judged on prompts it never saw.

Without arguments it trains the sprite world's image reward: from what `python -m rlhf_video.sprites.pretrain warmup`
made, on the pairs of its stage `votes`. `accelerate launch` runs it on several processes with the same result.
"""

from pathlib import Path

from rlhf_video.algorithms.reward_model import train
from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.algorithms.reward_model_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "reward_model" / "sprite-clip.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(RewardModelConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        outcome = train(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            print("\nValidation pairs that have a winner, scored by the published folder:\n")
            print(outcome.table)
            print(f"reward           {outcome.folder}")
        accelerator.end_training()


if __name__ == "__main__":
    main()
