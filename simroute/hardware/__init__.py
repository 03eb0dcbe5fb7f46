"""What requests run on: GPUs, models, quantization, prices, KV memory and step time.

Start with `catalogue` (names to facts), then `memory` (how many KV blocks), then `select` (how long a step takes).
May import only workload, errors, rng and units.
"""
