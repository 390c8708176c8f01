"""Store adapter files in half the space: `python -m rlhf_video.lora.half FOLDER ...` rewrites them in float16.

A LoRA's matrices lose 5e-4 of their values' size at most; loaders cast them to the type of the model's adapters.
"""

import argparse
from pathlib import Path

import torch

from rlhf_video.errors import exit_on_user_error
from rlhf_video.lora.files import SECOND_WEIGHT_NAME, WEIGHT_NAME, read_adapter, save_state


def halve(folder: Path) -> None:
    """Rewrite the weight files of an adapter folder in float16, metadata unchanged.

    Args:
        folder: As `save_adapter` wrote it.

    Raises:
        AdapterError: There is no adapter, or it is damaged.
    """
    for name in (WEIGHT_NAME, SECOND_WEIGHT_NAME):
        file = folder / name
        if name == WEIGHT_NAME or file.exists():
            state, metadata = read_adapter(file)
            save_state(file, {key: value.to(torch.float16) for key, value in state.items()}, metadata)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_video.lora.half", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="adapter folders, for example adapters/sprite-wan-dpo")
    with exit_on_user_error():
        for folder in parser.parse_args().folders:
            halve(folder)


if __name__ == "__main__":
    main()
