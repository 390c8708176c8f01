"""What dpo.py measures: settings, recipes and the passes that they run, and one optimiser step by each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from attention_timing import Call
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor
from torch.nn.functional import logsigmoid, mse_loss

from rlhf_video.algorithms.dpo_loss import DpoLossConfig, PairErrors, dpo_loss
from rlhf_video.algorithms.dpo_passes import joint_backward, two_pass_backward
from rlhf_video.algorithms.dpo_rows import Group, Rows, member_error, pair_errors
from rlhf_video.backbones import Conditioning, meta_backbone
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.lora import LoraConfig, adapter_off, attach

ROOT = Path(__file__).resolve().parents[1]
SPRITE, WAN = ROOT / "assets" / "sprite-wan", ROOT / "configs" / "backbones" / "wan2.1-t2v-1.3b"
LOSS = DpoLossConfig(beta=500.0)


@dataclass(frozen=True)
class Setting:
    """A model and its batch."""

    folder: Path
    latents: tuple[int, int, int]
    """(latent frames, latent height, latent width)."""
    num_text: int
    pairs: int = 1
    rank: int = 16
    dtype: torch.dtype = torch.float32
    is_checkpointed: bool = False
    """Whether blocks are recomputed in the backward pass."""
    changes: Mapping[str, int] = field(default_factory=dict)
    """What differs from the folder's transformer config."""

    @property
    def config(self) -> dict[str, int]:
        """The transformer's config."""
        return {**WanTransformer3DModel.load_config(self.folder / "transformer"), **self.changes}

    @property
    def backward(self) -> int:
        """Forward passes that a backward pass costs where every weight is trained."""
        return 3 if self.is_checkpointed else 2


_MID = {"num_layers": 8, "num_attention_heads": 6, "attention_head_dim": 64, "ffn_dim": 1536}
_TINY = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32}
SETTINGS = {
    "tiny": Setting(SPRITE, (2, 4, 4), 4, pairs=2, rank=4, changes=_TINY),
    "sprite": Setting(SPRITE, (6, 8, 8), 32, pairs=8),
    "mid": Setting(SPRITE, (6, 16, 24), 64, changes=_MID),
    "mid-recomputed": Setting(SPRITE, (6, 16, 24), 64, is_checkpointed=True, changes=_MID),
    "wan-1.3b": Setting(WAN, (21, 60, 104), 512, rank=64, dtype=torch.bfloat16),
    "wan-1.3b-recomputed": Setting(WAN, (21, 60, 104), 512, rank=64, dtype=torch.bfloat16, is_checkpointed=True),
}
DEFAULTS = {"cpu": ["sprite", "mid", "mid-recomputed"], "cuda": ["wan-1.3b", "wan-1.3b-recomputed"]}


@dataclass(frozen=True)
class Passes:
    """What a recipe runs, counted in clips of a pair."""

    reference: int
    """Forward passes of the reference, without gradient."""
    extra: int
    """Forward passes of the trained model, without gradient."""
    trained: int = 2
    """Forward passes of the trained model with the backward passes that belong to them."""

    def cost(self, reference: float, extra: float, trained: float) -> float:
        """Return the cost of all, given one clip's of each kind."""
        return self.reference * reference + self.extra * extra + self.trained * trained

    def __str__(self) -> str:
        """Return the three numbers."""
        return f"{self.reference} + {self.extra} + {self.trained}"


RECIPES = {
    "plain": Passes(2, 0),
    "joint + cached": Passes(0, 0),
    "two passes + cached": Passes(0, 1),
    "two passes": Passes(2, 1),
    "joint": Passes(2, 0),
}


class Step:
    """One model with an adapter, one batch of pairs, and one optimiser step of it by every recipe."""

    def __init__(self, setting: Setting, device: torch.device) -> None:
        """Build the model with random weights, and an adapter that is not zero."""
        torch.manual_seed(0)
        self.setting, config = setting, setting.config
        with device:
            transformer = WanTransformer3DModel.from_config(config)
        for name, parameter in transformer.named_parameters():  # as `from_pretrained(torch_dtype=...)` casts
            if not set(name.split(".")) & set(transformer._keep_in_fp32_modules):
                parameter.data = parameter.data.to(setting.dtype)
        with torch.device("meta"):  # latents are given: the VAE never runs
            vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(setting.folder / "vae"))
        self.backbone = WanBackbone(
            spec=meta_backbone(setting.folder).spec, transformers={"transformer": transformer}, vae=vae, prompts=None,
            text_width=config["text_dim"], boundary_sigma=None, dtype=setting.dtype, device=device,
        )  # fmt: skip
        self.transformer = transformer
        self.parameters = attach(self.backbone, LoraConfig(rank=setting.rank, alpha=setting.rank), seed=0)
        for parameter in self.parameters:  # a zero second matrix would hide half of the gradient
            parameter.data += 0.1 * torch.randn_like(parameter)
        self.backbone.set_gradient_checkpointing(setting.is_checkpointed)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5)
        self.rows = _rows(setting, config, device)
        self.known = self.reference()

    def plain(self) -> None:
        """Back-propagate as the published formula is usually written: Diffusion-DPO (arXiv:2311.12908)."""
        group = self.rows.groups[0]
        clean, noise = torch.cat([group.chosen, group.rejected]), torch.cat([group.noise, group.noise])
        sigma, text = torch.cat([group.sigma, group.sigma]), group.cond.prompt_embeds
        level = sigma.view(-1, 1, 1, 1, 1)
        noisy = ((1 - level) * clean + level * noise).to(self.setting.dtype)
        text = torch.cat([text, text]).to(self.setting.dtype)

        def differences() -> Tensor:
            predicted = self.transformer(noisy, timestep=1000 * sigma, encoder_hidden_states=text).sample
            errors = mse_loss(predicted.float(), noise - clean, reduction="none").mean(dim=(1, 2, 3, 4))
            chosen, rejected = errors.chunk(2)
            return chosen - rejected

        trained = differences()
        self.transformer.disable_adapters()
        with torch.no_grad():
            reference = differences()
        self.transformer.enable_adapters()
        assert LOSS.beta is not None
        (-logsigmoid(-LOSS.beta / 2 * (trained - reference)).mean()).backward()

    def reference(self) -> PairErrors:
        """Return the reference's errors, computed as rlhf_video does."""
        with torch.no_grad(), adapter_off(self.backbone):
            return pair_errors(self.backbone, self.rows, LOSS)

    def ours(self, way: Callable[..., PairErrors], *, is_cached: bool) -> None:
        """Back-propagate as rlhf_video does, by `joint_backward` or `two_pass_backward`."""
        reference = self.known if is_cached else self.reference()

        def objective(policy: PairErrors) -> Tensor:
            labels = {"preference": self.rows.preference, "sigma": self.rows.sigma}
            assert LOSS.beta is not None
            return dpo_loss(policy, reference, **labels, config=LOSS, beta=LOSS.beta).loss.mean()

        chosen, rejected = (partial(member_error, self.backbone, self.rows, name, LOSS) for name in PairErrors._fields)
        way(chosen, rejected, objective, lambda loss, *, last: loss.backward(), last=True)

    def recipes(self) -> dict[str, Call]:
        """Return what adds a step's gradient, by the names of `RECIPES`."""
        return {
            "plain": self.plain,
            "joint + cached": partial(self.ours, joint_backward, is_cached=True),
            "two passes + cached": partial(self.ours, two_pass_backward, is_cached=True),
            "two passes": partial(self.ours, two_pass_backward, is_cached=False),
            "joint": partial(self.ours, joint_backward, is_cached=False),
        }

    def single_passes(self) -> dict[str, Call]:
        """Return one clip's passes (of all pairs), by the names of the fields of `Passes`."""
        error = partial(member_error, self.backbone, self.rows, "chosen", LOSS)

        def trained() -> None:
            error().sum().backward()
            self.optimizer.zero_grad()

        def reference() -> None:
            with torch.no_grad(), adapter_off(self.backbone):
                error()

        return {"reference": reference, "extra": torch.no_grad()(error), "trained": trained}

    def gradient(self, recipe: Call) -> Tensor:
        """Return a recipe's gradient, flat, without a step."""
        recipe()
        found = torch.cat([p.grad.flatten() for p in self.parameters if p.grad is not None])
        self.optimizer.zero_grad()
        return found

    def take(self, recipe: Call) -> None:
        """Take an optimiser step."""
        recipe()
        self.optimizer.step()
        self.optimizer.zero_grad()


def _rows(setting: Setting, config: Mapping[str, int], device: torch.device) -> Rows:
    """Return random pairs under shared noise."""
    pairs, frames = setting.pairs, setting.latents[0]
    with device:
        chosen, rejected, noise = torch.randn(3, pairs, config["in_channels"], *setting.latents)
        text, ones = torch.randn(pairs, setting.num_text, config["text_dim"]), torch.ones(pairs, 1)
        sigma, places = torch.linspace(0.2, 0.9, pairs), torch.arange(pairs)
    cond, segments = Conditioning(text, torch.zeros_like(text)), ones[:, :, None].expand(-1, -1, frames)
    group = Group(places.tolist(), chosen, rejected, noise, sigma, cond, segments)
    never = torch.zeros_like(ones, dtype=torch.bool)
    return Rows(
        places, torch.zeros_like(places), sigma,
        preference=ones, both_bad=never, weight=ones[:, 0], groups=(group,),
    )  # fmt: skip
