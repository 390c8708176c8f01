"""Model folders on disk, and the Hub ids that stand for them."""

import json
import re
from pathlib import Path
from typing import Any, cast

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from rlhf_video.errors import BackboneError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_folder(path: str | Path) -> Path:
    """Return the local folder of a model, downloading a Hub id once.

    Raises:
        BackboneError: Neither a folder nor a Hub id that can be reached.
    """
    folder = Path(path)
    if folder.is_dir():
        return folder
    name = str(path)
    if folder.exists() or not _HUB_ID.fullmatch(name) or Path(name.split("/")[0]).is_dir():
        raise BackboneError(
            f"There is no model folder '{path}'. Give a folder in diffusers' layout (with model_index.json), for "
            "example assets/sprite-wan, or a Hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers."
        )
    if (cached := local_folder(path)) is not None:
        return cached
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise BackboneError(
            f"There is no model folder '{path}', and no such model could be fetched from the Hub "
            f"({type(error).__name__}). Check the spelling and the network."
        ) from error


def local_folder(path: str | Path) -> Path | None:
    """Return the folder of a model that is here, as a folder or in the Hub's cache; nothing is downloaded."""
    if Path(path).is_dir():
        return Path(path)
    if not _HUB_ID.fullmatch(str(path)):
        return None
    try:
        return Path(snapshot_download(str(path), local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model folder.

    Raises:
        BackboneError: The file is missing or is not a JSON object.
    """
    if not file.is_file():
        raise BackboneError(f"{file.parent} is not a complete model folder: {file.name} is missing.")
    try:
        value = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise BackboneError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BackboneError(f"{file} must hold a JSON object.")
    return cast("dict[str, Any]", value)
