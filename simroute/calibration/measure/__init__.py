"""Measuring a real vLLM: launch it or attach to it, sweep it, find its capacity, load it, write a run directory.

Read `session.py` first. `sweep.py` (which batches) and `load.py` (which requests, when) decide and know no server;
`client.py` sends, `server.py` starts and stops vLLM, `steps.py` reads what the plug-in wrote. May import calibration's
`runs` and `plugin`, errors and rng.
"""
