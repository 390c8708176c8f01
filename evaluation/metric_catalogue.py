"""Metrics by short name: what a config may ask for. Classes are imported when a metric is built."""

CATALOGUE: dict[str, str] = {
    # Any reward of the zoo, or your own: {name: reward, options: {name: sharpness}}.
    "reward": "evaluation.metrics.reward:RewardMetric",
    # How another metric changes over a clip: {name: drift, options: {metric: blockiness, segment_frames: 16}}.
    "drift": "evaluation.metrics.drift:Drift",
    # Measurements without weights.
    "blockiness": "evaluation.metrics.blockiness:Blockiness",
    "frame_faults": "evaluation.metrics.frame_faults:FrameFaults",
    "loop": "evaluation.metrics.loop:Loop",
    "luminance_flicker": "evaluation.metrics.luminance_flicker:LuminanceFlicker",
    "mean_colour": "evaluation.metrics.mean_colour:MeanColour",
    # Against reference clips of the same prompts.
    "clip_distance": "evaluation.metrics.clip_distance:ClipDistance",
    "lpips": "evaluation.metrics.lpips_distance:Lpips",
    "psnr": "evaluation.metrics.psnr:Psnr",
    "ssim": "evaluation.metrics.ssim:Ssim",
    # Between the clips of two systems as sets.
    "frechet_distance": "evaluation.metrics.frechet_distance:FrechetDistance",
    "kernel_distance": "evaluation.metrics.kernel_distance:KernelDistance",
    # VBench's dimensions on the modern stack, family "vbench-port".
    "aesthetic_quality": "evaluation.ports.aesthetic_quality:AestheticQuality",
    "appearance_style": "evaluation.ports.appearance_style:AppearanceStyle",
    "background_consistency": "evaluation.ports.background_consistency:BackgroundConsistency",
    "dynamic_degree": "evaluation.ports.dynamic_degree:DynamicDegree",
    "imaging_quality": "evaluation.ports.imaging_quality:ImagingQuality",
    "motion_smoothness": "evaluation.ports.motion_smoothness:MotionSmoothness",
    "overall_consistency": "evaluation.ports.overall_consistency:OverallConsistency",
    "subject_consistency": "evaluation.ports.subject_consistency:SubjectConsistency",
    "temporal_flickering": "evaluation.ports.temporal_flickering:TemporalFlickering",
    "temporal_style": "evaluation.ports.temporal_style:TemporalStyle",
    # The same on the parts of long clips, family "vbench-long-port": {name: vbench_long, options: {dimension: ...}}.
    "vbench_long": "evaluation.metrics.vbench_long:VBenchLong",
    # The original package in its own environment: {name: vbench_official, options: {dimension: scene}}.
    "vbench_official": "evaluation.vbench_compat.official:VBenchOfficial",
}
"""Short name -> "package.module:Class" of a `Metric` or `SetMetric`."""
