"""Results on disk: what is kept comes back, what is damaged does not, and what made a result is its key."""

from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simroute.planner.execution.cache import Cache, key_of, replay_document
from simroute.scenario.build import Built, build
from simroute.scenario.loader import load
from simroute.scenario.models import PolicySpec

KEY = "ab" * 32


def entry(folder: Path) -> Path:
    return folder / "ab" / f"{KEY}.json"


def test_what_is_kept_comes_back(tmp_path):
    cache = Cache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, {"p99": 0.1 + 0.2, "notes": ["≈"], "none": None})
    assert Cache(tmp_path).get(KEY) == {"p99": 0.1 + 0.2, "notes": ["≈"], "none": None}
    assert [path.name for path in (tmp_path / "ab").iterdir()] == [f"{KEY}.json"]


def test_without_a_folder_nothing_is_kept():
    cache = Cache(None)
    cache.put(KEY, {"a": 1})
    assert cache.get(KEY) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ('{"sha256": "0", "result": {"a": 1}}', "its checksum is wrong"),
        ("{}", "it is incomplete"),
        ("[]", "it is incomplete"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_a_damaged_entry_is_computed_anew_and_said(tmp_path, text, reason):
    said: list[str] = []
    cache = Cache(tmp_path, said.append)
    cache.put(KEY, {"a": 1})
    entry(tmp_path).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cache.get(KEY) is None
    (line,) = said
    assert str(entry(tmp_path)) in line
    assert reason in line
    assert "\n" not in line
    cache.put(KEY, {"a": 2})
    assert cache.get(KEY) == {"a": 2}


def test_an_entry_that_was_changed_is_not_believed(tmp_path):
    cache = Cache(tmp_path)
    cache.put(KEY, {"cost": 10})
    changed = json.loads(entry(tmp_path).read_text())
    changed["result"]["cost"] = 1
    entry(tmp_path).write_text(json.dumps(changed))
    assert cache.get(KEY) is None


def arrays_entry(folder: Path) -> Path:
    return folder / "ab" / f"{KEY}.npz"


ARRAYS = {"rows.a": np.arange(5.0), "text": np.array("≈"), "narrow": np.array([1, 2], dtype=np.uint8)}


def test_arrays_that_are_kept_come_back_beside_plain_data(tmp_path):
    cache = Cache(tmp_path)
    assert cache.get_arrays(KEY) is None
    assert cache.put_arrays(KEY, ARRAYS)
    assert cache.put(KEY, {"a": 1})
    found = Cache(tmp_path).get_arrays(KEY)
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert cache.get(KEY) == {"a": 1}
    assert not Cache(None).put_arrays(KEY, ARRAYS)
    assert Cache(None).get_arrays(KEY) is None


def damages(whole: bytes) -> dict[str, bytes]:
    """Ways in which a file of arrays can be wrong."""
    place = whole.index(np.arange(5.0).tobytes()) + 9
    return {
        "empty": b"",
        "cut": whole[:-30],
        "another file": b"hello",
        "one bit": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
        "zeros": bytes(len(whole)),
    }


@pytest.mark.parametrize("what", ["empty", "cut", "another file", "one bit", "zeros"])
def test_damaged_arrays_are_computed_anew_and_said(tmp_path, what):
    said: list[str] = []
    cache = Cache(tmp_path, said.append)
    cache.put_arrays(KEY, ARRAYS)
    path = arrays_entry(tmp_path)
    path.write_bytes(damages(path.read_bytes())[what])
    assert cache.get_arrays(KEY) is None
    (line,) = said
    assert line.startswith(f"cache entry {path}: unreadable (")
    assert "\n" not in line
    assert cache.put_arrays(KEY, ARRAYS)
    assert cache.get_arrays(KEY) is not None


def test_several_writers_and_readers_share_a_folder(tmp_path):
    """Each entry is at all times absent or whole, whoever else writes it."""
    said: list[str] = []

    def work(number: int) -> int:
        cache = Cache(tmp_path, said.append)
        wrong = 0
        for turn in range(40):
            key = f"{turn % 3:02}" * 32
            cache.put(key, {"turn": turn % 3})
            cache.put_arrays(key, {"turn": np.full(500, turn % 3)})
            plain, arrays = cache.get(key), cache.get_arrays(key)
            wrong += plain != {"turn": turn % 3} or arrays is None or bool((arrays["turn"] != turn % 3).any())
        return wrong

    with ThreadPoolExecutor(4) as workers:
        assert sum(workers.map(work, range(4))) == 0
    assert said == []
    assert [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")] == []


def test_a_full_disk_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch):
    said: list[str] = []
    cache = Cache(tmp_path, said.append)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert not cache.put(KEY, {"a": 1})
    assert not cache.put_arrays(KEY, ARRAYS)
    assert said == [f"cache {tmp_path}: cannot be written (No space left on device): the run goes on without"]
    assert list((tmp_path / "ab").iterdir()) == []


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").touch()
    said: list[str] = []
    Cache(tmp_path / "file", said.append).put(KEY, {"a": 1})
    assert len(said) == 1


def test_a_key_is_of_the_content_not_its_order():
    assert key_of({"a": 1, "b": [1.5, None]}) == key_of({"b": [1.5, None], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert key_of({"a": 1}) != key_of({"a": "1"})


def test_a_key_changes_with_the_version(monkeypatch):
    before = key_of({"a": 1})
    monkeypatch.setattr("simroute.planner.execution.cache.versions", lambda: {"simroute": "99"})
    assert key_of({"a": 1}) != before


def built(folder: Path, *overrides: str, delay: int = 0) -> Built:
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{i + delay},100,10\n" for i in range(5))
    (folder / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    pool = {"name": "only", "model": "Qwen3-8B", "quantization": "fp8", "gpu": "L40S"}
    data = {"name": "tiny", "traffic": {"traces": [{"path": "trace.csv"}]}, "pools": [pool]}
    (folder / "tiny.yaml").write_text(json.dumps(data))
    return build(load(folder / "tiny.yaml", overrides=overrides))


def key(made: Built, policy: str = "random") -> str:
    document = replay_document(made, PolicySpec(name=policy))
    assert document is not None
    return key_of(document)


def test_the_same_replay_has_one_key_wherever_its_files_lie(tmp_path):
    here = built(tmp_path / "here")
    assert key(here) == key(built(tmp_path / "there", "name=other", "description=the same"))
    assert key(here) == key(replace(here, notes=("a note",)))


@pytest.mark.parametrize(
    "override",
    ["seed=1", "pools[0].replicas=2", "pools[0].gpu=H100", "pools[0].engine.max_num_seqs=8", "traffic.rate_scale=2",
     "pools[0].price.usd_per_gpu_hour=1", "router.scrape_interval_s=5", "classes.default.slo.ttft_s=1"],
)  # fmt: skip
def test_whatever_moves_a_number_moves_the_key(tmp_path, override):
    assert key(built(tmp_path / "a")) != key(built(tmp_path / "a", override))


def test_traffic_and_policy_move_the_key(tmp_path):
    plain = built(tmp_path / "a")
    assert key(plain) != key(built(tmp_path / "b", delay=1))
    assert key(plain) != key(plain, "round_robin")


def test_replays_of_somebody_elses_code_have_no_key(tmp_path):
    assert replay_document(built(tmp_path / "a"), PolicySpec(name="own.module:Policy")) is None


def test_nor_have_policies_with_such_code_inside(tmp_path):
    outer = PolicySpec(name="two_level", options={"replica": "own.module:Policy"})
    assert replay_document(built(tmp_path / "a"), outer) is None
    assert replay_document(built(tmp_path / "b"), PolicySpec(name="offered_by_a_package")) is None
    assert replay_document(built(tmp_path / "c"), PolicySpec(name="two_level")) is not None


def test_it_says_how_to_go_on(tmp_path):
    said = Cache(tmp_path).going_on("2 of 5 are")
    assert said == f"2 of 5 are kept in {tmp_path}: the same command goes on from there"
    assert Cache(tmp_path).going_on("") == Cache(None).going_on("2 of 5 are") == "none of its replays is kept"
