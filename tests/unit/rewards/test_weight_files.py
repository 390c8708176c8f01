"""Weight files: a path or a ledger name becomes checked tensors, or an error that says what to do."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rewards import weight_files
from rewards.errors import RewardError
from rewards.ledger import LEDGER, WeightFile
from rewards.weight_files import CONSENT_VARIABLE, file_hash, load_strictly, read_state, resolve, verify


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.eye(3), "bias": torch.zeros(3)}, path)
    return path


@pytest.fixture
def hub(file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the Hub's cache: it hands out `file` and counts how often it is asked."""
    asked: list[str] = []

    def download(repository: str, name: str) -> str:
        asked.append(f"{repository}/{name}")
        return str(file)

    monkeypatch.setattr(weight_files, "hf_hub_download", download)
    return asked


def list_in_ledger(monkeypatch: pytest.MonkeyPatch, **facts: object) -> None:
    entry = {"repository": "someone/model", "file": "w.safetensors", "licence": "MIT"} | facts
    monkeypatch.setitem(LEDGER, "tiny", WeightFile(**entry))


def test_path_is_taken_as_it_is(file: Path) -> None:
    assert resolve(file) == file


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"no weight file .*nothing.*raft_large"):
        resolve(tmp_path / "nothing.pth")


def test_ledger_name_is_downloaded_and_its_hash_checked(
    file: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_in_ledger(monkeypatch, sha256=file_hash(file), size=file.stat().st_size)
    assert resolve("tiny") == file
    assert hub == ["someone/model/w.safetensors"]


@pytest.mark.parametrize(("fact", "named"), [({"sha256": "0" * 64}, "sha256"), ({"size": 1}, "bytes")])
def test_another_file_is_refused(
    fact: dict[str, object], named: str, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_in_ledger(monkeypatch, **fact)
    with pytest.raises(RewardError, match=named):
        resolve("tiny")


def test_file_that_changed_after_it_was_verified_is_refused(file: Path) -> None:
    entry = WeightFile(repository=None, file=file.name, licence="MIT", md5=file_hash(file, "md5"))
    verify(file, entry)
    verify(file, entry)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RewardError, match="md5"):
        verify(file, entry)


def test_offline_says_how_to_get_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    list_in_ledger(monkeypatch, file="missing.safetensors")
    with pytest.raises(RewardError, match=r"hf download someone/model missing.safetensors"):
        resolve("tiny")


def test_file_outside_the_hub_comes_with_its_command() -> None:
    with pytest.raises(RewardError, match=r"curl .* https://"):
        resolve("raft_large")


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "AGPL-3.0", "PolyForm-Noncommercial (NonCommercial)"])
def test_binding_licence_asks_first(licence: str, hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    list_in_ledger(monkeypatch, licence=licence)
    with pytest.raises(RewardError, match=f"accept_licence.*{CONSENT_VARIABLE}=tiny"):
        resolve("tiny")
    assert hub == []
    resolve("tiny", accept_licence=True)
    monkeypatch.setenv(CONSENT_VARIABLE, "other, tiny")
    resolve("tiny")
    assert len(hub) == 2


def test_truncated_and_missing_files_are_refused(file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(file.read_bytes()[:-8])
    pickled = tmp_path / "model.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}}, pickled)
    torn_pickle = tmp_path / "torn.pth"
    torn_pickle.write_bytes(pickled.read_bytes()[:-40])
    for path, named in ((torn, "Cannot read"), (torn_pickle, "Cannot read"), (tmp_path / "none.pth", "no weight file")):
        with pytest.raises(RewardError, match=named):
            read_state(path)
    assert read_state(pickled, key="state_dict")["a"].tolist() == [1, 1]


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(RewardError, match="Cannot read"):
        read_state(path)


def test_strict_loading_names_what_does_not_fit(file: Path) -> None:
    state = read_state(file)
    model = nn.Linear(3, 3)
    load_strictly(model, state, source=file)
    assert not model.weight.requires_grad
    torch.testing.assert_close(model.weight, torch.eye(3))
    for wrong, named in (
        ({"weight": state["weight"]}, "lacks 'bias'"),
        (state | {"extra": torch.ones(1)}, "unknown 'extra'"),
        (state | {"bias": torch.ones(4)}, "another shape of 'bias'"),
    ):
        with pytest.raises(RewardError, match=named):
            load_strictly(model, wrong, source=file)


def test_hubs_cache_tells_the_hash_without_asking_anybody(file: Path, tmp_path: Path) -> None:
    entry = WeightFile(repository="someone/model", file="w.safetensors", licence="MIT")
    blob = tmp_path / "blobs" / file_hash(file)
    blob.parent.mkdir()
    blob.write_bytes(file.read_bytes())
    link = tmp_path / "link.safetensors"
    link.symlink_to(blob)
    verify(link, entry)
    (tmp_path / "link.safetensors.verified").unlink()
    blob.write_bytes(b"another")
    with pytest.raises(RewardError, match="sha256"):
        verify(link, entry)
