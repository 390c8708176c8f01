"""Fine-tune a LoRA of a video model on given clips, or teach the model to work under windowed attention.

Without arguments it trains on clips of the built-in sprite world, which `python -m rlhf_video.sprites.clips
runs/sprite-clips` renders first. With a section `recovery` in the config the dense
model is the teacher of its windowed form. `accelerate launch` runs it on several processes with the same result.
"""

from pathlib import Path

from rlhf_video.algorithms import sft, window_recovery
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.sft_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "sft" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(SftConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        train = sft.train if config.recovery is None else window_recovery.train
        outcome = train(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            print(f"\nBase against adapter on {outcome.prompts_name}:\n")
            print(outcome.text())
        accelerator.end_training()


if __name__ == "__main__":
    main()
