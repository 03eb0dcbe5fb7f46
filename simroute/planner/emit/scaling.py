"""A pool's autoscaler as Kubernetes' HorizontalPodAutoscaler or KEDA's ScaledObject. Imports `common`.

Targets of the simulated autoscaler that vLLM exports as a metric become metrics of pods; the others are said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simroute.planner.emit.common import Server

_METRICS = {
    "running": "num_requests_running",
    "waiting": "num_requests_waiting",
    "kv_usage": "kv_cache_usage_perc",
}
"""The simulated autoscaler's targets, and vLLM's metrics behind them (`vllm:` before the name)."""
_PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
"""Where the stack's chart expects it."""
DEFAULT_TARGETS: Mapping[str, float] = {"waiting": 5.0}
"""The chart's own, where none of the simulated ones has a metric."""


def targets(server: Server) -> tuple[dict[str, float], list[str]]:
    """Targets by the name of vLLM's metric, and lines on those that have none."""
    scale = server.autoscale or {}
    options = scale.get("options") or {}
    asked = options.get("targets") or {}
    known = {_METRICS[name]: float(value) for name, value in asked.items() if name in _METRICS and value is not None}
    lost = sorted(name for name, value in asked.items() if name not in _METRICS and value is not None)
    lines = []
    if lost:
        lines.append(f"the simulated autoscaler also aims at {', '.join(lost)}, for which vLLM has no metric of a pod")
    name = scale.get("name", "hpa")
    if name != "hpa":
        lines.append(
            f"the simulated autoscaler {name} has no counterpart: Kubernetes' reactive one stands in its place"
        )
    if not known:
        known = {_METRICS[name]: value for name, value in DEFAULT_TARGETS.items()}
        lines.append("no simulated target has a metric in vLLM: the queue of each replica stands in their place")
    return known, lines


def autoscaler(server: Server, name: str) -> tuple[dict[str, Any], list[str]]:
    """A HorizontalPodAutoscaler for the deployment `name`, and lines on it."""
    scale = server.autoscale or {}
    known, lines = targets(server)
    metrics = [
        {
            "type": "Pods",
            "pods": {"metric": {"name": f"vllm_{metric}"}, "target": _average(value)},
        }
        for metric, value in known.items()
    ]
    lines.append(
        "its metrics need an adapter that serves vllm:NAME of Prometheus as vllm_NAME, such as prometheus-adapter"
    )
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": max(int(scale.get("min_replicas", 1)), 1),
        "maxReplicas": int(scale["max_replicas"]),
        "metrics": metrics,
    }
    if int(scale.get("min_replicas", 1)) < 1:
        lines.append("the plan lets this pool sleep: a HorizontalPodAutoscaler does not go below 1, KEDA does")
    if behavior := _behavior(scale.get("options") or {}):
        spec["behavior"] = behavior
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": spec,
    }, lines


def scaled_object(server: Server, deployment: str) -> tuple[dict[str, Any], list[str]]:
    """KEDA's ScaledObject for the chart's `deployment`, on the average over its pods in Prometheus, and lines on it."""
    scale = server.autoscale or {}
    known, lines = targets(server)
    lines.append("needs KEDA in the cluster, Prometheus at the address given, and the Helm release of that name")
    metrics = [
        {
            "type": "prometheus",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": _PROMETHEUS,
                "query": f'sum(vllm:{metric}{{pod=~"{deployment}-.*"}})',
                "threshold": f"{value:g}",
            },
        }
        for metric, value in known.items()
    ]
    spec: dict[str, Any] = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
        "minReplicaCount": int(scale.get("min_replicas", 1)),
        "maxReplicaCount": int(scale["max_replicas"]),
        "pollingInterval": max(round(scale.get("interval_s", 15)), 1),
        "triggers": metrics,
    }
    if behavior := _behavior(scale.get("options") or {}):
        spec["advanced"] = {"horizontalPodAutoscalerConfig": {"behavior": behavior}}
    metadata = {"name": deployment}
    return {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata, "spec": spec}, lines


def _average(value: float) -> dict[str, str]:
    """A quantity as Kubernetes writes it: whole, or in thousandths."""
    text = f"{value:g}" if value == int(value) else f"{round(value * 1000)}m"
    return {"type": "AverageValue", "averageValue": text}


def _behavior(options: Mapping[str, Any]) -> dict[str, Any]:
    """The simulated behaviour in Kubernetes' words; its defaults are Kubernetes' own."""
    behavior = {}
    for ours, theirs in (("scale_up", "scaleUp"), ("scale_down", "scaleDown")):
        rules = options.get(ours)
        if not rules:
            continue
        found: dict[str, Any] = {}
        if "stabilization_window_s" in rules:
            found["stabilizationWindowSeconds"] = round(rules["stabilization_window_s"])
        if "select_policy" in rules:
            found["selectPolicy"] = rules["select_policy"]
        if "policies" in rules:
            found["policies"] = [
                {"type": p["type"], "value": p["value"], "periodSeconds": round(p["period_s"])}
                for p in rules["policies"]
            ]
        behavior[theirs] = found
    return behavior
