"""Cached latents are named by content, appear whole, and tell damage."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rlhf_video.backbones import VideoBackbone
from rlhf_video.data import ClipSize, LatentCache, encoder_fingerprint, latent_key
from rlhf_video.errors import DataError

SIZE = ClipSize(5, 16, 16)


@pytest.fixture
def value() -> Tensor:
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_what_was_written(tmp_path: Path, value: Tensor, dtype: torch.dtype) -> None:
    cache = LatentCache(tmp_path / "new")
    cache.write("a", value.to(dtype))
    cache.write("b", value.to(dtype) + 1)
    assert torch.equal(cache.read(["b", "a"]), torch.stack([value.to(dtype) + 1, value.to(dtype)]))
    assert torch.equal(cache.read_rows(["a", "b"], [1, 0]), torch.stack([value.to(dtype)[1], value.to(dtype)[0] + 1]))
    assert "a" in cache
    assert "c" not in cache
    assert cache.is_whole("a")
    assert not cache.is_whole("c")


@pytest.mark.parametrize("damage", ["one bit", "cut", "other file", "no checksum"])
def test_damage_is_told_and_refused_with_the_files_name(tmp_path: Path, value: Tensor, damage: str) -> None:
    cache = LatentCache(tmp_path)
    cache.write("a", value)
    file = tmp_path / "a.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "one bit":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-8])
    elif damage == "other file":
        file.write_bytes(b"no latents")
    else:
        save_file({"latents": value}, file)
    assert not cache.is_whole("a")
    with pytest.raises(DataError, match="delete the file and resume") as caught:
        cache.read(["a"])
    assert str(file) in str(caught.value)


def test_writers_of_one_key_at_once_leave_one_whole_file(tmp_path: Path, value: Tensor) -> None:
    large, broken = value.repeat(1, 1, 5000), []

    def work() -> None:
        cache = LatentCache(tmp_path)
        for _ in range(5):
            cache.write("a", large)
            if not cache.is_whole("a"):
                broken.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_key_changes_with_the_file_the_encoder_the_size_and_the_precision() -> None:
    def key(file: str = "f", encoder: str = "e", size: ClipSize = SIZE, dtype: torch.dtype = torch.float32) -> str:
        return latent_key(file, encoder=encoder, size=size, dtype=dtype)

    keys = {key(), key(file="g"), key(encoder="h"), key(size=ClipSize(5, 16, 32)), key(dtype=torch.bfloat16)}
    assert len(keys) == 5
    assert key() == key()


def test_the_encoders_name_changes_with_its_weights_and_with_its_statistics(tiny_wan: VideoBackbone) -> None:
    vae = tiny_wan.vae
    first = encoder_fingerprint(vae)
    assert encoder_fingerprint(vae) == first
    vae.register_to_config(latents_mean=[mean + 1 for mean in vae.config.latents_mean])
    second = encoder_fingerprint(vae)
    assert second != first, "other statistics give other latents from the same weights"
    with torch.no_grad():
        next(vae.parameters()).add_(1.0)
    assert encoder_fingerprint(vae) not in (first, second)
