"""Sends completion requests and notes when each token came. Imports errors, `stream` and, of runs, how a cut
request is called.

It shares the machine with the server that it measures, so it does little: no HTTP library, one connection a request,
and no JSON parsed but the last event of an answer.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from simroute.calibration.measure.stream import ResponseParser, error_text
from simroute.calibration.runs import CUT
from simroute.errors import UsageError

CONNECT_TIMEOUT_S = 30.0
"""An address that takes longer to connect is not there."""
GET_TIMEOUT_S = 30.0
"""Pages come at once, whatever the engine does."""


@dataclass(slots=True)
class Answer:
    """One request as its client saw it; times of the monotonic clock. `error` is None when all tokens came."""

    request_id: str
    input_tokens: int
    output_tokens: int
    """Asked for; once the answer is complete, those that came."""
    arrival_s: float = 0.0
    chunk_s: list[float] = field(default_factory=list)
    error: str | None = "not sent"
    reached: bool = True
    """False when there was no server to answer."""


class Client:
    """Completions of one model at one server. `url` is the server's root, as http://127.0.0.1:8000.

    Raises UsageError for another kind of address.
    """

    def __init__(self, url: str, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # a port that is no number, brackets that do not close
            raise UsageError(f"--url: must be http://HOST:PORT, got '{url}'") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"--url: must be http://HOST:PORT, got '{url}'")
        self._host = parts.hostname
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._model = json.dumps(model)
        self._clock = clock
        self._sent = 0

    def request(self, prompt: Sequence[int], max_tokens: int) -> Answer:
        """An answer yet to come; its caller keeps it even when `follow` is cancelled."""
        self._sent += 1
        return Answer(f"q{self._sent}", len(prompt), max_tokens)

    async def follow(self, answer: Answer, prompt: Sequence[int]) -> Answer:
        """Send the request of `answer`, for exactly as many tokens as it names, and fill the answer in.

        Raises nothing: what goes wrong stands in `answer.error`.
        """
        body = (
            f'{{"model":{self._model},"prompt":{json.dumps(list(prompt))},"max_tokens":{answer.output_tokens},'
            '"temperature":0,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}}'
        )
        events = _Events(answer, self._clock)
        answer.error = f"{CUT}: the phase ended before it finished"  # what it stays when this is cancelled
        answer.arrival_s = self._clock()
        parser, answer.error = await self._exchange("POST", "/v1/completions", body.encode(), events)
        answer.reached = parser is not None
        if parser and not answer.error:
            answer.error = events.verdict(parser)
        return answer

    async def complete(self, prompt: Sequence[int], max_tokens: int) -> Answer:
        """`request` and `follow` in one."""
        return await self.follow(self.request(prompt, max_tokens), prompt)

    async def get(self, path: str) -> tuple[int, bytes]:
        """(status, body) of a GET; without an answer within GET_TIMEOUT_S status 0, and the reason for a body."""
        try:
            async with asyncio.timeout(GET_TIMEOUT_S):
                parser, problem = await self._exchange("GET", path, b"", lambda _payload: None)
        except TimeoutError:
            parser, problem = None, f"nothing came within {GET_TIMEOUT_S:g} s"
        return (0, (problem or "").encode()) if parser is None or problem else (parser.status, parser.body)

    async def _exchange(
        self, method: str, path: str, body: bytes, on_event: Callable[[bytes], None]
    ) -> tuple[ResponseParser | None, str | None]:
        """The response (None: no connection) and what went wrong with the connection."""
        head = (
            f"{method} {self._path}{path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        loop = asyncio.get_running_loop()
        parser = ResponseParser(on_event)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                transport, wire = await loop.create_connection(
                    lambda: _Wire(parser, head.encode() + body, loop.create_future()),
                    self._host, self._port, ssl=self._ssl,
                )  # fmt: skip
        except TimeoutError:
            return None, f"cannot connect to {self._host}:{self._port} within {CONNECT_TIMEOUT_S:.0f} s"
        except OSError as error:
            return None, f"cannot connect to {self._host}:{self._port}: {error.strerror or error}"
        try:
            return parser, await wire.finished
        finally:
            transport.close()


class _Wire(asyncio.Protocol):
    """One connection: writes the request, feeds the parser. `finished` gives None, or what went wrong."""

    def __init__(self, parser: ResponseParser, request: bytes, finished: asyncio.Future[str | None]) -> None:
        self.finished = finished
        self._parser = parser
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except ValueError as error:
            self._finish(str(error))
            return
        if self._parser.done:
            self._finish(None)

    def connection_lost(self, _error: Exception | None) -> None:
        self._parser.end()
        self._finish(None if self._parser.done else "the server closed the connection")

    def _finish(self, problem: str | None) -> None:
        if not self.finished.done():
            self.finished.set_result(problem)


class _Events:
    """Reads the events of one answer: a time for each that brings tokens, the count of tokens from the last."""

    def __init__(self, answer: Answer, clock: Callable[[], float]) -> None:
        self._answer = answer
        self._clock = clock
        self._complete = False
        self._problem: str | None = None

    def __call__(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._complete = True
        elif payload.startswith((b'{"error"', b'{"object":"error"')):
            self._problem = f"the server answered: {error_text(payload)}"
        elif b'"choices":[]' in payload:
            usage = json.loads(payload).get("usage") or {}
            self._answer.output_tokens = int(usage.get("completion_tokens") or self._answer.output_tokens)
        else:
            self._answer.chunk_s.append(self._clock())

    def verdict(self, parser: ResponseParser) -> str | None:
        """None when the answer is whole, else what is wrong with it."""
        if parser.status != 200:
            return f"HTTP {parser.status}: {parser.error_text()}"
        if self._problem:
            return self._problem
        if not self._complete or not self._answer.chunk_s:
            return "the answer is not a stream of completion events"
        return None
