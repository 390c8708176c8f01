"""ViCLIP (Wang et al. 2023, InternVid, arXiv:2307.06942), the video-text model behind two dimensions of VBench.

CLIP's two transformers; the vision one sees the patches of all frames at once, with an embedding per frame, after one
class token. Parameters are named as in ViClip-InternVid-10M-FLT.pth; every size is read off the tensors, so that small
ones load too. Letters: B batch, F frames, P patches of a frame, W width.
"""

import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.initialization import no_init_weights

from rewards.clip_text import clean_prompt
from rewards.errors import RewardError
from rewards.pretrained import TextEmbeddings, check_pooling, follow, load_tokenizer
from rewards.weight_files import load_strictly, read_state, resolve

HEAD_WIDTH = 64
"""Of every CLIP; the number of heads is no tensor's size."""
OPENAI_TOKENIZER = "openai/clip-vit-large-patch14"
"""Hub id: OpenAI's vocabulary of 49,408 tokens, which ViCLIP uses."""


@dataclass(frozen=True)
class ViClipSizes:
    """Architecture of one weight file."""

    vision_width: int
    vision_layers: int
    patch_size: int
    grid: int
    """Patches per side."""
    num_frames: int
    text_width: int
    text_layers: int
    num_tokens: int
    """Longest text, 32 in the published file."""
    vocabulary: int
    embedding: int

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return self.grid * self.patch_size

    @classmethod
    def of(cls, state: Mapping[str, Tensor], *, source: str | Path) -> "ViClipSizes":
        """Read the sizes off the tensors.

        Args:
            state: Under the published names.
            source: For the message.

        Raises:
            RewardError: A tensor is missing: the file holds another model.
        """
        try:
            width, _, _, patch, _ = state["vision_encoder.conv1.weight"].shape
            positions = len(state["vision_encoder.positional_embedding"])
            return cls(
                vision_width=width,
                vision_layers=_num_layers(state, "vision_encoder"),
                patch_size=patch,
                grid=round((positions - 1) ** 0.5),
                num_frames=state["vision_encoder.temporal_positional_embedding"].shape[1],
                text_width=state["text_encoder.positional_embedding"].shape[1],
                text_layers=_num_layers(state, "text_encoder"),
                num_tokens=len(state["text_encoder.positional_embedding"]),
                vocabulary=len(state["text_encoder.token_embedding.weight"]),
                embedding=state["text_encoder.text_projection"].shape[1],
            )
        except (KeyError, ValueError) as error:
            raise RewardError(f"{source} holds no ViCLIP: {error} is missing or of another shape.") from error


def _num_layers(state: Mapping[str, Tensor], encoder: str) -> int:
    pattern = re.compile(rf"{encoder}\.transformer\.resblocks\.(\d+)\.")
    return max((int(found[1]) + 1 for name in state if (found := pattern.match(name))), default=0)


class Block(nn.Module):
    """CLIP's layer: attention and a perceptron of the quick GELU, each after a layer norm and beside a shortcut."""

    def __init__(self, width: int) -> None:
        """Make a layer of `width` channels."""
        super().__init__()
        self.attn = nn.MultiheadAttention(width, max(1, width // HEAD_WIDTH), batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, tokens, W) to the same; `mask` (tokens, tokens) is True where a token must not look."""
        seen = self.ln_1(tokens)
        tokens = tokens + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        inner = self.mlp["c_fc"](self.ln_2(tokens))
        grown: Tensor = self.mlp["c_proj"](inner * torch.sigmoid(1.702 * inner))
        return tokens + grown


class Transformer(nn.Module):
    """Layers one after the other."""

    def __init__(self, width: int, num_layers: int) -> None:
        """Make `num_layers` of `width` channels."""
        super().__init__()
        self.resblocks = nn.ModuleList([Block(width) for _ in range(num_layers)])

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, tokens, W) to the same."""
        for block in self.resblocks:
            tokens = block(tokens, mask)
        return tokens


class VisionEncoder(nn.Module):
    """Frames to one embedding."""

    def __init__(self, sizes: ViClipSizes) -> None:
        """Make it, without useful weights."""
        super().__init__()
        width, patch = sizes.vision_width, (1, sizes.patch_size, sizes.patch_size)
        self.conv1 = nn.Conv3d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(sizes.grid**2 + 1, width))
        self.temporal_positional_embedding = nn.Parameter(torch.empty(1, sizes.num_frames, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, sizes.vision_layers)
        self.proj = nn.Parameter(torch.empty(width, sizes.embedding))

    def forward(self, frames: Tensor) -> Tensor:
        """Map normalised frames (B, F, 3, side, side) to (B, embedding)."""
        patches = self.conv1(frames.transpose(1, 2)).flatten(3).permute(0, 3, 2, 1)  # (B, P, F, W)
        patches = patches + self.positional_embedding[1:, None] + self.temporal_positional_embedding
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(frames), 1, -1)
        tokens = self.transformer(self.ln_pre(torch.cat([first, patches.flatten(1, 2)], dim=1)))
        embedding: Tensor = self.ln_post(tokens[:, 0]) @ self.proj
        return embedding


class TextEncoder(nn.Module):
    """Tokens to one embedding, read at the end token."""

    def __init__(self, sizes: ViClipSizes) -> None:
        """Make it, without useful weights."""
        super().__init__()
        width = sizes.text_width
        self.token_embedding = nn.Embedding(sizes.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.num_tokens, width))
        self.transformer = Transformer(width, sizes.text_layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, sizes.embedding))

    def forward(self, token_ids: Tensor) -> Tensor:
        """Map ids (B, tokens) that end with the end token to (B, embedding); what followed it would change nothing."""
        num_tokens = token_ids.shape[1]
        tokens = self.token_embedding(token_ids) + self.positional_embedding[:num_tokens]
        later = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=token_ids.device).triu(1)
        embedding: Tensor = self.ln_final(self.transformer(tokens, later)[:, -1]) @ self.text_projection
        return embedding


class ViClip(nn.Module):
    """Both encoders, with the temperature that only training uses."""

    def __init__(self, sizes: ViClipSizes) -> None:
        """Make it, without useful weights."""
        super().__init__()
        self.vision_encoder = VisionEncoder(sizes)
        self.text_encoder = TextEncoder(sizes)
        self.temp = nn.Parameter(torch.empty(()))


class VideoTextCosine:
    """Cosine of a clip of 8 frames with its prompt, each distinct prompt encoded once."""

    def __init__(self, weights: str | Path, *, tokenizer: str | Path, cache_size: int) -> None:
        """Load the model.

        Args:
            weights: Name in `rewards.ledger`, or a file.
            tokenizer: Folder or Hub id of CLIP's tokenizer.
            cache_size: Prompt embeddings kept.

        Raises:
            RewardError: Missing or wrong weights or tokenizer.
        """
        path = resolve(weights)
        state = read_state(path, key="model")
        self.sizes = ViClipSizes.of(state, source=path)
        with no_init_weights():  # seconds for ViT-L/14 that the next line would throw away
            self._model = ViClip(self.sizes)
        load_strictly(self._model, state, source=path)
        vocabulary = load_tokenizer(tokenizer)
        check_pooling(vocabulary, pools_at=None, vocab_size=self.sizes.vocabulary, folder=tokenizer)
        encode: Callable[[Tensor], Tensor] = self._model.text_encoder
        self._text = TextEmbeddings(vocabulary, encode, max_tokens=self.sizes.num_tokens, cache_size=cache_size)

    def embed(self, frames: Tensor) -> Tensor:
        """Map a clip's normalised frames (frames, 3, image_size, image_size) to its embedding (1, embedding)."""
        follow(self._model, frames)
        with torch.inference_mode():
            video: Tensor = self._model.vision_encoder(frames[None])
            return video

    def cosine(self, video: Tensor, prompt: str) -> float:
        """Return the cosine of a clip's embedding and a prompt, in [-1, 1].

        Args:
            video: What `embed` returned.
            prompt: As the suite has it.

        Raises:
            RewardError: Empty prompt.
        """
        text = self._text([clean_prompt(prompt)], like=video)
        with torch.inference_mode():
            return float(functional.cosine_similarity(video, text)[0])


_shared: weakref.WeakValueDictionary[tuple[object, ...], VideoTextCosine] = weakref.WeakValueDictionary()


def shared_model(weights: str | Path, *, tokenizer: str | Path, cache_size: int) -> VideoTextCosine:
    """Return the one model of these settings, for every dimension that uses it; see `VideoTextCosine`.

    Two dimensions of VBench have the same 1.7 GB of weights, and ask the same of a clip.
    """
    path = resolve(weights)
    key = (path, path.stat().st_mtime_ns, str(tokenizer), cache_size)
    model = _shared.get(key)
    if model is None:
        model = _shared[key] = VideoTextCosine(weights, tokenizer=tokenizer, cache_size=cache_size)
    return model
