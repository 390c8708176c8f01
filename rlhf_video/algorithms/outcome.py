"""What every method that trains an adapter leaves behind, and how a finished run is found again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_video.algorithms.clip_maker import attention_file_sha256
from rlhf_video.algorithms.reported_rewards import GUARD_REWARDS
from rlhf_video.algorithms.suites import Suites
from rlhf_video.attention import AttentionConfig
from rlhf_video.data import contact_sheet
from rlhf_video.settings import config_hash
from rlhf_video.validation import Clips, Comparison, ScoreView
from rlhf_video.validation.report_views import Role


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    adapter: Path
    """Folder that diffusers' `load_lora_weights` reads."""
    report: Path
    """Self-contained HTML page."""
    grid: Path
    """PNG with base and adapter clips side by side."""
    scale: float
    """Recommended adapter strength."""
    table: str
    """Markdown table: base, adapter, difference with its interval."""
    alarms: tuple[str, ...]
    """Names of the alarms that were raised while training."""
    prompts_name: str
    """Which prompts the table was measured on."""

    def text(self) -> str:
        """Return what a command prints below the table's heading."""
        lines = [
            self.table,
            f"\nadapter          {self.adapter}",
            f"side by side     {self.grid}",
            f"report           {self.report}",
        ]
        if self.alarms:
            lines.append(f"alarms raised    {', '.join(self.alarms)} (see the log and the report)")
        return "\n".join(lines)


def read_outcome(run: Path, config: object, suites: Suites, attention: AttentionConfig) -> Outcome | None:
    """Return what a finished run left in a folder; None where there is none, or one of other settings.

    Args:
        run: Run directory.
        config: The run's whole config.
        suites: Its prompts.
        attention: Its attention, whose plan file may have changed.
    """
    file = run / "card.json"
    if not file.exists():
        return None
    card = json.loads(file.read_text())
    prompts = {suite.sha256 for suite in suites.all}
    if card["config_hash"] != config_hash(config) or card["attention_file"] != attention_file_sha256(attention):
        return None
    if {entry["sha256"] for entry in card["prompts"].values()} != prompts:
        return None
    return Outcome(
        adapter=run / "adapter",
        report=run / "report.html",
        grid=run / "samples" / "grid.png",
        scale=card["recommended_scale"],
        table=card["table"],
        alarms=tuple(card["alarm_names"]),
        prompts_name=card["measured_on"],
    )


def hardware(device: torch.device, num_processes: int) -> str:
    """Return what a run ran on, for its card."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{num_processes} process(es), {name}"


def write_grid(
    path: Path, base: Clips, adapter: Clips, *, num_prompts: int = 8, names: tuple[str, str] = ("base", "adapter")
) -> None:
    """Write base (left) and adapter (right) of the first clip of a few prompts.

    Args:
        path: Target .png.
        base: Clips of the base.
        adapter: Clips of the adapter, of the same prompts and noise.
        num_prompts: Most prompts shown, spread evenly.
        names: What the two sides are called.
    """
    prompts = list(dict.fromkeys(base.prompts))
    places = torch.linspace(0, len(prompts) - 1, min(num_prompts, len(prompts))).round().long().tolist()
    videos, labels = [], []
    for prompt in (prompts[place] for place in dict.fromkeys(places)):
        index = base.prompts.index(prompt)
        videos += [base.video[index], adapter.video[index]]
        labels += [f"{name}: {prompt}" for name in names]
    contact_sheet(videos, path, labels=labels, columns=2)


def score_views(comparison: Comparison, roles: Mapping[str, Role]) -> tuple[ScoreView, ...]:
    """Return how a report shows the scores: those with a role in their order, then what the guards read."""
    views = []
    for key, role in roles.items():
        values = comparison.base[key]
        is_share = role == "judge" and bool(((values == 0) | (values == 1)).all())
        views.append(ScoreView(key=key, label=key, role=role, is_share=is_share))
    for key in comparison.keys:
        if key not in roles and key.split("/")[0] in (*GUARD_REWARDS, "dynamic_degree", "diversity"):
            views.append(ScoreView(key=key, label=key, role="guard", better="neither"))
    return tuple(views)
