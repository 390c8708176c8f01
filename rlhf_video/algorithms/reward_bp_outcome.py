"""The end of a run: strength sweep, the one comparison on test prompts, adapter, card, report and table."""

import logging
from pathlib import Path

from rlhf_video.algorithms.clip_maker import attention_file_sha256
from rlhf_video.algorithms.learner import Learner
from rlhf_video.algorithms.outcome import Outcome, hardware, read_outcome, score_views, write_grid
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_setup import World, load_suites
from rlhf_video.algorithms.reward_bp_watch import Validated, Watch, measure
from rlhf_video.backbones import describe_plan
from rlhf_video.command import command_line
from rlhf_video.lora import save_adapter
from rlhf_video.lora.card import AdapterCard, write_card
from rlhf_video.runtime import Run, read_metrics
from rlhf_video.settings import config_hash, dump_yaml
from rlhf_video.validation import StrengthSweep
from rlhf_video.validation.report_views import Role
from rlhf_video.validation.reporting import CurveView, ScoreView, TrainingReport, write_training_report

logger = logging.getLogger(__name__)


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
        write_grid(outcome.grid, final.base_clips, final.adapter_clips)
        _write_report(outcome, config, world, watch, run, final, sweep)
        run.write_card(_card(config, world, watch, outcome, final, sweep))
    return outcome


def finished_outcome(config: RewardBpConfig) -> Outcome | None:
    """Return what a finished run of this very config left in `config.output_dir`; None where there is none."""
    folder = Path(config.output_dir)
    if not (folder / "card.json").exists():
        return None
    return read_outcome(folder, config, load_suites(config), config.attention)


def _steps_taken(config: RewardBpConfig, watch: Watch) -> int:
    return config.num_steps if watch.stopped_at is None else watch.stopped_at


def _steps_text(config: RewardBpConfig, watch: Watch) -> str:
    """Return how many optimiser steps were taken and which step's adapter this is."""
    if watch.stopped_at is None:
        return f"{config.num_steps} optimiser steps"
    return f"stopped after {watch.stopped_at} of {config.num_steps} optimiser steps, adapter of step {watch.best_step}"


def _views(world: World, final: Validated) -> tuple[ScoreView, ...]:
    rewards = world.rewards
    roles: dict[str, Role] = {
        **dict.fromkeys(rewards.judge_scores, "judge"),
        **dict.fromkeys(rewards.held_out_scores, "held-out"),
        **dict.fromkeys(world.trained_names(), "trained"),
    }
    return score_views(final.comparison, roles)


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
    suite = world.suites.train
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
        hardware=hardware(world.backbone.device, world.distribution.num_processes),
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
    return {
        "method": "reward_bp",
        "command": command_line(world.distribution.num_processes),
        "config_hash": config_hash(config),
        "base": config.backbone,
        "attention_plan": world.backbone.attention_record(),
        "attention_file": attention_file_sha256(config.attention),
        "prompts": world.suites.record(),
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
