"""Two hand-made wheels, so that environments are made for real without a package index."""

import zipfile
from pathlib import Path

import pytest

VOCABULARY = b"one two three"


def write_wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, content in (files | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(path, content)


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "alpha", {"alpha/__init__.py": b"", "alpha/vocabulary.txt": VOCABULARY})
    write_wheel(
        folder, "beta", {"beta/__init__.py": b"from pathlib import Path\nPath(__file__).with_name('v.txt').read_text()"}
    )
    return folder


@pytest.fixture
def vocabulary() -> bytes:
    """Return a file that wheel alpha ships and beta forgot."""
    return VOCABULARY


@pytest.fixture
def environments_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep environments in the test's own folder."""
    monkeypatch.setenv("RLHF_VIDEO_ENVS", str(tmp_path / "envs"))
    return tmp_path / "envs"
