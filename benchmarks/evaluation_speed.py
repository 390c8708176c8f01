"""Clips per second of the evaluation suite, against the same metrics one by one and against the original VBench.

    rlhf-video rewards env create vbench
    git clone https://github.com/facebookresearch/dino
    OMP_NUM_THREADS=1 python benchmarks/evaluation_speed.py --dino dino --markdown benchmarks/evaluation.md
    python benchmarks/evaluation_speed.py --quick         # a tiny geometry, ours alone: proves that it runs

Four sides score the same files with the same random weights (published sizes, evaluation_weights.py), in turns:

* "suite": `score_clips` with all metrics: each clip is decoded once, and what several metrics need is computed once.
* "metric by metric": the same metrics, each in a pass of its own over the clips, as VBench goes about it.
* "original": the package's own `compute_DIMENSION` over all clips, dimension after dimension, in its own environment.
* "original, bridged": the family vbench-official of this repository, which asks the package clip by clip.

Seconds are CPU seconds of the process that computes, all its threads: a machine shared with others changes them least.
Wall-clock seconds stand beside them. Loading is apart ("load"): ours once per metric, the original's once per
dimension; imports count nowhere. Ratios are medians over the rounds, of two sides in the same round. Clips are H.264
yuv420p files without a colour tag, of which all three decoders (PyAV, OpenCV, decord) make the same pixels. Every value
must agree with the suite's to 1e-4 (relative), or nothing is reported.
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from attention_timing import hardware, write_section
from evaluation_sides import ONE_BY_ONE, ORIGINAL, SUITE, Bridged, Original, Ours, Party, Turn, decoding
from evaluation_weights import write_weights

from evaluation.base import ClipEntry
from evaluation.ports.random_weights import random_clip
from rewards.workers import environments
from rewards.workers.vbench_cache import FILES
from rlhf_video.data import sha256_file
from rlhf_video.report.markdown import markdown_table

TOLERANCE = 1e-4
TARGET = 2.0
FPS = 16
PROMPT, STYLE = "a cat runs", "a cat"
WEIGHTLESS = ("blockiness", "frame_faults", "loop", "luminance_flicker")
PORTS = ("temporal_flickering", "subject_consistency", "background_consistency", "aesthetic_quality",
         "imaging_quality", "appearance_style", "temporal_style", "overall_consistency", "motion_smoothness",
         "dynamic_degree")  # fmt: skip
VICLIP = ("temporal_style", "overall_consistency")
"""With these all ports need more than 20 GB for both sides together."""
USUAL_FRAMES = 81
"""Of a clip of Wan's; the case of all ports has fewer, and scales up."""
TOKENISED = ("appearance_style", "temporal_style", "overall_consistency")


@dataclass(frozen=True)
class Case:
    """What is measured together."""

    name: str
    metrics: tuple[str, ...]
    clips: tuple[int, int, int, int]
    """Number, frames, height, width."""
    rounds: int

    @property
    def is_vbench(self) -> bool:
        """Whether the package has all of these."""
        return set(self.metrics) <= set(FILES)


CASES = (
    Case("temporal flickering", ("temporal_flickering",), (3, 81, 480, 832), 5),
    Case("decode-bound", ("temporal_flickering", *WEIGHTLESS), (3, 81, 480, 832), 5),
    Case("AMT and MUSIQ", ("motion_smoothness", "imaging_quality"), (1, 5, 480, 832), 3),
    Case("ports without ViCLIP", tuple(name for name in PORTS if name not in VICLIP), (1, 5, 480, 832), 3),
    Case("all ports", PORTS, (1, 5, 480, 832), 1),
)
QUICK = (
    Case("decode-bound", ("temporal_flickering", *WEIGHTLESS), (2, 5, 128, 144), 2),
    Case("all ports", PORTS, (1, 5, 128, 144), 1),
)


def make_clip(path: Path, num_frames: int, height: int, width: int) -> ClipEntry:
    """Write a textured picture that drifts under noise, as scripts write their clips: H.264, yuv420p, no colour tag."""
    picture = random_clip(path.stem, 1, height + 64, width + 64)[0]
    noise = np.random.default_rng(len(path.stem))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(num_frames):
            top, left = number % 64, 2 * number % 64
            frame = picture[top : top + height, left : left + width] + noise.integers(-6, 7, (height, width, 3))
            pixels = np.clip(frame, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    facts = {"appearance_style": STYLE}
    return ClipEntry(file=path, sha256=sha256_file(path), prompt=PROMPT, facts=facts)


def port_options(cache: Path, tokenizer: Path) -> dict[str, dict[str, object]]:
    """Return the options by which our ports read the files that the original reads."""
    options: dict[str, dict[str, object]] = {}
    for name in PORTS:
        options[name] = {"weights": cache / FILES[name][-1][1]} if FILES[name] else {}
        if name in TOKENISED:
            options[name]["tokenizer"] = tokenizer
    options["aesthetic_quality"]["clip_weights"] = cache / FILES["aesthetic_quality"][0][1]
    return options


def check_agreement(turns: Mapping[str, Turn]) -> float:
    """Return the largest relative difference of any value from the suite's.

    Raises:
        SystemExit: A side lacks a value, or differs by more than the tolerance.
    """
    worst, suite = 0.0, turns[SUITE].values
    for side, turn in turns.items():
        if set(turn.values) != set(suite):
            raise SystemExit(f"{side} has other values than the suite: {sorted(set(turn.values) ^ set(suite))}")
        for (file, name), value in turn.values.items():
            apart = abs(value - suite[file, name]) / max(abs(suite[file, name]), 1e-12)
            apart = 0.0 if value == suite[file, name] else apart
            if not apart <= TOLERANCE:
                raise SystemExit(f"{side} disagrees in {name} of {file}: {value}, the suite has {suite[file, name]}")
            worst = max(worst, apart)
    return worst


@dataclass(frozen=True)
class Measured:
    """All turns of a case."""

    case: Case
    turns: Mapping[str, list[Turn]]
    load: Mapping[str, float]
    decode: list[float]
    """CPU seconds of decoding all clips once, by round."""
    worst: float
    versions: Mapping[str, str]

    def faster(self, side: str, *, with_load: bool = False) -> float:
        """Return the suite's speed-up over a side."""
        return statistics.median(
            (other.cpu + with_load * self.load[side]) / (own.cpu + with_load * self.load[SUITE])
            for own, other in zip(self.turns[SUITE], self.turns[side], strict=True)
        )


def measure(case: Case, work: Path, options: Mapping[str, Mapping[str, object]], python: Path | None) -> Measured:
    """Measure all sides of a case; without `python`, ours alone.

    Over several rounds they take turns; in a single one each is closed before the next loads its gigabytes.
    """
    count, *size = case.clips
    folder = work / case.name.replace(" ", "_")
    folder.mkdir(exist_ok=True)
    entries = [make_clip(folder / f"clip{'x' * number}.mp4", *size) for number in range(count)]
    openers: list[Callable[[], Party]] = [lambda: Ours(case.metrics, options)]
    if python is not None and case.is_vbench:
        cache, warm_up = work / "cache", make_clip(folder / "warm.mp4", 3, 128, 144)
        openers.append(lambda: Original(python, cache, case.metrics, folder, keep=case.rounds > 1))
        openers.append(lambda: Bridged(cache, case.metrics, warm_up))
    turns: dict[str, list[Turn]] = {}
    load: dict[str, float] = {}
    versions: dict[str, str] = {}
    decode: list[float] = []
    for batch in [openers] if case.rounds > 1 else [[opener] for opener in openers]:
        with ExitStack() as stack:
            parties = [opener() for opener in batch]
            for party in parties:
                stack.callback(party.close)
                versions |= party.versions
            for _ in range(case.rounds):
                decode.append(decoding(entries))
                for party in parties:
                    for name, side in party.sides().items():
                        turns.setdefault(name, []).append(side(entries))
                        load[name] = party.load
                        told = {metric: round(seconds, 2) for metric, seconds in turns[name][-1].by_metric.items()}
                        print(f"{case.name}, {name}: {turns[name][-1].cpu:.2f} CPU s {told}", file=sys.stderr)
    worst = max(check_agreement({name: own[number] for name, own in turns.items()}) for number in range(case.rounds))
    return Measured(case, turns, load, decode, worst, versions)


HEADER = ("side", "CPU s a clip", "clips per CPU s", "wall s a clip", "load, CPU s", "suite is faster", "with loading")


def table(measured: Measured) -> str:
    """Return the Markdown section of a case."""
    case, count = measured.case, measured.case.clips[0]
    rows = []
    for side, turns in measured.turns.items():
        cpu = statistics.median(turn.cpu for turn in turns) / count
        wall = statistics.median(turn.wall for turn in turns) / count
        faster = "" if side == SUITE else f"{measured.faster(side):.2f}x"
        loaded = "" if side == SUITE else f"{measured.faster(side, with_load=True):.2f}x"
        rows.append([side, f"{cpu:.3g}", f"{1 / cpu:.3g}", f"{wall:.3g}", f"{measured.load[side]:.3g}", faster, loaded])
    title = f"### {case.name}: {len(case.metrics)} metric(s), {clips_text(case)}, {case.rounds} round(s)"
    decode = statistics.median(measured.decode) / count
    facts = (
        f"Decoding a clip once: {decode:.3g} CPU s. Largest difference of a value between sides: {measured.worst:.1e}."
    )
    parts = [title, markdown_table(HEADER, rows, align="l" + "r" * 6), facts + "\n" + verdict(measured)]
    if len(case.metrics) > 1:
        parts.append(by_metric(measured))
    return "\n\n".join(part.strip() for part in parts)


def by_metric(measured: Measured) -> str:
    """Return where the time goes: CPU seconds of each metric, in a pass of its own with its own decoding."""
    count, rows = measured.case.clips[0], []
    for name in measured.case.metrics:
        seconds = {
            side: statistics.median(turn.by_metric[name] for turn in measured.turns[side]) / count
            for side in (ONE_BY_ONE, ORIGINAL)
            if side in measured.turns
        }
        own, theirs = seconds[ONE_BY_ONE], seconds.get(ORIGINAL)
        rows.append([name, f"{own:.3g}", f"{theirs:.3g}" if theirs else "", f"{theirs / own:.2f}x" if theirs else ""])
    header = ("metric, in a pass of its own", "ours, CPU s a clip", "original", "ours is faster")
    text = markdown_table(header, rows, align="lrrr")
    frames = measured.case.clips[1]
    if ORIGINAL not in measured.turns or frames == USUAL_FRAMES:
        return text
    sums = [
        sum(
            turn.by_metric[name] * work_of(name, USUAL_FRAMES) / work_of(name, frames) for name in measured.case.metrics
        )
        for turn in (measured.turns[ONE_BY_ONE][-1], measured.turns[ORIGINAL][-1])
    ]
    return (
        f"{text}\nScaled to {USUAL_FRAMES} frames, by the frames or pairs that each metric sees, these seconds "
        f"become {sums[0]:.0f} (ours, in passes of their own) and {sums[1]:.0f} (original): {sums[1] / sums[0]:.2f}x."
    )


def work_of(metric: str, num_frames: int) -> int:
    """Return how many frames or pairs of frames a metric looks at; ViCLIP sees 8 frames of any clip."""
    if metric in VICLIP:
        return 1
    return (num_frames - 1) // 2 if metric in ("motion_smoothness", "dynamic_degree") else num_frames


def verdict(measured: Measured) -> str:
    """Return how the suite stands against the target."""
    said = []
    for side in (ONE_BY_ONE, ORIGINAL):
        if side in measured.turns and not (side == ONE_BY_ONE and len(measured.case.metrics) == 1):
            faster = measured.faster(side)
            said.append(f"against {side} {'met' if faster >= TARGET else 'missed'} ({faster:.2f}x)")
    return f"Target {TARGET:g}x: {', '.join(said)}." if said else ""


def clips_text(case: Case) -> str:
    """Return the clips of a case in words."""
    count, frames, height, width = case.clips
    return f"{count} clip(s) of {frames} frames of {height}x{width} at {FPS} fps"


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """Return a folder for weights and clips: the given one, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny clips and networks, ours alone")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="all by default")
    parser.add_argument(
        "--dino", type=Path, help="checkout of DINO's code; without it, subject consistency is left out"
    )
    parser.add_argument("--work", type=Path, help="folder for weights (4 GB) and clips, a temporary one by default")
    parser.add_argument("--markdown", type=Path, help="file whose section to write")
    flags = parser.parse_args()
    python = None if flags.quick else environments.require("vbench").python
    cases = [case for case in (QUICK if flags.quick else CASES) if not flags.case or case.name in flags.case]
    if flags.dino is None and not flags.quick:
        cases = [
            Case(
                case.name,
                tuple(name for name in case.metrics if name != "subject_consistency"),
                case.clips,
                case.rounds,
            )
            for case in cases
        ]
    os.environ["RLHF_VIDEO_ACCEPT_LICENCES"] = "amt_s,musiq_spaq"  # random weights: nobody's
    with work_folder(flags.work) as work:
        needed = {name for case in cases for name in case.metrics}
        tokenizer = write_weights(work / "cache", needed, small=flags.quick, python=python, dino=flags.dino)
        results = [measure(case, work, port_options(work / "cache", tokenizer), python) for case in cases]
    versions = {name: version for result in results for name, version in result.versions.items()}
    where = hardware(torch.device("cpu")) + f", PyAV {av.__version__}"
    if versions:
        where += "; the original: " + ", ".join(f"{name} {version}" for name, version in versions.items())
    text = "\n\n".join([f"{where}.\nCommand: `python {shlex.join(sys.argv)}`.", *map(table, results)])
    print(text)
    if flags.markdown:
        write_section(flags.markdown, "evaluation cpu", text)


if __name__ == "__main__":
    main()
