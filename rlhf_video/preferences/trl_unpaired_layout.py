"""Preference pairs in TRL's unpaired layout (prompt, completion, label): for KTO (arXiv:2402.01306)."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlhf_video.preferences.pair import OVERALL, ClipRecord, PreferencePair
from rlhf_video.preferences.store import PreferenceStore
from rlhf_video.preferences.transfer import ClipOutlet, Export, lost_facts, refuse_nothing, videos_of
from rlhf_video.preferences.trl_layout import user_message, video_message, write_json_lines


def export_trl_unpaired(
    pairs: Sequence[PreferencePair],
    store: PreferenceStore,
    path: str | Path,
    *,
    question: str = OVERALL,
    copy_clips: bool = False,
) -> Export:
    """Write one row per clip: the winner with label true, the loser with false, both clips of "both-bad" with false.

    Ties, unanswered pairs and pairs of latents say neither good nor bad of a clip; they are counted out. Which clips
    were compared, soft labels, margins and so on are lost and counted, so this layout cannot be imported as pairs. A
    clip that occurs in several pairs gets a row in each.

    Args:
        pairs: Pairs of `store`.
        store: Where the clips lie.
        path: Target .jsonl; replaced where it exists.
        question: Which label decides.
        copy_clips: Whether to copy the clips to `clips` beside the target.

    Raises:
        DataError: No pair says anything of a clip, or a clip is missing.
    """
    path, dropped = Path(path), Counter[str]()
    kept: list[tuple[PreferencePair, list[tuple[ClipRecord, bool]]]] = []
    for pair in videos_of(pairs, dropped):
        liked = _thumbs(pair, question)
        if liked is None:
            dropped[f"no winner of {question}" if question in {*pair.labels, *pair.soft} else "no answer"] += 1
        else:
            kept.append((pair, list(zip(pair.clips, liked, strict=True))))
    refuse_nothing(len(kept), dropped, path)
    written = [pair for pair, _ in kept]
    store.check_clips(written, hashes=False)
    outlet = ClipOutlet(store, path.parent, copy=copy_clips)
    rows = [
        {"prompt": user_message(pair.prompt), "completion": video_message(outlet, clip, path), "label": label}
        for pair, clips in kept
        for clip, label in clips
    ]
    write_json_lines(path, rows)
    lost = lost_facts(written, {f"labels.{question}"})
    return Export(len(rows), dropped, lost + Counter({"which clips were compared": len(written)}))


def _thumbs(pair: PreferencePair, question: str) -> tuple[bool, bool] | None:
    """Return whether each clip is good; None where the pair does not say."""
    winner = pair.winner(question)
    if winner is not None:
        return winner == "A", winner == "B"
    return (False, False) if question not in pair.soft and pair.labels.get(question) == "both-bad" else None
