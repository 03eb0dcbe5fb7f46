"""Starts and stops a vLLM server, and says in one line why one does not start. Imports calibration's `plugin`,
`client` and errors.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simroute.calibration.measure.client import Client
from simroute.calibration.plugin import VARIABLE
from simroute.errors import CalibrationError

START_TIMEOUT_S = 1800.0
STOP_TIMEOUT_S = 20.0
SERVER_LOG = "server.log"

_PREFIX = re.compile(r"^\s*(\([\w-]+ pid=\d+\) )?((ERROR|CRITICAL|WARNING|INFO) [\d-]+ [\d:.]+ \[[^\]]*\] )?")
_RAISED = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b: \S|: error: |: No module named ")
_SECOND_HAND = ("See root cause above", "Failed core proc", "initialization failed", "Traceback")
_LOADED = re.compile(r"[Mm]odel loading took .*? and ([\d.]+) s|Loading weights took ([\d.]+) s")


@dataclass(frozen=True)
class Launch:
    """A server to start. `model` is a name or folder that vLLM knows, or only a name where `config` is given."""

    model: str
    config: Path | None = None
    """A config.json to serve with random weights and without tokenizer: nothing is downloaded."""
    dummy_weights: bool = False
    args: tuple[str, ...] = ()
    python: str = sys.executable


@dataclass
class Server:
    """A server that answers. `alive()` is False once a launched one has ended."""

    url: str
    model: str
    steps: Path | None
    log: Path | None = None
    startup_s: float | None = None
    load_s: float | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def alive(self) -> bool:
        """Whether the process still runs, as far as this side knows."""
        return self.process is None or self.process.poll() is None

    def last_words(self) -> str:
        """What the log says of its end, as an end of a sentence."""
        said = last_error(self.log.read_text("utf-8", "replace").splitlines()) if self.log else ""
        return f": {said}" if said else ""


@contextmanager
def launched(launch: Launch, folder: Path, waiting: Callable[[float], None]) -> Iterator[Server]:
    """Start vLLM, its log in `folder`; stop it and all its processes at the end. `waiting` is told the seconds so far.

    Raises CalibrationError when it ends before it answers, with what its log says.
    """
    with tempfile.TemporaryDirectory(prefix="simroute-") as scratch:
        port = _free_port()
        command, environment = _command(launch, port, Path(scratch))
        log = folder / SERVER_LOG
        started_s = time.monotonic()
        process = _started(command, environment, log)
        server = Server(f"http://127.0.0.1:{port}", launch.model, Path(scratch) / "steps", log, process=process)
        try:
            with _terminated_like_interrupted():
                asyncio.run(_until_ready(server, started_s, waiting))
                server.startup_s = time.monotonic() - started_s
                server.load_s = load_time_s(log.read_text("utf-8", "replace"))
                yield server
        finally:
            _stop(process)


def attached(url: str, steps: Path | None) -> Server:
    """A server that is running. Raises CalibrationError when it does not answer as vLLM does."""

    async def models() -> tuple[int, bytes]:
        return await Client(url, "").get("/v1/models")

    status, body = asyncio.run(models())
    try:
        name = json.loads(body)["data"][0]["id"] if status == 200 else None
    except (ValueError, LookupError, TypeError):
        name = None
    if name is None:
        got = f"HTTP {status}" if status else f"no answer ({body.decode()})"
        raise CalibrationError(f"{url}: no vLLM server there: GET /v1/models gave {got}")
    return Server(url, name, steps)


def last_error(lines: Sequence[str]) -> str:
    """The line of a vLLM log that says what went wrong: the last exception that is not about another one.

    Empty when there is none. A validation error of pydantic has its reason on the line that follows.
    """
    plain = [_PREFIX.sub("", line, count=1).rstrip() for line in lines]
    found = ""
    for number, line in enumerate(plain):
        if not _RAISED.search(line) or any(words in line for words in _SECOND_HAND):
            continue
        found = line
        if "validation error" in line:
            reasons = (text.strip() for text in plain[number + 1 : number + 4] if text.strip())
            found = next((text for text in reasons if text.startswith("Value error")), line)
    return found.partition(" [type=")[0][:400]


def load_time_s(log: str) -> float | None:
    """Seconds spent on loading the weights, of the log's last line that tells it."""
    found = _LOADED.findall(log)
    return float(next(filter(None, found[-1]))) if found else None


def _command(launch: Launch, port: int, scratch: Path) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, VARIABLE: str(scratch / "steps")}
    model = launch.model
    args = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", launch.model]
    if launch.config:
        folder = scratch / "model"
        folder.mkdir()
        shutil.copy(launch.config, folder / "config.json")
        model = str(folder)
        args += ["--skip-tokenizer-init"]
        environment["HF_HUB_OFFLINE"] = "1"
    if launch.dummy_weights:
        args += ["--load-format", "dummy"]
    command = [launch.python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *args, *launch.args]
    return command, environment


def _started(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """The process, in a session of its own: Ctrl-C does not reach it, and all that it starts can be ended with it."""
    try:
        with log.open("wb") as file:
            return subprocess.Popen(
                command, env=environment, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        log.unlink(missing_ok=True)
        raise CalibrationError(f"{command[0]}: cannot be run: {error.strerror}; see --python") from None


async def _until_ready(server: Server, started_s: float, waiting: Callable[[float], None]) -> None:
    client = Client(server.url, server.model)
    while (await client.get("/health"))[0] != 200:
        waited_s = time.monotonic() - started_s
        if not server.alive():
            raise CalibrationError(f"vLLM did not start{server.last_words()} (the whole log: {server.log})")
        if waited_s > START_TIMEOUT_S:
            raise CalibrationError(f"vLLM did not answer within {START_TIMEOUT_S:g} s (its log: {server.log})")
        waiting(waited_s)
        await asyncio.sleep(0.25)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's session: asked first, then forced, its workers included."""
    for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience_s)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """While inside, SIGTERM raises SystemExit, so that the server is stopped and not left behind."""

    def leave(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    try:
        usual = signal.signal(signal.SIGTERM, leave)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
