"""What `train_reward_model.py --dry-run` prints: the pairs of each part and the weights that would move."""

from accelerate import Accelerator

from rlhf_video.algorithms.reward_model_config import RewardModelConfig
from rlhf_video.algorithms.reward_model_data import load_parts
from rlhf_video.algorithms.reward_model_learner import Learner
from rlhf_video.runtime import Distribution


def describe(config: RewardModelConfig) -> str:
    """Check pairs, clips and model as a run would, and return what it found; nothing is written.

    Raises:
        RlhfVideoError, RewardError: As the run.
    """
    parts = load_parts(config)
    learner = Learner(config, Distribution(Accelerator(cpu=True)))
    trained = sum(p.numel() for p in learner.reward.model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in learner.reward.model.parameters())
    epochs = config.num_steps * config.batch.global_pairs / len(parts.train)
    lines = [f"{name:12} {len(p)} pairs of {len(set(p.prompts))} prompts" for name, p in vars(parts).items()]
    lines += [
        f"{'trains':12} {config.trains}: {trained / 1e6:.3f} M of {total / 1e6:.3f} M parameters of {config.reward}",
        f"{'optimiser':12} {16 * trained / 2**20:.0f} MiB for weights, gradients and both moments",
        f"{'steps':12} {config.num_steps} of {config.batch.global_pairs} pairs: {epochs:.1f} passes over the pairs",
    ]
    return "\n".join(lines)
