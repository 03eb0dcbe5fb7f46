"""Synthetic traces: sessions that grow, prefix ids that tell exactly what is shared, specs that are refused."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from simroute.errors import TraceError
from simroute.workload.inspect import seen_tokens
from simroute.workload.synth import MixSpec, synthesize
from simroute.workload.synth.sessions import Turns, shared_ids, turns_of

BLOCK = 64
KV_BLOCK = 16


def stream(name: str = "talk", **changes) -> dict:
    fields = {
        "name": name,
        "request_class": "chat",
        "arrivals": {"kind": "poisson", "rate_per_s": 0.1},
        "input_tokens": {"kind": "lognormal", "median": 60, "sigma": 1.0, "max": 600},
        "output_tokens": {"kind": "lognormal", "median": 90, "sigma": 1.0, "max": 500},
        "sessions": {
            "turns": {"kind": "geometric", "mean": 3, "max": 9},
            "think_time_s": {"kind": "lognormal", "median": 30, "sigma": 0.5},
        },
        "system_prompts": {"count": 3, "tokens": {"kind": "empirical", "values": [128, 192]}},
    }
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def mix(*streams: dict, **changes) -> MixSpec:
    fields = {"name": "mix", "seed": 3, "duration_s": 600, "prefix_block_tokens": BLOCK, "max_context_tokens": 2048}
    return MixSpec.model_validate({**fields, **changes, "streams": list(streams) or [stream()]})


def made(spec: MixSpec) -> Turns:
    return turns_of(spec.streams[0], spec, spec.seed)


def token_streams(turns: Turns) -> list[list[tuple]]:
    """What each turn's prompt and answer consist of, token by token: nothing but who said it and where."""
    return [
        [
            ("system", turns.prompt[k], p) if p < turns.system_tokens[k] else ("said", turns.session[k], p)
            for p in range(n)
        ]
        for k, n in enumerate(turns.stream_tokens.tolist())
    ]


def rows_of(turns: Turns) -> list[list[int]]:
    ragged, _ = shared_ids(turns, BLOCK, 0)
    return [ragged.ids[first:last].tolist() for first, last in pairwise(ragged.offsets.tolist())]


def common(left: list, right: list) -> int:
    return next((k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def test_turns_of_a_session_repeat_all_that_was_said():
    turns = made(mix())
    assert turns.turn.max() >= 4
    for k in range(1, len(turns.turn)):
        if turns.session[k] == turns.session[k - 1]:
            assert turns.turn[k] == turns.turn[k - 1] + 1
            assert turns.input_tokens[k] > turns.stream_tokens[k - 1]
            assert turns.prompt[k] == turns.prompt[k - 1]
        else:
            assert turns.turn[k] == 0
            assert turns.input_tokens[k] > turns.system_tokens[k]


def test_a_turn_comes_after_the_answer_and_the_pause():
    sessions = {
        "turns": {"kind": "constant", "value": 4},
        "think_time_s": {"kind": "constant", "value": 10},
        "answer_s_per_token": 0.5,
    }
    turns = made(mix(stream(sessions=sessions, output_tokens={"kind": "constant", "value": 8})))
    same = turns.session[1:] == turns.session[:-1]
    assert np.diff(turns.arrival_s)[same] == pytest.approx(14.0)


def test_contexts_and_arrivals_stay_within_their_limits():
    wide = {"kind": "lognormal", "median": 900, "sigma": 1.5}
    turns = made(mix(stream(input_tokens=wide, output_tokens=wide), max_context_tokens=1024))
    assert turns.stream_tokens.max() <= 1024
    assert (turns.stream_tokens == 1024).any()
    assert turns.arrival_s.max() < 600
    assert min(turns.input_tokens.min(), turns.output_tokens.min()) >= 1


def test_ids_say_exactly_what_two_requests_share():
    """Every pair of turns: the tokens that their ids claim to share are those they do share."""
    turns = made(mix(duration_s=300, seed=5))
    tokens, ids = token_streams(turns), rows_of(turns)
    shared_pairs = 0
    for i in range(len(tokens)):
        for j in range(i):
            really = common(tokens[i], tokens[j])
            claimed = min(common(ids[i], ids[j]) * BLOCK, len(tokens[i]), len(tokens[j]))
            same_session = turns.session[i] == turns.session[j]
            assert claimed == (really if same_session else really // BLOCK * BLOCK)
            shared_pairs += really > 0
    assert shared_pairs > 100


def test_a_prefix_cache_hits_as_much_by_ids_as_by_tokens():
    """An unbounded cache of 16-token blocks, once keyed by all tokens so far, once by prefix ids."""
    turns = made(mix(seed=6))
    tokens, ids = token_streams(turns), rows_of(turns)
    by_tokens: set = set()
    by_ids: set = set()
    hits = 0
    for k in np.argsort(turns.arrival_s, kind="stable"):
        blocks = len(tokens[k]) // KV_BLOCK
        token_keys = [hash(tuple(tokens[k][: (b + 1) * KV_BLOCK])) for b in range(blocks)]
        id_keys = [
            (ids[k][b * KV_BLOCK // BLOCK], b) if b * KV_BLOCK // BLOCK < len(ids[k]) else (k, "own", b)
            for b in range(blocks)
        ]
        prompt_blocks = int(turns.input_tokens[k]) // KV_BLOCK
        token_hits = next((b for b in range(prompt_blocks) if token_keys[b] not in by_tokens), prompt_blocks)
        id_hits = next((b for b in range(prompt_blocks) if id_keys[b] not in by_ids), prompt_blocks)
        assert id_hits == token_hits
        hits += token_hits
        by_tokens.update(token_keys)
        by_ids.update(id_keys)
    assert hits > 500


def test_seen_tokens_agree_with_the_token_streams():
    spec = mix(duration_s=300, seed=8)
    turns = made(spec)
    seen = seen_tokens(synthesize(spec))
    exact = 0
    order = np.argsort(np.round(turns.arrival_s, 3), kind="stable")
    tokens = token_streams(turns)
    for place, k in enumerate(order):
        prompt = tokens[k][: turns.input_tokens[k]]
        really = max((common(prompt, tokens[j]) for j in order[:place]), default=0)
        # An answer that ends inside the prompt's last block is left out: which ids tell of answers is not recorded.
        assert really - BLOCK < seen[place] <= really
        exact += seen[place] == really
    assert exact > 0.9 * len(order)


def test_system_prompts_are_shared_to_whole_blocks_only():
    turns = made(mix(stream(sessions=None, system_prompts={"tokens": {"kind": "constant", "value": 2 * BLOCK + 63}})))
    assert {tuple(row) for row in rows_of(turns)} == {(0, 1)}
    assert (turns.system_tokens == 2 * BLOCK + 63).all()


def test_requests_that_share_nothing_have_no_ids():
    trace = synthesize(mix(stream(sessions=None, system_prompts=None)))
    assert not trace.has_prefixes
    assert (trace.session == -1).all()


def test_streams_are_tagged_and_kept_apart():
    spec = mix(
        stream("a", tenant="x", tier="free", priority=2),
        stream("b", tenant="y", tier="gold", request_class="coding"),
        stream("c", tenant="x", tier="gold", sessions=None, request_class="extraction"),
    )
    trace = synthesize(spec)
    assert trace.tenant_names == ("x", "y")
    assert trace.tier_names == ("free", "gold")
    assert trace.class_names == ("chat", "coding", "extraction")
    owners = np.array(trace.class_names)[trace.class_code]
    assert set(trace.priority[owners == "chat"]) == {2}
    assert set(trace.session[owners == "extraction"]) == {-1}
    assert not set(trace.session[owners == "chat"]) & set(trace.session[owners == "coding"])
    ids = {
        name: {i for row in np.flatnonzero(owners == name) for i in trace.prefixes.take(np.array([row])).ids}
        for name in trace.class_names
    }
    assert not ids["chat"] & ids["coding"]
    assert not ids["chat"] & ids["extraction"]
    assert (np.diff(trace.arrival_s) >= 0).all()


def test_the_seed_decides_everything_and_streams_do_not_disturb_each_other():
    alone = synthesize(mix(stream("a")))
    assert synthesize(mix(stream("a"))).fingerprint() == alone.fingerprint()
    assert synthesize(mix(stream("a")), seed=4).fingerprint() != alone.fingerprint()
    both = synthesize(mix(stream("a"), stream("b", request_class="coding")))
    of_a = both.select(both.class_code == both.class_names.index("chat"))
    assert of_a.fingerprint() == alone.fingerprint()


def test_a_trace_in_which_nothing_arrives_is_refused():
    with pytest.raises(TraceError, match="mix: nothing arrives in"):
        synthesize(mix(duration_s=0.001))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiers": "x"}, "Extra inputs are not permitted"),
        ({"request_class": "poetry"}, "Input should be 'chat', 'coding'"),
        ({"arrivals": {"kind": "poisson", "rate_per_s": 0}}, "greater than 0"),
        ({"arrivals": {"kind": "uniform", "rate_per_s": 1}}, "'poisson', 'gamma', 'weibull', 'diurnal'"),
        ({"arrivals": {"kind": "diurnal", "peak_per_s": 1, "trough_per_s": 2}}, "must not exceed peak_per_s 1"),
        (
            {"arrivals": {"kind": "diurnal", "peak_per_s": 1, "trough_per_s": 0, "weekday_factors": [0] * 7}},
            "at least one day",
        ),
        ({"input_tokens": {"kind": "lognormal", "sigma": 1}}, "either median or mean"),
        ({"input_tokens": {"kind": "lognormal", "sigma": 1, "mean": 1, "median": 1}}, "either median or mean"),
        ({"input_tokens": {"kind": "lognormal", "sigma": float("nan"), "mean": 1}}, "finite number"),
        ({"input_tokens": {"kind": "geometric", "mean": 2, "min": 5, "max": 4}}, "max 4 must not be below min 5"),
        ({"input_tokens": {"kind": "empirical", "values": [1, 2], "weights": [1]}}, "2 needed, got 1"),
        ({"input_tokens": {"kind": "empirical", "values": [1], "weights": [0]}}, "at least one must be above 0"),
        ({"input_tokens": {"kind": "histogram", "edges": [2, 1], "weights": [1]}}, "edges must rise"),
    ],
)
def test_impossible_streams_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        mix(stream(**changes))


def test_impossible_mixes_are_refused():
    with pytest.raises(ValidationError, match="name 'talk' is used more than once"):
        mix(stream(), stream())
    with pytest.raises(ValidationError, match="multiple of 16"):
        mix(prefix_block_tokens=100)


def test_the_mixed_day_is_what_its_spec_gives():
    from simroute.workload.formats import read_trace
    from simroute.yamlfile import parse

    folder = Path(__file__).resolve().parents[2] / "traces"
    spec = MixSpec.model_validate(parse((folder / "mixed_day.yaml").read_text("utf-8")).value)
    trace = read_trace(folder / "mixed_day.parquet")
    assert synthesize(spec).fingerprint() == trace.fingerprint()
    assert len(trace) >= 50_000
    assert (folder / "mixed_day.parquet").stat().st_size < 2_000_000
    assert set(trace.class_names) == {"chat", "coding", "reasoning", "extraction", "classification"}
    assert set(trace.tier_names) == {"free", "standard", "premium"}
    assert (trace.input_tokens + trace.output_tokens).max() <= 8192
    assert 86_000 < trace.duration_s < 86_400
