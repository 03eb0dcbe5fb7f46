"""Results of replays on disk, so that nothing is simulated twice: one file a result, named by what made it.

Plain data is a .json file, arrays are a .npz file. Owns the files' layout and the keys. Imports, of the rooms
below, what identifies a replay.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from simroute.hardware.steptime import ScaledStepTime
from simroute.policy.routing import built_in
from simroute.results.manifest import trace_sha256, versions
from simroute.scenario.build import Built
from simroute.scenario.models import PolicySpec

FOLDER = ".simroute-cache"
"""The usual name of the folder."""
_PACKAGE = Path(__file__).resolve().parents[2]
_SOURCES = ("*.py", "*.csv")
_NOT_A_RESULT = ("cli", "report")
"""Rooms that show numbers and do not make them."""
_ELSEWHERE = ("name", "description", "traffic", "calibrations", "policies", "replicates")
"""Parts of a scenario that a key leaves out: what they say is in it by content, or moves no number of a summary."""

_DAMAGED = "its checksum is wrong"

T = TypeVar("T")
Say = Callable[[str], None]


class Cache:
    """Results by key, in `folder`; without a folder it holds nothing.

    Nothing that goes wrong with it stops a run: a damaged entry counts as missing, a full disk ends the writing, and
    `say` is told in one line. Entries appear whole or not at all, so several runs may share a folder.
    """

    def __init__(self, folder: Path | None, say: Say = lambda line: None) -> None:
        self.folder = folder
        self._say = say
        self._writes = folder is not None

    def going_on(self, kept: str) -> str:
        """How to go on from what was kept: `kept` says how much, in words ("": nothing)."""
        if self.folder is None or not kept:
            return "none of its replays is kept"
        return f"{kept} kept in {self.folder}: the same command goes on from there"

    def get(self, key: str) -> dict[str, Any] | None:
        """The result kept under `key`, or None."""
        return self._read(key, ".json", _json_read)

    def put(self, key: str, result: Mapping[str, Any]) -> bool:
        """Keep `result`, which is plain JSON data, under `key`; gives whether it is kept."""
        text = json.dumps({"sha256": _sha256(result), "result": result}).encode()
        return self._write(key, ".json", lambda file: file.write(text))

    def get_arrays(self, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays kept under `key`, or None."""
        return self._read(key, ".npz", _arrays_read)

    def put_arrays(self, key: str, arrays: Mapping[str, Any]) -> bool:
        """Keep `arrays`, which hold no objects, under `key`; gives whether they are kept."""
        return self._write(key, ".npz", lambda file: np.savez(file, **dict(arrays)))

    def _read(self, key: str, kind: str, read: Callable[[Path], T]) -> T | None:
        if self.folder is None:
            return None
        path = self._path(self.folder, key, kind)
        try:
            return read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:  # damage has many faces, and none of them may stop a run
            reason = "it is incomplete" if isinstance(error, KeyError | TypeError) else " ".join(str(error).split())
            self._say(f"cache entry {path}: unreadable ({reason}): computed anew")
            return None

    def _write(self, key: str, kind: str, write: Callable[[IO[bytes]], object]) -> bool:
        if self.folder is None or not self._writes:
            return False
        path = self._path(self.folder, key, kind)
        temporary = path.with_name(f".{key}.{secrets.token_hex(8)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    write(file)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            self._writes = False
            self._say(f"cache {self.folder}: cannot be written ({error.strerror or error}): the run goes on without")
            return False
        return True

    @staticmethod
    def _path(folder: Path, key: str, kind: str) -> Path:
        return folder / key[:2] / f"{key}{kind}"


def _json_read(path: Path) -> dict[str, Any]:
    entry = json.loads(path.read_text("utf-8"))
    if entry["sha256"] != _sha256(entry["result"]):
        raise ValueError(_DAMAGED)
    result: dict[str, Any] = entry["result"]
    return result


def _arrays_read(path: Path) -> dict[str, NDArray[Any]]:
    """Every byte of the arrays is held to the checksums that a .npz file has for each."""
    with ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError(_DAMAGED)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def key_of(document: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of `document`, plain JSON data, and of the program that would compute its result.

    That is simroute's version, its own source, and every package that can move a number.
    """
    return _sha256({"document": document, "versions": versions(), "source": source_sha256()})


def replay_document(built: Built, policy: PolicySpec, *, exact: bool = False) -> dict[str, Any] | None:
    """What identifies one replay of `built` under `policy`, wherever its files lie; None where that is not known.

    Traces and calibrations count by their content, pools by the hardware that the catalogue gives them and by the
    factor, if any, that their step times were scaled by. A policy that is not built in, or has one inside, is code that
    nobody has fingerprinted: its replays are never kept.
    """
    if not built_in(policy.name, policy.options):
        return None
    scenario = built.scenario.model_dump(mode="json", exclude=set(_ELSEWHERE))
    scenario["quality"].pop("matrix")
    for pool in scenario["pools"]:
        pool.pop("calibration")
    return {
        "scenario": scenario,
        "policy": policy.model_dump(mode="json"),
        "exact": exact,
        "trace": trace_sha256(built.trace),
        "calibrations": [v.calibration and v.calibration.sha256 for v in built.variants],
        "hardware": [asdict(v.hardware) for v in built.variants],
        "step_times": [p.step_time.factor if isinstance(p.step_time, ScaledStepTime) else 1.0 for p in built.pools],
        "quality": [pool.variant.quality for pool in built.fleet],
    }


@lru_cache(maxsize=1)
def source_sha256() -> str:
    """Of every file of the package that a number may come from."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _SOURCES for path in _PACKAGE.rglob(pattern)):
        place = path.relative_to(_PACKAGE)
        if place.parts[0] not in _NOT_A_RESULT:
            digest.update(f"{place.as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _sha256(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
