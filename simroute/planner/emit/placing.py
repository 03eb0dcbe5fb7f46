"""Where Kubernetes may put a replica: node labels of GPUs, spot machines, zones. Imports `common`.

GPU names are those that NVIDIA's GPU feature discovery puts on nodes (`nvidia.com/gpu.product`): what nvidia-smi
prints, dashes for spaces. Spot machines carry a label of their cloud: GKE, Karpenter on AWS, AKS.
"""

from __future__ import annotations

from typing import Any

from simroute.planner.emit.common import Server

_PRODUCTS = {
    "T4": ("Tesla-T4",),
    "A10G": ("NVIDIA-A10G",),
    "L4": ("NVIDIA-L4",),
    "L40S": ("NVIDIA-L40S",),
    "RTX-4090": ("NVIDIA-GeForce-RTX-4090",),
    "RTX-PRO-6000": ("NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",),
    "A100-40GB": ("NVIDIA-A100-SXM4-40GB",),
    "A100-80GB": ("NVIDIA-A100-SXM4-80GB",),
    "H100": ("NVIDIA-H100-80GB-HBM3",),
    "H200": ("NVIDIA-H200",),
    "B200": ("NVIDIA-B200",),
}
_SPOT = {
    "cloud.google.com/gke-spot": "true",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}
_TAINTED = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority")


def product_label(server: Server) -> tuple[str, tuple[str, ...]]:
    """The label that tells this GPU on a node, and its values; none where they are not known."""
    if server.vendor != "nvidia":
        return "amd.com/gpu.product-name", ()
    return "nvidia.com/gpu.product", _PRODUCTS.get(server.gpu, ())


def node_terms(server: Server) -> list[dict[str, Any]]:
    """`nodeSelectorTerms`, any of which a node has to meet: the GPU, and for spot one cloud's label each."""
    key, values = product_label(server)
    gpu = [{"key": key, "operator": "In", "values": list(values)}] if values else []
    if not server.spot:
        return [{"matchExpressions": gpu}] if gpu else []
    return [
        {"matchExpressions": [*gpu, {"key": name, "operator": "In", "values": [value]}]}
        for name, value in _SPOT.items()
    ]


def tolerations(server: Server) -> list[dict[str, Any]]:
    """The taints that GPU machines, and spot machines, usually carry."""
    taints = [{"key": server.resource, "operator": "Exists", "effect": "NoSchedule"}]
    if server.spot:
        taints += [{"key": key, "operator": "Equal", "value": _SPOT[key], "effect": "NoSchedule"} for key in _TAINTED]
    return taints


def spread(server: Server, labels: dict[str, str]) -> list[dict[str, Any]]:
    """Replicas evenly over zones, where the plan has several."""
    if len(server.zones) < 2:
        return []
    return [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": labels},
        }
    ]


def placing_words(server: Server) -> list[str]:
    """What to check of the labels."""
    key, values = product_label(server)
    lines = [f"GPU label to check: kubectl get nodes -L {key}"]
    if not values:
        lines = [f"no node label is known for {server.gpu}: restrict the pods to its nodes by {key} or one of yours"]
    if server.spot:
        lines.append("spot machines by the labels of GKE, Karpenter and AKS: add your cloud's if it is another")
    return lines
