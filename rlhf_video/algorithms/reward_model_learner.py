"""The trainable side of reward-model training: which weights move, their average, and the folder they end in."""

import contextlib
import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import peft
import torch
from torch import Tensor, nn

from rewards import registry
from rewards.errors import RewardError
from rewards.trainable import TOWERS, TrainableReward, UncertainReward
from rlhf_video.algorithms.preference_loss import free_number, from_free_number
from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.errors import ConfigError
from rlhf_video.lora import Ema
from rlhf_video.runtime import Distribution
from rlhf_video.runtime.precision import bfloat16_linears

logger = logging.getLogger(__name__)


class Learner:
    """A reward with moving weights, AdamW and the weight average."""

    def __init__(self, config: RewardModelConfig, distribution: Distribution) -> None:
        """Load the start, choose what moves, and prepare the optimiser.

        Raises:
            RewardError: The reward cannot be loaded, or cannot be trained.
            ConfigError: Questions and scores do not fit, or processes are to shard a model that fits one of them.
        """
        if distribution.kind in ("fsdp2", "deepspeed"):
            raise ConfigError(
                f"Reward models are not sharded, and this launch asks for {distribution.kind}: start it with "
                "configs/accelerate/single.yaml or ddp.yaml."
            )
        self.config, self.distribution = config, distribution
        self.reward = build_trainable(config)
        self.reward.model.to(distribution.accelerator.device)
        self._peft = _choose_weights(self.reward, config)
        self._named = {name: p for name, p in self.reward.model.named_parameters() if p.requires_grad}
        if config.loss.learn_tie_parameter:
            start = free_number(config.loss.tie_parameter, config.loss.model)
            self._named["tie"] = nn.Parameter(torch.tensor(start, device=distribution.accelerator.device))
        optim = config.optim
        weights = [parameter for name, parameter in self._named.items() if name != "tie"]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": optim.weight_decay}]
        if "tie" in self._named:  # decay would pull it to a number that means nothing
            groups.append({"params": [self._named["tie"]], "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(
            groups, lr=optim.learning_rate, betas=(optim.beta1, optim.beta2), eps=optim.epsilon
        )
        self.ema = Ema(list(self._named.values()), config.ema_decay)
        count = sum(p.numel() for p in self._named.values())
        logger.info("Training %s of %s: %.3f M parameters", config.trains, config.reward, count / 1e6)

    @property
    def tie_parameter(self) -> Tensor | None:
        """The learned tie parameter; None where it is fixed."""
        number = self._named.get("tie")
        return None if number is None else from_free_number(number, self.config.loss.model)

    def products(self) -> contextlib.AbstractContextManager[None]:
        """Return the context of a training forward pass: Linear layers in the precision of the config."""
        return bfloat16_linears(self.reward.model) if self.config.precision == "bfloat16" else contextlib.nullcontext()

    def step(self, step: int) -> float:
        """Finish an optimiser step after its backward passes; return the gradient norm before clipping.

        Raises:
            ConfigError: The gradient is not finite; the last checkpoint is intact.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optim.rate_at(step, self.config.num_steps)
        norm = float(self.distribution.finish_step(self.optimizer, self.config.optim.max_grad_norm))
        if not norm < float("inf"):
            raise ConfigError(
                f"The gradient of step {step} is {norm}. Lower optim.learning_rate and start in another output_dir "
                "(the last checkpoint is intact)."
            )
        self.ema.update()
        return norm

    def state(self) -> dict[str, object]:
        """Return weights, average and optimiser for a checkpoint."""
        weights = self._copies()
        with self.ema.swapped():
            average = self._copies()
        return {"weights": weights, "ema": average, "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: Mapping[str, object]) -> None:
        """Restore what `state` returned."""
        # A fresh average starts at the parameters: so they are first the average, then themselves.
        self._write(cast(dict[str, Tensor], state["ema"]))
        self.ema = Ema(list(self._named.values()), self.config.ema_decay)
        self._write(cast(dict[str, Tensor], state["weights"]))
        self.optimizer.load_state_dict(cast(dict[str, Any], state["optimizer"]))

    def publish(self, folder: Path) -> None:
        """Write the averaged weights, adapters merged, as a folder that the reward's class loads."""
        fresh = build_trainable(self.config)
        with self.ema.swapped():
            model = self.reward.model
            if self._peft is not None:
                model = copy.deepcopy(self._peft).merge_and_unload()
            fresh.model.load_state_dict(model.state_dict())
        fresh.save_pretrained(folder)

    def _copies(self) -> dict[str, Tensor]:
        return {name: p.detach().to("cpu", copy=True) for name, p in self._named.items()}

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._named.items():
            parameter.copy_(values[name])


def build_trainable(config: RewardModelConfig) -> TrainableReward:
    """Build the reward of a config so that its weights can move.

    Raises:
        RewardError: It cannot be loaded, or cannot be trained.
        ConfigError: Its scores do not fit the questions, or it has no uncertainty to train.
    """
    try:
        reward = registry.build(config.reward, **config.options, trainable=True)
    except RewardError as error:
        if "no option 'trainable'" not in str(error):
            raise
        raise RewardError(
            f"Reward {config.reward!r} cannot be trained: use clip_preference, video_text or preference_head, or a "
            "class of your own that fits rewards/trainable.py."
        ) from error
    if not isinstance(reward, TrainableReward):
        raise RewardError(f"Reward {config.reward!r} lacks what rewards/trainable.py asks of a trainable reward.")
    names = reward.spec.dimensions
    if len(names) > 1 and set(names) != set(config.questions):
        raise ConfigError(
            f"The scores of {config.reward!r} are {', '.join(names)}, the questions {', '.join(config.questions)}: "
            "they must be the same, or the reward must have one score."
        )
    is_uncertain = isinstance(reward, UncertainReward) and reward.has_uncertainty
    if is_uncertain != (config.loss.uncertainty != "none"):
        raise ConfigError(
            f"loss.uncertainty={config.loss.uncertainty} does not fit a reward {'with' if is_uncertain else 'without'} "
            "uncertainty: it needs reward: preference_head with options.uncertainty: true, and nothing else does."
        )
    return reward


def _choose_weights(reward: TrainableReward, config: RewardModelConfig) -> Any:
    """Let the chosen weights require gradients; return PEFT's wrapper where adapters were put in, else None."""
    wrapper = None
    if config.trains == "lora":
        linear = [
            name
            for name, module in reward.model.named_modules()
            if isinstance(module, nn.Linear) and set(TOWERS) & set(name.split("."))
        ]
        targets = [name for name in linear if config.lora.targets is None or name.split(".")[-1] in config.lora.targets]
        if not targets:
            endings = sorted({name.split(".")[-1] for name in linear})
            raise ConfigError(f"lora.targets fits no Linear of the towers. Known there: {', '.join(endings)}.")
        settings = peft.LoraConfig(r=config.lora.rank, lora_alpha=config.lora.alpha, target_modules=targets)
        wrapper = peft.get_peft_model(reward.model, settings)
    if config.trains == "whole":
        reward.model.requires_grad_(True)
    for parameter in reward.head_parameters():
        parameter.requires_grad_(True)
    return wrapper
