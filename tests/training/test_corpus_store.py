"""The store gives back what went in, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from training.corpus import store as module
from training.corpus.errors import DiskFull, FolderTaken, StoreBroken
from training.corpus.store import IDS, MARKER, SAMPLES, Span, Store, StoreWriter, whole_folder
from training.finetune.samples import Samples

# Two contexts of one dialogue that begin alike, and their targets.
BLOCK = np.array([1, 2, 3, 4, 5, 6, 70, 71, 80, 81, 82], dtype=np.int32)
SPANS = [Span(0, 3, 6, 2), Span(0, 6, 8, 3)]
AS_SAMPLES = [([1, 2, 3, 9], [70, 71]), ([1, 2, 3, 4, 5, 6, 9], [80, 81, 82])]


def write(folder: Path, blocks, *, suffix=(9,)) -> Path:
    with whole_folder(folder) as partial, StoreWriter(partial, tokenizer_digest="t", suffix=suffix) as writer:
        for ids, spans in blocks:
            writer.add(np.array(ids, dtype=np.int32), spans)
    return folder


def as_lists(store: Store):
    return [(context.tolist(), target.tolist()) for context, target in store]


def test_it_gives_back_every_sample(tmp_path):
    found = Store(write(tmp_path / "store", [(BLOCK, SPANS), (BLOCK + 100, SPANS[:1])]))
    assert as_lists(found) == [*AS_SAMPLES, ([101, 102, 103, 9], [170, 171])]
    assert [lengths.tolist() for lengths in found.lengths()] == [[4, 7, 4], [2, 3, 2]]
    assert (len(found), found.tokenizer_digest) == (3, "t")
    assert (found.about["longest_context"], found.about["n_target_tokens"]) == (7, 7)


def test_it_is_what_training_asks_for(tmp_path):
    found = Store(write(tmp_path / "store", [(BLOCK, SPANS)]))
    assert isinstance(found, Samples)
    with pytest.raises(IndexError):
        found[2]


def test_random_samples_come_back(tmp_path):
    rng = np.random.default_rng(0)
    blocks, expected = [], []
    for _ in range(50):
        ids = rng.integers(0, 2**31 - 1, rng.integers(1, 60)).astype(np.int32)
        spans = []
        for _ in range(rng.integers(0, 5)):
            (a, b), (c, d) = (np.sort(rng.integers(0, len(ids) + 1, 2)).tolist() for _ in range(2))
            spans.append(Span(a, b - a, c, d - c))
            expected.append(([*ids[a:b].tolist(), 9], ids[c:d].tolist()))
        blocks.append((ids, spans))
    assert as_lists(Store(write(tmp_path / "store", blocks))) == expected


def test_the_content_hash_is_of_the_samples_and_not_of_how_they_lie(tmp_path):
    whole = Store(write(tmp_path / "a", [(BLOCK, SPANS)]))
    apart = [(c + t, [Span(0, len(c), len(c), len(t))]) for c, t in AS_SAMPLES]
    assert Store(write(tmp_path / "b", apart, suffix=())).content_hash == whole.content_hash
    turned = Store(write(tmp_path / "c", [(BLOCK, SPANS[::-1])]))
    shifted = [(c + t, [Span(0, len(c) - 1, len(c) - 1, len(t) + 1)]) for c, t in AS_SAMPLES]  # the same row of ids
    other = Store(write(tmp_path / "d", shifted, suffix=()))
    assert len({whole.content_hash, turned.content_hash, other.content_hash}) == 3


def test_an_empty_store_is_a_store(tmp_path):
    found = Store(write(tmp_path / "store", []))
    assert (len(found), as_lists(found), found.lengths()[0].shape) == (0, [], (0,))


def test_a_span_outside_of_its_ids_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not lie within 11 ids"):
        write(tmp_path / "store", [(BLOCK, [Span(0, 3, 9, 3)])])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [IDS, SAMPLES])
def test_a_changed_file_is_noticed(tmp_path, name):
    path = write(tmp_path / "store", [(BLOCK, SPANS)]) / name
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreBroken, match=f"{name} was changed"):
        Store(tmp_path / "store")


def test_a_cut_or_missing_file_is_noticed_at_once(tmp_path):
    path = write(tmp_path / "store", [(BLOCK, SPANS)]) / IDS
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(StoreBroken, match="has 40 bytes instead of 44"):
        Store(tmp_path / "store", check="sizes")
    path.unlink()
    with pytest.raises(StoreBroken, match="missing"):
        Store(tmp_path / "store", check="sizes")


def test_records_that_point_nowhere_are_noticed_without_reading_the_ids(tmp_path):
    path = write(tmp_path / "store", [(BLOCK, SPANS)]) / SAMPLES
    records = np.fromfile(path, dtype=module.RECORD)
    records["target_at"][1] = 10**12
    records.tofile(path)
    with pytest.raises(StoreBroken, match="points beyond"):
        Store(tmp_path / "store", check="sizes")


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', '{"format": 2, "n_samples": 0}'])
def test_a_damaged_marker_is_named(tmp_path, text):
    path = write(tmp_path / "store", [(BLOCK, SPANS)]) / MARKER
    path.write_text(text)
    with pytest.raises(StoreBroken, match="damaged"):
        Store(tmp_path / "store")


def test_another_format_is_named(tmp_path):
    path = write(tmp_path / "store", [(BLOCK, SPANS)]) / MARKER
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(StoreBroken, match="format 2"):
        Store(tmp_path / "store")


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    write(tmp_path / "store", [(BLOCK, SPANS)])
    with pytest.raises(FolderTaken, match="there already"):
        write(tmp_path / "store", [])
    assert len(Store(tmp_path / "store")) == 2


def test_two_runs_do_not_write_one_folder(tmp_path):
    with (
        whole_folder(tmp_path / "store"),
        pytest.raises(FolderTaken, match="Another run"),
        whole_folder(tmp_path / "store"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_run_that_ends_while_another_one_begins_keeps_its_folder(tmp_path, monkeypatch, has_failed):
    """The other one has opened what was being written, and claims it when it has gone elsewhere."""
    (tmp_path / ".store.partial").mkdir()
    claim = module.fcntl.flock

    def late(handle, how):
        (tmp_path / ".store.partial").rename(tmp_path / "store")
        if has_failed:
            (tmp_path / ".store.partial").mkdir()  # of a third one, which has its own claim
        claim(handle, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with pytest.raises(FolderTaken, match="just now"), whole_folder(tmp_path / "store"):
        pass
    assert (tmp_path / "store").is_dir() and (tmp_path / ".store.partial").is_dir() == has_failed


def test_a_failed_run_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "store") as partial:
        (partial / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_store_and_the_next_one_clears_up(tmp_path):
    """kill -9 in the middle of writing."""
    script = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from training.corpus.store import Span, StoreWriter, whole_folder
        with whole_folder(Path(sys.argv[1])) as partial, StoreWriter(partial, tokenizer_digest="t") as writer:
            writer.add(np.arange(5, dtype=np.int32), [Span(0, 2, 2, 3)])
            os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "store")], cwd=root)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".store.partial"]
    write(tmp_path / "store", [(BLOCK, SPANS)])
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module._HashedFile, "write", full)
    with pytest.raises(DiskFull, match="is full"):
        write(tmp_path / "store", [(BLOCK, SPANS)])
    assert list(tmp_path.iterdir()) == []
