"""Publishing: the folder, the card, both layouts, and the upload against a stand-in Hub on this machine."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf_video.algorithms.publish import PublishConfig, publish, upload
from rlhf_video.backbones import VideoBackbone, load_backbone
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora import (
    AdapterCard,
    LoraConfig,
    adapter_parameters,
    adapter_state,
    attach,
    load_adapter,
    read_card,
    save_adapter,
    write_card,
)
from rlhf_video.lora.card import CARD_JSON
from rlhf_video.lora.files import WEIGHT_NAME

SCRIPT = Path(__file__).resolve().parents[3] / "rlhf_video" / "publish.py"
LORA = LoraConfig(rank=3, alpha=7)
CARD = AdapterCard(
    title="Tiny, reward backpropagation",
    base="assets/tiny",
    method="DRaFT-K",
    command="accelerate launch rlhf_video/train_reward_bp.py",
    data="two prompts",
    config_hash="0123456789ab",
    licence="apache-2.0",
    rank=3,
    alpha=7,
    targets=("to_q",),
    scale=0.75,
    table="| score | base | adapter |\n|---|---|---|\n| colour | 0.5 | 0.7 |",
    notes=("Shapes are small.",),
)


def _trained(backbone: VideoBackbone, folder: Path) -> Path:
    attach(backbone, LORA, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(torch.randn(parameter.shape, generator=generator))
    save_adapter(folder, adapter_state(backbone), backbone=backbone, config=LORA, metadata={"base": "assets/tiny"})
    return folder


@pytest.fixture
def adapter(tiny_wan: VideoBackbone, tmp_path: Path) -> Path:
    folder = _trained(tiny_wan, tmp_path / "my-adapter")
    write_card(folder, CARD)
    return folder


def test_published_folder_holds_both_layouts_and_the_card(adapter: Path, tmp_path: Path) -> None:
    folder = publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out"))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {WEIGHT_NAME, "comfyui/my-adapter.safetensors", "README.md", CARD_JSON}
    assert (folder / WEIGHT_NAME).read_bytes() == (adapter / WEIGHT_NAME).read_bytes()
    kohya = load_file(folder / "comfyui" / "my-adapter.safetensors")
    assert float(kohya["lora_unet_blocks_0_ffn_0.alpha"]) == 7
    assert read_card(folder) == read_card(adapter)


def test_card_tells_how_it_was_made_what_it_changed_and_how_to_use_it(adapter: Path) -> None:
    text = (adapter / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\nbase_model: assets/tiny\n")
    for part in (
        CARD.title,
        CARD.command,
        CARD.config_hash,
        CARD.table,
        'set_adapters("default", 0.75)',
        CARD.notes[0],
    ):
        assert part in text


def test_kohya_file_is_converted_back_to_the_same_adapter(
    adapter: Path, tmp_path: Path, make_tiny_wan: Callable[[], VideoBackbone]
) -> None:
    kohya = publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out")) / "comfyui" / "my-adapter.safetensors"
    config = PublishConfig(adapter=kohya, output_dir=tmp_path / "back", base="someone/tiny", title="Converted")
    back = publish(config)
    original, converted = (load_file(folder / WEIGHT_NAME) for folder in (adapter, back))
    assert original.keys() == converted.keys()
    assert all(torch.equal(original[key], converted[key]) for key in original)
    metadata = load_adapter(make_tiny_wan(), back)
    assert (metadata["rank"], metadata["alpha"], metadata["base"]) == (3, 7, "someone/tiny")
    assert read_card(back).command == "not recorded"
    assert read_card(back).title == "Converted"
    with pytest.raises(ConfigError, match="base="):
        publish(replace(config, base=None))


def test_two_expert_adapter_is_published_in_two_files(tiny_two_expert_folder: Path, tmp_path: Path) -> None:
    adapter = _trained(load_backbone(tiny_two_expert_folder), tmp_path / "two")
    folder = publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out", name="pair"))
    names = {path.name for path in folder.rglob("*.safetensors")}
    assert names == {
        WEIGHT_NAME,
        "pytorch_lora_weights_2.safetensors",
        "pair.safetensors",
        "pair-low-noise.safetensors",
    }


def test_bad_input_is_named(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="own folder"):
        publish(PublishConfig(adapter=adapter, output_dir=adapter))
    with pytest.raises(AdapterError, match="no adapter at"):
        publish(PublishConfig(adapter=tmp_path / "nothing", output_dir=tmp_path / "out"))
    (adapter / CARD_JSON).write_text("{")
    with pytest.raises(AdapterError, match="damaged"):
        publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out"))
    (adapter / CARD_JSON).unlink()
    with pytest.raises(AdapterError, match="lies beside"):
        read_card(adapter)
    folder = publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "plain"))
    assert read_card(folder).base == "assets/tiny"
    (adapter / WEIGHT_NAME).write_bytes(b"nothing")
    with pytest.raises(AdapterError, match="not a readable"):
        publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out"))


def test_upload_that_cannot_be_made_keeps_the_folder(adapter: Path) -> None:
    with pytest.raises(ConfigError, match="is complete"):  # the suite runs with HF_HUB_OFFLINE=1
        upload(adapter, "someone/tiny", private=True)
    assert (adapter / WEIGHT_NAME).is_file()


class _Hub(BaseHTTPRequestHandler):
    """The calls of the Hub that an upload of small files makes."""

    stored: dict[str, bytes]
    created: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self._answer({"url": "http://127.0.0.1/someone/tiny", "name": "someone/tiny", "id": "1"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.stored[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._answer({"success": True, "commitUrl": "http://127.0.0.1/someone/tiny/commit/1", "commitOid": "1"})
        else:
            self._answer({}, status=404)

    def do_GET(self) -> None:
        self._answer({}, status=404)

    def _answer(self, value: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Stay silent."""


@pytest.fixture
def hub() -> Iterator[tuple[str, type[_Hub]]]:
    handler = type("Hub", (_Hub,), {"stored": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_script_uploads_every_file_whole(adapter: Path, tmp_path: Path, hub: tuple[str, type[_Hub]]) -> None:
    address, handler = hub
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_test",
        "HF_HOME": str(tmp_path),
    }
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), f"adapter={adapter}", f"output_dir={out}", "hub_repo=someone/tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert handler.created[0]["name"] == "tiny"
    assert handler.created[0].get("private") is True or handler.created[0].get("visibility") == "private"
    local = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {name: handler.stored[name] for name in local} == local
