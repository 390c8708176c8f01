"""What rewards made of a `transformers` folder share: checked loading, text embeddings, passes of bounded memory."""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rewards.errors import RewardError
from rewards.inputs import full_precision
from rewards.prompt_cache import PromptCache
from rewards.video_ops import CLIP_MEAN, CLIP_STD

logger = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def load_model(model: str | Path, model_class: type[ModelT]) -> ModelT:
    """Load frozen float32 weights, in eval mode.

    Args:
        model: Folder that `save_pretrained` wrote, or a Hub id such as "yuvalkirstain/PickScore_v1".
        model_class: The class that the folder must hold.

    Raises:
        RewardError: No such folder, a folder of another class, or missing, corrupt or incomplete weights.
    """
    folder_exists = _check_folder(model)
    wanted = model_class.config_class.model_type
    try:
        config, _ = PreTrainedConfig.get_config_dict(str(model), local_files_only=folder_exists)
        if config.get("model_type") != wanted:
            raise RewardError(
                f"{model} holds a model of type {config.get('model_type')!r}, not {wanted!r}: "
                f"this reward needs a folder of {model_class.__name__}."
            )
        with _quiet_progress():
            loaded, info = model_class.from_pretrained(
                str(model), dtype=torch.float32, local_files_only=folder_exists, output_loading_info=True
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RewardError(f"Cannot load {model_class.__name__} from {model}: {reason}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise RewardError(
            f"{model} lacks {len(missing)} weights of {model_class.__name__}, for example {missing[0]!r}: "
            "they would be random. Save the whole model again."
        )
    return loaded.requires_grad_(False).eval()


@contextlib.contextmanager
def _quiet_progress() -> Iterator[None]:
    """Hide the bar that transformers draws for reading weights, and leave its setting as it was."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


def _check_folder(model: str | Path) -> bool:
    """Return whether `model` is a folder (else it is a Hub id); refuse what can be neither."""
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            is_pipeline = (path / "model_index.json").is_file()
            hint = " It is a diffusers pipeline, which generates and does not score." if is_pipeline else ""
            raise RewardError(f"{model} holds no config.json, so it is no reward model folder.{hint}")
        return True
    looks_local = path.exists() or path.is_absolute() or (path.parent != Path() and path.parent.is_dir())
    if looks_local or not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", str(model)):
        raise RewardError(f"There is no reward model folder {model}. Give a folder, or a Hub id such as 'owner/name'.")
    return False


def load_tokenizer(folder: str | Path, *, needs_end: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or Hub id.

    Args:
        folder: Folder or Hub id.
        needs_end: Whether the model reads the text at an end token, as CLIP does and BERT does not.

    Raises:
        RewardError: None is there, or it has no end token where one is needed.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=Path(folder).is_dir())
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RewardError(
            f"Cannot load a tokenizer from {folder}: {reason}. Name one with the option 'tokenizer'."
        ) from error
    # Without vocabulary files transformers 5 builds an empty tokenizer of the model's type, and says nothing.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise RewardError(f"There is no tokenizer vocabulary in {folder}. Name its folder with the option 'tokenizer'.")
    if needs_end and tokenizer.eos_token_id is None:
        raise RewardError(f"The tokenizer of {folder} has no end token, at which CLIP reads the text embedding.")
    return tokenizer


def check_pooling(
    tokenizer: PreTrainedTokenizerBase, *, pools_at: int | None, vocab_size: int, folder: str | Path
) -> None:
    """Make sure that the text tower knows every token and reads its embedding at the end token.

    CLIP text models of transformers take the first `config.eos_token_id`, or, where that is 2 and always in X-CLIP, the
    HIGHEST token id of the sentence. Anywhere else the embedding ignores (part of) the prompt, without any error.

    Args:
        tokenizer: Tokenizer of the folder.
        pools_at: Token id at which the text model reads, None for "the highest id".
        vocab_size: Rows of the model's token embedding.
        folder: For the message.

    Raises:
        RewardError: The model would read another position, or the vocabulary is larger than the model's.
    """
    end = tokenizer.eos_token_id
    token_ids = tokenizer("a")["input_ids"]
    highest = max(tokenizer.get_vocab().values())
    if highest >= vocab_size:
        raise RewardError(
            f"The tokenizer of {folder} has token ids up to {highest}, the text model only {vocab_size} embeddings: "
            "they do not belong together."
        )
    if end not in token_ids:
        raise RewardError(
            f"The tokenizer of {folder} does not append its end token {tokenizer.eos_token!r}: add a post-processor."
        )
    if pools_at is None and end != highest:
        raise RewardError(
            f"The text model of {folder} reads its embedding at the highest token id, which is {highest} and not the "
            f"end token's {end}: give the end token the last place in the vocabulary."
        )
    if pools_at is not None and pools_at != end:
        raise RewardError(
            f"The text model of {folder} reads its embedding at token {pools_at}, but the tokenizer ends with {end}: "
            "set text_config.eos_token_id to the tokenizer's."
        )


def image_statistics(folder: str | Path) -> tuple[Sequence[float], Sequence[float]]:
    """Return the channel means and deviations that the folder states, or CLIP's where it states none.

    Args:
        folder: Local folder; a Hub id gets CLIP's.

    Raises:
        RewardError: The folder's file is not JSON.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise RewardError(f"{path} is not valid JSON: {error}") from error
        content = content.get("image_processor", content)
        if "image_mean" in content and "image_std" in content:
            return content["image_mean"], content["image_std"]
    return CLIP_MEAN, CLIP_STD


def square_size(image_size: int | Sequence[int], folder: str | Path) -> int:
    """Return the side of the square that a vision tower takes.

    Raises:
        RewardError: It takes another rectangle.
    """
    sides = {image_size} if isinstance(image_size, int) else set(image_size)
    if len(sides) != 1:
        raise RewardError(f"{folder} takes images of {image_size}; only squares are supported.")
    return sides.pop()


def follow(model: nn.Module, video: Tensor) -> None:
    """Move a model to the device and precision of the clips it is about to score.

    Args:
        model: Float32 weights; float64 and back is exact, so a gradient check leaves no trace.
        video: Checked clips, float32 or float64.
    """
    weight = next(model.parameters())
    if weight.device != video.device or weight.dtype != video.dtype:
        # Weights made inside inference_mode could never carry a gradient to pixels again.
        with torch.inference_mode(False):
            model.to(device=video.device, dtype=video.dtype)


def in_passes(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], size: int | None) -> Tensor:
    """Apply a function to slices of the first axis and join the results.

    With gradient each slice is recomputed in the backward pass, so that memory is that of one slice both ways.

    Args:
        function: Row by row, without randomness.
        inputs: Tensors with a common first axis.
        size: Rows per pass, None for all at once.
    """
    num_rows = inputs[0].shape[0]
    if size is None or size >= num_rows:
        return function(*inputs)
    parts = []
    for start in range(0, num_rows, size):
        rows = tuple(tensor[start : start + size] for tensor in inputs)
        if torch.is_grad_enabled():  # inputs or trained weights may carry gradient
            parts.append(checkpoint(function, *rows, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*rows))
    return torch.cat(parts)


class TextEmbeddings:
    """Text embeddings, each distinct prompt encoded once, alone: an embedding never depends on its batch mates.

    Threads may share one.

    Unless it trains, the text tower is frozen, so embeddings carry no gradient and stay usable under grad even when
    they were first computed in inference mode.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encode: Callable[[Tensor], Tensor],
        *,
        max_tokens: int,
        cache_size: int,
        trainable: bool = False,
    ) -> None:
        """Start empty.

        Args:
            tokenizer: Appends its end token.
            encode: Token ids (n, tokens) -> embeddings (n, ...), n is 1 unless it trains; one shape for all prompts.
            max_tokens: Longer prompts are cut, with a warning.
            cache_size: Embeddings kept; the least recently used leaves first. 0 keeps none.
            trainable: Whether the text tower may change: then embeddings carry gradient and none is kept.

        Raises:
            RewardError: Negative cache size.
        """
        self.tokenizer = tokenizer
        self._encode = encode
        self._max_tokens = max_tokens
        self._trainable = trainable
        self._cache = PromptCache[Tensor](cache_size)

    def __len__(self) -> int:
        """Return how many embeddings are kept."""
        return len(self._cache)

    def __call__(self, prompts: Sequence[str], *, like: Tensor) -> Tensor:
        """Return embeddings (prompts, ...) on the device and in the precision of `like`."""
        if self._trainable:
            return self._fresh(prompts, like)
        return torch.stack([self._look_up(prompt, like) for prompt in prompts])

    def _fresh(self, prompts: Sequence[str], like: Tensor) -> Tensor:
        """Encode with gradient; prompts of equal length go together: without padding no embedding changes."""
        token_ids = {prompt: self._token_ids(prompt) for prompt in dict.fromkeys(prompts)}
        by_length: dict[int, list[str]] = {}
        for prompt, ids in token_ids.items():
            by_length.setdefault(ids.shape[1], []).append(prompt)
        embeddings: dict[str, Tensor] = {}
        with full_precision(like):
            for group in by_length.values():
                rows = self._encode(torch.cat([token_ids[prompt] for prompt in group]).to(like.device))
                embeddings.update(zip(group, rows, strict=True))
        return torch.stack([embeddings[prompt] for prompt in prompts])

    def _look_up(self, prompt: str, like: Tensor) -> Tensor:
        embedding = self._cache.get(prompt, lambda text: self._encode_alone(text, like))
        dtype = like.dtype if embedding.is_floating_point() else None  # token ids stay what they are
        return embedding.to(device=like.device, dtype=dtype)

    def _encode_alone(self, prompt: str, like: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.no_grad(), full_precision(like):
            return self._encode(self._token_ids(prompt).to(like.device))[0]

    def _token_ids(self, prompt: str) -> Tensor:
        if not prompt.strip():
            raise RewardError("A reward that reads the prompt got an empty one.")
        num_tokens = len(self.tokenizer(prompt)["input_ids"])
        if num_tokens > self._max_tokens:
            logger.warning(
                "Prompt of %d tokens is cut to %d for the reward: %.60s", num_tokens, self._max_tokens, prompt
            )
        token_ids = self.tokenizer(prompt, truncation=True, max_length=self._max_tokens)["input_ids"]
        return torch.tensor([token_ids])
