"""A small client for OpenAI-compatible endpoints: one blocking request at a time, tried again where that may help.

Standard library alone. Imports errors.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from simroute.errors import UsageError

TRIES = 4
"""Times that a request is sent before it counts as failed."""
PAUSE_S = 1.0
"""Pause before the second try; it doubles from try to try."""
_WORTH_ANOTHER = {408, 409, 425, 429, 500, 502, 503, 504}
_READ, _SHOWN = 4096, 200
"""Bytes of an error's body that are read, and characters of it that are shown."""


class Endpoint:
    """The server at `url` (`http://host:8000`, with or without `/v1`).

    `pause` waits between tries, given seconds. Raises UsageError for an address that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 120.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            parts = urlsplit(url)
            named = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
        except ValueError:  # a port that is no number, brackets that do not close
            named = False
        if not named:
            raise UsageError(f"--url {url}: must be http://host:port or https://host")
        self.host = parts.netloc.rpartition("@")[2]
        self._base = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s
        self._pause = pause

    def models(self) -> list[str]:
        """The ids of the models that are served. Raises UsageError when the endpoint cannot be asked."""
        answer = self._ask("/models", None)
        listed = answer.get("data")
        return [str(m["id"]) for m in listed if isinstance(m, dict) and "id" in m] if isinstance(listed, list) else []

    def reply(self, model: str, messages: list[dict[str, str]], max_tokens: int) -> str:
        """What the model answers, decoding greedily. Raises UsageError when the endpoint fails or answers otherwise."""
        body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0.0, "seed": 0}
        answer = self._ask("/chat/completions", body)
        try:
            content = answer["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise UsageError(f"{self._base}/chat/completions: the answer has no choices[0].message.content") from None
        return "" if content is None else str(content)

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """The JSON object that the endpoint answers; tries again after failures that may pass."""
        address = self._base + path
        failure = ""
        for attempt in range(TRIES):
            if attempt:
                self._pause(PAUSE_S * 2 ** (attempt - 1))
            try:
                return _object(address, self._send(address, body))
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(_READ).decode("utf-8", "replace")
                failure = f"HTTP {error.code}: {' '.join(said.split())[:_SHOWN] or error.reason}"
                if error.code not in _WORTH_ANOTHER:
                    break
            except (urllib.error.URLError, TimeoutError, OSError, http.client.HTTPException) as error:
                failure = str(getattr(error, "reason", None) or error or type(error).__name__)
        raise UsageError(f"{address}: {failure}{'' if attempt == 0 else f' (tried {attempt + 1} times)'}")

    def _send(self, address: str, body: Mapping[str, Any] | None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, self._headers)
        with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
            return bytes(response.read())


def _object(address: str, text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UsageError(f"{address}: the answer is not a JSON object: is this an OpenAI-compatible endpoint?")
    return answer
