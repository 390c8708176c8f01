"""What preference optimisation tells of itself on card and report."""

from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_metrics import NUM_BINS
from rlhf_video.algorithms.dpo_setup import Trained
from rlhf_video.algorithms.dpo_watch import OTHER_ERROR, PREFERRED_ERROR, HeldOutReading
from rlhf_video.algorithms.story import Story
from rlhf_video.data import sha256_file
from rlhf_video.lora import LoraConfig
from rlhf_video.validation import CurveView, FurtherComparison, ScoreView

STEM = "dpo"
"""What this method's metrics begin with."""
_REFERENCES = {
    "adapter_off": "the base",
    "adapter": "the base with a frozen adapter",
    "merged": "the base with its start adapter merged",
}


def dpo_story(config: DpoConfig, trained: Trained, reading: HeldOutReading | None, lora: LoraConfig) -> Story:
    """Return what tells this run from others.

    Args:
        config: The run.
        trained: What was trained on.
        reading: Held-out pairs under the published adapter, where there are some.
        lora: Size of the published adapter.
    """
    labelled, loss = trained.pairs.clips.labelled, config.loss
    file_sha256 = sha256_file(labelled.store.path)
    beta = "auto" if loss.beta is None else f"{loss.beta:g}"
    notes = [
        f"Loss {loss.kind}, beta {beta} for the {loss.reduction} {loss.error} error"
        f"{' with a factor 1/2' if loss.half else ''}; {config.draws_per_pair} draws of noise a pair and step, shared "
        f"by both clips; reference: {_REFERENCES[config.reference.kind]}."
    ]
    if loss.kind == "kto":
        bad = sum(bool(pair.both_bad) for pair in labelled.pairs)
        notes.append(
            f"Each pair is two thumbs: the preferred clip up, the other down; in {bad} of {len(labelled)} pairs both "
            "clips, or both of a stretch, are down."
        )
    if config.reference.kind == "merged":
        notes.append("The published adapter holds the start adapter too; 'start' in the table is the base with it.")
    if reading is not None:
        notes.append(
            f"Implicit accuracy on {reading.accuracy.num_items} held-out pairs of {reading.accuracy.num_clusters} "
            f"prompts, mean margin of {config.pairs.validation_draws} draws: {reading.accuracy.mean:.3f} "
            f"[{reading.accuracy.low:.3f}, {reading.accuracy.high:.3f}]."
        )
    return Story(
        method="dpo",
        title="Preference optimisation",
        sentence="KTO on the thumbs of preference pairs (arXiv:2402.01306, arXiv:2404.04465)"
        if loss.kind == "kto"
        else "Video-DPO on preference pairs (arXiv:2311.12908, arXiv:2501.13918)",
        data=f"{len(labelled)} pairs of {len(trained.world.suites.train)} prompts from {labelled.store.path.name} "
        f"(sha256 {file_sha256[:12]})",
        curves=_curves(),
        sides=("start", "adapter") if config.reference.kind == "merged" else ("base", "adapter"),
        notes=tuple(notes),
        further=() if reading is None else (_held_out(reading),),
        card={
            "pairs": {
                "file_sha256": file_sha256,
                "count": len(labelled),
                "left_out": dict(labelled.dropped),
                "held_out": None if trained.held_out is None else len(trained.held_out),
            },
            "reference": {"kind": config.reference.kind, "fingerprint": trained.start.fingerprint},
            "held_out_pairs": None if reading is None else reading.metrics("result"),
        },
        lora=lora,
    )


def _held_out(reading: HeldOutReading) -> FurtherComparison:
    accuracy = reading.accuracy
    return FurtherComparison(
        title="Held-out pairs",
        lead=f"{accuracy.num_items} held-out pairs of {accuracy.num_clusters} prompts: implicit accuracy "
        f"{accuracy.mean:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]; prediction errors at the same noise.",
        comparison=reading.errors,
        views=tuple(
            ScoreView(key=key, label=key, role="held-out", better="neither") for key in (PREFERRED_ERROR, OTHER_ERROR)
        ),
        names=("reference", "adapter"),
    )


def _curves() -> tuple[CurveView, ...]:
    bins = {f"noise {i / NUM_BINS:g} to {(i + 1) / NUM_BINS:g}": f"{STEM}/margin_bin/{i + 1}" for i in range(NUM_BINS)}
    held_out = f"validation/{STEM}"
    return (
        CurveView(title="Training loss", y_label="loss", metrics={"training": "loss/dpo"}),
        CurveView(
            title="Implicit accuracy",
            y_label="share of pairs",
            metrics={"training, single draws": "dpo/accuracy", "held out": f"{held_out}/accuracy"},
        ),
        CurveView(
            title="Gain over the reference, held-out pairs",
            y_label="fall of the error",
            metrics={"preferred": f"{held_out}/chosen_gain", "others": f"{held_out}/rejected_gain"},
        ),
        CurveView(
            title="Gain over the reference, training",
            y_label="fall of the error",
            metrics={"preferred": "dpo/chosen_gain", "others": "dpo/rejected_gain"},
        ),
        CurveView(title="Margin by noise level", y_label="margin", metrics=bins),
        CurveView(title="Gradient factor", y_label="multiplies the gradient", metrics={"mean": "dpo/gradient_factor"}),
        CurveView(title="Beta", y_label="beta", metrics={"beta": "dpo/beta"}),
        CurveView(title="Gradient norm", y_label="before clipping", metrics={"adapter": "grad/norm"}),
    )
