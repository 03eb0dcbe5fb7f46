"""The fleets that a plan spans, and the search among them.

It reads so: `spec` (the question), `loading` and `naming` (what is wrong with it), `options` and `candidates` (the
fleets it spans), `work`, `limits` and `bounds` (what cannot work), `evaluate`, `judge` and `utilisation` (the
simulator's verdict on one fleet), `mixes` and `listing` (which mixed fleets there are), `search` and `sweep` (which of
all are asked about).
"""
