"""Ctrl-C that cannot get lost: a flag beside the KeyboardInterrupt.

Native code, module imports and callbacks may swallow a KeyboardInterrupt or turn it into another error. So, while
a command is `listening`, each Ctrl-C is also remembered, and `check` raises it again at the next safe place.
This module imports nothing of simroute; every other module may import it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_heard = threading.Event()
_listens = threading.Event()


@contextmanager
def listening() -> Iterator[None]:
    """While inside, Ctrl-C raises KeyboardInterrupt and is remembered. Only the main thread gets signals.

    Where Ctrl-C was set to be ignored, as shells do for commands in the background, it stays so.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual in (signal.SIG_IGN, None):
        yield
        return
    _listens.set()
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        _listens.clear()
        _heard.clear()
        signal.signal(signal.SIGINT, usual)


def heard() -> bool:
    """Whether Ctrl-C came since the present `listening` began."""
    return _heard.is_set()


def note() -> None:
    """Remember a Ctrl-C that another handler took, if anybody is listening."""
    if _listens.is_set():
        _heard.set()


def check() -> None:
    """Raise KeyboardInterrupt if Ctrl-C came."""
    if heard():
        raise KeyboardInterrupt


def _raise(_number: int, _frame: object) -> None:
    _heard.set()
    raise KeyboardInterrupt
