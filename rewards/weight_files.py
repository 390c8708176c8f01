"""From a name or a path to checked tensors: download, size, hash, licence, and strict loading."""

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import safe_open
from torch import Tensor, nn

from rewards.errors import RewardError
from rewards.ledger import LEDGER, WeightFile

logger = logging.getLogger(__name__)

CONSENT_VARIABLE = "RLHF_VIDEO_ACCEPT_LICENCES"
"""Environment variable: names of the ledger, comma-separated, whose licences the user accepts."""


def resolve(weights: str | Path, *, accept_licence: bool = False) -> Path:
    """Return the file that `weights` means: a path as it is, or a name of the ledger, downloaded once and checked.

    Args:
        weights: Path of a local file, or a name of `rewards.ledger.LEDGER`.
        accept_licence: Whether the user accepts a licence that asks for consent (non-commercial, AGPL).

    Raises:
        RewardError: No such file or name, no way to download it, consent missing, or size or hash differ.
    """
    if str(weights) not in LEDGER:
        if Path(weights).is_file():
            return Path(weights)
        raise RewardError(f"There is no weight file {weights}. Give a path, or one of: {', '.join(sorted(LEDGER))}.")
    name = str(weights)
    entry = LEDGER[name]
    _ask_consent(name, entry, accept_licence)
    if entry.repository is None:
        raise RewardError(
            f"The weights {name!r} are not on the Hub. Get them with `curl -L -C - -o {entry.file} {entry.url}` "
            f"(licence {entry.licence}) and give the file's path. {entry.note}".rstrip()
        )
    path = _download(name, entry.repository, entry.file)
    verify(path, entry)
    return path


def _ask_consent(name: str, entry: WeightFile, accepted: bool) -> None:
    agreed = {part.strip() for part in os.environ.get(CONSENT_VARIABLE, "").split(",")}
    if entry.needs_consent and not accepted and name not in agreed:
        raise RewardError(
            f"The weights {name!r} are under {entry.licence}. If your use is allowed, set accept_licence: true in the "
            f"reward's options, or {CONSENT_VARIABLE}={name}."
        )


def _download(name: str, repository: str, file: str) -> Path:
    try:
        return Path(hf_hub_download(repository, file))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RewardError(
            f"Cannot get the weights {name!r} ({file} of {repository} on the Hub): {reason}. On a machine with network "
            f"run `hf download {repository} {file}` (it resumes), copy the file here and give its path as `weights`."
        ) from error


def verify(path: Path, entry: WeightFile) -> None:
    """Compare a file with its record: size, then hash. A hash once found right is not computed again.

    Where the ledger states no hash, the Hub's own SHA-256 counts, by which its cache names large files.

    Raises:
        RewardError: They differ: the download was cut, or the file is another one.
    """
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise RewardError(f"{path} has {size} bytes, expected {entry.size}: delete it and download again.")
    known = [("sha256", entry.sha256), ("md5", entry.md5)]
    algorithm, expected = next(((a, h) for a, h in known if h is not None), ("sha256", _hub_sha256(path)))
    if expected is None:
        logger.info("No hash of %s is known: its content is not checked", path)
        return
    mark = path.with_name(path.name + ".verified")
    seal = f"{algorithm}:{expected}:{size}:{path.stat().st_mtime_ns}"
    if mark.is_file() and mark.read_text() == seal:
        return
    found = file_hash(path, algorithm)
    if found != expected:
        raise RewardError(f"{path} has {algorithm} {found}, expected {expected}: delete it and download again.")
    try:
        mark.write_text(seal)
    except OSError:  # a read-only cache: check again next time
        logger.info("Cannot remember that %s is verified", path)


def _hub_sha256(path: Path) -> str | None:
    """Return the Hub's own hash of a large file in its cache, None elsewhere: the cache names such files by it."""
    name = path.resolve().name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hex digest of a file's content.

    Args:
        path: The file.
        algorithm: "sha256" or "md5".
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_state(path: Path, *, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or a torch file with `weights_only=True`.

    Args:
        path: The file.
        key: Where a torch file keeps it, for example "state_dict"; a file without that key is the state dict itself.

    Returns:
        Name -> tensor, on the CPU, as stored.

    Raises:
        RewardError: Missing, corrupt or truncated, or no state dict.
    """
    if not path.is_file():
        raise RewardError(f"There is no weight file {path}.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, safetensors and storage errors share no base; a torn file raises any
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RewardError(f"Cannot read weights from {path}: {reason}. Delete the file and get it again.") from error
    if isinstance(state, Mapping) and key is not None and key in state:
        state = state[key]
    if not (isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values())):
        raise RewardError(f"{path} holds no state dict (names and tensors).")
    return dict(state)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Load every tensor of a model, in the model's precision; freeze it and put it in eval mode.

    Args:
        model: Takes exactly the names of `state`.
        state: Names already translated; what the file holds besides must have been taken out by name.
        source: For the message.

    Raises:
        RewardError: A name is missing or unknown, or a shape differs.
    """
    wanted = model.state_dict()
    for problem, keys in (
        ("lacks", [name for name in wanted if name not in state]),
        ("has the unknown", [name for name in state if name not in wanted]),
        ("has another shape of", [n for n in wanted if n in state and state[n].shape != wanted[n].shape]),
    ):
        if keys:
            raise RewardError(
                f"{source} does not fit {type(model).__name__}: it {problem} {keys[0]!r} ({len(keys)} such)."
            )
    model.load_state_dict(dict(state))
    model.requires_grad_(False).eval()
