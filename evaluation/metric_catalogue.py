"""Metrics by short name: what a config may ask for. Classes are imported when a metric is built."""

CATALOGUE: dict[str, str] = {
    "blockiness": "evaluation.metrics.blockiness:Blockiness",
    "clip_distance": "evaluation.metrics.clip_distance:ClipDistance",
    "drift": "evaluation.metrics.drift:Drift",
    "frame_faults": "evaluation.metrics.frame_faults:FrameFaults",
    "frechet_distance": "evaluation.metrics.frechet_distance:FrechetDistance",
    "kernel_distance": "evaluation.metrics.kernel_distance:KernelDistance",
    "loop": "evaluation.metrics.loop:Loop",
    "lpips": "evaluation.metrics.lpips_distance:Lpips",
    "luminance_flicker": "evaluation.metrics.luminance_flicker:LuminanceFlicker",
    "psnr": "evaluation.metrics.psnr:Psnr",
    "reward": "evaluation.metrics.reward:RewardMetric",
    "ssim": "evaluation.metrics.ssim:Ssim",
}
"""Short name -> "package.module:Class" of a `Metric` or `SetMetric`."""
