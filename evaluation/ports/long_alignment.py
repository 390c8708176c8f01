"""VBench-Long's tables that bring clip-to-clip consistency to the distribution of consistency inside a clip.

First frames that lie seconds apart resemble each other less than neighbouring frames, so the two cannot be averaged as
they are. The tables are VBench's own (vbench2_beta_long/configs of its repository, Apache-2.0; fitted by its authors by
quantile mapping over their clips: subject with DINOv2 features, background with DreamSim), rounded to six places.
"""

import numpy as np

# fmt: off
SUBJECT: tuple[float, ...] = (
    0.000000, 0.655812, 0.706857, 0.731659, 0.736610, 0.749101, 0.761033, 0.774597, 0.784556, 0.792954, 0.802690,
    0.808076, 0.816205, 0.824220, 0.830472, 0.835420, 0.839077, 0.841978, 0.846792, 0.850626, 0.852853, 0.854691,
    0.858132, 0.863729, 0.866102, 0.870585, 0.872332, 0.874961, 0.878698, 0.881708, 0.885684, 0.887195, 0.890181,
    0.894009, 0.896728, 0.899204, 0.901873, 0.902930, 0.904255, 0.906710, 0.909197, 0.911999, 0.914121, 0.917821,
    0.920038, 0.922367, 0.923878, 0.926128, 0.928554, 0.931095, 0.932675, 0.933939, 0.935219, 0.938074, 0.939676,
    0.941553, 0.944196, 0.946289, 0.947781, 0.949137, 0.951897, 0.953055, 0.954985, 0.956200, 0.957250, 0.958689,
    0.960456, 0.961343, 0.962936, 0.964827, 0.966786, 0.968174, 0.969814, 0.971409, 0.972530, 0.973668, 0.974642,
    0.976009, 0.977156, 0.978419, 0.979501, 0.980594, 0.981991, 0.983434, 0.984335, 0.985466, 0.986317, 0.987193,
    0.987700, 0.988263, 0.988710, 0.989251, 0.989783, 0.990372, 0.991172, 0.992180, 0.992921, 0.993269, 0.994591,
    0.995516, 1.000000,
)
"""At clip-to-clip consistencies 0.00, 0.01, ..., 1.00."""
BACKGROUND: tuple[float, ...] = (
    0.000000, 0.873692, 0.883924, 0.888341, 0.894395, 0.899626, 0.903146, 0.905966, 0.907634, 0.909682, 0.912059,
    0.914872, 0.916865, 0.918996, 0.920360, 0.921301, 0.922500, 0.923335, 0.924364, 0.925034, 0.926480, 0.927277,
    0.927840, 0.928488, 0.929856, 0.930437, 0.930962, 0.931838, 0.932535, 0.933476, 0.934152, 0.934940, 0.935568,
    0.936222, 0.936694, 0.937215, 0.937729, 0.938159, 0.938787, 0.939349, 0.939684, 0.940033, 0.940741, 0.941350,
    0.941968, 0.942835, 0.943218, 0.944093, 0.944922, 0.945415, 0.946058, 0.946613, 0.947050, 0.947583, 0.948511,
    0.949048, 0.949723, 0.950247, 0.950661, 0.951256, 0.951911, 0.952367, 0.952951, 0.953569, 0.954187, 0.954717,
    0.955339, 0.955903, 0.956451, 0.957104, 0.957455, 0.957910, 0.958550, 0.959169, 0.959610, 0.960120, 0.960917,
    0.961979, 0.962552, 0.963566, 0.964158, 0.964602, 0.964906, 0.965453, 0.966266, 0.967016, 0.968036, 0.969119,
    0.969973, 0.970532, 0.971717, 0.972428, 0.973226, 0.974180, 0.975258, 0.976684, 0.978594, 0.980096, 0.981867,
    0.985895, 1.000000,
)
"""At the same."""
# fmt: on
TABLES = {"subject_consistency": SUBJECT, "background_consistency": BACKGROUND}
"""Dimension -> table."""


def align(dimension: str, clip_to_clip: float) -> float:
    """Return what a clip-to-clip consistency counts as, linear between the entries of its table.

    Args:
        dimension: A key of `TABLES`.
        clip_to_clip: In [0, 1]; beyond, the ends of the table hold.
    """
    table = TABLES[dimension]
    return float(np.interp(clip_to_clip, np.linspace(0.0, 1.0, len(table)), table))


def fuse(dimension: str, in_clip: float, clip_to_clip: float | None) -> float:
    """Return half the consistency inside the parts and half the aligned one between their first frames.

    Args:
        dimension: A key of `TABLES`.
        in_clip: Mean over parts.
        clip_to_clip: Of the first frames; None for a single part, whose own consistency is all there is. VBench-Long
            treats one of exactly 0 alike.
    """
    if not clip_to_clip:
        return in_clip
    return 0.5 * in_clip + 0.5 * align(dimension, clip_to_clip)
