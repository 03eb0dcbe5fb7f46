"""A plan as Kubernetes manifests: a Deployment, Service and PodDisruptionBudget a pool, and one Service for all.

A pool that the plan scales gets a HorizontalPodAutoscaler too. Imports `common`, `placing`, `scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simroute.planner.emit.common import (
    LONGEST_FLEET,
    PORT,
    WEIGHTS,
    Server,
    about,
    about_server,
    comment,
    policy_words,
    servers,
    slug,
    yaml,
)
from simroute.planner.emit.placing import node_terms, placing_words, spread, tolerations
from simroute.planner.emit.scaling import autoscaler

_PART_OF = "app.kubernetes.io/part-of"
_NAME = "app.kubernetes.io/name"
_PERIOD_S = 10
_LEAVE_S = 15
"""A replica that is to stop answers on for so long, until no router sends to it any more."""
_DRAIN_S = 300.0

Part = tuple[list[str], dict[str, Any]]
"""A manifest, and the lines that stand above it."""


def files(plan: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """`kubernetes.yaml`, for `kubectl apply -f`."""
    found = servers(plan, document)
    fleet = slug(str(document.get("name") or "fleet"), LONGEST_FLEET)
    parts = [_front(plan, found, fleet), *(part for server in found for part in _pool(server, fleet))]
    head = comment([*about(plan, document, found), *_needs()])
    return {"kubernetes.yaml": head + "".join(f"---\n{comment(lines)}{yaml(item)}" for lines, item in parts)}


def _needs() -> Iterator[str]:
    yield "gated models: kubectl create secret generic hugging-face --from-literal=token=..."


def _front(plan: Mapping[str, Any], found: Sequence[Server], fleet: str) -> Part:
    lines = [f"all replicas under one name: clients ask for the model {found[0].names[0]}"]
    return [*lines, *unlike(plan, found)], _service(fleet, {_PART_OF: fleet})


def unlike(plan: Mapping[str, Any], found: Sequence[Server]) -> Iterator[str]:
    """What a Service does otherwise than the plan's policy, in words."""
    blindly = "a Service picks a replica blindly for each connection"
    if sum(server.replicas for server in found) == 1:
        return
    if (plan.get("policy") or {}).get("name") == "random":
        yield f"{blindly}, the plan's random for each request: clients that keep connections open come out less evenly"
    else:
        yield (
            f"{blindly}, which is not the plan's {policy_words(plan)}: put a router in front (--emit production-stack "
            "brings one), or plan with the policy random"
        )


def _pool(server: Server, fleet: str) -> Iterator[Part]:
    labels = {_NAME: server.name, _PART_OF: fleet}
    name = f"{fleet}-{server.name}"
    yield [*about_server(server), *placing_words(server), *_sizes()], _deployment(server, name, labels)
    yield [f"pool {server.pool} alone"], _service(name, labels)
    yield _budget(server, name, labels)
    if server.autoscale:
        scaled, lines = autoscaler(server, name)
        yield [f"pool {server.pool} as the plan scales it", *lines], scaled


def _sizes() -> Iterator[str]:
    yield "CPU and memory of the host are rules of thumb: they were not simulated"


def _service(name: str, selector: dict[str, str]) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": dict(selector)},
        "spec": {"selector": dict(selector), "ports": ports},
    }


def _budget(server: Server, name: str, labels: dict[str, str]) -> Part:
    """One replica may be taken at a time; a pool of one may be taken as well, or its machine could never be drained."""
    manifest = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(labels)}},
    }
    alone = ["one replica alone: while its machine is drained the pool is away"] if server.replicas == 1 else []
    return alone, manifest


def _deployment(server: Server, name: str, labels: dict[str, str]) -> dict[str, Any]:
    # An autoscaled Deployment has no number of its own: applying the file again would reset what the autoscaler chose.
    replicas = {} if server.autoscale else {"replicas": server.replicas}
    # There is rarely a spare GPU for one more replica: an update takes one away first.
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {
            **replicas,
            "selector": {"matchLabels": dict(labels)},
            "strategy": update,
            "progressDeadlineSeconds": math.ceil(2 * server.startup_s) + 600,
            "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(server, labels)},
        },
    }


def _pod(server: Server, labels: dict[str, str]) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if terms := node_terms(server):
        required = {"nodeSelectorTerms": terms}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    spec["tolerations"] = tolerations(server)
    if spread_over := spread(server, labels):
        spec["topologySpreadConstraints"] = spread_over
    drain_s = float((server.autoscale or {}).get("drain_s", _DRAIN_S))
    spec["terminationGracePeriodSeconds"] = _LEAVE_S + math.ceil(drain_s)
    spec["containers"] = [_container(server)]
    # vLLM's workers exchange tensors in /dev/shm, which is 64 MB in a container by itself.
    spec["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}, {"name": "cache", "emptyDir": {}}]
    return spec


def _container(server: Server) -> dict[str, Any]:
    token = {"name": "hugging-face", "key": "token", "optional": True}
    return {
        "name": "vllm",
        "image": server.image,
        "command": ["vllm", "serve"],
        "args": [server.placeholder, "--host", "0.0.0.0", "--port", str(PORT), *server.flags],
        "env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}}, {"name": "HF_HOME", "value": WEIGHTS}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {
            "requests": {"cpu": str(server.cpus), "memory": server.memory, server.resource: str(server.gpus)},
            "limits": {server.resource: str(server.gpus)},
        },
        "startupProbe": probe(failures=startup_failures(server)),
        "readinessProbe": probe(failures=3, period_s=5),
        "livenessProbe": probe(failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_LEAVE_S)]}}},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "cache", "mountPath": WEIGHTS},
        ],
    }


def startup_failures(server: Server) -> int:
    """Failed probes that a start may take: twice the time that the plan counts on."""
    return math.ceil(2 * server.startup_s / _PERIOD_S)


def probe(*, failures: int, period_s: int = _PERIOD_S) -> dict[str, Any]:
    """A probe of vLLM's /health."""
    return {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": 5,
    }
