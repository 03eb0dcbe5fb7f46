"""From a real engine to a calibration: measure it, ingest what others measured, fit, validate.

Read `runs.py` first: the run directory that everything here writes or reads. `plugin.py` runs inside vLLM and imports
nothing of simroute. May import scenario and everything below it.
"""
