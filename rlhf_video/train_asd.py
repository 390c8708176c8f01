"""Distil a video model into a causal few-step student: one LoRA, on one resident base.

Without arguments it distils the built-in sprite world from its shipped causal warm-up. With a section `warmup` in the
config it makes such a warm-up. `accelerate launch` runs it on several processes with the same result.
"""

from pathlib import Path

from rlhf_video.algorithms import asd, causal_warmup
from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.asd_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "asd" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(AsdConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        train = asd.train if config.warmup is None else causal_warmup.train
        outcome = train(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            print(f"\nTeacher against student on {outcome.prompts_name}:\n")
            print(outcome.text())
        accelerator.end_training()


if __name__ == "__main__":
    main()
