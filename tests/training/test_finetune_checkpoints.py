from __future__ import annotations

import json
from io import BufferedWriter, FileIO
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import filesystem

from training.finetune import checkpoints
from training.finetune.errors import BadCheckpoint, DiskTooFull
from training.finetune.sharding import process_group


@pytest.fixture(autouse=True)
def alone():
    with process_group(torch.device("cpu")):
        yield


def tensors(value=0.0):
    return {"a": torch.full((3, 4), value), "b": torch.full((5,), value + 1)}


def test_it_gives_back_tensors_and_state(tmp_path):
    checkpoints.save(tmp_path, 7, tensors(2.0), {"seen": 3}, keep=1)
    found, notes = checkpoints.newest(tmp_path)
    held = tensors()
    checkpoints.load(found, held)
    assert (found.step, found.state, notes) == (7, {"seen": 3}, ())
    assert torch.equal(held["a"], torch.full((3, 4), 2.0)) and torch.equal(held["b"], torch.full((5,), 3.0))


def test_what_a_kill_left_behind_is_no_checkpoint(tmp_path, monkeypatch):
    """At each of the moments of a save: before the tensors, between them and the marker, within the marker."""
    checkpoints.save(tmp_path, 1, tensors(), {}, keep=3)
    for step, (module, name) in enumerate(
        [(checkpoints.state_dict_saver, "save"), (checkpoints, "_complete"), (checkpoints.os, "fsync")], start=2
    ):
        with monkeypatch.context() as patched:
            original = getattr(module, name)
            calls = []

            def dies(*args, original=original, name=name, calls=calls, **kwargs):
                calls.append(args)
                if name != "fsync" or "complete" in str(checkpoints.Path(f"/proc/self/fd/{args[0]}").readlink()):
                    raise KeyboardInterrupt
                return original(*args, **kwargs)

            patched.setattr(module, name, dies)
            with pytest.raises(BaseException):  # noqa: B017 - as abrupt as a test can be
                checkpoints.save(tmp_path, step, tensors(1.0), {}, keep=3)
        assert checkpoints.newest(tmp_path)[0].step == 1
    checkpoints.save(tmp_path, 9, tensors(), {}, keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000009"]


HARM = {
    "missing": None,
    "shorter": lambda content: content[:-1],
    "other": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "another number": lambda content: content.replace(b'"n_updates": 1', b'"n_updates": 9'),
}


@pytest.mark.parametrize(
    ("name", "harm"),
    [(name, harm) for name in ("__0_*", ".metadata") for harm in ("missing", "shorter", "other")]
    + [("complete.json", harm) for harm in ("shorter", "other", "another number")],
)
def test_damage_is_noticed_and_the_one_before_is_taken(tmp_path, name, harm):
    """In the marker too: what was saved beside the tensors stands there."""

    def spoil(step):
        part = next((tmp_path / f"step-{step:08}").glob(name))
        content = part.read_bytes()
        part.unlink()
        if HARM[harm] is not None:
            part.write_bytes(HARM[harm](content))
            assert part.read_bytes() != content

    for step in (1, 2):
        checkpoints.save(tmp_path, step, tensors(step), {"n_updates": 10 + step}, keep=5)
    spoil(2)
    found, notes = checkpoints.newest(tmp_path)
    assert (found.step, found.state) == (1, {"n_updates": 11}) and "step-00000002" in notes[0]
    spoil(1)  # and nothing is made up, nor begun anew, if none is left
    with pytest.raises(BadCheckpoint, match="no checkpoint can be used"):
        checkpoints.newest(tmp_path)


@pytest.mark.parametrize(("keep", "kept"), [(1, [3]), (2, [3, 1])])
@pytest.mark.parametrize("damaged", [2, 4])
def test_a_damaged_one_never_takes_the_place_of_a_sound_one(tmp_path, damaged, keep, kept):
    for step in (1, damaged):
        checkpoints.save(tmp_path, step, tensors(step), {}, keep=5)
    next((tmp_path / f"step-{damaged:08}").glob("__0_*")).unlink()
    assert checkpoints.newest(tmp_path)[0].step == 1
    checkpoints.save(tmp_path, 3, tensors(3), {}, keep=keep)
    assert [one.step for one in checkpoints.found(tmp_path)] == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step-{step:08}" for step in sorted(kept)]


def test_another_model_is_refused(tmp_path):
    checkpoints.save(tmp_path, 1, tensors(), {}, keep=5)
    found, _ = checkpoints.newest(tmp_path)
    for other in ({**tensors(), "c": torch.zeros(2)}, {**tensors(), "a": torch.zeros(4, 4)}):
        with pytest.raises(BadCheckpoint, match="does not fit this model"):
            checkpoints.load(found, other)


def test_the_newest_are_kept_and_the_same_step_can_be_saved_again(tmp_path):
    for step in (1, 2, 3, 3):
        checkpoints.save(tmp_path, step, tensors(step), {"n": step}, keep=2)
    assert [one.step for one in checkpoints.found(tmp_path)] == [3, 2]


def test_a_full_disk_leaves_what_is_there(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, tensors(), {}, keep=1)
    usage = checkpoints.shutil.disk_usage
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage(path)._replace(free=10))
    with pytest.raises(DiskTooFull, match=r"a checkpoint would take .* make room and continue"):
        checkpoints.save(tmp_path, 2, tensors(), {}, keep=1)
    assert checkpoints.newest(tmp_path)[0].step == 1


def test_room_is_looked_for_before_the_first_step(tmp_path, monkeypatch):
    """For all that will be kept and one more, less what is there already."""
    usage = checkpoints.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=250))
    checkpoints.check_room(tmp_path, 100, keep=1)
    with pytest.raises(DiskTooFull, match="set keep_checkpoints lower"):
        checkpoints.check_room(tmp_path, 100, keep=2)
    with pytest.raises(DiskTooFull):
        checkpoints.check_room(tmp_path, 100, keep=1, at_the_end=60)
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / checkpoints.MARKER).write_text('{"step": 1, "state": {}, "files": {}}')
    checkpoints.check_room(tmp_path, 100, keep=2)


def test_what_a_kill_left_behind_takes_no_room(tmp_path, monkeypatch):
    """A half-written checkpoint would else keep the next start out, for good."""
    (tmp_path / "step-00000009").mkdir()
    half = tmp_path / "step-00000009" / "__0_0.distcp"
    half.write_bytes(b"half")
    usage = checkpoints.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        checkpoints.shutil, "disk_usage", lambda path: usage._replace(free=50 if half.exists() else 250)
    )
    checkpoints.check_room(tmp_path, 100, keep=1)


@pytest.mark.parametrize("room", [0, 16_384])
def test_a_disk_that_fills_up_on_the_way_is_said(tmp_path, monkeypatch, room):
    """In the middle of a tensor torch's writer says "unexpected pos", and not a word of the disk."""

    class Disk(FileIO):
        def write(self, data):
            if self.tell() + len(data) > room:
                is_full.append(True)
                raise OSError(28, "No space left on device")
            return super().write(data)

    checkpoints.save(tmp_path, 1, tensors(), {}, keep=1)
    path_open, usage = Path.open, checkpoints.shutil.disk_usage(tmp_path)
    is_full = []

    def to_a_full_disk(path, mode="r", **kwargs):
        if not (path.name.startswith("__0_") and "w" in mode):
            return path_open(path, mode, **kwargs)
        return BufferedWriter(Disk(str(path), "w"))

    with monkeypatch.context() as patched:
        patched.setattr(filesystem.Path, "open", to_a_full_disk)
        patched.setattr(checkpoints.shutil, "disk_usage", lambda _: usage._replace(free=0 if is_full else 10**9))
        with pytest.raises(DiskTooFull, match="filled up during a checkpoint"):
            checkpoints.save(tmp_path, 2, {"a": torch.ones(9_000)}, {}, keep=1)
    assert is_full and checkpoints.newest(tmp_path)[0].step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]  # what was written makes room again


def test_the_marker_names_every_file(tmp_path):
    target = checkpoints.save(tmp_path, 1, tensors(), {}, keep=1)
    held = json.loads((target / checkpoints.MARKER).read_text())
    assert set(held["files"]) == {path.name for path in target.iterdir()} - {checkpoints.MARKER}
