"""AMT-S (Li et al. 2023, arXiv:2304.09790): the frame between two frames, by all-pairs correlation and several flows.

Written from the paper, from the code of what it is made of (IFRNet, MIT: context encoder and decoders; RAFT, BSD: small
feature encoder and correlation), and from the names and shapes in amt-s.pth, with which the numbers agree. The authors'
code is under CC BY-NC 4.0; none of it is here. Their weights are under that licence, too.
Letters: P pairs of frames, H height, W width; h, w the same in cells of 8x8 pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewards.flow import warp
from rewards.raft import CorrelationPyramid, cell_positions

CHANNELS = (20, 32, 44, 56)
"""Of the context at 1/2, 1/4, 1/8 and 1/16 of the frames."""
SIDE_CHANNELS = 20
"""Channels of a decoder's inner side branch (IFRNet)."""
RADIUS = 3
"""The lookup sees (2 * RADIUS + 1)^2 places on each of four levels."""
NUM_FIELDS = 3
"""Pairs of flows that the frame is composed of."""
MIDDLE = 0.5
"""Time of the frame between: bilateral flows, twice as long, lead from one frame to the other."""
STRIDE = 16
"""Sides must be multiples of it."""


def _conv(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.PReLU(outputs))


def _enlarge(values: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return values
    return functional.interpolate(values, scale_factor=factor, mode="bilinear", align_corners=False)


class Bottleneck(nn.Module):
    """RAFT-small's residual block, with instance norm."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        """Make a block that divides height and width by `stride`."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 4, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.InstanceNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, inputs, H, W) to (n, outputs, H / stride, W / stride)."""
        inner = features
        for conv in (self.conv1, self.conv2, self.conv3):
            inner = torch.relu(functional.instance_norm(conv(inner)))
        return torch.relu(self.downsample(features) + inner)


class FeatureEncoder(nn.Module):
    """RAFT-small's features of cells of 8x8 pixels, which are correlated."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, padding=3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, stride=1), Bottleneck(32, 32, stride=1))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, stride=2), Bottleneck(64, 64, stride=1))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, stride=2), Bottleneck(96, 96, stride=1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (n, 3, H, W) to (n, 84, h, w)."""
        features = torch.relu(functional.instance_norm(self.conv1(frames)))
        encoded: Tensor = self.conv2(self.layer3(self.layer2(self.layer1(features))))
        return encoded


class ContextEncoder(nn.Module):
    """IFRNet's pyramid."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *CHANNELS[:-1])
        for level, (before, after) in enumerate(zip(inputs, CHANNELS, strict=True), start=1):
            self.add_module(f"pyramid{level}", nn.Sequential(_conv(before, after, stride=2), _conv(after, after)))

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Map (n, 3, H, W) to four levels, the finest first."""
        levels = [frames]
        for pyramid in self.children():
            levels.append(pyramid(levels[-1]))
        return levels[1:]


class SideBlock(nn.Module):
    """IFRNet's residual block: every other convolution sees the last channels only."""

    def __init__(self, channels: int) -> None:
        """Make it."""
        super().__init__()
        self.conv1, self.conv3 = _conv(channels, channels), _conv(channels, channels)
        self.conv2, self.conv4 = _conv(SIDE_CHANNELS, SIDE_CHANNELS), _conv(SIDE_CHANNELS, SIDE_CHANNELS)
        self.conv5 = nn.Conv2d(channels, channels, 3, padding=1)
        self.prelu = nn.PReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, channels, H, W) to the same."""
        inner = features
        for whole, side in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            inner = whole(inner)
            inner = torch.cat([inner[:, :-SIDE_CHANNELS], side(inner[:, -SIDE_CHANNELS:])], dim=1)
        mixed: Tensor = self.prelu(features + self.conv5(inner))
        return mixed


class Decoder(nn.Module):
    """One level of IFRNet: what is known at a size to what follows at twice the size."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        """Make it."""
        super().__init__()
        grow = nn.ConvTranspose2d(inner, outputs, 4, 2, padding=1)
        self.convblock = nn.Sequential(_conv(inputs, inner), SideBlock(inner), grow)

    def forward(self, *known: Tensor) -> Tensor:
        """Map tensors of one size, (P, any, H, W), to (P, outputs, 2 H, 2 W)."""
        decoded: Tensor = self.convblock(torch.cat(known, dim=1))
        return decoded


class UpdateBlock(nn.Module):
    """What correlations say about the flows and the content, at 1/8 of the frames whatever the level's size."""

    def __init__(self, channels: int, factor: int) -> None:
        """Make it for content of `channels`, `factor` times as large as the cells."""
        super().__init__()
        self._factor = factor
        self.convc1 = nn.Conv2d(2 * 4 * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1, self.convf2 = nn.Conv2d(4, 40, 7, padding=3), nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(64 + 20, 68, 3, padding=1)
        self.gru = _two_convs(68 + 4 + channels, 76)
        self.feat_head, self.flow_head = _two_convs(76, channels), _two_convs(76, 4)

    def forward(self, content: Tensor, flows: Tensor, correlation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changes of content and flows, both at the content's size.

        Args:
            content: (P, channels, factor h, factor w).
            flows: To the first frame and to the second, in cells, (P, 4, h, w).
            correlation: (P, 392, h, w).
        """
        seen = _leaky(self.convc1(correlation))
        moved = _leaky(self.convf2(_leaky(self.convf1(flows))))
        known = [_leaky(self.conv(torch.cat([seen, moved], dim=1))), flows, _enlarge(content, 1 / self._factor)]
        state = self.gru(torch.cat(known, dim=1))
        change = self._factor * _enlarge(self.flow_head(state), self._factor)
        return _enlarge(self.feat_head(state), self._factor), change


def _leaky(values: Tensor) -> Tensor:
    return functional.leaky_relu(values, 0.1)


def _two_convs(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 76, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(76, outputs, 3, padding=1))


class Correlations:
    """All-pairs correlations both ways."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        """Correlate features, each (P, 84, h, w)."""
        self._forward = CorrelationPyramid(first, second)
        self._backward = self._forward.reversed(first, second)
        self._cells = cell_positions(first)

    def look_up(self, flows: Tensor) -> Tensor:
        """Return what lies where bilateral flows (P, 4, h, w), in cells, lead to when prolonged: (P, 392, h, w)."""
        to_first, to_second = flows.chunk(2, dim=1)
        onwards = self._forward.look_up(self._cells + to_second / MIDDLE, radius=RADIUS)
        back = self._backward.look_up(self._cells + to_first / (1 - MIDDLE), radius=RADIUS)
        return torch.cat([onwards, back], dim=1)


class AmtS(nn.Module):
    """The whole model."""

    def __init__(self) -> None:
        """Make it, without useful weights."""
        super().__init__()
        finest, fine, coarse, coarsest = CHANNELS
        self.feat_encoder, self.encoder = FeatureEncoder(), ContextEncoder()
        self.decoder4 = Decoder(2 * coarsest + 1, 2 * coarsest, 4 + coarse)
        self.decoder3 = Decoder(3 * coarse + 4, 3 * coarse, 4 + fine)
        self.decoder2 = Decoder(3 * fine + 4, 3 * fine, 4 + finest)
        self.decoder1 = Decoder(3 * finest + 4, 3 * finest, 8 * NUM_FIELDS)
        self.update4, self.update3 = UpdateBlock(coarse, 1), UpdateBlock(fine, 2)
        self.update2 = UpdateBlock(finest, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * NUM_FIELDS, 6 * NUM_FIELDS, 3, padding=1),
            nn.PReLU(6 * NUM_FIELDS),
            nn.Conv2d(6 * NUM_FIELDS, 3, 3, padding=1),
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the frame in the middle.

        Args:
            first: (P, 3, H, W), RGB in [0, 1]; sides are multiples of 16, 128 or more.
            second: The same shape.

        Returns:
            (P, 3, H, W) in [0, 1].
        """
        mean = torch.stack([first, second]).mean(dim=(0, 2, 3, 4))[:, None, None, None]
        first, second = (  # in a layout that spares copies between convolutions and look-ups
            (frames - mean).contiguous(memory_format=torch.channels_last) for frames in (first, second)
        )
        correlations = Correlations(self.feat_encoder(first), self.feat_encoder(second))
        context = list(zip(self.encoder(first), self.encoder(second), strict=True))
        time = torch.full_like(context[3][0][:, :1], MIDDLE)
        flows, content = self.decoder4(*context[3], time).tensor_split([4], dim=1)
        content, flows = self._update(self.update4, content, flows, correlations, factor=1)
        for decoder, update, level, factor in (
            (self.decoder3, self.update3, 2, 2),
            (self.decoder2, self.update2, 1, 4),
        ):
            change, content = self._decode(decoder, content, context[level], flows).tensor_split([4], dim=1)
            flows = change + 2 * _enlarge(flows, 2)
            content, flows = self._update(update, content, flows, correlations, factor=factor)
        fields = self._decode(self.decoder1, content, context[0], flows)
        return self._compose(first, second, fields, 2 * _enlarge(flows, 2), mean)

    @staticmethod
    def _update(
        block: nn.Module, content: Tensor, flows: Tensor, correlations: Correlations, *, factor: int
    ) -> tuple[Tensor, Tensor]:
        in_cells = _enlarge(flows, 1 / factor) / factor
        content_change, flow_change = block(content, in_cells, correlations.look_up(in_cells))
        return content + content_change, flows + flow_change

    @staticmethod
    def _decode(decoder: nn.Module, content: Tensor, context: Sequence[Tensor], flows: Tensor) -> Tensor:
        warped = [warp(features, flow) for features, flow in zip(context, flows.chunk(2, dim=1), strict=True)]
        decoded: Tensor = decoder(content, *warped, flows)
        return decoded

    def _compose(self, first: Tensor, second: Tensor, fields: Tensor, flows: Tensor, mean: Tensor) -> Tensor:
        """Blend the frames as each field of (P, 24, H, W) moves and masks them, then combine the blends."""
        sizes = [2 * NUM_FIELDS, 2 * NUM_FIELDS, NUM_FIELDS, 3 * NUM_FIELDS]
        to_first, to_second, masks, residuals = fields.split(sizes, dim=1)
        starts = flows.chunk(2, dim=1)
        blends = []
        for number in range(NUM_FIELDS):
            pick = slice(2 * number, 2 * number + 2)
            moved_first = warp(first, starts[0] + to_first[:, pick])
            moved_second = warp(second, starts[1] + to_second[:, pick])
            mask = torch.sigmoid(masks[:, number : number + 1])
            residual = residuals[:, 3 * number : 3 * number + 3]
            blends.append(mask * moved_first + (1 - mask) * moved_second + mean + residual)
        average = torch.stack(blends).mean(dim=0)
        combined: Tensor = average + self.comb_block(torch.cat(blends, dim=1))
        return combined.clamp(0, 1)
