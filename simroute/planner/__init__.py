"""What to buy: many replays of many fleets, and what they say together.

Owns the ways to run replays side by side (`executor`), to keep what they gave (`cache`), to cut a long one (`split`),
and the questions that take many of them (`plan`, `whatif`, `capacity`). May import scenario and everything below it.
`plan` reads so: `spec` (the question), `candidates` (the fleets it spans), `bounds` (what cannot work), `evaluate` (the
simulator's verdict on one fleet), `search` (which fleets are asked about), `plan` (the answer).
"""
