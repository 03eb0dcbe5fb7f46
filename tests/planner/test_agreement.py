"""Whether a window begins as the one before it ends: by chance a little otherwise, never by much."""

from __future__ import annotations

import numpy as np
import pytest

from simroute.planner.windows.agreement import requests_in, same_caches, same_fill


def state(running: float, waiting: float, kv: float, held: float = 0.0) -> np.ndarray:
    """One pool and the router."""
    return np.array([[running, waiting, kv], [0.0, held, 0.0]])


@pytest.mark.parametrize(
    ("ended", "begins", "same"),
    [
        (state(0, 0, 0), state(0, 0, 0), True),
        (state(100, 0, 3.0), state(100, 0, 3.0), True),
        (state(100, 0, 3.0), state(75, 0, 2.5), True),  # 3 sqrt(100) requests, and as much of the memory
        (state(100, 0, 3.0), state(60, 0, 2.5), False),
        (state(100, 0, 3.0), state(100, 0, 1.0), False),
        (state(100, 500, 3.0), state(100, 0, 3.0), False),
        (state(100, 0, 3.0), state(100, 500, 3.0), False),
        (state(10, 0, 1.0, held=50), state(10, 0, 1.0), False),
    ],
)
def test_states_of_a_fleet(ended, begins, same):
    assert same_fill(ended, begins) is same


def test_requests_of_a_state_are_those_that_run_wait_and_are_held():
    assert requests_in(state(3, 4, 0.5, held=2)) == 9


def test_caches_by_what_the_same_requests_find_in_them():
    prompts = np.full(100, 1000)
    there = np.full(100, 500)
    assert same_caches(there, there, prompts)
    assert not same_caches(there, np.full(100, 400), prompts)  # a tenth less, each time
    assert same_caches(there, np.full(100, 495), prompts)  # too little to matter
    unlucky = np.where(np.arange(100) < 4, 0, 500)
    assert same_caches(there, unlucky, prompts)  # a few requests that happened to go elsewhere
    luck = np.where(np.arange(100) % 2, 1000, 0)
    assert same_caches(there, luck, prompts)
    assert same_caches(np.full(100, -1), luck, prompts)  # nothing is known
    known = np.where(np.arange(100) < 50, 500, -1)
    assert not same_caches(known, np.where(known < 0, 500, 100), prompts)
