"""Train a LoRA of a video model by rounds of Video-DPO, each on fresh pairs of the newest adapter's clips.

Every round does what build_pairs.py and train_dpo.py do. Without arguments it runs two rounds on the built-in sprite
world. `accelerate launch` runs it on several processes with the same result; --resume goes on wherever it was killed.
"""

from pathlib import Path

from rlhf_video.algorithms.dpo_rounds import DpoRoundsConfig, train_rounds
from rlhf_video.algorithms.dpo_rounds_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "dpo_rounds" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(DpoRoundsConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        outcome = train_rounds(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            print("\nValidation prompts, base against each round's adapter:\n")
            print(outcome.table)
            print(f"\nBase against the last adapter on {outcome.last.prompts_name}:\n")
            print(outcome.last.table)
            print(f"\nadapter          {outcome.last.adapter}")
            print(f"report           {outcome.last.report}")
            print(f"summary          {outcome.summary}")
        accelerator.end_training()


if __name__ == "__main__":
    main()
