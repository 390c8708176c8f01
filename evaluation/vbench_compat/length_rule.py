"""Which of VBench's two suites a clip belongs to by its length (the FAQ of its repository)."""

from collections.abc import Collection, Sequence

from evaluation.base import Family

LONG_SECONDS = 5.0
"""Shorter clips are for VBench, clips of this length and longer ones for VBench-Long."""


def length_warnings(families: Collection[Family], seconds: Sequence[float]) -> list[str]:
    """Say where clips are measured by the suite that is not meant for their length.

    Args:
        families: What is measured.
        seconds: Lengths of the clips that are known.
    """
    num_long = sum(length >= LONG_SECONDS for length in seconds)
    num_short = len(seconds) - num_long
    warnings = []
    short_suite = [family for family in ("vbench-official", "vbench-port") if family in families]
    if short_suite and num_long:
        warnings.append(
            f"{num_long} of {len(seconds)} clips are {LONG_SECONDS:g} s or longer (up to {max(seconds):.2f} s): VBench "
            f"asks to measure them by VBench-Long (vbench_long), not by VBench ({' and '.join(short_suite)}). Compare "
            "with numbers of the same suite alone."
        )
    if "vbench-long-port" in families and num_short:
        warnings.append(
            f"{num_short} of {len(seconds)} clips are shorter than {LONG_SECONDS:g} s (from {min(seconds):.2f} s): "
            "VBench asks to measure them by VBench, not by VBench-Long."
        )
    return warnings
