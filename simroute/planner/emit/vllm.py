"""A plan as shell scripts that start `vllm serve`, one a pool. Imports `common`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from simroute.planner.emit.common import PORT, Server, about, about_server, comment, servers


def files(plan: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, str]:
    """`serve-POOL.sh` for each pool."""
    found = servers(plan, document)
    head = comment(about(plan, document, found))
    return {f"serve-{server.name}.sh": f"#!/bin/sh\n{head}#\n{_script(server)}" for server in found}


def _script(server: Server) -> str:
    lines = comment([*about_server(server), *_usage(server)])
    command = [f'exec vllm serve {_model(server)} --host 0.0.0.0 --port "${{PORT:-{PORT}}}"']
    command += [shlex.join(group) for group in grouped(server.flags)]
    joined = " \\\n  ".join([*command, '"$@"'])
    return f"{lines}set -eu\n{joined}\n"


def _usage(server: Server) -> Iterable[str]:
    visible = "CUDA_VISIBLE_DEVICES" if server.vendor == "nvidia" else "HIP_VISIBLE_DEVICES"
    yield (
        f"start it once for each of {server.replicas} replicas, with the numbers of its GPUs in {visible} and, where "
        "they share a machine, a port of its own in PORT"
    )


def _model(server: Server) -> str:
    """The model, or a variable that the shell asks for by name when it is not set."""
    if server.model is not None:
        return shlex.quote(server.model)
    return f'"${{{server.variable}:?{plain(server.words)}}}"'


def plain(words: str) -> str:
    """`words` without anything that a shell or compose would read as more than text."""
    return re.sub(r"[^A-Za-z0-9 .,:;/_()-]", "", words)


def grouped(flags: Iterable[str]) -> list[list[str]]:
    """The flags with their values, one group a flag."""
    groups: list[list[str]] = []
    for flag in flags:
        if flag.startswith("--"):
            groups.append([flag])
        else:
            groups[-1].append(flag)
    return groups
