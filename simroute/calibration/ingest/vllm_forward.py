"""Results of `vllm bench forward --output-json` (vLLM 0.33): the median time of the forward pass of exact batches.

The file is a list of {"case", "requests": [{"query_len", "kv_len", "num_draft_tokens", "chunked"}], "median_us",
"ranks"}. It times the model on the GPU alone, as one CUDA graph without padding: neither sampling nor the CPU between
steps, which a calibration made from it lacks. Imports ingest's other files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simroute.calibration.ingest.described import Described, Found, iteration_table, run_of
from simroute.calibration.ingest.files import count, read_json, seconds
from simroute.calibration.runs import Phase, Run
from simroute.errors import CalibrationError

_PHASE = "forward"
_NOTE = "times are of the forward pass alone: no sampling, no CPU time between steps, no CUDA-graph padding"


def read(path: Path, engine: Described) -> Run:
    """The run of one result file, an iteration a case. Raises CalibrationError for what it cannot use."""
    cases = read_json(path)
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise CalibrationError(f"{path}: not a list of cases; write it with `vllm bench forward --output-json`")
    drafting = [str(case.get("case")) for case in cases if _drafts(case)]
    rows = []
    at_s = 0.0
    for number, case in enumerate(cases):
        if not _drafts(case):
            row = _row(case, at_s, f"{path}: case {number} '{case.get('case')}'")
            rows.append(row)
            at_s += row["service_s"]
    if not rows:
        raise CalibrationError(f"{path}: no case without speculative decoding, which is not modelled")
    notes = [_NOTE]
    if drafting:
        notes.append(f"{path.name}: left out, for they time drafts: {', '.join(drafting)}")
    phase = Phase(name=_PHASE, kind="sweep", start_s=0.0, end_s=at_s)
    return run_of(str(path), engine, Found([phase], iterations=iteration_table(rows), notes=notes))


def _drafts(case: Mapping[str, Any]) -> bool:
    """Whether the case times speculative decoding."""
    requests = case.get("requests")
    verifies = isinstance(requests, list) and any(isinstance(r, dict) and r.get("num_draft_tokens") for r in requests)
    ranks = case.get("ranks")
    scopes = [rank.get("timing_scope") for rank in ranks if isinstance(rank, dict)] if isinstance(ranks, list) else []
    return verifies or "target_and_drafter" in scopes


def _row(case: Mapping[str, Any], at_s: float, where: str) -> dict[str, Any]:
    service_s = seconds(case.get("median_us"), f"{where}: median_us") * 1e-6
    if service_s <= 0:
        raise CalibrationError(f"{where}: median_us: must be above 0, got {case['median_us']}")
    requests = case.get("requests")
    if not isinstance(requests, list) or not requests:
        raise CalibrationError(f"{where}: requests: must be a list of one or more")
    shapes = [_shape(request, f"{where}: request {number}") for number, request in enumerate(requests)]
    prefills = [(query, prefix) for query, prefix in shapes if not _decodes(query, prefix)]
    contexts = [query + prefix for query, prefix in shapes if _decodes(query, prefix)]
    return {
        "phase": 0,
        "t_s": at_s,
        "service_s": service_s,
        **_batch(prefills, contexts),
        "running": len(shapes),
    }


def _batch(prefills: Sequence[tuple[int, int]], contexts: Sequence[int]) -> dict[str, int]:
    return {
        "prefill_seqs": len(prefills),
        "prefill_tokens": sum(query for query, _ in prefills),
        "prefill_context_tokens": sum(prefix for _, prefix in prefills),
        "prefill_pairs": sum(query * prefix + query * (query + 1) // 2 for query, prefix in prefills),
        "decode_seqs": len(contexts),
        "decode_context_tokens": sum(contexts),
    }


def _decodes(query: int, prefix: int) -> bool:
    return query == 1 and prefix > 0


def _shape(request: Any, where: str) -> tuple[int, int]:
    """(tokens computed, tokens in the KV cache before them)."""
    if not isinstance(request, dict):
        raise CalibrationError(f"{where}: must have query_len and kv_len, got {request!r}")
    query = count(request.get("query_len"), f"{where}: query_len")
    total = count(request.get("kv_len"), f"{where}: kv_len", least=query)
    return query, total - query
