"""One vLLM replica: KV blocks, the scheduler (no clock) and the engine core (on SimPy's clock).

Read `scheduler.py` first, then `decode_group.py` (why a simulated hour takes a second), then `core.py`.
May import hardware, workload, errors, rng and units.
"""
