"""What was asked: the scenario file, checked and turned into what the simulator runs.

Reading order: `models` (what a file may say), `loader` (file to model, every error with its position), `check` (what
needs the catalogue), `build` (model to trace, pools and policies), `run` (replay under every policy).
May import fleet and everything below it; nothing of reports or the command line.
"""
