"""A plan as compose files: one service a replica with its GPUs, and the router of vLLM's production stack in front.

A machine has one kind of GPU: a plan with several kinds gives one file a pool, and one for the router. Imports
`common`, `routing` and `vllm`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from simroute.planner.emit.common import PORT, WEIGHTS, Server, about, about_server, comment, servers, yaml
from simroute.planner.emit.routing import ROUTER_IMAGE, SESSION_KEY, Routing, routing
from simroute.planner.emit.vllm import plain

_CACHE = "hugging-face"
_HEALTHY = f"import urllib.request as u; u.urlopen('http://localhost:{PORT}/health')"


def files(plan: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """`compose.yaml`, or where GPUs differ `compose.POOL.yaml` for each machine and `compose.router.yaml`."""
    found = servers(plan, document)
    head = comment(about(plan, document, found))
    chosen = routing(plan, found, discovers=False)
    if len({server.gpu for server in found}) == 1:
        backends = [(f"http://{name}:{PORT}", server) for server in found for name in _replicas(server)]
        waits = {name: {"condition": "service_healthy"} for server in found for name in _replicas(server)}
        router = _router(chosen, backends) | {"depends_on": waits}
        return {"compose.yaml": head + _machine(found) + _service("router", router, _words(chosen))}
    texts = {f"compose.{server.name}.yaml": head + _machine([server]) for server in found}
    router = _router(chosen, list(_elsewhere(found)))
    return texts | {"compose.router.yaml": f"{head}services:\n{_service('router', router, _words(chosen))}"}


def _words(chosen: Routing) -> list[str]:
    return [f"router: {line}" for line in chosen.words]


def _machine(found: Sequence[Server]) -> str:
    """What the pools' replicas have in common, then a service a replica; GPUs and ports are counted through all."""
    gpus = sum(server.gpus * server.replicas for server in found)
    text = comment(
        ["", f"for one machine with {gpus} GPUs; on smaller ones give each a part of the services, GPUs from 0"]
    )
    text += yaml({"volumes": {_CACHE: {}}})
    for server in found:
        text += (
            comment(["", *about_server(server)]) + f"x-{server.name}: &{server.name}\n{_indented(_engine(server), 2)}"
        )
    text += "services:\n"
    first, port = 0, PORT + 1
    for server in found:
        for name in _replicas(server):
            own = {"ports": [f"{port}:{PORT}"], **_devices(server, [str(first + i) for i in range(server.gpus)])}
            text += f"  {name}:\n    <<: *{server.name}\n{_indented(own, 4)}"
            first, port = first + server.gpus, port + 1
    return text


def _service(name: str, service: Mapping[str, Any], lines: Sequence[str]) -> str:
    return textwrap.indent(comment(lines), "  ") + f"  {name}:\n{_indented(service, 4)}"


def _indented(value: Mapping[str, Any], columns: int) -> str:
    return textwrap.indent(yaml(value), " " * columns)


def _replicas(server: Server) -> list[str]:
    return [f"{server.name}-{i}" for i in range(server.replicas)]


def _engine(server: Server) -> dict[str, Any]:
    """What all replicas of a pool have in common."""
    model = server.model or f"${{{server.variable}:?{plain(server.words)}}}"
    return {
        "image": server.image,
        "entrypoint": ["vllm", "serve"],
        "command": [model, "--host", "0.0.0.0", "--port", str(PORT), *server.flags],
        "environment": {"HF_TOKEN": "${HF_TOKEN:-}", "HF_HOME": WEIGHTS},
        "ipc": "host",
        "volumes": [f"{_CACHE}:{WEIGHTS}"],
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _HEALTHY],
            "interval": "10s",
            "timeout": "5s",
            "retries": 3,
            "start_period": f"{2 * server.startup_s:.0f}s",
        },
        "restart": "unless-stopped",
    }


def _devices(server: Server, ids: list[str]) -> dict[str, Any]:
    """GPUs by number: asked for by count, every service would get the first ones."""
    if server.vendor != "nvidia":
        environment = {"HF_TOKEN": "${HF_TOKEN:-}", "HF_HOME": WEIGHTS, "HIP_VISIBLE_DEVICES": ",".join(ids)}
        return {"devices": ["/dev/kfd", "/dev/dri"], "group_add": ["video"], "environment": environment}
    reservation = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [reservation]}}}}


def _elsewhere(found: Sequence[Server]) -> Iterator[tuple[str, Server]]:
    """Every replica by the host of its pool, which is asked for by a variable."""
    for server in found:
        host = f"{server.name.upper().replace('-', '_')}_HOST"
        for i in range(server.replicas):
            yield f"http://${{{host}:?set it}}:{PORT + 1 + i}", server


def _router(chosen: Routing, backends: Sequence[tuple[str, Server]]) -> dict[str, Any]:
    command = ["--host", "0.0.0.0", "--port", str(PORT), "--service-discovery", "static"]
    command += ["--static-backends", ",".join(url for url, _ in backends)]
    command += ["--static-models", ",".join(server.names[0] for _, server in backends)]
    command += ["--routing-logic", chosen.logic]
    command += ["--session-key", SESSION_KEY] if chosen.logic == "session" else []
    return {"image": ":".join(ROUTER_IMAGE), "command": command, "ports": [f"{PORT}:{PORT}"]}
