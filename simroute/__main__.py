"""The `simroute` command and `python -m simroute`: Ctrl-C is heard before anything slow is imported.

Imports the command line only inside `main`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line; never returns."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:
        # An exception in the middle of an import may surface as any other; nothing needs tidying yet.
        signal.signal(signal.SIGINT, _leave)
    from simroute.cli.main import main as run

    try:
        run()
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:
            _leave_at_once()
        raise


def _leave(_number: int, _frame: object) -> NoReturn:
    os.write(2, b"simroute: interrupted\n")
    os._exit(INTERRUPTED)


def _leave_at_once() -> NoReturn:
    """Python ends itself by the signal, whatever the exit code, when an interrupt once left an `exec`: not here."""
    from multiprocessing import active_children

    for worker in active_children():
        worker.terminate()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
