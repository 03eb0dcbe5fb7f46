"""A plan as Helm values for vLLM's production stack: one `modelSpec` a pool, and the router with the nearest policy.

Field names and types are those of the chart's `values.yaml` and `values.schema.json` (docs/deploying.md lists them).
Imports `common`, `placing`, `routing`, `scaling` and `kubernetes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simroute.planner.emit.common import PORT, Server, about, about_server, comment, servers, yaml
from simroute.planner.emit.kubernetes import startup_failures
from simroute.planner.emit.placing import node_terms, placing_words, tolerations
from simroute.planner.emit.routing import ROUTER_IMAGE, SESSION_KEY, Routing, routing
from simroute.planner.emit.scaling import scaled_object
from simroute.planner.emit.vllm import grouped

_RELEASE = "fleet"
"""Name of the Helm release, which is part of the names of what it installs."""
_FIELDS = {
    "--max-model-len": ("maxModelLen", int),
    "--max-num-seqs": ("maxNumSeqs", int),
    "--gpu-memory-utilization": ("gpuMemoryUtilization", float),
    "--tensor-parallel-size": ("tensorParallelSize", int),
    "--dtype": ("dtype", str),
}
"""Flags that the chart has a field for; the others go to `extraArgs`, which reach `vllm serve` as they are."""
_SWITCHES = {"enable-prefix-caching": "enablePrefixCaching", "enable-chunked-prefill": "enableChunkedPrefill"}


def files(plan: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """`values.yaml`, for `helm install ... -f values.yaml`, and `keda.yaml` where the plan scales a pool."""
    found = servers(plan, document)
    chosen = routing(plan, found)
    engines = comment(["", *(line for server in found for line in _lines(server))]) + yaml(_engines(found))
    head = comment([*about(plan, document, found), *_install()])
    texts = {"values.yaml": f"{head}{engines}{comment(_routing_lines(chosen))}{yaml(_router(chosen))}"}
    scaled = [_scaled(server) for server in found if server.autoscale]
    return texts | ({"keda.yaml": head + "".join(scaled)} if scaled else {})


def _scaled(server: Server) -> str:
    """KEDA's object apart from the values: the chart's schema and its template disagree on what `triggers` is."""
    manifest, lines = scaled_object(server, f"{_RELEASE}-{server.name}-deployment-vllm")
    return f"---\n{comment([f'pool {server.pool} as the plan scales it', *lines])}{yaml(manifest)}"


def _install() -> Iterator[str]:
    yield "helm repo add vllm https://vllm-project.github.io/production-stack"
    yield f"helm install {_RELEASE} vllm/vllm-stack -f values.yaml"


def _lines(server: Server) -> Iterator[str]:
    yield from about_server(server)
    yield from placing_words(server)
    yield "requestCPU and requestMemory are rules of thumb: they were not simulated"
    if len(server.zones) > 1:
        yield f"the plan spreads this pool over {len(server.zones)} zones, for which the chart has no field"
    if server.autoscale:
        yield f"the plan scales pool {server.pool}: kubectl apply -f keda.yaml after the chart"


def _routing_lines(chosen: Routing) -> Iterator[str]:
    yield "routingLogic: " + ("as planned" if chosen.exact else "NOT the plan's policy")
    yield from chosen.words


def _engines(found: Sequence[Server]) -> dict[str, Any]:
    slowest = max(found, key=lambda server: server.startup_s)
    taints = [taint for server in found for taint in tolerations(server)]
    unique = [taint for i, taint in enumerate(taints) if taint not in taints[:i]]
    spec: dict[str, Any] = {"modelSpec": [_model(server) for server in found]}
    # One probe for all pools: the chart has none for each.
    spec["startupProbe"] = {
        "initialDelaySeconds": 15,
        "periodSeconds": 10,
        "failureThreshold": startup_failures(slowest),
        "httpGet": {"path": "/health", "port": PORT},
    }
    spec["containerPort"] = PORT
    spec["tolerations"] = unique
    if all(server.vendor != "nvidia" for server in found):
        spec["runtimeClassName"] = ""
    return {"servingEngineSpec": spec}


def _model(server: Server) -> dict[str, Any]:
    repository, _, tag = server.image.partition(":")
    spec: dict[str, Any] = {
        "name": server.name,
        "repository": repository,
        "tag": tag,
        "modelURL": server.placeholder,
        "replicaCount": server.replicas,
        "requestCPU": server.cpus,
        "requestMemory": server.memory,
        "requestGPU": server.gpus,
        "requestGPUType": server.resource,
        "vllmConfig": _config(server),
    }
    if terms := node_terms(server):
        spec["nodeSelectorTerms"] = terms
    return spec


def _config(server: Server) -> dict[str, Any]:
    """The flags as fields of the chart, and what has none in `extraArgs`."""
    config: dict[str, Any] = {}
    extra: list[str] = []
    for flag, *values in grouped(server.flags):
        switch = flag.removeprefix("--").removeprefix("no-")
        if switch in _SWITCHES:
            config[_SWITCHES[switch]] = not flag.startswith("--no-")
        elif flag in _FIELDS:
            name, kind = _FIELDS[flag]
            config[name] = kind(values[0])
        else:
            extra += [flag, *values]
    # The chart turns prefix caching off where this field is missing.
    config.setdefault("enablePrefixCaching", True)
    return config | {"extraArgs": extra}


def _router(chosen: Routing) -> dict[str, Any]:
    repository, tag = ROUTER_IMAGE
    spec = {"repository": repository, "tag": tag, "replicaCount": 1, "routingLogic": chosen.logic}
    return {"routerSpec": spec | ({"sessionKey": SESSION_KEY} if chosen.logic == "session" else {})}
