"""Seeds derived from integers; without torch, for `python -m training.preview`."""

from __future__ import annotations

import numpy as np


def derived_seed(*parts: int) -> int:
    """Derive a seed of 63 bits from integers >= 0; equal parts give equal seeds, others unrelated ones."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
