"""One vLLM replica: KV blocks, the scheduler (no clock) and the replica (the SimPy process).

Read `scheduler.py` first, then `decode_group.py` (why a simulated hour takes a second), then `replica.py`.
May import hardware, workload, errors, rng and units.
"""
