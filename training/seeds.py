"""Seeds from numbers."""

from __future__ import annotations

import numpy as np


def derived_seed(*parts: int) -> int:
    """A seed of 63 bits from whole numbers >= 0; equal parts give equal seeds, others unrelated ones."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
