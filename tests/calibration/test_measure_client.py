"""The client: responses in pieces of any size, tokens timed one by one, and what is wrong said in one line."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from calibration.fakevllm import FakeVllm, served

from simroute.calibration.measure import client as client_module
from simroute.calibration.measure.client import Answer, Client, _Events
from simroute.calibration.measure.drive import Driver, ServerError
from simroute.calibration.measure.stream import ResponseParser
from simroute.calibration.measure.sweep import Limits
from simroute.errors import UsageError

EVENTS = b'data: {"a":1}\n\ndata: {"b":2}\r\n\r\n: a comment\n\ndata: [DONE]\n\n'
PAYLOADS = [b'{"a":1}', b'{"b":2}', b"[DONE]"]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "response",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(EVENTS, 5),
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(EVENTS, 1000),
        HEAD + b"Content-Length: %d\r\n\r\n" % len(EVENTS) + EVENTS,
    ],
)
def test_events_are_the_same_in_pieces_of_any_size(response, step):
    seen: list[bytes] = []
    parser = ResponseParser(seen.append)
    for i in range(0, len(response), step):
        parser.feed(response[i : i + step])
    assert parser.done
    assert seen == PAYLOADS


def test_a_body_without_length_ends_with_the_connection():
    seen: list[bytes] = []
    parser = ResponseParser(seen.append)
    parser.feed(HEAD + b"\r\n" + EVENTS)
    assert not parser.done
    parser.end()
    assert parser.done
    assert seen == PAYLOADS


def test_a_chunked_body_cut_short_is_not_done():
    parser = ResponseParser(lambda payload: None)
    parser.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\ndata:")
    parser.end()
    assert not parser.done


@pytest.mark.parametrize("junk", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 what\r\n\r\n", b"x" * 70_000])
def test_what_is_not_http_is_refused(junk):
    with pytest.raises(ValueError, match="not HTTP"):
        ResponseParser(lambda payload: None).feed(junk)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":{"message":"too\\n long"}}', "too long"),
        (b'{"message":"no"}', "no"),
        (b'{"error":"plain"}', "plain"),
        (b"<html>\nBad</html>", "<html> Bad</html>"),
        (b"", "no reason given"),
        (b"[1]", "[1]"),
    ],
)
def test_the_reason_of_a_refusal_is_one_line(body, said):
    parser = ResponseParser(lambda payload: None)
    parser.feed(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert parser.error_text() == said


def ask(url: str, *requests: tuple[list[int], int], clock=None):
    async def all_of_them():
        client = Client(url, "fake", clock or itertools.count().__next__)
        return [await client.complete(*request) for request in requests]

    return asyncio.run(all_of_them())


def test_each_token_has_a_time():
    fake = FakeVllm(None)
    with served(fake) as url:
        [answer] = ask(url, ([5, 6, 7], 4))
    assert (answer.error, answer.input_tokens, answer.output_tokens) == (None, 3, 4)
    assert (answer.arrival_s, answer.chunk_s) == (0, [1, 2, 3, 4])  # the clock counts how often it was read
    assert fake.received == [
        {
            "model": "fake", "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True},
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "said", "tokens"),
    [
        ("500", "HTTP 500: out of luck", 0),
        ("cut", "the server closed the connection", 1),
        ("refuse", "the server closed the connection", 0),
    ],
)
def test_a_failed_answer_says_why(fault, said, tokens):
    with served(FakeVllm(None, fault)) as url:
        [answer] = ask(url, ([1], 3))
    assert (answer.error, len(answer.chunk_s), answer.reached) == (said, tokens, True)


def test_no_server_is_told_from_a_failing_one():
    with served(FakeVllm(None)) as url:
        pass
    [answer] = ask(url, ([1], 3))
    assert not answer.reached
    assert answer.error is not None
    assert answer.error.startswith("cannot connect to 127.0.0.1:")


def test_an_error_within_a_stream_is_one_line():
    answer = Answer("q1", 1, 1)
    events = _Events(answer, lambda: 0.0)
    events(b'{"error": {"message": "EngineCore\\nis gone", "code": 500}}')
    parser = ResponseParser(events)
    parser.status = 200
    assert events.verdict(parser) == "the server answered: EngineCore is gone"


def test_a_server_that_accepts_and_says_nothing_is_no_server(monkeypatch):
    monkeypatch.setattr(client_module, "GET_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"http://127.0.0.1:{silent.getsockname()[1]}", "fake")
        assert asyncio.run(client.get("/v1/models")) == (0, b"nothing came within 0.05 s")


def test_waiting_for_a_server_that_died_says_so():
    driver = Driver(Client("http://127.0.0.1:9", "fake"), Limits(4, 64, 128, 512, 16, True), range(10, 90), seed=0)
    with pytest.raises(ServerError, match="cannot connect to 127"):
        asyncio.run(driver.settle())


def test_an_answer_that_is_cancelled_keeps_what_came():
    async def cancelled(url):
        client = Client(url, "fake")
        answer = client.request([1], 3)
        task = asyncio.create_task(client.follow(answer, [1]))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await client.complete([1], 1)).error is None
        return answer

    with served(FakeVllm(None)) as url:
        answer = asyncio.run(cancelled(url))
    assert answer.error == "cut: the phase ended before it finished"


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x", "http://", "", "http://x:port", "http://x:99999", "http://[::1"]
)
def test_another_kind_of_address_is_refused(url):
    with pytest.raises(UsageError, match="--url: must be http://HOST:PORT"):
        Client(url, "fake")


def test_the_address_may_end_in_v1():
    fake = FakeVllm(None)
    with served(fake) as url:
        ask(url + "/v1/", ([1], 1))
    assert fake.paths == ["/v1/completions"]
