"""`rlhf-video doctor` reports what is there, names the command for what is not, and needs no network."""

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from rewards.registry import available
from rlhf_video import cli, doctor
from rlhf_video.attention.availability import backend_reasons
from rlhf_video.attention.backends import natten_tiles
from rlhf_video.attention.windowed import BACKENDS
from rlhf_video.doctor import Finding, Section


def test_doctor_shows_the_installed_version_of_every_core_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for text in importlib.metadata.requires("rlhf-video") or []:
        requirement = Requirement(text)
        if requirement.marker is None:
            assert any(
                requirement.name in line and importlib.metadata.version(requirement.name) in line
                for line in printed.splitlines()
            )
    for title in ("Versions", "Devices", "Attention kernels", "Extras", "Cached models"):
        assert f"\n{title}\n" in printed


def test_json_form_holds_the_same_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    sections = json.loads(capsys.readouterr().out)
    assert [section["title"] for section in sections] == [
        "Versions",
        "Devices",
        "Attention kernels",
        "Extras",
        "Cached models",
    ]
    names = {finding["name"] for section in sections for finding in section["findings"]}
    assert {"torch", "sdpa math", "flex_attention", "flash-attn", "natten", "deepspeed", "arena", "cpu"} <= names


def test_one_line_says_which_attention_back_ends_train_here_and_why_others_do_not() -> None:
    (kernels,) = (section for section in doctor.examine() if section.title == "Attention kernels")
    (found,) = (finding for finding in kernels.findings if finding.name == "windowed attention")
    reasons = backend_reasons(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert set(reasons) == set(BACKENDS)
    able, _, others = found.detail.partition(" can train here")
    assert found.status == "ok" and able.split(", ") == [name for name, reason in reasons.items() if reason is None]
    assert all(f"not {name}: {reason}" in others for name, reason in reasons.items() if reason is not None)


def test_on_the_cpu_the_reason_is_the_device_or_the_package_and_not_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(natten_tiles, "_natten", lambda: "natten is not installed")
    reasons = backend_reasons(torch.device("cpu"))
    assert reasons["mask"] is None
    assert "runs on CUDA" in str(reasons["varlen"])
    assert "no backward pass on the CPU" in str(reasons["flex"])
    assert reasons["natten"] == "natten is not installed"


def test_every_extra_is_either_complete_or_comes_with_its_command() -> None:
    (extras,) = (section for section in doctor.examine() if section.title == "Extras")
    assert {finding.name for finding in extras.findings} == {
        *("datasets", "deepspeed", "arena", "arena-pg", "trl", "dev"),
    }
    for finding in extras.findings:
        assert finding.status == "ok" or finding.remedy == f'pip install -c constraints.txt -e ".[{finding.name}]"'


def test_absent_package_is_missing_with_its_remedy() -> None:
    found = doctor.check_requirement(Requirement("no-such-package-anywhere>=1"), "pip install it")
    assert found == Finding(
        name="no-such-package-anywhere", status="missing", detail="not installed", remedy="pip install it"
    )


def test_package_that_is_too_old_is_missing_and_says_both_versions() -> None:
    found = doctor.check_requirement(Requirement("torch>=99"), "pip install torch")
    assert found.status == "missing"
    assert torch.__version__ in found.detail and ">=99" in found.detail


def test_extra_lists_only_the_packages_that_are_absent() -> None:
    parts = (
        Finding(name="here", status="ok", detail="1.0"),
        Finding(name="gone", status="missing", detail="not installed", remedy=""),
    )
    assert doctor.extra_finding("arena", parts).detail == "gone: not installed"


def test_missing_required_package_makes_the_doctor_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = Finding(name="torch", status="missing", detail="not installed", remedy="pip install torch")
    sections = (Section(title="Versions", findings=(lost,), is_required=True),)
    monkeypatch.setattr(doctor, "examine", lambda: sections)
    assert cli.main(["doctor"]) == 1
    assert "pip install torch" in capsys.readouterr().out


def test_missing_extra_does_not_make_the_doctor_fail() -> None:
    lost = Finding(name="trl", status="missing", detail="not installed", remedy="pip install trl")
    assert doctor.is_healthy((Section(title="Extras", findings=(lost,)),))


def test_cached_models_are_listed_with_their_size(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--video" / "snapshots" / ("a" * 40)
    blobs, refs = tmp_path / "models--someone--video" / "blobs", tmp_path / "models--someone--video" / "refs"
    for folder in (snapshot, blobs, refs):
        folder.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    (blobs / "b").write_bytes(b"0" * 30_000_000)
    (snapshot / "model.safetensors").symlink_to(blobs / "b")
    (found,) = doctor.cached_models(tmp_path)
    assert found.name == "someone/video"
    assert found.detail.startswith("0.03 GB")


@pytest.mark.parametrize("exists", [True, False])
def test_empty_cache_is_no_fault(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "hub"
    if exists:
        folder.mkdir()
    (found,) = doctor.cached_models(folder)
    assert found.status == "info" and found.remedy is None


@pytest.mark.parametrize(
    ("has_driver", "build", "status", "word"),
    [
        (True, None, "missing", "CPU build"),
        (True, "13.0", "missing", "sees no device"),
        (False, None, "info", "no NVIDIA driver"),
    ],
)
def test_machine_without_cuda_is_told_why(has_driver: bool, build: str | None, status: str, word: str) -> None:
    found = doctor._no_cuda(has_driver=has_driver, build=build)
    assert found.status == status and word in found.detail
    assert (found.remedy is not None) == (status == "missing")


def test_math_kernel_works_everywhere_and_an_unfit_one_says_so() -> None:
    findings = {finding.name: finding for finding in doctor._sdpa_backends()}
    assert findings["sdpa math"].status == "ok"
    if not torch.cuda.is_available():
        assert findings["sdpa cudnn_attention"].detail == "not available on cpu"


def test_rewards_command_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rewards"]) == 0
    assert set(available()) <= set(capsys.readouterr().out.split())
