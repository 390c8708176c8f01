"""The end of a run: the one comparison on test prompts, adapter, card, report and table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from rlhf_video.algorithms.clip_maker import attention_file_sha256
from rlhf_video.algorithms.learner import Learner
from rlhf_video.algorithms.outcome import Outcome, hardware, read_outcome, score_views, write_grid
from rlhf_video.algorithms.suites import Suites
from rlhf_video.algorithms.watch import Extra, Watch
from rlhf_video.algorithms.world import Validated, World, WorldConfig
from rlhf_video.backbones import describe_plan
from rlhf_video.command import command_line
from rlhf_video.lora import LoraConfig, save_adapter
from rlhf_video.lora.card import AdapterCard, write_card
from rlhf_video.runtime import Run, read_metrics
from rlhf_video.settings import config_hash, dump_yaml
from rlhf_video.validation import CurveView, FurtherComparison, TrainingReport, write_training_report

SCALE = 1.0
"""Recommended strength: the loss is minimised at the strength that was trained."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """What tells one method from another on cards and reports."""

    method: str
    """Name in card.json."""
    title: str
    """As a heading: "LoRA fine-tuning"."""
    sentence: str
    """How it trains, with the paper, for the adapter's card."""
    data: str
    """What it was trained on."""
    curves: tuple[CurveView, ...]
    """Training curves of the report."""
    sides: tuple[str, str] = ("base", "adapter")
    """What the two clips of a pair are called."""
    notes: tuple[str, ...] = ()
    """Further lines of the adapter's card."""
    further: tuple[FurtherComparison, ...] = ()
    """Comparisons behind that with the base."""
    card: Mapping[str, object] = field(default_factory=dict)
    """Further entries of card.json."""
    lora: LoraConfig | None = None
    """Size of the published adapter where it is not the config's."""


def save(
    config: WorldConfig,
    world: World,
    state: Mapping[str, Tensor],
    run: Run,
    *,
    lora: LoraConfig | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Path:
    """Write the adapter's weights, before anything that can still fail.

    Args:
        config: The run.
        world: Its model.
        state: `learner.published()`, which every process must have called.
        run: Its folder.
        lora: Size of the adapter where it is not the config's.
        metadata: Further plain values for the file's header.
    """
    folder = run.directory / "adapter"
    if run.is_main:
        facts = {"base": config.backbone, "config_hash": config_hash(config), "recommended_scale": SCALE}
        header = {**facts, **(metadata or {})}
        save_adapter(folder, state, backbone=world.backbone, config=lora or config.lora, metadata=header)
    return folder


def measure_end(
    world: World, learner: Learner, run: Run, extra: Extra, *, latest: Validated | None = None
) -> tuple[Validated, str]:
    """Measure the averaged adapter once, on test prompts where there are some; return what, and on which prompts.

    Args:
        world: The model and the scores.
        learner: Its average is measured.
        run: Where numbers go.
        extra: What only the method measures.
        latest: Validation of this very average, which stands where there are no test prompts; None measures anew.
    """
    with learner.ema.swapped():
        test = world.test_validator()
        final = latest if test is None and latest is not None else world.measure(test or world.validator)
        numbers = {"result/scale": SCALE, **final.comparison.metrics(prefix="result"), **extra(final, "result").numbers}
    run.log(numbers, step=world.config.num_steps)
    return final, "unseen test prompts" if test is not None else "validation prompts"


def tell(
    config: WorldConfig, world: World, watch: Watch, run: Run, final: Validated, prompts_name: str, story: Story
) -> Outcome:
    """Write card, grid, report and table; return where they are."""
    tables = [final.comparison.table(names=story.sides)]
    for part in story.further:
        tables += [f"{part.lead.removesuffix('.')}:", part.comparison.table(names=part.names)]
    outcome = Outcome(
        adapter=run.directory / "adapter",
        report=run.directory / "report.html",
        grid=run.samples / "grid.png",
        scale=SCALE,
        table="\n\n".join(tables),
        alarms=tuple(alarm.name for alarm in watch.alarms),
        prompts_name=prompts_name,
    )
    if run.is_main:
        write_card(outcome.adapter, _adapter_card(config, world, watch, outcome, final, story))
        write_grid(outcome.grid, final.base_clips, final.adapter_clips, names=story.sides)
        _write_report(config, world, watch, run, final, outcome, story)
        run.write_card(_card(config, world, watch, outcome, final, story))
    return outcome


def finished_outcome(config: WorldConfig, load_suites: Callable[[], Suites]) -> Outcome | None:
    """Return what a finished run of this very config left in `config.output_dir`; None where there is none.

    Args:
        config: The run.
        load_suites: Reads its prompts, where there is something to compare them with.
    """
    if not (config.output_dir / "card.json").exists():
        return None
    return read_outcome(config.output_dir, config, load_suites(), config.attention)


def _write_report(
    config: WorldConfig, world: World, watch: Watch, run: Run, final: Validated, outcome: Outcome, story: Story
) -> None:
    metrics = read_metrics(run.directory)
    plan = describe_plan(world.backbone.policy_plan)
    seconds = sum(line.get("time/step_s") or 0.0 for line in metrics)
    report = TrainingReport(
        title=f"{story.title} of {Path(config.backbone).name}",
        comparison=final.comparison,
        views=score_views(final.comparison, world.reported.roles),
        names=story.sides,
        further=story.further,
        prompts_name=outcome.prompts_name,
        readings=final.readings,
        alarms=tuple(watch.alarms),
        base_clips=final.base_clips,
        adapter_clips=final.adapter_clips,
        fps=world.backbone.spec.fps,
        metrics=metrics,
        curves=story.curves,
        facts={"seed": str(config.seed), "attention plan": plan, "optimiser steps": f"{seconds / 60:.1f} min"},
        command=command_line(world.distribution.num_processes),
        config_yaml=dump_yaml(config),
    )
    write_training_report(outcome.report, report)


def _adapter_card(
    config: WorldConfig, world: World, watch: Watch, outcome: Outcome, final: Validated, story: Story
) -> AdapterCard:
    lora = story.lora or config.lora
    notes = [
        f"Measured on {final.comparison.num_pairs} pairs of clips from {final.comparison.num_prompts} "
        f"{outcome.prompts_name}, same prompt and noise; intervals are 95%, clustered by prompt.",
        *story.notes,
        *(f"Alarm while training: {alarm.message}" for alarm in watch.alarms),
        *(f"Guard {reading.name} ({reading.score}): {reading.value:.2f}" for reading in final.readings),
    ]
    return AdapterCard(
        title=f"{Path(config.backbone).name}, {story.title[:1].lower() + story.title[1:]}",
        base=config.backbone,
        method=f"{story.sentence}, {config.num_steps} optimiser steps",
        command=command_line(world.distribution.num_processes),
        data=story.data,
        config_hash=config_hash(config),
        licence=config.licence,
        rank=lora.rank,
        alpha=lora.alpha,
        targets=lora.targets or world.backbone.spec.lora_targets,
        scale=SCALE,
        table=outcome.table,
        attention_plan=describe_plan(world.backbone.policy_plan),
        hardware=hardware(world.backbone.device, world.distribution.num_processes),
        notes=notes,
    )


def _card(
    config: WorldConfig, world: World, watch: Watch, outcome: Outcome, final: Validated, story: Story
) -> dict[str, object]:
    return {
        "method": story.method,
        "command": command_line(world.distribution.num_processes),
        "config_hash": config_hash(config),
        "base": config.backbone,
        "attention_plan": world.backbone.attention_record(),
        "attention_file": attention_file_sha256(config.attention),
        "prompts": world.suites.record(),
        "recommended_scale": outcome.scale,
        "num_steps": config.num_steps,
        "alarms": [alarm.message for alarm in watch.alarms],
        "alarm_names": outcome.alarms,
        "measured_on": outcome.prompts_name,
        "num_pairs": final.comparison.num_pairs,
        "num_prompts": final.comparison.num_prompts,
        "table": outcome.table,
        "comparison": final.comparison.to_json(),
        **story.card,
    }
