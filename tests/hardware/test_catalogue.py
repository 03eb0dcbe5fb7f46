"""Names, aliases, sources, prices, published accuracy and local config.json files."""

import csv
import datetime
import json
from pathlib import Path

import pytest

from simroute.errors import CatalogueError
from simroute.hardware import catalogue

DATA = Path(catalogue.__file__).parent / "data"
FILES = sorted(DATA.glob("*.csv"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_row_cites_a_source_and_a_date(path):
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows
    for row in rows:
        assert row["source"].strip(), row
        datetime.date.fromisoformat(row["retrieved"])
        assert None not in row, f"a row of {path.name} has more cells than the header"


def test_every_wanted_gpu_model_and_scheme_is_there():
    assert {spec.name for spec in catalogue.gpus()} == {
        "T4",
        "A10G",
        "L4",
        "L40S",
        "RTX-4090",
        "RTX-PRO-6000",
        "A100-40GB",
        "A100-80GB",
        "H100",
        "H200",
        "B200",
        "MI300X",
    }
    for name in ("Llama-3.3-70B", "Qwen2.5-14B", "Qwen3-30B-A3B", "Mistral-Small-24B", "Mixtral-8x7B", "gpt-oss-120b"):
        assert catalogue.model(name).name == name
    for name in ["bf16", "fp16", "fp8", "w8a8-int8", "w8a16", "awq-int4", "gptq-int4", "w4a16", "nvfp4"]:
        assert catalogue.scheme(name).name == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("llama-3.1-8b", "Llama-3.1-8B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
        ("QWEN/qwen3-30b-a3b", "Qwen3-30B-A3B"),
    ],
)
def test_models_are_found_by_short_name_and_hugging_face_id(given, name):
    assert catalogue.model(given).name == name


@pytest.mark.parametrize(
    ("given", "name"), [("h100-80gb", "H100"), ("rtx 4090", "RTX-4090"), ("NVIDIA H200", "H200"), ("a100", "A100-80GB")]
)
def test_gpus_are_found_by_alias(given, name):
    assert catalogue.gpu(given).name == name


def test_no_alias_stands_for_two_rows():
    for file, columns in (("gpus.csv", ["name"]), ("models.csv", ["name", "hf_id"]), ("schemes.csv", ["name"])):
        seen: dict[str, str] = {}
        with (DATA / file).open(newline="") as handle:
            for row in csv.DictReader(handle):
                for alias in [*(row[c] for c in columns), *filter(None, row["aliases"].split(";"))]:
                    key = alias.lower()
                    assert seen.setdefault(key, row["name"]) == row["name"], alias


def test_unknown_names_get_the_nearest():
    with pytest.raises(CatalogueError, match=r"unknown GPU 'H10': did you mean .*H100"):
        catalogue.gpu("H10")
    with pytest.raises(CatalogueError, match=r"unknown model 'llama-9': did you mean .*config\.json"):
        catalogue.model("llama-9")
    with pytest.raises(CatalogueError, match="unknown quantization scheme 'fp7'"):
        catalogue.scheme("fp7")


def test_rates_are_dense_and_absent_where_the_hardware_has_none():
    assert "fp8" not in catalogue.gpu("A100").flops
    assert "bf16" not in catalogue.gpu("T4").flops
    assert [spec.name for spec in catalogue.gpus() if "fp4" in spec.flops] == ["RTX-PRO-6000", "B200"]
    for spec in catalogue.gpus():
        assert spec.flops.get("fp8", 2 * spec.sixteen_bit_flops) == pytest.approx(2 * spec.sixteen_bit_flops, rel=0.03)


def test_prices_default_to_the_first_provider_listed():
    assert catalogue.price("H100") == catalogue.prices("H100")[0]
    assert catalogue.price("H100", "lambda").provider == "Lambda"
    assert catalogue.price("H100", term="spot").term == "spot"
    for spec in catalogue.gpus():
        assert catalogue.price(spec.name).usd_per_gpu_hour > 0


def test_a_missing_price_lists_the_ones_there_are():
    with pytest.raises(CatalogueError, match=r"no reserved price of T4; known .*AWS on_demand 0\.526"):
        catalogue.price("T4", term="reserved")
    with pytest.raises(CatalogueError, match="no on_demand price of H100 at Nowhere"):
        catalogue.price("H100", "Nowhere")
    with pytest.raises(CatalogueError, match="unknown price term 'ondemand'"):
        catalogue.price("H100", term="ondemand")


def test_accuracy_names_known_models_schemes_metrics_and_classes():
    for row in catalogue.accuracy_rows():
        assert catalogue.model(row.model).name == row.model
        assert catalogue.scheme(row.scheme).name == row.scheme
        assert catalogue.request_classes(row.metric), row.metric
        assert 0 < row.value <= (1.0 if row.unit == "score" else 1.1)
    assert {row.metric: row.value for row in catalogue.accuracy("qwen/qwen3-8b", "awq")}["GSM8K"] == 0.8696
    assert catalogue.accuracy("gpt-oss-20b", "mxfp4") == []
    assert catalogue.request_classes("gsm8k") == ("reasoning",)


def test_a_scheme_is_refused_where_vllm_has_no_kernel():
    with pytest.raises(CatalogueError, match=r"scheme bf16 does not run on T4: compute capability is 7\.5"):
        catalogue.scheme("bf16").check_runs_on(catalogue.gpu("T4"))
    with pytest.raises(CatalogueError, match=r"w8a8-int8 does not run on B200.*7\.5 to 9\.0"):
        catalogue.scheme("int8").check_runs_on(catalogue.gpu("B200"))
    with pytest.raises(CatalogueError, match="ROCm"):
        catalogue.scheme("nvfp4").check_runs_on(catalogue.gpu("MI300X"))
    assert not catalogue.scheme("fp8").is_native_on(catalogue.gpu("A100"))
    assert catalogue.scheme("fp8").is_native_on(catalogue.gpu("H100"))
    assert not catalogue.scheme("awq").is_native_on(catalogue.gpu("H100"))


QWEN2 = {
    "model_type": "qwen2",
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 32768,
}
GPT_OSS = {
    "model_type": "gpt_oss",
    "hidden_size": 2880,
    "num_hidden_layers": 4,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 2880,
    "vocab_size": 201088,
    "max_position_embeddings": 131072,
    "num_local_experts": 32,
    "experts_per_token": 4,
    "attention_bias": True,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "quantization_config": {"quant_method": "mxfp4"},
}


def write_config(folder, values):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_a_local_dense_config_json_is_a_model(tmp_path):
    folder = write_config(tmp_path / "tiny-qwen", QWEN2)
    spec = catalogue.model(str(folder))
    assert spec == catalogue.model(str(folder / "config.json"))
    assert (spec.name, spec.head_dim, spec.attention_bias, spec.is_moe) == ("tiny-qwen", 64, "qkv", False)
    assert (spec.sliding_window_tokens, spec.sliding_window_layers, spec.native_scheme) == (0, 0, "bf16")


def test_a_local_mixture_config_json_matches_the_catalogue_row(tmp_path):
    spec = catalogue.model(str(write_config(tmp_path / "oss", {**GPT_OSS, "num_hidden_layers": 24})))
    row = catalogue.model("gpt-oss-20b")
    for field in ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "attention_bias", "native_scheme"):
        assert getattr(spec, field) == getattr(row, field), field
    assert spec.sliding_window_layers == 2


def test_text_config_of_a_multimodal_model_is_used(tmp_path):
    spec = catalogue.model(str(write_config(tmp_path / "vision", {"model_type": "outer", "text_config": QWEN2})))
    assert spec.hidden_size == 896


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**QWEN2, "hidden_size": None}, "hidden_size must be a positive whole number, got nothing"),
        ({**QWEN2, "vocab_size": -1}, "vocab_size must be a positive whole number, got -1"),
        ({**QWEN2, "kv_lora_rank": 512}, "multi-head latent attention"),
        ([1], "must hold one JSON object"),
    ],
)
def test_a_wrong_config_json_is_refused_by_name(tmp_path, values, message):
    folder = write_config(tmp_path / "wrong", values)
    with pytest.raises(CatalogueError, match=message):
        catalogue.model(str(folder))


def test_an_unreadable_config_json_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(CatalogueError, match="cannot be read"):
        catalogue.model(str(path))
    with pytest.raises(CatalogueError, match="cannot be read"):
        catalogue.model(str(tmp_path / "absent.json"))
