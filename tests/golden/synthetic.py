"""Synthetic layers for the WeightWatcher golden file: every branch of its rules, from one seed."""

import numpy as np
from numpy.typing import NDArray

SHAPES: dict[str, tuple[int, ...]] = {
    "conv_3x3_stem": (16, 3, 3, 3),
    "conv_1x1": (32, 16, 1, 1),
    "conv_2x2_wide": (24, 64, 2, 2),
    "conv_3x3_wide": (24, 64, 3, 3),
    "conv_depthwise": (64, 1, 3, 3),
    "conv_5x5": (64, 32, 5, 5),
    "conv_big_kernel": (3, 2, 5, 5),
    "conv_one_output": (1, 8, 3, 3),
    "dense_10": (10, 19),
    "dense_12": (12, 12),
    "dense_19": (19, 40),
    "dense_8": (8, 60),
    "dense_tall": (300, 200),
    "dense_square": (64, 64),
    "dense_thin": (500, 32),
    "dense_7": (7, 60),
    "dense_few_evals": (9, 20),
    "dense_tiny_scale": (24, 30),
    "norm": (64,),
}
_SEED = 7


def tensors() -> dict[str, NDArray[np.float32]]:
    """Draw t(3) entries in float32 as a state dict; RandomState's stream never changes."""
    rng = np.random.RandomState(_SEED)
    state = {f"{name}.weight": rng.standard_t(3, shape) for name, shape in SHAPES.items()}
    state["dense_few_evals.weight"][5:] *= 1e-5
    state["dense_tiny_scale.weight"] *= 1e-5
    state["dense_square.bias"] = rng.standard_t(3, 64)
    state["attention.in_proj_weight"] = rng.standard_t(3, (48, 16))
    return {name: values.astype(np.float32) for name, values in state.items()}
