"""An HTTP/1.1 response with server-sent events, parsed as its bytes arrive. Owns no socket; imports only the standard
library.
"""

from __future__ import annotations

import json
from collections.abc import Callable

MAX_HEADER_BYTES = 64 * 1024


class ResponseParser:
    """Feed it bytes; it calls `on_event` with the payload of each `data:` line of an event stream.

    `done` is True when the response is complete. Of any other content, `body` holds what came.
    """

    def __init__(self, on_event: Callable[[bytes], None]) -> None:
        self.status = 0
        self.body = b""
        self.done = False
        self._on_event = on_event
        self._buffer = bytearray()
        self._line = bytearray()
        self._chunked = self._events = False
        self._left: int | None = None  # of the chunk or, with Content-Length, of the body; None: until the end

    def feed(self, data: bytes) -> None:
        """The next bytes of the response. Raises ValueError when they are not HTTP."""
        self._buffer += data
        if self.status == 0 and not self._head():
            return
        if self._chunked:
            self._chunks()
        else:
            taken = bytes(self._buffer if self._left is None else self._buffer[: self._left])
            self._buffer.clear()
            self._take(taken)
            if self._left is not None:
                self._left -= len(taken)
                self.done = self._left == 0

    def end(self) -> None:
        """The connection was closed: the end of a body that had no length."""
        if self.status and not self._chunked and self._left is None:
            self.done = True

    def error_text(self) -> str:
        """What the body of an unsuccessful response says, in one line."""
        return error_text(self.body)

    def _head(self) -> bool:
        """Read the status line and the headers; False while they are incomplete."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEADER_BYTES:
                raise ValueError("the answer is not HTTP")
            return False
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        version, _, rest = lines[0].partition(b" ")
        if not version.startswith(b"HTTP/1") or not rest[:3].isdigit():
            raise ValueError("the answer is not HTTP")
        self.status = int(rest[:3])
        for line in lines[1:]:
            name, _, value = line.lower().partition(b":")
            if name == b"transfer-encoding" and value.strip() == b"chunked":
                self._chunked, self._left = True, 0
            elif name == b"content-length" and not self._chunked:
                self._left = int(value)
                self.done = self._left == 0
            elif name == b"content-type":
                self._events = self.status == 200 and value.strip().startswith(b"text/event-stream")
        return True

    def _chunks(self) -> None:
        """Take as many chunks as are there: a length in hexadecimal, CRLF, that many bytes, CRLF."""
        buffer = self._buffer
        while buffer and not self.done:
            if not self._left:
                end = buffer.find(b"\r\n")
                if end < 0:
                    return
                size = bytes(buffer[:end]).partition(b";")[0].strip()
                del buffer[: end + 2]
                if not size:  # the CRLF after the chunk before
                    continue
                self._left = int(size, 16)
                self.done = self._left == 0
                continue
            taken = bytes(buffer[: self._left])
            del buffer[: len(taken)]
            self._left -= len(taken)
            self._take(taken)

    def _take(self, data: bytes) -> None:
        if not self._events:
            self.body += data
            return
        self._line += data
        *lines, rest = self._line.split(b"\n")
        self._line = rest
        for line in lines:
            if line.startswith(b"data:"):
                self._on_event(bytes(line[5:]).strip())


def error_text(body: bytes) -> str:
    """What an OpenAI-compatible server says went wrong, in one line."""
    try:
        told = json.loads(body)
        error = told.get("error", told)
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace")
    return " ".join(text.split())[:300] or "no reason given"
