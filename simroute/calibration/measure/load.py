"""Which requests an open-loop load consists of, and what a closed loop says of the capacity. Pure: no server, no
clock. Imports rng and numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simroute import rng


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal lengths of prompts and answers, in tokens, cut to 4..`max_input` and 2..`max_output`.

    The default spreads are of the order that public chat traces have (ShareGPT: long tails on both sides).
    """

    input_median: float = 110.0
    output_median: float = 130.0
    max_input: int = 2048
    max_output: int = 1024
    input_sigma: float = 1.0
    output_sigma: float = 0.8

    def draw(self, count: int, generator: np.random.Generator) -> list[tuple[int, int]]:
        """`count` pairs (input tokens, output tokens)."""
        inputs = generator.lognormal(math.log(self.input_median), self.input_sigma, count)
        outputs = generator.lognormal(math.log(self.output_median), self.output_sigma, count)
        inputs, outputs = np.clip(inputs, 4, self.max_input), np.clip(outputs, 2, self.max_output)
        return [(int(i), int(o)) for i, o in zip(inputs, outputs, strict=True)]

    def mean_output(self) -> float:
        """Mean length of an answer, after cutting."""
        return float(np.mean([output for _, output in self.draw(20_000, rng.stream(0, "mean"))]))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request to send `at_s` seconds after the load began."""

    at_s: float
    input_tokens: int
    output_tokens: int


def poisson(rate_rps: float, duration_s: float, lengths: Lengths, seed: int) -> list[Arrival]:
    """Poisson arrivals of `rate_rps` a second for `duration_s`; the same seed gives the same ones."""
    times, sizes = rng.stream(seed, "arrivals"), rng.stream(seed, "lengths")
    at, arrivals = times.exponential(1 / rate_rps), []
    while at < duration_s:
        arrivals.append(Arrival(float(at), *lengths.draw(1, sizes)[0]))
        at += times.exponential(1 / rate_rps)
    return arrivals


def capacity_rps(token_times_s: Sequence[float], begin_s: float, end_s: float, mean_output_tokens: float) -> float:
    """Requests a second of a closed loop whose batch was full from `begin_s` to `end_s`: its rate of tokens over the
    tokens of a mean request.
    """
    tokens = sum(begin_s <= t < end_s for t in token_times_s)
    return tokens / (end_s - begin_s) / mean_output_tokens
