"""The run directory, which is an API: config.yaml, metrics.jsonl, checkpoints/, samples/, card.json, tensorboard/."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from rlhf_video.errors import CheckpointError, ConfigError
from rlhf_video.runtime.checkpoints import checkpoint_steps, discard_partial, load_checked, save_atomic, step_folder
from rlhf_video.runtime.distribution import Distribution
from rlhf_video.runtime.metrics import MetricsLog
from rlhf_video.runtime.seeding import rng_state, set_rng_state
from rlhf_video.settings import changed_fields, dump_yaml, read_tree, to_plain

logger = logging.getLogger(__name__)

MAY_CHANGE = ("output_dir", "num_steps")
"""Top-level config fields that a resumed run may change."""


class Run:
    """One training run and its folder. Made by `Run.start`."""

    def __init__(self, directory: Path, distribution: Distribution, *, keep_last: int) -> None:
        self.directory = directory
        self.distribution = distribution
        self.accelerator: Accelerator = distribution.accelerator
        self._keep_last = keep_last
        self._metrics = MetricsLog(directory)

    @classmethod
    def start(
        cls,
        directory: Path,
        config: object,
        *,
        accelerator: Accelerator,
        resume: bool = False,
        may_change: Sequence[str] = MAY_CHANGE,
        keep_last: int = 2,
    ) -> "Run":
        """Open a run directory; call it on every process.

        Args:
            directory: Run directory; made if missing.
            config: The run's config dataclass.
            accelerator: From `create_accelerator`.
            resume: Go on with the run in this directory. A directory without a run starts a new one, so that a job
                that is restarted after every kill can always say `--resume`. So does one whose run wrote no checkpoint
                yet; its config may differ in everything.
            may_change: Config fields, with their sections, that may differ from those of the resumed run.
            keep_last: Number of newest checkpoints to keep.

        Returns:
            The open run.

        Raises:
            ConfigError: Another run is in the directory, or the resumed run had another config.
        """
        distribution = Distribution(accelerator)
        problem = (
            _find_conflict(directory, config, resume=resume, may_change=may_change) if distribution.is_main else None
        )
        problem = distribution.broadcast_object(problem)  # every process ends, or none
        if problem is not None:
            raise ConfigError(problem)
        if distribution.is_main:
            for name in ("checkpoints", "samples"):
                (directory / name).mkdir(parents=True, exist_ok=True)
            discard_partial(directory / "checkpoints")
            _replace_text(directory / "config.yaml", dump_yaml(config))
        distribution.barrier()
        return cls(directory, distribution, keep_last=keep_last)

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        return self.accelerator.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and logs."""
        return self.distribution.is_main

    @property
    def samples(self) -> Path:
        """Folder for clips and images."""
        return self.directory / "samples"

    def log(self, metrics: Mapping[str, float | Tensor], *, step: int) -> None:
        """Write metrics of a step (counted from 0) to metrics.jsonl and TensorBoard; the main process's values only."""
        if self.is_main:
            self._metrics.write(metrics, step=step)

    def save_checkpoint(self, step: int, state: Mapping[str, object]) -> None:
        """Save a state and every process's generators after `step` finished steps; call it on every process.

        Args:
            step: Number of finished steps: the first step that a resumed run takes.
            state: By file name: tensors (sharded ones are gathered), numbers, text, dicts and lists.
        """
        full = self.distribution.full_state(state)
        generators = self.distribution.gather_objects(rng_state())
        if self.is_main:
            folder = step_folder(self.directory / "checkpoints", step)
            save_atomic(folder, {**full, "run": {"step": step, "rng": generators}}, keep_last=self._keep_last)
            logger.info("Saved %s", folder)
        self.distribution.barrier()

    def restore(self) -> tuple[int, dict[str, object]] | None:
        """Load the newest checkpoint, set this process's generators, and cut the metrics back.

        Call it on every process, and last, when models and optimiser are built: building draws from the generators.

        Returns:
            (number of finished steps, state), or None when there is no checkpoint: the run starts at step 0.

        Raises:
            CheckpointError: The newest checkpoint is corrupt. It is not skipped silently: the message names the newest
                good one and how to go on from it.
        """
        steps = checkpoint_steps(self.directory / "checkpoints")
        restored = self._load(steps[-1]) if steps else None
        if self.is_main:  # only now: an error above must not cost a line of the log
            self._metrics.truncate(steps[-1] if steps else 0)
        self.distribution.barrier()
        return restored

    def _load(self, step: int) -> tuple[int, dict[str, object]]:
        folder = step_folder(self.directory / "checkpoints", step)
        state = load_checked(folder)
        run = state.pop("run")
        assert isinstance(run, dict)
        if run["step"] != step:
            raise CheckpointError(f"{folder} holds step {run['step']}: it was renamed. Give it its own name again.")
        generators, rank = run["rng"], self.distribution.rank
        if rank >= len(generators):
            logger.warning("The checkpoint has generators of %d processes; this one takes the first's", len(generators))
        set_rng_state(generators[rank if rank < len(generators) else 0])
        logger.info("Resuming after step %d from %s", step, folder)
        return step, state

    def write_card(self, card: Mapping[str, object]) -> None:
        """Write card.json: what the run was and what came out."""
        if self.is_main:
            _replace_text(self.directory / "card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Write out what is still held back; the run may not log afterwards."""
        self._metrics.close()
        self.distribution.barrier()


def _find_conflict(directory: Path, config: object, *, resume: bool, may_change: Sequence[str]) -> str | None:
    """Return why a run cannot start in a directory, or None."""
    saved = directory / "config.yaml"
    if directory.exists() and not directory.is_dir():
        return f"output_dir={directory} is a file: choose another output_dir."
    if not saved.exists():
        if checkpoint_steps(directory / "checkpoints") or (directory / "metrics.jsonl").exists():
            return f"{directory} holds parts of a run but no config.yaml: choose another output_dir, or delete it."
        return None
    if not resume:
        return f"{directory} holds another run: go on with it with --resume, or choose another output_dir."
    if not checkpoint_steps(directory / "checkpoints"):
        return None  # nothing was trained that another config could spoil
    changed = [
        name
        for name in changed_fields(read_tree(saved), to_plain(config))
        if not any(name == free or name.startswith(f"{free}.") for free in may_change)
    ]
    if not changed:
        return None
    return (
        f"The run in {directory} had another config; changed: {', '.join(changed)}. Resume with the config it was "
        f"started with ({saved}), or choose another output_dir."
    )


def _replace_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
