"""Two seeds of the soak. `python -m tests.faults.soak --seeds 100` tries more."""

from __future__ import annotations

import pytest

from tests.faults.soak import soak


@pytest.mark.parametrize("seed", [2, 5])
def test_whatever_is_faulty_the_healthy_hear_the_end_in_order_and_the_gone_alone_are_forgotten(seed: int) -> None:
    assert soak(seed, watchers=400) == []
