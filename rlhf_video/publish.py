"""Publish an adapter: diffusers' file, a file for ComfyUI and kohya, a card, and on request the Hub.

Without arguments it publishes the adapter of the built-in demo to runs/publish/. A file in kohya's layout as `adapter`
is converted to diffusers' layout.
"""

from pathlib import Path

from rlhf_video.algorithms.publish import PublishConfig, publish
from rlhf_video.command import start_logging
from rlhf_video.errors import exit_on_user_error
from rlhf_video.settings import dump_yaml, parse_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "publish" / "sprite.yaml"


def main() -> None:
    """Run the command line."""
    with exit_on_user_error():
        config, flags = parse_arguments(PublishConfig, default_config=DEFAULT_CONFIG, description=__doc__)
        if flags.dry_run:
            print(dump_yaml(config))
            return
        start_logging()
        folder = publish(config)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            print(f"{file.stat().st_size:>12,}  {file}")


if __name__ == "__main__":
    main()
