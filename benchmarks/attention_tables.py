"""What attention_speed.py measured, and the Markdown tables of it."""

from dataclasses import dataclass, field

import torch
from attention_cases import Geometry
from attention_timing import Reasons, eta

from rlhf_video.report.markdown import markdown_table

DIRECTIONS = ("forward", "both")
"""Forward, and forward and backward together."""
PASSES = {"forward": 1.0, "both": 3.5}
"""Floating-point operations of each direction in forward passes: the backward pass of a flash kernel takes 2.5."""


@dataclass
class Result:
    """What was measured of one way to compute attention."""

    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    """By direction."""
    dense_milliseconds: dict[str, float] = field(default_factory=dict)
    """The fastest dense kernel beside it, by direction."""
    why_not: dict[str, str] = field(default_factory=dict)
    """Why a direction was not measured."""
    saved: float | None = None
    """Kept for the backward pass, in units of one of q, k, v."""
    peak: dict[str, float] = field(default_factory=dict)
    """Highest allocation above the inputs, in the same unit, by direction; on a GPU only."""


@dataclass
class Report:
    """All results of one geometry in one precision."""

    geometry: Geometry
    dtype: torch.dtype
    dense: list[Result]
    windows: dict[str, list[Result]] = field(default_factory=dict)
    clocks: str = ""

    def times(self, direction: str) -> dict[str, float]:
        """Return each dense kernel's milliseconds, those that ran."""
        return {one.name: one.milliseconds[direction] for one in self.dense if direction in one.milliseconds}

    def best(self, direction: str) -> str:
        """Return the name of the fastest dense kernel."""
        times = self.times(direction)
        return min(times, key=lambda name: times[name])

    @property
    def uses_fa3(self) -> bool:
        """Whether FlashAttention-3 beats torch's own flash kernel."""
        times = self.times("forward")
        return "FA3" in times and times["FA3"] < times.get("flash", float("inf"))

    def default_over_best(self, direction: str) -> float:
        """Return how much slower torch's own choice of a dense kernel is than the fastest."""
        return self.times(direction)["default"] / min(self.times(direction).values())

    def reasons(self) -> list[str]:
        """Return every reason why something was not measured."""
        results = [*self.dense, *(one for results in self.windows.values() for one in results)]
        return [why for one in results for why in one.why_not.values()]


def tables(report: Report) -> str:
    """Return the tables of one report, with a heading and the reasons for empty cells."""
    reasons = Reasons()
    dense = markdown_table(DENSE_HEADER, [dense_row(one, report, reasons) for one in report.dense], align="lrrrrrr")
    rows = []
    for window, results in report.windows.items():
        rows += [window_row(window if one is results[0] else "", one, window, report, reasons) for one in results]
    parts = [f"### {report.geometry}, {str(report.dtype).removeprefix('torch.')}", "Dense attention:", dense]
    parts += ["Windows, each in turns with the fastest dense kernel:", markdown_table(WINDOW_HEADER, rows, align=ALIGN)]
    parts += [text for text in (str(reasons), report.clocks and f"Afterwards: {report.clocks}.") if text]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


DENSE_HEADER = ("kernel", "forward, ms", "TFLOP/s", "forward + backward, ms", "TFLOP/s", "saved", "peak")


def dense_row(result: Result, report: Report, reasons: Reasons) -> list[str]:
    """Return one line about a dense kernel."""
    row = [result.name]
    for direction in DIRECTIONS:
        if direction in result.milliseconds:
            milliseconds = result.milliseconds[direction]
            flops = PASSES[direction] * report.geometry.dense_flops()
            row += [f"{milliseconds:.4g}", f"{flops / milliseconds / 1e9:.3g}"]
        else:
            row += [reasons.cell(result.why_not[direction]), ""]
    return [*row, *memory(result)]


WINDOW_HEADER = ("window", "back-end", "density", "ideal", "forward, ms", "dense", "faster", "eta",
                 "forward + backward, ms", "dense", "faster", "eta", "eta to default", "saved", "peak")  # fmt: skip
ALIGN = "ll" + "r" * 13


def window_row(shown: str, result: Result, window: str, report: Report, reasons: Reasons) -> list[str]:
    """Return one line about a back-end on a window."""
    density = report.geometry.density(report.geometry.windows[window])
    row, to_default = [shown, result.name, f"{100 * density:.1f}%", f"{1 / density:.2f}x"], []
    for direction in DIRECTIONS:
        if direction not in result.milliseconds:
            row += [reasons.cell(result.why_not[direction]), "", "", ""]
            continue
        milliseconds, dense = result.milliseconds[direction], result.dense_milliseconds[direction]
        faster = dense / milliseconds
        row += [f"{milliseconds:.4g}", f"{dense:.4g}", f"{faster:.2f}x", f"{eta(faster, density):.2f}"]
        to_default.append(f"{eta(faster * report.default_over_best(direction), density):.2f}")
    return [*row, " / ".join(to_default), *memory(result)]


def memory(result: Result) -> list[str]:
    """Return the cells about memory."""
    saved = "" if result.saved is None else f"{result.saved:.1f}"
    return [saved, " / ".join(f"{result.peak[direction]:.1f}" for direction in DIRECTIONS if direction in result.peak)]
