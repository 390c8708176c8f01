"""Optical flow by RAFT-large (Teed and Deng 2020, arXiv:2003.12039), in plain torch.

Parameters are named as in torchvision's `raft_large`; rewards/raft_weights.py loads published files. The forward pass
is the original's. The gradient is not cut between iterations as in RAFT's own training: it is the flow's true gradient.
Letters: P pairs of frames, H height, W width; h, w the same in cells of 8x8 pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewards.video_ops import resize

CELL = 8
"""Pixels per side of a feature cell; frames are padded to a multiple."""
NUM_LEVELS = 4
"""Levels of the correlation pyramid."""
RADIUS = 4
"""The lookup sees (2 * RADIUS + 1)^2 places per level."""
HIDDEN = 128
"""Channels of the recurrent state, and of the context beside it."""
MIN_SIDE = CELL * 2**NUM_LEVELS
"""128 pixels: below it the top of the pyramid is a single cell, where a position means nothing."""


class Raft(nn.Module):
    """RAFT-large: features of both frames, all-pairs correlation, and a recurrent unit that refines the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_encoder = Encoder(nn.InstanceNorm2d)
        self.context_encoder = Encoder(nn.BatchNorm2d)
        self.update_block = UpdateBlock()
        self.mask_predictor = MaskPredictor()

    def forward(self, first: Tensor, second: Tensor, *, iterations: int = 20) -> Tensor:
        """Return where each pixel of the first frames has moved to in the second ones.

        Sides that 8 does not divide are padded by repeating the border, half on each side, and cropped from the flow.
        Frames with a side below 128 are scaled up (bilinear) until the short side has 128, and the flow back down.

        Args:
            first: (P, 3, H, W), RGB in [0, 1].
            second: The same shape.
            iterations: Refinements, >= 1; 20 is usual, fewer are faster and underestimate large motion.

        Returns:
            Displacement (P, 2, H, W) in pixels of the given frames: to the right, then down.
        """
        height, width = first.shape[-2:]
        scale = max(1.0, MIN_SIDE / min(height, width))
        inner = (round(height * scale), round(width * scale))
        vertical, horizontal = (-side % CELL for side in inner)
        left, top = horizontal // 2, vertical // 2
        padding = (left, horizontal - left, top, vertical - top)
        first, second = (
            functional.pad(2 * resize(frames, inner, mode="bilinear") - 1, padding, mode="replicate")
            for frames in (first, second)
        )
        flow = self._estimate(first, second, iterations)[..., top : top + inner[0], left : left + inner[1]]
        stretch = torch.tensor([width / inner[1], height / inner[0]], dtype=flow.dtype, device=flow.device)
        return resize(flow, (height, width), mode="bilinear") * stretch[:, None, None]

    def _estimate(self, first: Tensor, second: Tensor, iterations: int) -> Tensor:
        """Return flow (P, 2, H, W) of frames (P, 3, H, W) in [-1, 1] whose sides are multiples of 8, 128 or more."""
        pyramid = CorrelationPyramid(*self.feature_encoder(torch.cat([first, second])).chunk(2))
        state, context = self.context_encoder(first).split(HIDDEN, dim=1)
        state, of_context = torch.tanh(state), self.update_block.recurrent_block.of_context(torch.relu(context))
        start = cell_positions(state)
        flow = torch.zeros_like(start)
        for _ in range(iterations):
            state, change = self.update_block(state, of_context, pyramid.look_up(start + flow), flow)
            flow = flow + change
        return _upsample(flow, self.mask_predictor(state))


def _layer(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, norm: type[nn.Module] | None = None, relu: bool = True
) -> nn.Sequential:
    """Return convolution, normalisation and ReLU under the keys 0, 1, 2 (0, 1 without normalisation)."""
    parts: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)]
    parts += [] if norm is None else [norm(outputs)]
    parts += [nn.ReLU(inplace=True)] if relu else []
    return nn.Sequential(*parts)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is projected where the block changes the size."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: type[nn.Module]) -> None:
        """Make a block that divides height and width by `stride`."""
        super().__init__()
        self.convnormrelu1 = _layer(inputs, outputs, 3, stride=stride, norm=norm)
        self.convnormrelu2 = _layer(outputs, outputs, 3, norm=norm)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = _layer(inputs, outputs, 1, stride=stride, norm=norm, relu=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, H, W) to (n, outputs, H / stride, W / stride)."""
        return torch.relu(self.downsample(features) + self.convnormrelu2(self.convnormrelu1(features)))


class Encoder(nn.Module):
    """Frames to features of cells of 8x8 pixels."""

    def __init__(self, norm: type[nn.Module]) -> None:
        """Make it: instance norm for the features that are correlated, batch norm for the context."""
        super().__init__()
        self.convnormrelu = _layer(3, 64, 7, stride=2, norm=norm)
        self.layer1 = self._two_blocks(64, 64, stride=1, norm=norm)
        self.layer2 = self._two_blocks(64, 96, stride=2, norm=norm)
        self.layer3 = self._two_blocks(96, 128, stride=2, norm=norm)
        self.conv = nn.Conv2d(128, 2 * HIDDEN, 1)

    @staticmethod
    def _two_blocks(inputs: int, outputs: int, *, stride: int, norm: type[nn.Module]) -> nn.Sequential:
        first = ResidualBlock(inputs, outputs, stride=stride, norm=norm)
        return nn.Sequential(first, ResidualBlock(outputs, outputs, stride=1, norm=norm))

    def forward(self, frames: Tensor) -> Tensor:
        """Map (n, 3, H, W) in [-1, 1] to (n, 256, h, w)."""
        features: Tensor = self.conv(self.layer3(self.layer2(self.layer1(self.convnormrelu(frames)))))
        return features


class CorrelationPyramid:
    """Scaled dot products of every cell of the first frame with every cell, and 2x2, 4x4, 8x8 cells, of the second.

    The mean of products with several cells is the product with their mean: the coarse levels are made of pooled
    features, so that the whole volume, the largest tensor, is written once and read by nothing but look-ups.
    """

    def __init__(self, first: Tensor, second: Tensor, *, volume: Tensor | None = None) -> None:
        """Correlate features, each (P, channels, h, w).

        Args:
            first: Features of the first frames.
            second: Of the second ones.
            volume: The finest level (P, h w, h w), where it is known.
        """
        cells = (first / first.shape[1] ** 0.5).flatten(2).transpose(1, 2)
        self.volume = cells @ second.flatten(2) if volume is None else volume
        """Of each cell of the first frames (rows) with each of the second ones: (P, h w, h w)."""
        self._levels = [self.volume.reshape(-1, 1, *second.shape[2:])]
        for _ in range(NUM_LEVELS - 1):
            second = functional.avg_pool2d(second, 2)
            self._levels.append((cells @ second.flatten(2)).reshape(-1, 1, *second.shape[2:]))

    def reversed(self, first: Tensor, second: Tensor) -> "CorrelationPyramid":
        """Return the correlations the other way, of the same features: its volume is this one's transposed."""
        return CorrelationPyramid(second, first, volume=self.volume.transpose(1, 2))

    def look_up(self, places: Tensor, *, radius: int = RADIUS) -> Tensor:
        """Return the correlations around a place of the second frame, for each cell of the first.

        Args:
            places: (P, 2, h, w): column and row, in cells.
            radius: Cells to each side that are looked at.

        Returns:
            (P, 4 * (2 * radius + 1)^2, h, w); outside the frame the correlation is 0.
        """
        pairs, _, height, width = places.shape
        steps = torch.arange(-radius, radius + 1, dtype=places.dtype, device=places.device)
        # The columns vary slowest: the order that the published weights were trained with.
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        centres = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
        found = []
        for level, volume in enumerate(self._levels):
            last = torch.tensor([volume.shape[-1] - 1, volume.shape[-2] - 1], dtype=places.dtype, device=places.device)
            grid = 2 * (centres / 2**level + window) / last - 1
            found.append(functional.grid_sample(volume, grid, align_corners=True).reshape(pairs, height, width, -1))
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


class MotionEncoder(nn.Module):
    """Correlations and flow to features of the motion."""

    def __init__(self) -> None:
        super().__init__()
        self.convcorr1 = _layer(NUM_LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convcorr2 = _layer(256, 192, 3)
        self.convflow1 = _layer(2, 128, 7)
        self.convflow2 = _layer(128, 64, 3)
        self.conv = _layer(192 + 64, HIDDEN - 2, 3)

    def forward(self, correlation: Tensor, flow: Tensor) -> Tensor:
        """Map (P, 324, h, w) and (P, 2, h, w) to (P, 128, h, w), the flow itself last."""
        seen = [self.convcorr2(self.convcorr1(correlation)), self.convflow2(self.convflow1(flow))]
        return torch.cat([self.conv(torch.cat(seen, dim=1)), flow], dim=1)


class ConvGru(nn.Module):
    """Gated recurrent unit whose gates see a row or a column of cells."""

    def __init__(self, kernel: tuple[int, int]) -> None:
        super().__init__()
        self._padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel)
        self.convr = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel)
        self.convq = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel)

    def of_context(self, context: Tensor) -> Tensor:
        """Return what the context (P, 128, h, w) adds in all three convolutions, at each iteration: (P, 384, h, w)."""
        convs = (self.convz, self.convr, self.convq)
        kernels = torch.cat([conv.weight[:, HIDDEN : 2 * HIDDEN] for conv in convs])
        biases = torch.cat([conv.bias for conv in convs if conv.bias is not None])
        return functional.conv2d(context, kernels, biases, padding=self._padding)

    def forward(self, state: Tensor, motion: Tensor, of_context: Tensor) -> Tensor:
        """Return the next state.

        The convolutions see state, context and motion side by side; the context's part, a third, is known.

        Args:
            state: (P, 128, h, w).
            motion: The same shape.
            of_context: What `of_context` returned.
        """
        of_gates, of_proposal = of_context.split([2 * HIDDEN, HIDDEN], dim=1)
        kernels = torch.cat([_without_context(self.convz), _without_context(self.convr)])
        gates = functional.conv2d(torch.cat([state, motion], dim=1), kernels, padding=self._padding) + of_gates
        update, reset = torch.sigmoid(gates).chunk(2, dim=1)
        known = torch.cat([reset * state, motion], dim=1)
        proposal = functional.conv2d(known, _without_context(self.convq), padding=self._padding) + of_proposal
        return (1 - update) * state + update * torch.tanh(proposal)


def _without_context(conv: nn.Conv2d) -> Tensor:
    return torch.cat([conv.weight[:, :HIDDEN], conv.weight[:, 2 * HIDDEN :]], dim=1)


class RecurrentBlock(nn.Module):
    """A unit along rows, then one along columns."""

    def __init__(self) -> None:
        super().__init__()
        self.convgru1 = ConvGru((1, 5))
        self.convgru2 = ConvGru((5, 1))

    def of_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the context adds in each unit, see `ConvGru`."""
        return self.convgru1.of_context(context), self.convgru2.of_context(context)

    def forward(self, state: Tensor, motion: Tensor, of_context: tuple[Tensor, Tensor]) -> Tensor:
        """Return the next state."""
        following: Tensor = self.convgru2(self.convgru1(state, motion, of_context[0]), motion, of_context[1])
        return following


class FlowHead(nn.Module):
    """State to a change of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, state: Tensor) -> Tensor:
        """Map (P, 128, h, w) to (P, 2, h, w), in cells."""
        change: Tensor = self.conv2(torch.relu(self.conv1(state)))
        return change


class UpdateBlock(nn.Module):
    """One refinement of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.motion_encoder = MotionEncoder()
        self.recurrent_block = RecurrentBlock()
        self.flow_head = FlowHead()

    def forward(
        self, state: Tensor, of_context: tuple[Tensor, Tensor], correlation: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the next state and the change of the flow, in cells."""
        state = self.recurrent_block(state, self.motion_encoder(correlation, flow), of_context)
        return state, self.flow_head(state)


class MaskPredictor(nn.Module):
    """State to the logits of the convex upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.convrelu = _layer(HIDDEN, 256, 3)
        self.conv = nn.Conv2d(256, 9 * CELL**2, 1)

    def forward(self, state: Tensor) -> Tensor:
        """Map (P, 128, h, w) to (P, 9 * 64, h, w)."""
        return 0.25 * self.conv(self.convrelu(state))  # the original scales this branch's gradient down so


def cell_positions(like: Tensor) -> Tensor:
    """Return column and row of each cell, (P, 2, h, w), for a tensor (P, any, h, w)."""
    pairs, _, height, width = like.shape
    rows, columns = (torch.arange(side, dtype=like.dtype, device=like.device) for side in (height, width))
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    return grid.expand(pairs, 2, height, width)


def _upsample(flow: Tensor, logits: Tensor) -> Tensor:
    """Return flow in pixels, each a convex mixture of the 3x3 cells around it (section 3.3).

    Args:
        flow: (P, 2, h, w), in cells.
        logits: (P, 9 * 64, h, w): 9 neighbours for each of 8 rows and 8 columns of pixels.
    """
    pairs, _, height, width = flow.shape
    weights = logits.reshape(pairs, 1, 9, CELL, CELL, height, width).softmax(dim=2)
    neighbours = functional.unfold(CELL * flow, 3, padding=1).reshape(pairs, 2, 9, 1, 1, height, width)
    pixels = (weights * neighbours).sum(dim=2)  # (P, 2, 8, 8, h, w)
    return pixels.permute(0, 1, 4, 2, 5, 3).reshape(pairs, 2, CELL * height, CELL * width)
