"""A pool that does what its autoscaler says, shown one load after another."""

from __future__ import annotations

from simroute.policy.autoscaling import PoolLoad, make_autoscaler

AT_ONCE = {"stabilization_window_s": 0}


def hpa(targets, least=1, most=100, **options):
    return make_autoscaler("hpa", {"targets": targets, "min_replicas": least, "max_replicas": most, **options})


def follow(scaler, replicas, loads, every_s=15.0):
    """The sizes a pool takes that does what it is told at once, shown each of `loads` (or in_flight counts)."""
    sizes = []
    for i, load in enumerate(loads):
        of_load = load if isinstance(load, dict) else {"in_flight": load}
        replicas = scaler.desired(PoolLoad(i * every_s, replicas, **of_load))
        sizes.append(replicas)
    return sizes
