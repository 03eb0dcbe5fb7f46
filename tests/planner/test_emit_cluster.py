"""Compose, Kubernetes and Helm: the objects that stand in the files, against what each of those readers accepts."""

from __future__ import annotations

import math

import pytest
import yaml
from planner.plans import big_pool, document, plan, pool

from simroute.planner.emit import emit, unlike

SCALE = {
    "name": "hpa",
    "min_replicas": 0,
    "max_replicas": 9,
    "interval_s": 15.0,
    "drain_s": 120.0,
    "options": {
        "targets": {"waiting": 4, "kv_usage": 0.8, "ttft_p90_s": 2.0, "running": None},
        "scale_down": {
            "stabilization_window_s": 600.0,
            "policies": [{"type": "Pods", "value": 1, "period_s": 60.0}],
            "select_policy": "Min",
        },
    },
}
# The fields that are used of the chart's values.schema.json, and their types there.
MODEL_SPEC = {
    "name": str, "repository": str, "tag": str, "modelURL": str, "replicaCount": int, "requestCPU": int,
    "requestMemory": str, "requestGPU": int, "requestGPUType": str, "vllmConfig": dict, "nodeSelectorTerms": list,
}  # fmt: skip
VLLM_CONFIG = {
    "tensorParallelSize": int, "maxModelLen": int, "maxNumSeqs": int, "gpuMemoryUtilization": float, "dtype": str,
    "enablePrefixCaching": bool, "enableChunkedPrefill": bool, "extraArgs": list,
}  # fmt: skip
ROUTER_SPEC = {"repository": str, "tag": str, "replicaCount": int, "routingLogic": str, "sessionKey": str}
ROUTING = {"roundrobin", "session", "prefixaware", "kvaware", "disaggregated_prefill"}


def manifests(*pools, **changes):
    made = plan(list(pools) or None, **changes)
    (text,) = emit("k8s", made, document()).values()
    return list(yaml.safe_load_all(text)), text


def of_kind(found, kind):
    return [each for each in found if each["kind"] == kind]


def pod(deployment):
    return deployment["spec"]["template"]["spec"]


def fits(value, fields):
    assert set(value) <= set(fields)
    assert {name for name, each in value.items() if type(each) is not fields[name]} == set()


def test_a_pool_is_a_deployment_a_service_and_a_budget_and_the_fleet_a_service():
    found, _ = manifests()
    assert [each["kind"] for each in found] == ["Service", *(["Deployment", "Service", "PodDisruptionBudget"] * 2)]
    assert len({(each["kind"], each["metadata"]["name"]) for each in found}) == len(found)
    for deployment in of_kind(found, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        selected = [s for s in of_kind(found, "Service") if s["spec"]["selector"].items() <= labels.items()]
        assert len(selected) == 2
    assert [d["spec"]["replicas"] for d in of_kind(found, "Deployment")] == [6, 2]


def test_a_replica_gets_its_gpus_its_node_and_time_to_start():
    found, _ = manifests(pool(startup_s=240.0), big_pool())
    small, large = (pod(each) for each in of_kind(found, "Deployment"))
    assert large["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    terms = large["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [
        {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}]}
    ]
    for each, startup_s in ((small, 240.0), (large, 600.0)):
        probe = each["containers"][0]["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == math.ceil(2 * startup_s)
    assert small["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_spot_machines_are_looked_for_in_three_clouds_and_zones_are_spread_over():
    found, text = manifests(pool(spot=True, zones=["a", "b"]))
    (each,) = map(pod, of_kind(found, "Deployment"))
    terms = each["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    keys = [[wanted["key"] for wanted in term["matchExpressions"]] for term in terms]
    assert [names[1] for names in keys] == [
        "cloud.google.com/gke-spot",
        "karpenter.sh/capacity-type",
        "kubernetes.azure.com/scalesetpriority",
    ]
    assert {names[0] for names in keys} == {"nvidia.com/gpu.product"}
    assert len(each["tolerations"]) == 3
    (spread,) = each["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/name"] == "small-fp8"
    assert "&id" not in text


def test_amd_asks_for_its_own_resource_and_says_that_no_label_is_known():
    found, text = manifests(pool(gpu="MI300X", quantization="bf16"))
    (each,) = map(pod, of_kind(found, "Deployment"))
    assert each["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert "affinity" not in each
    assert "no node label is known for MI300X" in text


def test_an_autoscaled_pool_leaves_its_number_of_replicas_to_the_autoscaler():
    found, text = manifests(pool(autoscale=SCALE))
    (deployment,), (scaler,) = of_kind(found, "Deployment"), of_kind(found, "HorizontalPodAutoscaler")
    assert "replicas" not in deployment["spec"]
    assert pod(deployment)["terminationGracePeriodSeconds"] == 135
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 9)
    metrics = {m["pods"]["metric"]["name"]: m["pods"]["target"]["averageValue"] for m in scaler["spec"]["metrics"]}
    assert metrics == {"vllm_num_requests_waiting": "4", "vllm_kv_cache_usage_perc": "800m"}
    assert scaler["spec"]["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "selectPolicy": "Min",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
    }
    assert "also aims at ttft_p90_s" in text
    assert "does not go below 1, KEDA does" in text


def test_an_autoscaler_without_counterpart_says_so():
    _, text = manifests(pool(autoscale=SCALE | {"name": "predictive", "options": {}}))
    assert "autoscaler predictive has no counterpart" in text
    assert "the queue of each replica stands in" in text


def test_helm_values_have_the_charts_fields_in_its_types():
    (text,) = emit("production-stack", plan(), document()).values()
    values = yaml.safe_load(text)
    assert set(values) == {"servingEngineSpec", "routerSpec"}
    for model in values["servingEngineSpec"]["modelSpec"]:
        fits(model, MODEL_SPEC)
        fits(model["vllmConfig"], VLLM_CONFIG)
        assert all(type(each) is str for each in model["vllmConfig"]["extraArgs"])
    fits(values["routerSpec"], ROUTER_SPEC)
    assert values["routerSpec"]["routingLogic"] in ROUTING
    assert values["servingEngineSpec"]["startupProbe"]["failureThreshold"] == 120
    assert [m["vllmConfig"]["enablePrefixCaching"] for m in values["servingEngineSpec"]["modelSpec"]] == [True, False]


@pytest.mark.parametrize("made", [pool(), big_pool(), pool(quantization="bf16", gpu="H100")], ids=lambda p: p["name"])
def test_the_charts_fields_and_extra_arguments_are_all_the_flags(made):
    """What the chart's template makes of the values is what `vllm serve` gets from the script."""
    from simroute.planner.emit.common import servers

    one = plan([made])
    (text,) = emit("production-stack", one, document()).values()
    config = yaml.safe_load(text)["servingEngineSpec"]["modelSpec"][0]["vllmConfig"]
    rendered = list(config["extraArgs"])
    for field, flag in (
        ("enablePrefixCaching", "enable-prefix-caching"),
        ("enableChunkedPrefill", "enable-chunked-prefill"),
    ):
        rendered.append(f"--{flag}" if config[field] else f"--no-{flag}")
    for field, flag in (
        ("maxModelLen", "--max-model-len"),
        ("maxNumSeqs", "--max-num-seqs"),
        ("gpuMemoryUtilization", "--gpu-memory-utilization"),
        ("tensorParallelSize", "--tensor-parallel-size"),
        ("dtype", "--dtype"),
    ):
        rendered += [flag, str(config[field])] if field in config else []
    (server,) = servers(one, document())
    assert sorted(rendered) == sorted(server.flags)


def squeezed(text: str) -> str:
    """Comments without their line breaks."""
    return " ".join(text.replace("#", " ").split())


@pytest.mark.parametrize(
    ("kind", "policy", "told"),
    [
        ("vllm", "least_kv", ""),
        ("compose", "least_kv", "the plan's policy least_kv has no counterpart in this router"),
        ("production-stack", "least_kv", "the plan's policy least_kv has no counterpart in this router"),
        ("production-stack", "round_robin", ""),
        ("k8s", "round_robin", "a Service picks a replica blindly for each connection, which is not the plan's round"),
        ("k8s", "random", "a Service picks a replica blindly for each connection, the plan's random for each request"),
    ],
)
def test_files_that_route_otherwise_than_the_plan_say_so_there_and_here(kind, policy, told):
    made = plan(policy=policy)
    assert unlike(kind, made, document()).startswith(told)
    assert bool(unlike(kind, made, document())) == bool(told)
    assert told in squeezed("".join(emit(kind, made, document()).values()))


def test_the_router_gets_its_session_key_and_a_foreign_policy_is_told():
    (text,) = emit("production-stack", plan(policy="session_affinity"), document()).values()
    assert yaml.safe_load(text)["routerSpec"]["sessionKey"] == "x-session-id"
    (text,) = emit("production-stack", plan(policy="least_kv"), document()).values()
    comments, _, router = text.rpartition("routerSpec:")
    assert "sessionKey" not in router
    assert "NOT the plan's policy" in comments
    assert "least_kv has no counterpart" in comments


def test_keda_scales_the_deployment_that_the_chart_makes():
    texts = emit("production-stack", plan([pool(autoscale=SCALE), big_pool()]), document())
    assert set(texts) == {"values.yaml", "keda.yaml"}
    (scaled,) = (part for part in yaml.safe_load_all(texts["keda.yaml"]) if part)
    # The chart names it RELEASE-MODEL-deployment-vllm.
    assert scaled["spec"]["scaleTargetRef"]["name"] == "fleet-small-fp8-deployment-vllm"
    assert "helm install fleet vllm/vllm-stack" in texts["values.yaml"]
    assert scaled["spec"]["minReplicaCount"] == 0
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    assert queries[0] == 'sum(vllm:num_requests_waiting{pod=~"fleet-small-fp8-deployment-vllm-.*"})'


def test_compose_gives_every_replica_its_own_gpus_and_port():
    texts = emit("compose", plan([pool(), pool(name="more", tensor_parallel=2, replicas=2)]), document())
    whole = yaml.safe_load(texts["compose.yaml"])
    router = whole["services"].pop("router")
    devices = [s["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for s in whole["services"].values()]
    assert [len(ids) for ids in devices] == [1] * 6 + [2] * 2
    assert [gpu for ids in devices for gpu in ids] == [str(i) for i in range(10)]
    ports = [s["ports"][0] for s in whole["services"].values()]
    assert ports == [f"{8001 + i}:8000" for i in range(8)]
    assert all(s["command"][0] == "meta-llama/Llama-3.1-8B-Instruct" for s in whole["services"].values())
    assert "for one machine with 10 GPUs" in texts["compose.yaml"]
    backends = router["command"][router["command"].index("--static-backends") + 1].split(",")
    models = router["command"][router["command"].index("--static-models") + 1].split(",")
    assert backends == [f"http://{name}:8000" for name in whole["services"]]
    assert len(models) == len(backends)
    assert set(router["depends_on"]) == set(whole["services"])


def test_compose_puts_gpus_of_two_kinds_on_two_machines():
    texts = emit("compose", plan(), document())
    assert set(texts) == {"compose.small-fp8.yaml", "compose.large.yaml", "compose.router.yaml"}
    large = yaml.safe_load(texts["compose.large.yaml"])["services"]
    ids = [s["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for s in large.values()]
    assert ids == [["0", "1"], ["2", "3"]]
    assert large["large-0"]["command"][0].startswith("${LLAMA_3_3_70B_AWQ_INT4:?a checkpoint of")
    router = yaml.safe_load(texts["compose.router.yaml"])["services"]["router"]
    backends = router["command"][router["command"].index("--static-backends") + 1].split(",")
    assert backends[0] == "http://${SMALL_FP8_HOST:?set it}:8001"
    assert backends[-1] == "http://${LARGE_HOST:?set it}:8002"
    assert "who wants one pool asks its replicas at their own ports" in squeezed(texts["compose.router.yaml"])


def test_compose_on_amd_shares_devices_by_number():
    texts = emit("compose", plan([pool(gpu="MI300X", quantization="bf16", replicas=2)]), document())
    services = yaml.safe_load(texts["compose.yaml"])["services"]
    assert services["small-fp8-1"]["environment"]["HIP_VISIBLE_DEVICES"] == "1"
    assert services["small-fp8-1"]["devices"] == ["/dev/kfd", "/dev/dri"]
