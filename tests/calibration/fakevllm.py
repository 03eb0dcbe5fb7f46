"""A vLLM of a few dozen lines: a scheduler with vLLM's attributes, and an HTTP server that runs it step by step."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace

from simroute.calibration import plugin


class FakeScheduler:
    """The parts of vLLM's scheduler that the plug-in touches; a step computes what `plan` says."""

    def __init__(self) -> None:
        self.requests = {}
        self.running, self.waiting = [], []
        self.kv_cache_manager = SimpleNamespace(
            block_pool=SimpleNamespace(num_gpu_blocks=65, get_num_free_blocks=lambda: 60)
        )
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(
                block_size=16, enable_prefix_caching=True, cache_dtype="auto", gpu_memory_utilization=0.9
            ),
            scheduler_config=SimpleNamespace(
                max_num_seqs=4, max_num_batched_tokens=64, async_scheduling=False, policy="fcfs",
                enable_chunked_prefill=True, long_prefill_token_threshold=0,
            ),
            compilation_config=SimpleNamespace(cudagraph_capture_sizes=[1, 2, 4]),
            model_config=SimpleNamespace(
                max_model_len=256, model="fake", dtype="torch.bfloat16", quantization=None, enforce_eager=False,
                hf_config=SimpleNamespace(to_json_string=lambda use_diff: json.dumps({"vocab_size": 500})),
            ),
            parallel_config=SimpleNamespace(tensor_parallel_size=1),
            load_config=SimpleNamespace(load_format="auto"),
        )  # fmt: skip
        self.plan: dict[str, int] = {}
        self.victims: list[str] = []

    def add(self, name: str, prompt: int, computed: int = 0, tokens: int | None = None) -> None:
        self.requests[name] = SimpleNamespace(
            num_prompt_tokens=prompt, num_computed_tokens=computed, num_tokens=tokens or prompt, is_prefill_chunk=False
        )
        self.running.append(name)

    def get_request_counts(self):
        return len(self.running), len(self.waiting)

    def schedule(self):
        while self.victims:
            self._preempt_request(self.victims.pop(), 0.0)
        for name, count in self.plan.items():
            request = self.requests[name]
            request.num_computed_tokens += count
            request.is_prefill_chunk = request.num_computed_tokens < request.num_tokens
        return SimpleNamespace(total_num_scheduled_tokens=sum(self.plan.values()), num_scheduled_tokens=dict(self.plan))

    def update_from_output(self, output, tokens):
        for name in output.num_scheduled_tokens:
            self.requests[name].num_tokens += not self.requests[name].is_prefill_chunk
        return tokens

    def _preempt_request(self, name, timestamp):
        self.requests[name].num_computed_tokens = 0


class FakeVllm:
    """Answers like vLLM's OpenAI server; every token is a step of its own. `fault` is what is wrong with its answers:
    "500", "cut" (the stream breaks off), "refuse" (the connection does), or a function of the request.
    """

    def __init__(self, steps: str | None, fault: str | Callable[[dict], str | None] | None = None) -> None:
        scheduler = type("Scheduler", (FakeScheduler,), {})
        for name in ("schedule", "update_from_output", "_preempt_request"):
            setattr(scheduler, name, getattr(FakeScheduler, name))
        self.file = plugin.StepFile(steps or "")
        if steps:
            plugin.wrap(scheduler, self.file)
        self.scheduler = scheduler()
        self.fault = fault
        self.received: list[dict] = []
        self.paths: list[str] = []
        self.transports = []

    async def handle(self, reader, writer):
        self.transports.append(writer.transport)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:  # a client that left before it said anything
            writer.close()
            return
        path = head.split()[1]
        length = int(next(line for line in head.splitlines() if line.startswith("Content-Length")).split()[1])
        body = await reader.readexactly(length)
        self.paths.append(path)
        if path == "/v1/completions":
            self._complete(json.loads(body), writer)
        else:
            pages = {
                "/health": b"",
                "/version": b'{"version":"0.32.0"}',
                "/v1/models": b'{"data":[{"id":"fake","max_model_len":256}]}',
                "/metrics": b'vllm:cache_config_info{block_size="16",num_gpu_blocks="65"} 1',
            }
            status = b"200 OK" if path in pages else b"404 Not Found"
            page = pages.get(path, b"")
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(page), page))
        writer.close()

    def _complete(self, request, writer):
        self.received.append(request)
        fault = self.fault(request) if callable(self.fault) else self.fault
        if fault == "refuse":
            return
        if fault == "500":
            error = b'{"error":{"message":"out of\\nluck"}}'
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        name, prompt = f"r{len(self.received)}", len(request["prompt"])
        self.scheduler.add(name, prompt)
        for number in range(request["max_tokens"]):
            if fault == "cut" and number:
                return
            self._step({name: 1 if number else prompt})
            self._event(writer, {"choices": [{"text": ""}]})
        usage = {"choices": [], "usage": {"completion_tokens": request["max_tokens"]}}
        self._event(writer, usage)
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _step(self, plan):
        self.scheduler.plan = plan
        output = self.scheduler.schedule()
        self.scheduler.running.clear()  # idle again: the plug-in writes out what it has
        self.scheduler.update_from_output(output, None)

    @staticmethod
    def _event(writer, event):
        data = b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))


@contextmanager
def served(fake: FakeVllm):
    """The address of a thread that serves `fake` while inside."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(fake.handle, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        asyncio.run_coroutine_threadsafe(_closed(server, fake), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        fake.file.close()


async def _closed(server, fake):
    # A connection takes a few turns of the loop from being accepted to being handled, and another few to close.
    for _ in range(10):
        await asyncio.sleep(0)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
    server.close()
    for transport in fake.transports:
        transport.abort()
    for _ in range(3):
        await asyncio.sleep(0)
