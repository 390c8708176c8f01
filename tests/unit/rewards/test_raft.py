"""RAFT has the layout of the published weights, computes what the published code computes, and refuses other files."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rewards.errors import RewardError
from rewards.raft import CELL, CorrelationPyramid, Raft, _upsample, cell_positions
from rewards.raft_weights import load_raft, rename_original

BLOCKS = {"layer1.0": 64, "layer1.1": 64, "layer2.0": 96, "layer2.1": 96, "layer3.0": 128, "layer3.1": 128}
SHORTCUTS = {"layer2.0": 64, "layer3.0": 96}


def conv(name: str, outputs: int, inputs: int, height: int, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs, height, width), f"{name}.bias": (outputs,)}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    keys = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{key}": (channels,) for key in keys} | {f"{name}.num_batches_tracked": ()}


def torchvision_layout() -> dict[str, tuple[int, ...]]:
    """Return names and shapes of torchvision's `raft_large().state_dict()` (models/optical_flow/raft.py)."""
    layers = {"convnormrelu": (64, 3, 7, 7)}
    for block, channels in BLOCKS.items():
        layers[f"{block}.convnormrelu1"] = (channels, SHORTCUTS.get(block, channels), 3, 3)
        layers[f"{block}.convnormrelu2"] = (channels, channels, 3, 3)
        if block in SHORTCUTS:
            layers[f"{block}.downsample"] = (channels, SHORTCUTS[block], 1, 1)
    layout = {}
    for encoder in ("feature_encoder", "context_encoder"):
        for name, shape in layers.items():
            layout |= conv(f"{encoder}.{name}.0", *shape)
            layout |= norm(f"{encoder}.{name}.1", shape[0]) if encoder == "context_encoder" else {}
        layout |= conv(f"{encoder}.conv", 256, 128, 1, 1)
    motion, recurrent, head = (f"update_block.{part}" for part in ("motion_encoder", "recurrent_block", "flow_head"))
    layout |= conv(f"{motion}.convcorr1.0", 256, 324, 1, 1) | conv(f"{motion}.convcorr2.0", 192, 256, 3, 3)
    layout |= conv(f"{motion}.convflow1.0", 128, 2, 7, 7) | conv(f"{motion}.convflow2.0", 64, 128, 3, 3)
    layout |= conv(f"{motion}.conv.0", 126, 256, 3, 3)
    for gate in "zrq":
        layout |= conv(f"{recurrent}.convgru1.conv{gate}", 128, 384, 1, 5)
        layout |= conv(f"{recurrent}.convgru2.conv{gate}", 128, 384, 5, 1)
    layout |= conv(f"{head}.conv1", 256, 128, 3, 3) | conv(f"{head}.conv2", 2, 256, 3, 3)
    return layout | conv("mask_predictor.convrelu.0", 256, 128, 3, 3) | conv("mask_predictor.conv", 576, 256, 1, 1)


def original_name(name: str) -> str:
    """Return the name in princeton-vl/RAFT (core/extractor.py, core/update.py), as DataParallel saves it."""
    for ours, theirs in (
        ("feature_encoder.convnormrelu.0", "fnet.conv1"),
        ("context_encoder.convnormrelu.0", "cnet.conv1"),
        ("context_encoder.convnormrelu.1", "cnet.norm1"),
        ("feature_encoder.conv.", "fnet.conv2."),
        ("context_encoder.conv.", "cnet.conv2."),
        ("feature_encoder.", "fnet."),
        ("context_encoder.", "cnet."),
        ("motion_encoder.convcorr1.0", "encoder.convc1"),
        ("motion_encoder.convcorr2.0", "encoder.convc2"),
        ("motion_encoder.convflow1.0", "encoder.convf1"),
        ("motion_encoder.convflow2.0", "encoder.convf2"),
        ("motion_encoder.conv.0", "encoder.conv"),
        ("mask_predictor.convrelu.0", "update_block.mask.0"),
        ("mask_predictor.conv", "update_block.mask.2"),
        *((f"convnormrelu{n}.0", f"conv{n}") for n in (1, 2)),
        *((f"convnormrelu{n}.1", f"norm{n}") for n in (1, 2)),
        *((f"recurrent_block.convgru{n}.conv{gate}", f"gru.conv{gate}{n}") for n in (1, 2) for gate in "zrq"),
    ):
        name = name.replace(ours, theirs)
    return f"module.{name}"


def as_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict as raft-things.pth holds it: other names, the norm of a shortcut twice."""
    renamed = {original_name(name): value for name, value in state.items()}
    twice = {key.replace("downsample.1", "norm3"): value for key, value in renamed.items() if "downsample.1" in key}
    return renamed | twice


def test_layout_is_that_of_the_published_weights() -> None:
    layout = {name: tuple(value.shape) for name, value in Raft().state_dict().items()}
    assert layout == torchvision_layout()
    assert len(layout) == 169
    assert sum(parameter.numel() for parameter in Raft().parameters()) == 5_257_536  # as torchvision states


def test_flow_of_seeded_weights_is_what_the_published_code_gave(raft_file: Path) -> None:
    # Golden numbers: torchvision's own raft_large (models/optical_flow/raft.py as of May 2024) with these weights and
    # frames, 3 updates, torch 2.13 on a CPU. The code here differed by 1.7e-5 px in float32 and 2e-14 px in float64.
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(1, 3, 128, 136, generator=generator)
    second = torch.rand(1, 3, 128, 136, generator=generator)
    flow = load_raft(raft_file)(first, second, iterations=3)[0]
    assert flow.shape == (2, 128, 136)
    expected = torch.tensor([[-2.953223, -0.217735], [-4.657235, 0.195322], [-2.250533, -1.724092]])
    torch.testing.assert_close(flow[:, [5, 64, 127], [7, 64, 100]].T, expected, rtol=0, atol=1e-3)


def test_names_of_the_original_repository_map_one_to_one(raft_file: Path, tmp_path: Path) -> None:
    state = torch.load(raft_file, weights_only=True)
    original = as_original(state)
    assert len(original) == 179
    assert {"module.cnet.layer2.0.norm3.weight", "module.update_block.gru.convq2.bias"} <= set(original)
    renamed = rename_original(original)
    assert set(renamed) == set(state)
    assert all(torch.equal(renamed[name], value) for name, value in state.items())
    torch.save(original, tmp_path / "raft-things.pth")
    loaded = load_raft(tmp_path / "raft-things.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert rename_original(state) is state


def test_loaded_weights_are_frozen_and_normalise_as_in_training(raft_file: Path) -> None:
    model = load_raft(raft_file)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_correlation_peaks_where_the_features_went() -> None:
    first = torch.randn(1, 32, 16, 24, generator=torch.Generator().manual_seed(0))
    second = first.roll((1, 3), dims=(2, 3))  # one row down, three columns to the right
    found = CorrelationPyramid(first, second).look_up(cell_positions(first))
    assert found.shape == (1, 4 * 81, 16, 24)
    peak = found[0, :81, 4:-4, 4:-4].flatten(1).argmax(dim=0)
    assert peak.unique().tolist() == [(3 + 4) * 9 + (1 + 4)]  # columns vary slowest
    outside = CorrelationPyramid(first, second).look_up(cell_positions(first) + 1000)
    assert not outside.any()


def test_upsampling_mixes_neighbours_and_keeps_a_constant_flow() -> None:
    constant = torch.tensor([1.5, -0.5]).reshape(1, 2, 1, 1).expand(1, 2, 5, 6)
    logits = torch.randn(1, 9 * CELL**2, 5, 6, generator=torch.Generator().manual_seed(0))
    flow = _upsample(constant, logits)
    assert flow.shape == (1, 2, 40, 48)
    inside = flow[..., 8:-8, 8:-8]
    torch.testing.assert_close(inside, 8 * torch.tensor([1.5, -0.5]).reshape(1, 2, 1, 1).expand_as(inside))


def test_odd_sides_are_padded_and_cropped(raft_file: Path) -> None:
    model = load_raft(raft_file)
    first, second = torch.rand(2, 1, 3, 131, 141, generator=torch.Generator().manual_seed(0))
    pad = torch.nn.ReplicationPad2d((1, 2, 2, 3))
    padded = model(pad(first), pad(second), iterations=1)
    torch.testing.assert_close(model(first, second, iterations=1), padded[..., 2:-3, 1:-2])


def test_small_frames_are_scaled_up_and_their_flow_down() -> None:
    model = still_model(shift=(0.25, -0.5))
    small = torch.zeros(1, 3, 32, 64)
    flow = model(small, small, iterations=2)
    assert flow.shape == (1, 2, 32, 64)
    centre = flow[0, :, 8:-8, 8:-8]
    scale = 32 / 128
    moved = torch.tensor([0.25, -0.5]) * 2 * CELL * scale
    torch.testing.assert_close(centre, moved[:, None, None].expand_as(centre))


def still_model(shift: tuple[float, float]) -> Raft:
    """Return a model that adds `shift` cells to the flow at each refinement, whatever it sees."""
    model = Raft().requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.zero_()
    model.update_block.flow_head.conv2.bias.copy_(torch.tensor(shift))
    return model


def test_missing_file_is_named_and_the_ledger_says_where_weights_are(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"no weight file .*nowhere\.pth.*raft_large"):
        load_raft(tmp_path / "nowhere.pth")
    with pytest.raises(RewardError, match=r"curl .*download\.pytorch\.org/models/raft_large_C_T_V1.*BSD-3-Clause"):
        load_raft("raft_large")


def test_torn_or_foreign_files_are_refused(raft_file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.pth"
    for content in (raft_file.read_bytes()[:100_000], b"<!DOCTYPE html>", b""):
        torn.write_bytes(content)
        with pytest.raises(RewardError, match=r"Cannot read weights from .*torn\.pth"):
            load_raft(torn)
    torch.save([torch.zeros(2)], torn)
    with pytest.raises(RewardError, match="no state dict"):
        load_raft(torn)


def test_weights_of_another_network_are_refused(raft_file: Path, tmp_path: Path) -> None:
    state, other = torch.load(raft_file, weights_only=True), tmp_path / "other.pth"
    first = "feature_encoder.convnormrelu.0.weight"
    for change, words in (
        ({key: value for key, value in state.items() if key != first}, rf"lacks '{first}' \(1 such"),
        (state | {"head.weight": torch.zeros(2)}, "has the unknown 'head.weight'"),
        (state | {first: torch.zeros(32, 3, 7, 7)}, f"has another shape of '{first}'"),  # RAFT-small's
    ):
        torch.save(change, other)
        with pytest.raises(RewardError, match=rf"other\.pth does not fit Raft: it {words}"):
            load_raft(other)
