"""One stream of a spec as columns: turns of sessions, their growing prompts, and the ids of what they share.

A session's token stream only ever grows: the system prompt, then text and answer of each turn. So block b of a
session is the same tokens in every turn that reaches it, and one id stands for it wherever it is seen.
Imports only the spec, its draws, rng and the workload's columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simroute.rng import stream as rng_stream
from simroute.workload.columns import Floats, Ints
from simroute.workload.prefixes import Ragged, offsets_of, run_positions
from simroute.workload.synth.draw import arrival_times, draw, draw_whole, zipf_choices
from simroute.workload.synth.spec import MixSpec, Stream

Column = TypeVar("Column", Floats, Ints)


@dataclass(frozen=True, slots=True)
class Turns:
    """n turns, those of a session one after another. Columns of shape (n,).

    `session` is the number of the session and `turn` the place in it; `prompt` numbers the system prompt (-1 for
    none) of `system_tokens`; `stream_tokens` is all that has been said by the end of the turn.
    """

    arrival_s: Floats
    session: Ints
    turn: Ints
    prompt: Ints
    system_tokens: Ints
    input_tokens: Ints
    output_tokens: Ints

    @property
    def stream_tokens(self) -> Ints:
        """Tokens of prompt and answer."""
        return self.input_tokens + self.output_tokens

    def take(self, keep: NDArray[np.bool_]) -> Turns:
        """The turns under a mask."""
        return Turns(*(getattr(self, name)[keep] for name in self.__slots__))


def turns_of(stream: Stream, spec: MixSpec, seed: int) -> Turns:
    """All turns of a stream that arrive in time and fit the context."""
    starts = arrival_times(stream.arrivals, spec, rng_stream(seed, stream.name, "arrivals"))
    prompt, system_tokens = _system_prompts(stream, spec, seed, len(starts))
    counts = _turn_counts(stream, seed, len(starts))
    session = np.repeat(np.arange(len(starts), dtype=np.int64), counts)
    first = offsets_of(counts)[:-1]
    turn = np.arange(len(session), dtype=np.int64) - first[session]
    room = spec.max_context_tokens - system_tokens[session]
    output = draw_whole(stream.output_tokens, rng_stream(seed, stream.name, "output_tokens"), len(session))
    output = np.minimum(output, room // 2)
    text = draw_whole(stream.input_tokens, rng_stream(seed, stream.name, "input_tokens"), len(session))
    text = np.minimum(text, room - output)
    said = _running_sum(text + output, first[session])
    turns = Turns(
        arrival_s=starts[session] + _delays(stream, seed, output, turn, first[session]),
        session=session,
        turn=turn,
        prompt=prompt[session],
        system_tokens=system_tokens[session],
        input_tokens=system_tokens[session] + said - output,
        output_tokens=output,
    )
    # Both only grow within a session, so what is kept of it is its beginning.
    return turns.take((turns.stream_tokens <= spec.max_context_tokens) & (turns.arrival_s < spec.duration_s))


def shared_ids(turns: Turns, block_tokens: int, first_id: int) -> tuple[Ragged, int]:
    """Prefix ids of the turns, from `first_id` on, and the first id left free.

    A turn that another follows carries ids for all of its stream, the last turn for what came before it, every turn
    for the whole blocks of its system prompt; what nobody else will ever hold needs none.
    """
    follows = np.append(turns.session[1:] == turns.session[:-1], False)
    before = np.zeros(len(turns.turn), dtype=np.int64)
    before[1:] = turns.stream_tokens[:-1]
    told = np.where(follows, turns.stream_tokens, np.where(turns.turn > 0, before, 0))
    system_blocks = turns.system_tokens // block_tokens
    session_blocks = np.maximum(-(-told // block_tokens) - system_blocks, 0)
    prompt_first, free = _allocate(turns.prompt + 1, system_blocks, first_id)
    session_first, free = _allocate(turns.session, session_blocks, free)
    starts = np.stack([prompt_first, session_first], axis=1).reshape(-1)
    lengths = np.stack([system_blocks, session_blocks], axis=1).reshape(-1)
    return Ragged(offsets_of(system_blocks + session_blocks), run_positions(starts, lengths)), free


def _allocate(owner: Ints, blocks: Ints, first_id: int) -> tuple[Ints, int]:
    """The first id of each turn's owner, which gets as many as its longest turn needs, and the first id left."""
    most = np.zeros(int(owner.max(initial=-1)) + 1, dtype=np.int64)
    np.maximum.at(most, owner, blocks)
    bounds = first_id + offsets_of(most)
    return bounds[:-1][owner], int(bounds[-1])


def _system_prompts(stream: Stream, spec: MixSpec, seed: int, sessions: int) -> tuple[Ints, Ints]:
    """(prompt number, its tokens) of each session; at least half the context is left for the conversation."""
    prompts = stream.system_prompts
    if prompts is None:
        return np.full(sessions, -1, dtype=np.int64), np.zeros(sessions, dtype=np.int64)
    tokens = draw_whole(prompts.tokens, rng_stream(seed, stream.name, "system_tokens"), prompts.count)
    chosen = zipf_choices(rng_stream(seed, stream.name, "system_prompts"), prompts.count, prompts.zipf, sessions)
    return chosen, np.minimum(tokens, spec.max_context_tokens // 2)[chosen]


def _turn_counts(stream: Stream, seed: int, sessions: int) -> Ints:
    if stream.sessions is None:
        return np.ones(sessions, dtype=np.int64)
    return draw_whole(stream.sessions.turns, rng_stream(seed, stream.name, "turns"), sessions)


def _delays(stream: Stream, seed: int, output_tokens: Ints, turn: Ints, first: Ints) -> Floats:
    """Seconds from the session's start to each turn: earlier answers and the pauses after them."""
    if stream.sessions is None:
        return np.zeros(len(turn))
    think_s = draw(stream.sessions.think_time_s, rng_stream(seed, stream.name, "think_time_s"), len(turn))
    spent_s = think_s + stream.sessions.answer_s_per_token * output_tokens
    return _running_sum(spent_s, first) - spent_s


def _running_sum(values: Column, first: Ints) -> Column:
    """Sums of `values` within each session, this turn included; `first` is where a turn's session begins."""
    total = np.cumsum(values)
    within: Column = total - total[first] + values[first]
    return within
