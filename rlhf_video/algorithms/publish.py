"""Make an adapter ready for other programs: diffusers' file, kohya's and ComfyUI's file, a card, the Hub."""

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlhf_video.attention import AttentionPlan
from rlhf_video.backbones import describe_plan
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora.card import CARD_JSON, AdapterCard, card_from_metadata, read_card, write_card
from rlhf_video.lora.files import (
    DENSE,
    SECOND_WEIGHT_NAME,
    WEIGHT_NAME,
    adapter_file,
    read_adapter,
    recorded_attention,
    save_state,
    write_safetensors,
)
from rlhf_video.lora.kohya import from_kohya, targets_of, to_kohya

logger = logging.getLogger(__name__)

KOHYA_FOLDER = "comfyui"
KOHYA_PLAN_KEY = "rlhf_video.attention_plan"
"""Header key of a kohya file that keeps the attention plan for the way back; no other program reads it."""


@dataclass(frozen=True, kw_only=True)
class PublishConfig:
    """What to publish, and where it goes."""

    adapter: Path
    """Adapter folder of a training run, or one .safetensors file in kohya's layout to convert. Required."""
    output_dir: Path
    """Folder to fill; it may not be the adapter's own. Required."""
    name: str | None = None
    """Name of the ComfyUI file; null takes the adapter folder's name."""
    title: str | None = None
    """First line of the card; null keeps the card's own, or takes the name."""
    base: str | None = None
    """Base model that the card names, for example its Hub id; null keeps the adapter's own."""
    licence: str | None = None
    """Licence as a Hub identifier; null keeps the card's own, else "apache-2.0"."""
    hub_repo: str | None = None
    """Upload to this Hub repository ("user/name"), made if missing; null stays local. The token is the one that
    `hf auth login` stored."""
    hub_private: bool = True
    """Make a new Hub repository private."""


def publish(config: PublishConfig) -> Path:
    """Fill a folder with everything a user of the adapter needs, and upload it where asked.

    The conversion is checked by converting back: every bit must agree.

    Args:
        config: What to publish.

    Returns:
        The folder: `pytorch_lora_weights.safetensors`, `comfyui/<name>.safetensors`, `README.md`, `adapter_card.json`.

    Raises:
        AdapterError: The adapter is missing, damaged, or has no place in kohya's layout.
        ConfigError: output_dir is the adapter's own folder, the base is not known, or the upload fails.
    """
    source = adapter_file(config.adapter)
    if config.output_dir.resolve() == source.parent.resolve():
        raise ConfigError(f"output_dir={config.output_dir} is the adapter's own folder: give another one.")
    name = config.name or (source.parent.name if source.name == WEIGHT_NAME else source.stem)
    parts, metadata = _read_any(source, config)
    card = _card(config, source.parent, metadata, name)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    for file_name, (state, header) in parts.items():
        target = config.output_dir / file_name
        if (source.parent / file_name).is_file() and source.name == WEIGHT_NAME:
            shutil.copyfile(source.parent / file_name, target)
        else:
            save_state(target, state, header)
        suffix = "" if file_name == WEIGHT_NAME else "-low-noise"
        _write_kohya(config.output_dir / KOHYA_FOLDER / f"{name}{suffix}.safetensors", state, header)
    write_card(config.output_dir, card)
    logger.info("Wrote %s", config.output_dir)
    if config.hub_repo is not None:
        upload(config.output_dir, config.hub_repo, private=config.hub_private)
    return config.output_dir


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Upload a folder to the Hub and return the address of the commit.

    Args:
        folder: What to upload, whole.
        repo: "user/name"; made if missing.
        private: Whether a new repository is private.

    Raises:
        ConfigError: The Hub refuses or cannot be reached; the folder stays as it is.
    """
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload adapter")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"hub_repo={repo}: the upload failed ({type(error).__name__}: {reason}). "
            f"{folder} is complete; log in with 'hf auth login' and run the command again."
        ) from error
    logger.info("Uploaded to %s", commit.commit_url)
    return str(commit.commit_url)


_Parts = dict[str, tuple[dict[str, Tensor], dict[str, Any]]]


def _read_any(source: Path, config: PublishConfig) -> tuple[_Parts, dict[str, Any]]:
    """Return file name -> (weights, metadata) in this project's layout, and the metadata of the first."""
    if _is_kohya(source):
        if config.base is None:
            raise ConfigError("A kohya file does not name its base model: give base=..., for example its Hub id.")
        with safe_open(source, framework="pt") as handle:
            kohya = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (not a dict)
            plan = json.loads((handle.metadata() or {}).get(KOHYA_PLAN_KEY, f'"{DENSE}"'))
        state, rank, alpha = from_kohya(kohya)
        metadata: dict[str, Any] = {"rank": rank, "alpha": alpha, "targets": list(targets_of(state))}
        metadata |= {"base": config.base, "attention_plan": plan, "source": source.name}
        return {WEIGHT_NAME: (state, metadata)}, metadata
    parts = {WEIGHT_NAME: read_adapter(source)}
    if (second := source.parent / SECOND_WEIGHT_NAME).is_file():
        parts[SECOND_WEIGHT_NAME] = read_adapter(second)
    return parts, parts[WEIGHT_NAME][1]


def _is_kohya(file: Path) -> bool:
    try:
        with safe_open(file, framework="pt") as handle:
            return any(key.startswith("lora_unet_") for key in handle.keys())  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise AdapterError(f"{file} is not a readable safetensors file: {error}") from error


def _card(config: PublishConfig, folder: Path, metadata: dict[str, Any], name: str) -> AdapterCard:
    base = config.base or metadata.get("base")
    if (folder / CARD_JSON).is_file():
        card = read_card(folder)
    elif base is None:
        raise ConfigError("The adapter does not name its base model: give base=..., for example its Hub id.")
    else:
        plan = recorded_attention(metadata)
        line = describe_plan(None if plan is None else AttentionPlan.from_json(plan))
        card = card_from_metadata(metadata, title=name, base=str(base), licence="apache-2.0", attention_plan=line)
    return replace(
        card, title=config.title or card.title, base=config.base or card.base, licence=config.licence or card.licence
    )


def _write_kohya(file: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write kohya's layout and read it back: the round trip must not change a bit."""
    alpha = float(metadata["alpha"])
    header = {
        "format": "pt",
        "ss_network_module": "networks.lora_wan",
        "ss_network_dim": str(metadata["rank"]),
        "ss_network_alpha": str(alpha),
    }
    if (plan := recorded_attention(metadata)) is not None:
        header[KOHYA_PLAN_KEY] = json.dumps(plan, sort_keys=True)
        logger.warning(
            "%s: attention plans are not part of kohya's format. ComfyUI and others will run this adapter with dense "
            "attention, which it was not trained for.",
            file,
        )
    write_safetensors(file, to_kohya(state, alpha=alpha), header)
    with safe_open(file, framework="pt") as handle:
        back, _, _ = from_kohya({key: handle.get_tensor(key) for key in handle.keys()})  # noqa: SIM118 (not a dict)
    same = back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
    assert same, "the conversion to kohya's layout and back changed a weight"
