"""What to buy: the cheapest fleet that meets the targets, found by bounds, a linear model and the simulator.

Reading order: `spec` (the question), `candidates` (the fleets it spans), `bounds` (what cannot work), `evaluate` (the
simulator's verdict on one fleet), `search` (which fleets are asked about), `plan` (the answer).
"""
