"""What pair building starts from: prompts, given clips and the plan of batches, all checked before a model runs."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from rlhf_video.algorithms.clip_maker import attention_file_sha256, clip_seed, clip_shape
from rlhf_video.algorithms.pair_building_clips import WORK, Item, plan_items, slug
from rlhf_video.algorithms.pair_building_config import PairBuildingConfig
from rlhf_video.algorithms.pair_building_scores import Span
from rlhf_video.algorithms.suites import first_prompts
from rlhf_video.backbones import meta_backbone
from rlhf_video.backbones.base import BackboneSpec
from rlhf_video.data import ListedClip, PromptSuite, load_prompts, read_clip_list, sha256_file, write_atomic
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.lora.files import adapter_sha256
from rlhf_video.preferences.store import prompt_key
from rlhf_video.settings import changed_fields, dump_yaml, to_plain

FIXES_CLIPS = (
    *("source", "backbone", "adapter_scale", "attention", "clips_per_prompt", "guidances", "sampling", "save"),
    *("batch_size", "precision", "vae_tiling", "seed"),
)
"""Config fields that decide the clips, beside what files hold and the levels of re-noising; resuming keeps them."""
_SHOWN = 5  # broken clips that a message lists

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Inputs:
    """The checked inputs of a run."""

    batches: tuple[tuple[Item, ...], ...]
    """Clips as they are sampled; given ones that are only filed come first."""
    num_given: int = 0
    """How many of the batches file given clips (real versus generated)."""
    spans: tuple[Span, ...] = ()
    """The whole clip, then the segments that are labelled."""
    evaluation: Mapping[str, PromptSuite] = field(default_factory=dict)
    """Evaluation suites by name."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Name -> SHA-256 of what the pairs are made from."""


def read_inputs(config: PairBuildingConfig) -> Inputs:
    """Read and check everything that needs no weights.

    Raises:
        DataError: Prompts or clips are missing, malformed, of another size, or evaluation prompts.
        BackboneError, ConfigError, AdapterError: Model folder, sizes or adapter do not fit.
    """
    evaluation = read_evaluation(config.evaluation)
    assert config.backbone is not None
    spec = meta_backbone(config.backbone, text_length=config.sampling.text_length).spec
    spec.latent_shape(clip_shape(config.sampling, 1))
    spans = ((0, config.sampling.num_frames), *_segments(config, spec))
    sources = {} if config.adapter is None else {"adapter": adapter_sha256(config.adapter)}
    if config.clips is not None:
        listed = read_clip_list(config.clips, field="clips")
        hashes = _check_clips(listed, config)
        lines = "\n".join(f"{digest}\t{clip.prompt}" for digest, clip in zip(hashes, listed, strict=True))
        sources["clips"] = hashlib.sha256(lines.encode()).hexdigest()
        _refuse_leaks([clip.prompt for clip in listed], evaluation, config)
        given, made = _given_items(listed, config)
    else:
        assert config.prompts is not None
        suite = first_prompts(load_prompts(config.prompts), config.num_prompts, "num_prompts")
        sources["prompts"] = suite.sha256
        _refuse_leaks(suite.prompts, evaluation, config)
        given, made = [], _planned(suite.prompts, config)
    filed = _cut(given, config.batch_size)
    batches = [
        part for _, one in groupby(made, lambda item: item.guidance) for part in _cut(list(one), config.batch_size)
    ]
    return Inputs((*filed, *batches), len(filed), spans, evaluation, sources)


def start_folder(config: PairBuildingConfig, inputs: Inputs, *, resume: bool) -> None:
    """Open the output folder, or refuse it.

    Raises:
        ConfigError: It holds another run's clips, or this run's and nobody said to go on with them.
    """
    file = config.output_dir / WORK / "clips.json"
    facts = _facts(config, inputs)
    if file.is_file():
        if not resume:
            raise ConfigError(
                f"{config.output_dir} holds clips for pairs: go on with --resume, or choose another output_dir."
            )
        if changed := changed_fields(json.loads(file.read_text(encoding="utf-8")), facts):
            raise ConfigError(
                f"{config.output_dir} holds clips made with other settings ({', '.join(changed)} changed): choose "
                "another output_dir, or delete that folder."
            )
    write_atomic(file, (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode())
    write_atomic(config.output_dir / "config.yaml", dump_yaml(config).encode())


def _facts(config: PairBuildingConfig, inputs: Inputs) -> dict[str, Any]:
    """Return what fixes every clip."""
    plain = to_plain(config)
    facts = {name: plain[name] for name in FIXES_CLIPS}
    facts["inputs"] = dict(inputs.sources)
    if config.attention is not None:
        facts["attention_file"] = attention_file_sha256(config.attention)
    if config.source == "partial_renoising":
        facts["renoising"] = {name: plain["renoising"][name] for name in ("lowest", "highest")}
    return facts


def read_evaluation(files: Sequence[Path]) -> dict[str, PromptSuite]:
    """Read evaluation suites, by name.

    Raises:
        DataError: A file is missing or malformed.
        ConfigError: Two have one name.
    """
    suites: dict[str, PromptSuite] = {}
    for file in files:
        suite = load_prompts(file)
        if suite.name in suites:
            raise ConfigError(f"evaluation names two files '{suite.name}': rename one of them.")
        suites[suite.name] = suite
    return suites


def _refuse_leaks(prompts: Sequence[str], suites: Mapping[str, PromptSuite], config: PairBuildingConfig) -> None:
    """Refuse evaluation prompts before clips are made for them; with leaks=drop their pairs are dropped and counted."""
    if config.split.leaks == "drop":
        return
    own = {prompt_key(prompt) for prompt in prompts}
    for name, suite in suites.items():
        shared = sorted(own & {prompt_key(prompt) for prompt in suite.prompts})
        if shared:
            raise DataError(
                f"{len(shared)} of {len(own)} prompts are in the evaluation suite '{name}', for example '{shared[0]}': "
                "results on trained prompts prove nothing. Take them out, or set split.leaks=drop."
            )


def _segments(config: PairBuildingConfig, spec: BackboneSpec) -> Iterator[Span]:
    """Yield runs of pixel frames that are whole latent frames; the first has frame 0 too."""
    if config.source != "partial_renoising" or config.renoising.labels == "overall":
        return
    size, last = config.renoising.segment_frames, config.sampling.num_frames
    if size % spec.temporal_stride:
        fits = max(spec.temporal_stride * round(size / spec.temporal_stride), spec.temporal_stride)
        raise ConfigError(
            f"renoising.segment_frames={size} is no multiple of the backbone's temporal stride "
            f"{spec.temporal_stride}: use {fits}."
        )
    for start in range(0, last - 1, size):
        yield (start + 1 if start else 0, min(start + size + 1, last))


def _check_clips(clips: Sequence[ListedClip], config: PairBuildingConfig) -> list[str]:
    """Refuse given clips that are missing, unreadable or of another size, all at once; return their hashes."""
    size = config.sampling
    problems = []
    for clip in clips:
        try:
            clip.read((size.num_frames, 3, size.height, size.width), field="clips")
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = f" And {len(problems) - _SHOWN} more." if len(problems) > _SHOWN else ""
        raise DataError(f"{len(problems)} of {len(clips)} clips cannot be used: {' '.join(problems[:_SHOWN])}{more}")
    return [sha256_file(clip.file) for clip in clips]


def _given_items(listed: Sequence[ListedClip], config: PairBuildingConfig) -> tuple[list[Item], list[Item]]:
    """Return clips to file, and clips to make: for each prompt, or (partial re-noising) from each given clip."""
    if config.source == "real_vs_generated":
        prompts = list(dict.fromkeys(clip.prompt for clip in listed))
        filed = [
            Item(f"given-{number:04d}-{slug(clip.prompt)}", clip.prompt, 0, clip.file)
            for number, clip in enumerate(listed)
        ]
        return filed, _planned(prompts, config)
    each = config.clips_per_prompt
    return [], [
        Item(
            f"{number:04d}-{slug(clip.prompt)}-{copy}",
            clip.prompt,
            clip_seed(config.seed, clip.prompt, number * each + copy),
            clip.file,
        )
        for number, clip in enumerate(listed)
        for copy in range(each)
    ]


def _planned(prompts: Sequence[str], config: PairBuildingConfig) -> list[Item]:
    return plan_items(prompts, config.clips_per_prompt, seed=config.seed, guidances=config.guidances)


def _cut(items: Sequence[ItemT], size: int) -> list[tuple[ItemT, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]
