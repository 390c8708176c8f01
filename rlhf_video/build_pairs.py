"""Build preference pairs for Video-DPO and reward models: generate, score, pair; run with --resume after a kill.

Without arguments it makes clips of the built-in sprite model for train prompts and lets noisy voters judge them.
Other sources: given clips against generated ones, two aligned copies of one clip (DenseDPO), votes of a pairs file.
`accelerate launch` runs it on several processes with the same result.
"""

from pathlib import Path

from rlhf_video.algorithms.pair_building import PairBuildingConfig, build
from rlhf_video.algorithms.pair_building_dry_run import describe
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.runtime import create_accelerator
from rlhf_video.settings import parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "pairs" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(PairBuildingConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(describe(config))
            return
        accelerator = create_accelerator()
        start_logging(is_main=accelerator.is_main_process)
        written = build(config, accelerator=accelerator, resume=flags.resume)
        if accelerator.is_main_process:
            for part, file in written.files.items():
                print(f"{part:<16} {file}")
            print(f"manifest         {written.manifest}")
            print(f"pairs            {len(written.pairing.pairs)} of {written.pairing.num_comparisons} comparisons")
            for reason, count in {**written.pairing.dropped, **written.pairing.unused}.items():
                print(f"left out         {count}: {reason}")
        accelerator.end_training()


if __name__ == "__main__":
    main()
