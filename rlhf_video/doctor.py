"""What this machine has for rlhf-video, what it lacks, and the command that mends it.

Packages are looked up by their metadata and kernels are tried on a tiny input; nothing is guessed from versions.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.requirements import Requirement

Status = Literal["ok", "missing", "info"]
DISTRIBUTION = "rlhf-video"
INSTALL = "pip install -c constraints.txt"
KERNEL_PACKAGES = {  # distribution -> (what it is for, how to get it)
    "flash-attn": ("FlashAttention 2, CUDA", "pip install flash-attn --no-build-isolation"),
    "flash-attn-3": ("FlashAttention 3, Hopper GPUs", "build hopper/ of github.com/Dao-AILab/flash-attention"),
    "sageattention": ("quantised attention for inference, CUDA", "pip install sageattention"),
    "xformers": ("memory-efficient attention, CUDA", "pip install xformers"),
    "natten": ("neighbourhood attention in 3-D windows, CUDA", "the wheel for your torch and CUDA: natten.org/install"),
    "kernels": ("prebuilt kernels from the Hub", "pip install kernels"),
}
SDPA_BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact about the machine."""

    name: str
    """What was looked for."""
    status: Status
    """"ok" present and fitting, "missing" absent or too old, "info" neither good nor bad."""
    detail: str
    """Version, size or reason."""
    remedy: str | None = None
    """Command or step that mends it; None where nothing is wrong."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """Findings of one kind under a title."""

    title: str
    """Heading, for example "Extras"."""
    findings: tuple[Finding, ...]
    """In the order to show them."""
    is_required: bool = False
    """Whether anything missing here stops the package from working."""


def examine() -> tuple[Section, ...]:
    """Look at everything; needs no network and changes nothing."""
    return (
        Section(title="Versions", findings=(*_interpreter(), *_core_packages()), is_required=True),
        Section(title="Devices", findings=tuple(_devices())),
        Section(title="Attention kernels", findings=(*_sdpa_backends(), windowed_attention(), *_kernel_packages())),
        Section(title="Extras", findings=tuple(_extras())),
        Section(title="Cached models", findings=tuple(cached_models(hub_cache()))),
    )


def is_healthy(sections: tuple[Section, ...]) -> bool:
    """Whether nothing required is missing."""
    return all(
        finding.status != "missing" for section in sections if section.is_required for finding in section.findings
    )


def check_requirement(requirement: Requirement, remedy: str) -> Finding:
    """Compare one requirement with what is installed.

    Args:
        requirement: Name and version range; markers are not read.
        remedy: What to do when it is absent or does not fit.
    """
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name=requirement.name, status="missing", detail="not installed", remedy=remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        detail = f"{version}, but {requirement.specifier} is needed"
        return Finding(name=requirement.name, status="missing", detail=detail, remedy=remedy)
    return Finding(name=requirement.name, status="ok", detail=version)


def extra_finding(extra: str, parts: tuple[Finding, ...]) -> Finding:
    """Sum up an extra from its packages: installed with versions, or what is missing and the command."""
    absent = [part for part in parts if part.status == "missing"]
    if not absent:
        return Finding(name=extra, status="ok", detail=", ".join(f"{part.name} {part.detail}" for part in parts))
    detail = "; ".join(f"{part.name}: {part.detail}" for part in absent)
    return Finding(name=extra, status="missing", detail=detail, remedy=f'{INSTALL} -e ".[{extra}]"')


def hub_cache() -> Path:
    """Return the folder of downloaded Hub models, which HF_HOME and HF_HUB_CACHE move."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def cached_models(folder: Path) -> Iterator[Finding]:
    """Yield each model of a Hub cache with its size, or one line that says there is none.

    Args:
        folder: Hub cache, holding folders like `models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers`.
    """
    from huggingface_hub import scan_cache_dir

    if not folder.is_dir():
        yield Finding(name=str(folder), status="info", detail="no model has been downloaded; assets/ needs none")
        return
    models = [repo for repo in scan_cache_dir(folder).repos if repo.repo_type == "model"]
    if not models:
        yield Finding(name=str(folder), status="info", detail="holds no model; assets/ needs none")
    for repo in sorted(models, key=lambda repo: repo.repo_id):
        yield Finding(name=repo.repo_id, status="ok", detail=f"{repo.size_on_disk / 1e9:.2f} GB in {repo.repo_path}")


def windowed_attention() -> Finding:
    """Say which back-ends of `rlhf_video.attention` can train here, and why the others cannot."""
    from rlhf_video.attention.availability import backend_reasons

    reasons = backend_reasons(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    able = ", ".join(name for name, reason in reasons.items() if reason is None)
    others = "".join(f"; not {name}: {reason}" for name, reason in reasons.items() if reason is not None)
    return Finding(name="windowed attention", status="ok", detail=f"{able} can train here{others}")


def _requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]


def _interpreter() -> Iterator[Finding]:
    yield Finding(name="python", status="ok", detail=f"{platform.python_version()} ({sys.executable})")
    yield Finding(name="system", status="info", detail=platform.platform())
    yield Finding(name=DISTRIBUTION, status="ok", detail=importlib.metadata.version(DISTRIBUTION))


def _core_packages() -> Iterator[Finding]:
    for requirement in _requirements():
        if requirement.marker is None:
            yield check_requirement(requirement, f"{INSTALL} -e .")


def _extras() -> Iterator[Finding]:
    for extra in importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []:
        wanted = [r for r in _requirements() if r.marker is not None and r.marker.evaluate({"extra": extra})]
        yield extra_finding(extra, tuple(check_requirement(r, "") for r in wanted))


def _devices() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    detail = f"{cores} cores, {torch.get_num_threads()} torch threads, {memory:.0f} GiB memory"
    yield Finding(name="cpu", status="ok", detail=detail)
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        detail = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}.{facts.minor}"
        yield Finding(name=f"cuda:{index}", status="ok", detail=detail)
    if torch.backends.mps.is_available():
        yield Finding(name="mps", status="ok", detail="Apple GPU")
    if not torch.cuda.is_available():
        yield _no_cuda(has_driver=shutil.which("nvidia-smi") is not None, build=torch.version.cuda)


def _no_cuda(*, has_driver: bool, build: str | None) -> Finding:
    if has_driver and build is None:
        remedy = "pip install --force-reinstall torch==2.13.0 --index-url https://download.pytorch.org/whl/cu130"
        return Finding(
            name="cuda", status="missing", detail="an NVIDIA driver, but torch is a CPU build", remedy=remedy
        )
    if has_driver:
        remedy = "run nvidia-smi: the driver must support the CUDA version of the torch build"
        return Finding(name="cuda", status="missing", detail=f"torch for CUDA {build} sees no device", remedy=remedy)
    return Finding(name="cuda", status="info", detail="no NVIDIA driver: everything runs on the CPU")


def _sdpa_backends() -> Iterator[Finding]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in SDPA_BACKENDS:
        reason = _try_sdpa(name, device)
        status: Status = "ok" if reason is None else "info"
        yield Finding(name=f"sdpa {name.lower()}", status=status, detail=f"{reason or 'works'} on {device}")
    has_flex = importlib.util.find_spec("torch.nn.attention.flex_attention") is not None
    has_compiler = importlib.util.find_spec("triton") is not None or shutil.which("g++") is not None
    if has_flex and has_compiler:
        yield Finding(name="flex_attention", status="ok", detail="in torch, with a compiler for its fused form")
    else:
        remedy = "apt install g++ (CPU), or pip install triton (CUDA)"
        yield Finding(name="flex_attention", status="missing", detail="no compiler for its fused form", remedy=remedy)


def _try_sdpa(name: str, device: str) -> str | None:
    """Return None if the SDPA back-end computes a tiny input, else why not."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    query = torch.zeros(1, 2, 16, 64, device=device, dtype=torch.bfloat16)
    try:
        with sdpa_kernel([getattr(SDPBackend, name)]):
            torch.nn.functional.scaled_dot_product_attention(query, query, query)
    except RuntimeError:  # torch's "No available kernel"
        return "not available"
    return None


def _kernel_packages() -> Iterator[Finding]:
    needs_gpu = not torch.cuda.is_available()
    for name, (purpose, remedy) in KERNEL_PACKAGES.items():
        found = check_requirement(Requirement(name), remedy)
        if found.status == "missing":
            # Without a GPU these are no loss, so they are facts and not gaps.
            status: Status = "info" if needs_gpu else "missing"
            detail = f"not installed ({purpose})"
            found = Finding(name=name, status=status, detail=detail, remedy=None if needs_gpu else remedy)
        yield found
