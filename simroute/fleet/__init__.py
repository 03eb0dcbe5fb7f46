"""Many replicas behind one router, on one SimPy clock.

Read `cluster.py` first. May import engine, policy, results, hardware, workload, errors, rng and units.
"""
