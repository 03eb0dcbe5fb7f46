"""Reads the files that the vLLM plug-in writes, while they grow. Imports calibration's `plugin` and errors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from simroute.calibration.plugin import COLUMNS, VARIABLE, boot_id
from simroute.errors import CalibrationError


class StepReader:
    """The steps of one engine. `path` is the value of SIMROUTE_TRACE_STEPS: the engine's process adds its id to it.

    Files that were there before are of engines of the past: only what is written from now on counts.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old = {file: file.stat().st_size for file in self._files()}
        self._file: Path | None = None
        self._offset = 0
        self._clock_offset_s = 0.0

    def header(self) -> dict[str, Any]:
        """What the engine told of itself, once it has run a step. Raises CalibrationError when no file grew, or two."""
        grown = [file for file in self._files() if file.stat().st_size > self._old.get(file, 0)]
        if not grown:
            raise CalibrationError(
                f"{self._path}: the engine wrote no steps: simroute must be installed in the Python environment of "
                f"vLLM, and {VARIABLE} set when it starts"
            )
        if len(grown) > 1:
            names = ", ".join(file.name for file in grown)
            raise CalibrationError(
                f"{self._path.parent}: {len(grown)} engines wrote steps ({names}): measure one alone"
            )
        self._file = grown[0]
        self._offset = self._old.get(self._file, 0)
        with self._file.open(encoding="utf-8") as file:
            header = self._parsed(file.readline())
        if not isinstance(header, dict) or header.get("columns") != list(COLUMNS):
            raise CalibrationError(f"{self._file}: not written by this simroute's plug-in: install the same version")
        if header["boot_id"] != boot_id() or boot_id() is None:
            here_s = time.time() - time.monotonic()
            self._clock_offset_s = header["unix_s"] - header["monotonic_s"] - here_s
        return header

    def read(self) -> list[list[float]]:
        """The steps written since the last call, in the plug-in's columns; t_s on this machine's monotonic clock."""
        if self._file is None:
            return []
        with self._file.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        rows = [row for line in whole.splitlines() if isinstance(row := self._parsed(line), list)]
        for row in rows:
            row[0] += self._clock_offset_s
        return rows

    def _files(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{self._path.name}.*")) if self._path.parent.is_dir() else []

    def _parsed(self, line: str | bytes) -> Any:
        try:
            return json.loads(line)
        except ValueError:
            raise CalibrationError(f"{self._file}: damaged: {line[:60]!r}") from None
