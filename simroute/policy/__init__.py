"""Decisions: which replica serves a request, as pure functions of what a router can see.

Read `snapshot` (what a policy is shown and what it answers), `routing` (the registry and `make_policy`), then
`routing.baselines` and `routing.quant_aware`. Beside `routing` are `admission` (who may enter), `gateway_queue` (who is
next) and `autoscaling` (how many replicas there are). `context` holds what they share, `pressure` when a pool counts as
full; `capability` holds quality scores.
May import workload, errors, rng and units, and so knows no clock, no SimPy and no HTTP: the same object serves the
simulator and a live router.
"""
