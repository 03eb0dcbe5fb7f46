#!/usr/bin/env bash
# Measures the small model on this machine's CPU under one scheme; goes on with a run that was broken off.
#   VLLM_PYTHON=/path/to/python calibration/cpu/measure.sh bf16|w8a8-int8|w4a16 [SECONDS [RUN]]
# VLLM_PYTHON is the Python that has vLLM and simroute; `simroute` is taken from PATH, or from $SIMROUTE.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scheme=${1:?give a scheme: bf16, w8a8-int8 or w4a16}
seconds=${2:-480}
model=llama-12x384
run=${3:-$here/$model/runs/$scheme}
config=$here/$model/$scheme.json
args=(--max-num-seqs 32 --max-num-batched-tokens 256 --max-model-len 768)
if [ "$scheme" = w4a16 ]; then
  # vLLM's own 4-bit kernel for CPUs needs AVX-512; PyTorch's, which torchao 0.14 reaches, needs AVX2 only.
  config=$here/$model/bf16.json
  int4='{"_type":"Int4WeightOnlyConfig","_version":2,"_data":{"group_size":128,"set_inductor_config":false,'
  int4+='"int4_packing_format":"opaque",'
  int4+='"int4_choose_qparams_algorithm":{"_type":"Int4ChooseQParamsAlgorithm","_data":"TINYGEMM"}}}'
  quoted=${int4//\"/\\\"}
  args+=(--quantization torchao --hf-overrides "{\"quantization_config_dict_json\": \"$quoted\"}")
fi
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1}
exec ${SIMROUTE:-simroute} calibrate measure -o "$run" \
  --launch "$model" --dummy-weights --model-config "$config" --python "${VLLM_PYTHON:-python}" \
  --gpu cpu --scheme "$scheme" --budget "$seconds" --input-tokens 24 --output-tokens 32 -- "${args[@]}"
