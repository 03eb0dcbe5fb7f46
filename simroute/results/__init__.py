"""What happened: the request log, quantiles, SLO, cost, stability label, store and comparison.

Reading order: `run` (what a simulation leaves behind), `metrics` (its summary), `store` (the files).
Imports only hardware and workload; nothing of the simulator, of policies or of reports.
"""
