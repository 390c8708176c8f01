"""Windowed attention against dense attention: time, eta, memory; one call of the operator, its gathers included.

    OMP_NUM_THREADS=1 python benchmarks/attention_speed.py --device cpu     # 8 x 32 x 32 tokens
    python benchmarks/attention_speed.py --device cuda                      # Wan, HunyuanVideo, CogVideoX
    python benchmarks/attention_speed.py --quick                            # seconds; proves that it runs
    python benchmarks/attention_speed.py --device cuda --geometries wan-1.3b-720p --windows band --json out.json

eta = (speed-up over the fastest dense kernel of this run) / (1 / density): the share of the arithmetic's ideal that is
realised, so that windows of different sizes and different machines can be compared. Every case takes turns with
that dense kernel, timed beside it. Index tables and compiled kernels are made before the clock starts, as they are once
per model. Each back-end's output is first compared with the definition of its window. `--markdown FILE` puts
the tables into a file, between marks named after the device. Needs torch and this package, no other library.
"""

import argparse
import contextlib
import functools
import json
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from attention_cases import (
    Attend,
    Geometry,
    dense_kernels,
    distance_from_definition,
    flash_attention_3,
    geometries,
    quick_geometry,
)
from attention_tables import DIRECTIONS, Report, Result, tables
from attention_timing import clocks, hardware, peak_bytes, saved_bytes, take_turns, typical, write_section
from torch import Tensor

from rlhf_video.attention import WindowSpec, windowed_attention
from rlhf_video.attention.backends.sdpa_span import SdpaSpan
from rlhf_video.attention.windowed import BACKENDS
from rlhf_video.errors import ConfigError

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Relative distance of an output from its definition; TF32 is off."""
ON_CPU = ("sdpa_span", "mask")
"""What runs on a CPU by default; FlexAttention compiles there for long and has no backward pass."""
NO_GPU = "no GPU was at hand"


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    device: torch.device
    dtype: torch.dtype
    rounds: int
    warm_ups: int
    backends: tuple[str, ...]
    windows: tuple[str, ...] = ()
    """Parts of the names of the windows to measure; none takes all."""

    @property
    def ready(self) -> bool:
        """Whether the device is here."""
        return self.device.type == "cpu" or torch.cuda.is_available()


def contest(
    attends: dict[str, Attend],
    results: dict[str, Result],
    direction: str,
    tensors: tuple[Tensor, ...],
    settings: Settings,
) -> None:
    """Time several ways to compute attention in turns and fill in their results; what cannot run says why."""
    *inputs, gradient = tensors
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]

    def forward(attend: Attend) -> Tensor:
        with torch.no_grad():
            return attend(*inputs)

    def both(attend: Attend) -> tuple[Tensor, ...]:
        return torch.autograd.grad(attend(*leaves), leaves, gradient)

    run = forward if direction == "forward" else both
    calls = {}
    for name, attend in attends.items():
        call = functools.partial(run, attend)
        why = reason_against(call)
        if why is None:
            calls[name] = call
        else:
            results[name].why_not[direction] = why
    samples = take_turns(calls, settings.device, rounds=settings.rounds, warm_ups=settings.warm_ups)
    for name, call in calls.items():
        results[name].milliseconds[direction] = typical(samples[name], settings.device)
        peak = peak_bytes(call, settings.device)
        if peak is not None:
            results[name].peak[direction] = peak / inputs[0].nbytes
        if direction == "both":
            results[name].saved = saved_bytes(functools.partial(attends[name], *leaves)) / inputs[0].nbytes


def reason_against(call: functools.partial) -> str | None:
    """Run once; return None, or why that is not possible."""
    try:
        call()
    except ConfigError as error:
        return str(error)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "does not fit into this GPU's memory"
    except RuntimeError as error:  # what torch raises where a kernel refuses a call
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
    return None


def measure_dense(geometry: Geometry, settings: Settings) -> list[Result]:
    """Time every dense kernel; FlashAttention-3 is one where it can be activated."""
    kernels = dense_kernels(settings.device)
    results = {name: Result(name) for name in (*kernels, *(["FA3"] if settings.device.type == "cuda" else []))}
    if not settings.ready:
        return [Result("; ".join(results), why_not=dict.fromkeys(DIRECTIONS, NO_GPU))]
    tensors = geometry.tensors(settings.dtype, settings.device)
    for direction in DIRECTIONS:
        contest(dict(kernels), results, direction, tensors, settings)
        if "FA3" in results:
            with flash_attention_3() as why:
                if why is None:
                    contest({"FA3": kernels["flash"]}, results, direction, tensors, settings)
                else:
                    results["FA3"].why_not[direction] = why
    return list(results.values())


def measure_window(spec: WindowSpec, report: Report, settings: Settings) -> list[Result]:
    """Time every back-end on one window, in turns with the fastest dense kernel of each direction."""
    if not settings.ready:
        return [Result("; ".join(settings.backends), why_not=dict.fromkeys(DIRECTIONS, NO_GPU))]
    geometry, results = report.geometry, {name: Result(name) for name in settings.backends}
    tensors = geometry.tensors(settings.dtype, settings.device)
    attends: dict[str, Attend] = {}
    for name, result in results.items():
        attend = functools.partial(windowed_attention, grid=geometry.grid, spec=spec, text=geometry.text, backend=name)
        why = reason_against(functools.partial(check, attend, tensors[:3], spec, geometry))
        if why is None:
            attends[name] = attend
        else:
            result.why_not = dict.fromkeys(DIRECTIONS, why)
    for direction in DIRECTIONS:
        best = report.best(direction)
        dense, kernel = Result("dense"), dense_kernels(settings.device)["flash" if best == "FA3" else best]
        contest({"dense": kernel, **attends}, {"dense": dense, **results}, direction, tensors, settings)
        for result in results.values():
            if direction in result.milliseconds:
                result.dense_milliseconds[direction] = dense.milliseconds[direction]
    return list(results.values())


def check(attend: Attend, tensors: tuple[Tensor, Tensor, Tensor], spec: WindowSpec, geometry: Geometry) -> None:
    """Compare one output with the definition of its window.

    Raises:
        RuntimeError: They are apart: a wrong result has no speed.
    """
    with torch.no_grad():
        apart = distance_from_definition(attend(*tensors), tensors, geometry, spec)
    if not apart <= TOLERANCE[tensors[0].dtype]:
        raise RuntimeError(f"WRONG: its output is {apart:.1e} from the definition of its window")


def measure(geometry: Geometry, settings: Settings) -> Report:
    """Measure dense attention, then every window; FlashAttention-3 carries both where it is faster than torch's own.

    A boolean mask, the negative control, is tried on the first window only: it computes all pairs of every window.
    """
    report = Report(geometry, settings.dtype, measure_dense(geometry, settings))
    with flash_attention_3() if report.uses_fa3 else contextlib.nullcontext():
        for name, spec in geometry.windows.items():
            if not settings.windows or any(part in name for part in settings.windows):
                report.windows[name] = measure_window(spec, report, settings)
                settings = replace(settings, backends=tuple(one for one in settings.backends if one != "mask"))
    report.clocks = clocks() if settings.device.type == "cuda" and settings.ready else ""
    return report


def parsed() -> argparse.Namespace:
    """Return the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    known = list(geometries())
    parser.add_argument("--geometries", nargs="+", choices=known, help="small on a CPU, all others on a GPU by default")
    parser.add_argument("--windows", nargs="+", default=[], help="only windows whose name contains one of these")
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), help=f"all; on a CPU {' and '.join(ON_CPU)}")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"), help="bfloat16 on a GPU, "
                        "float32 on a CPU by default")  # fmt: skip
    parser.add_argument("--rounds", type=int, help="that count: 30 on a GPU (the median), 3 on a CPU (the fastest)")
    parser.add_argument("--warm-ups", type=int, help="rounds before them: 10 on a GPU, 0 on a CPU; a first "
                        "call that never counts finds out what can run")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a tiny grid, one round")
    parser.add_argument("--markdown", type=Path, help="file to put the tables into, between marks")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    # "auto" never takes cuDNN's kernel, which plans every new shape; its speed belongs into the table.
    BACKENDS.setdefault("sdpa_span_cudnn", SdpaSpan("sdpa_span_cudnn", kernel="cudnn"))
    flags = parsed()
    device, on_gpu = torch.device(flags.device), flags.device == "cuda"
    known = geometries()
    names = flags.geometries or ([name for name in known if name != "small"] if on_gpu else ["small"])
    chosen = [quick_geometry()] if flags.quick else [known[name] for name in names]
    reports = []
    for geometry in chosen:
        for dtype in flags.dtypes or (
            ["bfloat16"] if on_gpu else ["float32"] if flags.quick else ["float32", "bfloat16"]
        ):
            settings = Settings(
                device=device,
                dtype=getattr(torch, dtype),
                rounds=flags.rounds or (1 if flags.quick else 30 if on_gpu else 3),
                warm_ups=(10 if on_gpu and not flags.quick else 0) if flags.warm_ups is None else flags.warm_ups,
                backends=tuple(flags.backends or (BACKENDS if on_gpu else [one for one in ON_CPU if one in BACKENDS])),
                windows=tuple(flags.windows),
            )
            reports.append(measure(geometry, settings))
            print(tables(reports[-1]), flush=True)
    command = shlex.join(["python", "benchmarks/attention_speed.py", *sys.argv[1:]])
    text = f"{hardware(device)}.\nCommand: `{command}`.\n\n" + "\n".join(tables(report) for report in reports)
    if flags.markdown:
        write_section(flags.markdown, f"attention_speed {flags.device}", text)
    if flags.json:
        values = {"hardware": hardware(device), "command": command, "reports": [asdict(report) for report in reports]}
        flags.json.write_text(json.dumps(values, indent=1, default=str))
    if any("WRONG" in why for report in reports for why in report.reasons()):
        raise SystemExit("A back-end's output is not its window's: see the reasons under the tables.")


if __name__ == "__main__":
    main()
