"""Environments of workers, made for real from two hand-made wheels: complete, or not used and said why."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rewards.errors import RewardError
from rewards.workers import environments
from rewards.workers.environments import RECORD, build_from_source, create, environment_path, find, require
from rewards.workers.lock import LOCKS, Build, Copy, WorkerLock, known_workers, load_lock, read_lock

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = pytest.mark.usefixtures("environments_folder")


@pytest.fixture
def lock(vocabulary: bytes) -> WorkerLock:
    return WorkerLock(
        name="toy",
        summary="a toy",
        licence="Apache-2.0",
        python=(THIS,),
        needs="",
        first=("alpha==1.0",),
        packages=("beta==1.0",),
        torchvision_shim=True,
        builds=(),
        copies=(
            Copy(source="alpha/vocabulary.txt", target="beta/v.txt", sha256=hashlib.sha256(vocabulary).hexdigest()),
        ),
        health_config=None,
        health_code="import alpha, beta, sys; assert 'rlhf_video_torchvision_shim' in sys.modules",
        digest="0123456789ab",
    )


def test_environment_is_made_once_checked_and_found(lock: WorkerLock, wheels: Path, environments_folder: Path) -> None:
    path = environment_path(lock)
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").touch()  # what a killed installation leaves
    assert find(lock) is None
    made = create(lock, wheels=wheels, installer="pip")
    assert made.path == environments_folder / "toy-0123456789ab"
    assert made.packages["alpha"] == made.packages["beta"] == "1.0"
    assert made.python.is_file() and made.python_version.startswith(THIS)
    stamp = (made.path / RECORD).stat().st_mtime_ns
    assert create(lock, wheels=wheels) == made == find(lock)
    assert (made.path / RECORD).stat().st_mtime_ns == stamp


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"packages": ("gamma==2.0",)}, r"(?s)Cannot install its packages: exit code 1.*log.*gamma==2.0"),
        ({"health_code": "raise SystemExit('no vocabulary')"}, "does not work: no vocabulary"),
        ({"health_code": "import nothing_like_this"}, "does not work: ModuleNotFoundError"),
        ({"copies": (Copy(source="alpha/vocabulary.txt", target="beta/v.txt", sha256="0" * 64),)}, "sha256"),
    ],
)
def test_failed_step_is_an_error_and_leaves_nothing_to_use(
    change: dict[str, object], named: str, lock: WorkerLock, wheels: Path
) -> None:
    broken = dataclasses.replace(lock, **change)
    with pytest.raises(RewardError, match=named):
        create(broken, wheels=wheels, installer="pip")
    assert find(broken) is None


@pytest.mark.slow
def test_environment_that_needs_other_hardware_is_kept(lock: WorkerLock, wheels: Path) -> None:
    made = create(
        dataclasses.replace(lock, needs="a GPU", health_code="raise SystemExit('no GPU')"),
        wheels=wheels,
        installer="pip",
    )
    assert find(lock) == made


@pytest.mark.slow
def test_package_is_built_from_source_on_demand_only(lock: WorkerLock, wheels: Path) -> None:
    beta = Build(name="beta", source="./nowhere", purpose="a test")
    lock = dataclasses.replace(lock, packages=(), copies=(), builds=(beta,), health_code="import alpha")
    with pytest.raises(RewardError, match="not made"):
        build_from_source(lock, "beta")
    made = create(lock, wheels=wheels, installer="pip")
    assert not made.has("beta")
    with pytest.raises(RewardError, match=r"gamma.*Known: beta"):
        build_from_source(lock, "gamma")
    with pytest.raises(RewardError, match=r"(?s)Cannot build beta.*C\+\+ compiler.*nowhere"):
        build_from_source(lock, "beta")
    assert find(lock) == made  # a failed build leaves what was there
    with pytest.raises(RewardError, match="holds no package 'beta'"):
        build_from_source(lock, "beta", source=str(wheels / "alpha-1.0-py3-none-any.whl"))
    built = build_from_source(lock, "beta", source=str(wheels / "beta-1.0-py3-none-any.whl"))
    assert built.has("Beta") and built == find(lock)
    assert build_from_source(lock, "beta", source="./nowhere") == built  # it is there


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda lock: create(lock, wheels=Path("/nowhere")), "no folder of wheels"),
        (lambda lock: create(dataclasses.replace(lock, python=("2.7",))), "needs Python 2.7.*install python2.7"),
        (lambda lock: create(lock, installer="conda"), "conda"),
        (lambda lock: require("hpsv2"), "rewards env create hpsv2"),
        (lambda lock: require("hpsv"), "Did you mean"),
    ],
)
def test_wrong_request_is_refused_with_the_way_out(
    call: Callable[[WorkerLock], object], named: str, lock: WorkerLock
) -> None:
    with pytest.raises(RewardError, match=named):
        call(lock)


def test_uv_is_asked_for_by_name_where_it_is_missing(lock: WorkerLock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.shutil, "which", lambda _name: None)
    with pytest.raises(RewardError, match="uv is not on PATH"):
        create(lock, installer="uv")


@pytest.mark.parametrize("name", known_workers())
def test_shipped_lock_is_complete(name: str) -> None:
    lock = load_lock(name)
    assert lock.name == name
    assert lock.first[0] == "torch==2.13.0"
    assert (lock.health_config is None) == bool(lock.health_code)
    assert (lock.scorer is None) == bool(lock.needs)
    assert len(lock.pins) == len(lock.first) + len(lock.packages)
    assert lock.has("torch", "2.13.0+cpu") and not lock.has("torch", "2.12.0")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('"einops==0.8.2"', '"einops>=0.8"', "einops>=0.8"),
        ('licence = "Apache-2.0"\n', "", "licence"),
        ('needs = ""', 'needs = ""\ncolour = "red"', "colour"),
        ("packages = [", "packages = ", "TOML"),
    ],
)
def test_lock_that_says_too_little_is_refused(old: str, new: str, named: str, tmp_path: Path) -> None:
    text = (LOCKS / "hpsv2.toml").read_text()
    assert old in text
    path = tmp_path / "hpsv2.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(RewardError, match=named):
        read_lock(path)


def test_changed_lock_is_another_environment(tmp_path: Path) -> None:
    path = tmp_path / "hpsv2.toml"
    path.write_text((LOCKS / "hpsv2.toml").read_text().replace("einops==0.8.2", "einops==0.8.1"))
    assert environment_path(read_lock(path)) != environment_path(load_lock("hpsv2"))
