"""The weighted sum of reward parts, as arrays; the other modules of the room know strings only."""

from collections.abc import Mapping

import numpy as np


def combine(parts: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the weighted sum of reward parts of one shape (``[Q, R]``), float32.

    NaN in a part is a missing reward and adds nothing; the sum is NaN if all parts of nonzero weight are missing (as in
    TRL, except that TRL counts parts of weight 0 too).

    Raises:
        ValueError: parts and weights do not have the same names, or parts differ in shape.
    """
    if not parts or set(parts) != set(weights):
        raise ValueError(
            f"reward parts are {sorted(parts)}, weights are for {sorted(weights)}: give the same names, at least one"
        )
    shapes = {name: np.shape(part) for name, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"reward parts differ in shape: {shapes}; each needs one value per response")
    shape = next(iter(shapes.values()))
    total, given = np.zeros(shape, np.float32), np.zeros(shape, bool)
    for name, part in parts.items():
        if weights[name]:
            values = np.asarray(part, np.float32)
            total += np.float32(weights[name]) * np.where(np.isnan(values), np.float32(0), values)
            given |= ~np.isnan(values)
    return np.where(given, total, np.float32("nan"))
