"""The end of a run: strength sweep, the one comparison on test prompts, adapter, card, report and table."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_learner import Learner
from rlhf_video.algorithms.reward_bp_setup import GUARD_REWARDS, World, attention_file_sha256, load_suites
from rlhf_video.algorithms.reward_bp_watch import Validated, Watch, measure
from rlhf_video.backbones import describe_plan
from rlhf_video.data import contact_sheet
from rlhf_video.lora import save_adapter
from rlhf_video.lora.card import AdapterCard, write_card
from rlhf_video.runtime import Run, command_line, read_metrics
from rlhf_video.settings import config_hash, dump_yaml
from rlhf_video.validation import StrengthSweep
from rlhf_video.validation.reporting import CurveView, ScoreView, TrainingReport, write_training_report

logger = logging.getLogger(__name__)


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


def finish(config: RewardBpConfig, world: World, learner: Learner, watch: Watch, run: Run) -> Outcome:
    """Choose the strength, measure once on test prompts, write everything; call it on every process."""
    watch.return_to_best()
    state, folder = learner.published(), run.directory / "adapter"
    metadata: dict[str, object] = {"base": config.backbone, "config_hash": config_hash(config)}

    def save() -> None:
        if run.is_main:
            save_adapter(folder, state, backbone=world.backbone, config=config.lora, metadata=metadata)

    save()  # before anything that can still fail; the recommended strength is added below
    sweep = None
    with learner.ema.swapped():
        if config.sweep.scales and world.rewards.held_out_scores:
            sweep = world.validator.sweep(
                held_out=world.rewards.held_out_scores,
                trained=world.trained_directions(),
                scales=config.sweep.scales,
                guards=config.guards,
            )
        # The main process's choice: the others' scores may differ in their last bits.
        scale = world.distribution.broadcast_object(1.0 if sweep is None else sweep.recommended_scale)
        if scale == 0.0:
            logger.warning("No adapter strength passes the guards with a gain: use the base model, or train otherwise.")
        test = world.test_validator()
        final = measure(world, test or world.validator, scale=scale)
    prompts_name = "unseen test prompts" if test is not None else "validation prompts"
    outcome = Outcome(
        adapter=folder,
        report=run.directory / "report.html",
        grid=run.samples / "grid.png",
        scale=scale,
        table=final.comparison.table(),
        alarms=tuple(alarm.name for alarm in watch.alarms),
        prompts_name=prompts_name,
    )
    run.log({"result/scale": scale, **final.comparison.metrics(prefix="result")}, step=config.num_steps)
    metadata["recommended_scale"] = scale
    save()
    if run.is_main:
        write_card(outcome.adapter, _adapter_card(config, world, watch, outcome, final))
        _write_grid(outcome.grid, final)
        _write_report(outcome, config, world, watch, run, final, sweep)
        run.write_card(_card(config, world, watch, outcome, final, sweep))
    return outcome


def finished_outcome(config: RewardBpConfig) -> Outcome | None:
    """Return what a finished run of this very config left in `config.output_dir`; None where there is none."""
    run = Path(config.output_dir)
    file = run / "card.json"
    if not file.exists():
        return None
    card = json.loads(file.read_text())
    suites = load_suites(config)
    prompts = {suite.sha256 for suite in (suites.train, suites.validation, suites.test) if suite is not None}
    if card["config_hash"] != config_hash(config) or card["attention_file"] != attention_file_sha256(config):
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


def _steps_taken(config: RewardBpConfig, watch: Watch) -> int:
    return config.num_steps if watch.stopped_at is None else watch.stopped_at


def _steps_text(config: RewardBpConfig, watch: Watch) -> str:
    """Return how many optimiser steps were taken and which step's adapter this is."""
    if watch.stopped_at is None:
        return f"{config.num_steps} optimiser steps"
    return f"stopped after {watch.stopped_at} of {config.num_steps} optimiser steps, adapter of step {watch.best_step}"


def _write_grid(path: Path, final: Validated, *, num_prompts: int = 8) -> None:
    """Write base (left) and adapter (right) of the first clip of a few prompts."""
    prompts = list(dict.fromkeys(final.base_clips.prompts))
    places = torch.linspace(0, len(prompts) - 1, min(num_prompts, len(prompts))).round().long().tolist()
    videos, labels = [], []
    for prompt in (prompts[place] for place in dict.fromkeys(places)):
        index = final.base_clips.prompts.index(prompt)
        videos += [final.base_clips.video[index], final.adapter_clips.video[index]]
        labels += [f"base: {prompt}", f"adapter: {prompt}"]
    contact_sheet(videos, path, labels=labels, columns=2)


def _views(world: World, final: Validated) -> tuple[ScoreView, ...]:
    rewards = world.rewards
    roles = {
        **dict.fromkeys(rewards.judge_scores, "judge"),
        **dict.fromkeys(rewards.held_out_scores, "held-out"),
        **dict.fromkeys(world.trained_names(), "trained"),
    }
    views = []
    for key, role in roles.items():
        values = final.comparison.base[key]
        is_share = role == "judge" and bool(((values == 0) | (values == 1)).all())
        views.append(ScoreView(key=key, label=key, role=role, is_share=is_share))  # type: ignore[arg-type]
    for key in final.comparison.keys:
        if key not in roles and key.split("/")[0] in (*GUARD_REWARDS, "dynamic_degree", "diversity"):
            views.append(ScoreView(key=key, label=key, role="guard", better="neither"))
    return tuple(views)


def _write_report(
    outcome: Outcome,
    config: RewardBpConfig,
    world: World,
    watch: Watch,
    run: Run,
    final: Validated,
    sweep: StrengthSweep | None,
) -> None:
    metrics = read_metrics(run.directory)
    keys = [term.key for term in world.rewards.trained.terms]
    curves = (
        CurveView(
            title="Trained reward",
            y_label="base deviations",
            metrics={"weighted sum": "reward/total"},
        ),
        CurveView(title="Gradient norm", y_label="before clipping", metrics={"adapter": "grad/norm"}),
        CurveView(
            title="Share of the pixel gradient",
            y_label="share",
            metrics={key: f"gradient_share/{key}" for key in keys},
        ),
    )
    seconds = sum(line.get("time/step_s") or 0.0 for line in metrics)
    facts = {
        "seed": str(config.seed),
        "strength": f"{outcome.scale:g}",
        "attention plan": describe_plan(world.backbone.attention_plan),
        "optimiser steps": f"{seconds / 60:.1f} min",
    }
    report = TrainingReport(
        title=f"Reward backpropagation on {Path(config.backbone).name}",
        comparison=final.comparison,
        views=_views(world, final),
        prompts_name=outcome.prompts_name,
        readings=final.readings,
        alarms=tuple(watch.alarms),
        base_clips=final.base_clips,
        adapter_clips=final.adapter_clips,
        fps=world.backbone.spec.fps,
        metrics=metrics,
        curves=curves,
        sweep=sweep,
        facts=facts,
        command=command_line(world.distribution.num_processes),
        config_yaml=dump_yaml(config),
    )
    write_training_report(outcome.report, report)


def _adapter_card(
    config: RewardBpConfig, world: World, watch: Watch, outcome: Outcome, final: Validated
) -> AdapterCard:
    suite, device = world.suites.train, world.backbone.device
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    notes = [
        f"Measured on {final.comparison.num_pairs} pairs of clips from {final.comparison.num_prompts} "
        f"{outcome.prompts_name}, same prompt and noise; intervals are 95%, clustered by prompt.",
        *(f"Alarm while training: {alarm.message}" for alarm in watch.alarms),
        *(f"Guard {reading.name} ({reading.score}): {reading.value:.2f}" for reading in final.readings),
    ]
    if outcome.scale == 0.0:
        notes.append("No strength improved the held-out rewards within the guards: this adapter is not recommended.")
    return AdapterCard(
        title=f"{Path(config.backbone).name}, reward backpropagation",
        base=config.backbone,
        method=f"reward backpropagation, {config.estimator.name} (arXiv:2309.17400, arXiv:2405.18991), "
        f"{_steps_text(config, watch)}, rewards: {', '.join(term.key for term in config.rewards)}",
        command=command_line(world.distribution.num_processes),
        data=f"{len(suite)} prompts of {suite.name} (sha256 {suite.sha256[:12]}), no clips",
        config_hash=config_hash(config),
        licence=config.licence,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=config.lora.targets or world.backbone.spec.lora_targets,
        scale=outcome.scale,
        table=outcome.table,
        attention_plan=describe_plan(world.backbone.attention_plan),
        hardware=f"{world.distribution.num_processes} process(es), {hardware}",
        notes=notes,
    )


def _card(
    config: RewardBpConfig,
    world: World,
    watch: Watch,
    outcome: Outcome,
    final: Validated,
    sweep: StrengthSweep | None,
) -> dict[str, object]:
    suites = (world.suites.train, world.suites.validation, world.suites.test)
    return {
        "method": "reward_bp",
        "command": command_line(world.distribution.num_processes),
        "config_hash": config_hash(config),
        "base": config.backbone,
        "attention_plan": world.backbone.attention_record(),
        "attention_file": attention_file_sha256(config),
        "prompts": {suite.name: {"sha256": suite.sha256, "count": len(suite)} for suite in suites if suite is not None},
        "recommended_scale": outcome.scale,
        "num_steps": _steps_taken(config, watch),
        "stopped_at": watch.stopped_at,
        "best_step": watch.best_step,
        "alarms": [alarm.message for alarm in watch.alarms],
        "alarm_names": outcome.alarms,
        "measured_on": outcome.prompts_name,
        "num_pairs": final.comparison.num_pairs,
        "num_prompts": final.comparison.num_prompts,
        "table": outcome.table,
        "sweep": None if sweep is None else sweep.to_json(),
        "comparison": final.comparison.to_json(),
    }
