"""What every kind of output is made of: the plan's servers, names that are safe, comments and YAML.

Imports errors, hardware's catalogue, yamlfile and `flags`.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simroute.hardware import catalogue
from simroute.planner.emit.flags import VLLM_VERSION, engine_flags, published_name, unsaid, weights
from simroute.yamlfile import written

PORT = 8000
WEIGHTS = "/models/hugging-face"
"""Where a container keeps what it downloads (HF_HOME), on a volume that outlives it."""
LONGEST_NAME, LONGEST_FLEET = 40, 20
"""Of a pool's and a fleet's name, so that both together and what Helm adds stay within Kubernetes' 63."""
WIDTH = 112
STARTUP_S = 600.0
"""Start-up time where the plan has none: image, weights and CUDA graphs of a large model."""
_CORES_BESIDE_GPUS = 2
_MEMORY_GIB_EACH = 16


@dataclass(frozen=True, slots=True)
class Server:
    """One pool of a plan, as something to start: `replicas` times `vllm serve model flags` on `gpus` GPUs each.

    `model` is None where a checkpoint has to be chosen by the reader: `words` says which one, `variable` is a name
    for it. `notes` are what a reader should know of the flags.
    """

    name: str
    pool: str
    variable: str
    model: str | None
    words: str
    flags: tuple[str, ...]
    names: tuple[str, ...]
    gpu: str
    vendor: str
    gpus: int
    replicas: int
    startup_s: float
    spot: bool
    zones: tuple[str, ...]
    autoscale: Mapping[str, Any] | None
    notes: tuple[str, ...]

    @property
    def image(self) -> str:
        """The container image, of the vLLM version whose scheduler was simulated."""
        repository = "vllm/vllm-openai" if self.vendor == "nvidia" else "vllm/vllm-openai-rocm"
        return f"{repository}:v{VLLM_VERSION}"

    @property
    def resource(self) -> str:
        """What Kubernetes calls the GPU."""
        return "nvidia.com/gpu" if self.vendor == "nvidia" else "amd.com/gpu"

    @property
    def cpus(self) -> int:
        """vLLM asks for a physical core a GPU and two more; a Kubernetes CPU is half a core. Not simulated."""
        return 2 * (_CORES_BESIDE_GPUS + self.gpus)

    @property
    def memory(self) -> str:
        """Memory of the host to ask for, a rule of thumb. Not simulated."""
        return f"{_MEMORY_GIB_EACH * (1 + self.gpus)}Gi"

    @property
    def placeholder(self) -> str:
        """The model, or a text in its place that no registry has."""
        return self.model or f"REPLACE_ME/{self.variable.lower().replace('_', '-')}"


def servers(plan: Mapping[str, Any], document: Mapping[str, Any]) -> list[Server]:
    """The pools of a plan as servers, with names that are unique and safe everywhere.

    Raises CatalogueError for a GPU or scheme that the catalogue does not have.
    """
    pools = list(plan["pools"])
    shared = _shared_name(pools, document)
    taken: set[str] = set()
    found = []
    for pool in pools:
        name = slug(str(pool["name"]))
        while name in taken:
            name = f"{name[: LONGEST_NAME - 2]}-{len(taken)}"
        taken.add(name)
        found.append(_server(pool, name, shared))
    return found


def _server(pool: Mapping[str, Any], name: str, shared: str) -> Server:
    loaded = weights(pool)
    names = tuple(dict.fromkeys((shared, name)))
    variable = re.sub(r"[^A-Z0-9]+", "_", f"{pool['model']}_{pool['quantization']}".upper()).strip("_")
    return Server(
        name=name,
        pool=str(pool["name"]),
        variable=variable if variable[:1].isalpha() else f"MODEL_{variable}",
        model=loaded.model,
        words=loaded.words,
        flags=("--served-model-name", *names, *loaded.flags, *engine_flags(pool)),
        names=names,
        gpu=str(pool["gpu"]),
        vendor=catalogue.gpu(str(pool["gpu"])).vendor,
        gpus=int(pool["tensor_parallel"]),
        replicas=int(pool["replicas"]),
        startup_s=float(pool.get("startup_s") or STARTUP_S),
        spot=bool(pool.get("spot")) or " spot," in str(pool.get("price_source", "")),
        zones=tuple(pool.get("zones") or ()),
        autoscale=pool.get("autoscale"),
        notes=tuple(unsaid(pool)),
    )


def _shared_name(pools: Iterable[Mapping[str, Any]], document: Mapping[str, Any]) -> str:
    """The model name that clients ask for: one for the fleet, since the router is to choose the replica."""
    models = dict.fromkeys(published_name(str(pool["model"])) for pool in pools)
    return next(iter(models)) if len(models) == 1 else slug(str(document.get("name") or "fleet"))


def slug(name: str, longest: int = LONGEST_NAME) -> str:
    """`name` in lowercase letters, digits and dashes, beginning with a letter: safe in DNS, files and Helm."""
    safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (safe if safe[:1].isalpha() else f"pool-{safe}")[:longest].strip("-")


def about(plan: Mapping[str, Any], document: Mapping[str, Any], found: Iterable[Server]) -> Iterator[str]:
    """What a file says of itself first: the plan, its price, its policy, and what has to be filled in."""
    yield f"{document.get('name', 'plan')}, planned by simroute: {plan.get('id', '?')}"
    if answer := document.get("answer"):
        yield str(answer)
    if (cost := plan.get("cost_usd_per_month")) is not None:
        yield f"{plan.get('gpus', '?')} GPUs, ${cost:,.0f} a month"
    yield f"routing policy of the plan: {policy_words(plan)}"
    if not plan.get("meets", True):
        yield "WARNING: this plan does not meet the targets; it is the nearest miss"
    yield f"engine settings are those that were simulated, in the flags of vLLM {VLLM_VERSION}"
    for server in found:
        if server.model is None:
            yield f"FILL IN {server.variable} for pool {server.pool}: {server.words}"


def about_server(server: Server) -> Iterator[str]:
    """What a reader should know of one pool."""
    yield f"pool {server.pool}: {server.replicas} x {server.gpus} {server.gpu}"
    yield f"weights: {server.words}"
    yield from server.notes


def policy_words(plan: Mapping[str, Any]) -> str:
    """The policy's name and its options, `quant_aware (margin=0.2)`, and which pools they call by another name."""
    policy = plan.get("policy") or {}
    options = ", ".join(f"{name}={value}" for name, value in (policy.get("options") or {}).items())
    called = [f"{p['family']} is {p['name']}" for p in plan.get("pools") or () if f"{p.get('family')}" in options]
    where = f" where {', '.join(called)}" if options and called else ""
    return f"{policy.get('name', 'round_robin')}{f' ({options})' if options else ''}{where}"


def comment(lines: Iterable[str]) -> str:
    """Lines as `#` comments, wrapped; nothing in them can end the comment."""
    wrapped = []
    for line in lines:
        flat = " ".join(line.split())
        pieces = textwrap.wrap(flat, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        wrapped += [f"# {piece}" for piece in pieces or [""]]
    return "".join(f"{line.rstrip()}\n" for line in wrapped)


def yaml(value: Mapping[str, Any]) -> str:
    """`value` as YAML without anchors: what stands twice is written twice, for readers and for simpler parsers."""
    return written(json.loads(json.dumps(value)))
