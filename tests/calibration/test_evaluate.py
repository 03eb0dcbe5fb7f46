"""Exact-match evaluation against a small HTTP server that answers as an OpenAI-compatible endpoint does."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from simroute.calibration.capability.endpoint import TRIES, Endpoint
from simroute.calibration.capability.evaluate import evaluate, wilson
from simroute.calibration.capability.tasks import Task, read_tasks, same
from simroute.errors import UsageError


class Server(ThreadingHTTPServer):
    """Answers a prompt with `replies[prompt]`; `failures` are HTTP codes to answer first, one request each."""

    daemon_threads = True

    def __init__(self, replies, served=("own-model",)):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies, self.served, self.failures, self.bodies, self.keys = replies, served, [], [], []
        self.raw = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"data": [{"id": name} for name in self.server.served]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.failures:
            self.answer({"error": "not now"}, self.server.failures.pop())
            return
        text = self.server.replies.get(body["messages"][-1]["content"], "")
        self.answer({"choices": [{"message": {"role": "assistant", "content": text}}]})

    def answer(self, document, code=200):
        data = self.server.raw or json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serving(monkeypatch):
    """`serving(replies)`: a running server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = []

    def start(replies=None, **more):
        server = Server(replies or {}, **more)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def endpoint(server, **more):
    return Endpoint(server.url, pause=lambda _: None, **more)


def tasks(**answers):
    return [Task(prompt=prompt, answer=answer, request_class="chat") for prompt, answer in answers.items()]


def test_the_share_of_exact_matches_is_the_accuracy_of_each_class(serving):
    server = serving({"a": "Paris.", "b": "I think 7", "c": "blue", "d": "#### 12"})
    asked = [
        Task(prompt="a", answer="paris", request_class="chat"),
        Task(prompt="b", answer="7", request_class="chat"),
        Task(prompt="c", answer=("green", "BLUE"), request_class="chat"),
        Task(prompt="d", answer=12, request_class="maths", extract=r"####\s*(\S+)"),
    ]
    seen = []
    found = evaluate(endpoint(server), asked, "Qwen3-8B", "fp8", source="own.jsonl", progress=seen.append)
    chat, maths = found.rows
    assert (chat.request_class, chat.mean, maths.request_class, maths.mean) == (
        "chat",
        pytest.approx(2 / 3),
        "maths",
        1.0,
    )
    assert found.tasks == (3, 1)
    assert found.replies == ("Paris.", "I think 7", "blue", "#### 12")
    assert chat.source == "exact match on 3 tasks of own.jsonl, served as own-model"
    assert chat.low < chat.mean < chat.high
    assert seen[-1] == 1.0
    assert all(body["temperature"] == 0.0 and body["model"] == "own-model" for body in server.bodies)


def test_failures_that_may_pass_are_tried_again(serving):
    server = serving({"a": "yes"})
    server.failures = [503, 429, 500]
    found = evaluate(endpoint(server, api_key="secret"), tasks(a="yes"), "m", "s", concurrency=1)
    assert found.rows[0].mean == 1.0
    assert len(server.bodies) == TRIES
    assert set(server.keys) == {"Bearer secret"}


def test_failures_that_stay_end_it_with_what_the_server_said(serving):
    server = serving()
    server.failures = [503] * TRIES
    with pytest.raises(
        UsageError, match=rf'/v1/chat/completions: HTTP 503: \{{"error": "not now"\}} \(tried {TRIES} times\)'
    ):
        evaluate(endpoint(server), tasks(a="yes"), "m", "s")
    server.failures = [400]
    server.bodies.clear()
    with pytest.raises(UsageError, match=r'HTTP 400: \{"error": "not now"\}$'):
        evaluate(endpoint(server), tasks(a="yes"), "m", "s")
    assert len(server.bodies) == 1


def test_pauses_double(serving):
    server = serving({"a": "yes"})
    server.failures = [503, 503, 503]
    pauses = []
    Endpoint(server.url, pause=pauses.append).reply("m", [{"role": "user", "content": "a"}], 5)
    assert pauses == [1.0, 2.0, 4.0]


def test_an_endpoint_that_is_not_there_or_is_something_else_is_refused(serving):
    server = serving()
    gone = server.url
    server.raw = b"<html>"
    with pytest.raises(UsageError, match="not a JSON object: is this an OpenAI-compatible endpoint"):
        evaluate(endpoint(server), tasks(a="yes"), "m", "s")
    server.raw = b'{"data": [{"id": "m"}], "choices": []}'
    with pytest.raises(UsageError, match=r"the answer has no choices\[0\]\.message\.content"):
        evaluate(endpoint(server), tasks(a="yes"), "m", "s")
    server.shutdown()
    server.server_close()
    with pytest.raises(UsageError, match=rf"{gone}/v1/models: .*refused.* \(tried {TRIES} times\)"):
        evaluate(endpoint(server), tasks(a="yes"), "m", "s")
    for url in ("localhost:8000", "ftp://host", "http://", "http://host:port", "http://[::1"):
        with pytest.raises(UsageError, match="must be http://host:port or https://host"):
            Endpoint(url)


def test_the_model_must_be_served(serving):
    server = serving({"a": "yes"}, served=("first", "second"))
    with pytest.raises(UsageError, match="unknown served model 'secnd': did you mean second"):
        evaluate(endpoint(server), tasks(a="yes"), "m", "s", served="secnd")
    evaluate(endpoint(server), tasks(a="yes"), "m", "s", served="second")
    assert server.bodies[-1]["model"] == "second"
    with pytest.raises(UsageError, match="serves no models: name one with --served"):
        evaluate(endpoint(serving(served=())), tasks(a="yes"), "m", "s")


@pytest.mark.parametrize(
    ("given", "answer", "expected"),
    [
        (" 42 ", "42", True),
        ("42.0", "42", True),
        ("$1,234", "1234", True),
        ("'Yes'.", "yes", True),
        ("new   york", "New York", True),
        ("42 apples", "42", False),
        ("", "x", False),
        ("nan", "nan", True),
        ("inf", "infinity", False),
    ],
)
def test_what_counts_as_the_same_answer(given, answer, expected):
    assert same(given, answer) is expected


def test_the_last_match_is_compared():
    task = Task(prompt="q", answer="3", extract=r"answer is (\d+)")
    assert task.is_right("The answer is 2. No: the answer is 3")
    assert not task.is_right("3")
    assert Task(prompt="q", answer="3", extract=r"\d").is_right("1, 2, 3!")


def test_conversations_are_sent_as_they_are():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]
    assert Task(messages=messages, answer="a").conversation() == messages


def test_wilsons_interval_covers_the_share_nine_times_in_ten():
    from scipy.stats import binom

    for share in (0.1, 0.5, 0.9):
        covered = [right for right in range(201) if wilson(right, 200)[0] <= share <= wilson(right, 200)[1]]
        assert 0.87 < sum(binom.pmf(covered, 200, share)) < 0.93
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no tasks in it"),
        ('{"prompt": "a", "answer": "b"}\n{', ":2: not JSON"),
        ('{"prompt": "a", "answer": "b"}\n\n[]', ":3: must be an object with prompt, answer"),
        ('{"prompt": "a"}', ":1: answer is missing"),
        ('{"answer": "a"}', ":1: give prompt or messages"),
        ('{"prompt": "a", "answers": "b"}', ":1: unknown field 'answers': did you mean answer?"),
        ('{"prompt": "a", "answer": []}', ":1: answer: "),
        ('{"prompt": "a", "answer": "b", "extract": "("}', ":1: extract: not a regular expression"),
        ('{"prompt": 3, "answer": "b"}', ":1: prompt: input should be a valid string"),
        ('{"prompt": "a", "answer": "b", "max_tokens": 0}', ":1: max_tokens: "),
    ],
)
def test_a_faulty_file_of_tasks_is_refused_with_the_line(tmp_path, text, message):
    (tmp_path / "own.jsonl").write_text(text)
    with pytest.raises(UsageError, match=r"own\.jsonl") as refused:
        read_tasks(tmp_path / "own.jsonl")
    assert message in str(refused.value)


def test_tasks_are_read_in_order_with_defaults(tmp_path):
    lines = [
        {"prompt": "a\u2028b", "answer": 7},
        {"prompt": "c", "answer": ["x", "y"], "request_class": "chat", "id": 3},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n")
    first, second = read_tasks(tmp_path / "own.jsonl")
    assert (first.prompt, first.answer, first.request_class, first.max_tokens) == ("a\u2028b", ("7",), "default", 512)
    assert (second.answer, second.request_class, second.id) == (("x", "y"), "chat", 3)
