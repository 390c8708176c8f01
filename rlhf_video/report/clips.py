"""Base and adapter clips side by side, embedded as mp4 data URIs."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_video.report.page import Html, escape


@dataclass(frozen=True)
class ClipPair:
    """Two clips of the same prompt and noise."""

    prompt: str
    base_mp4: bytes
    """H.264 mp4 of the base's clip (`rlhf_video.data.encode_mp4`)."""
    adapter_mp4: bytes
    aspect: float = 1.0
    """Width over height, so that nothing jumps while the page loads."""
    scores: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Label -> texts of the base's and the adapter's score."""


def clip_pairs(pairs: Sequence[ClipPair], *, base_name: str = "base", adapter_name: str = "adapter") -> Html:
    """Return the clips two by two, looping in step, with buttons to restart and to pause them.

    Args:
        pairs: Clips; each becomes a few kilobytes (64x64) to a megabyte (480x832) of the page.
        base_name: Caption of the left clip.
        adapter_name: Caption of the right clip.
    """
    bar = (
        '<div class="bar"><button type="button" data-act="restart">Restart together</button>'
        '<button type="button" data-act="toggle">Pause</button></div>'
    )
    cards = []
    for pair in pairs:
        left = _side(pair, pair.base_mp4, name=base_name, kind="base")
        right = _side(pair, pair.adapter_mp4, name=adapter_name, kind="adapter")
        prompt = f'<p class="prompt">{escape(pair.prompt)}</p>'
        cards.append(
            f'<article class="card pair">{prompt}<div class="two">{left}{right}</div>{_scores(pair)}</article>'
        )
    return Html(f'{bar}<div class="pairs">{"".join(cards)}</div>')


def video_element(mp4: bytes | str, *, label: str, aspect: float = 1.0, plays_in_view: bool = False) -> Html:
    """Return one looping, muted clip that the browser enlarges without blur.

    Args:
        mp4: Bytes of an H.264 mp4 file, or the address of one relative to the page.
        label: Text for those who cannot see it.
        aspect: Width over height.
        plays_in_view: Load and play it only while it is in view (pages of many clips); else at once and always.
    """
    source = escape(mp4) if isinstance(mp4, str) else f"data:video/mp4;base64,{base64.b64encode(mp4).decode()}"
    flags = 'preload="none" data-in-view' if plays_in_view else "autoplay"
    return Html(
        f'<video src="{source}" style="aspect-ratio:{aspect:.4f}" {flags} loop muted playsinline '
        f'aria-label="{escape(label)}"></video>'
    )


def _side(pair: ClipPair, mp4: bytes, *, name: str, kind: str) -> Html:
    clip = video_element(mp4, label=f"{name}: {pair.prompt}", aspect=pair.aspect)
    return Html(f'<figure>{clip}<figcaption class="who {kind}">{escape(name)}</figcaption></figure>')


def _scores(pair: ClipPair) -> Html:
    """Return the scores of both clips, one line each: label, base, adapter."""
    rows = []
    for label, (base, adapter) in pair.scores.items():
        rows.append(f"<tr><td>{escape(label)}</td><td>{escape(base)}</td><td>{escape(adapter)}</td></tr>")
    return Html(f'<table class="scores">{"".join(rows)}</table>' if rows else "")
