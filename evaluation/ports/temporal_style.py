"""How well a clip shows the camera motion or the pace that its prompt names: VBench's temporal style, by ViCLIP."""

from evaluation.ports.overall_consistency import OverallConsistency


class TemporalStyle(OverallConsistency):
    """The number of `OverallConsistency`, which VBench asks of other prompts: those of its suite `temporal_style`."""

    name = "temporal_style"
