"""The broker in a folder finds its queue also when the folder was lost."""

from __future__ import annotations

import shutil

import kombu
import pytest


@pytest.mark.parametrize("lost", ["all of it", "control only"])
def test_messages_arrive_though_the_folder_was_lost(tmp_path, lost):
    folder = tmp_path / "broker"
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
    }
    with kombu.Connection("filesystem://", transport="config.broker:Transport", transport_options=options) as broker:
        queue = broker.SimpleQueue("gpu.0")
        queue.put("before")
        assert queue.get(timeout=5).payload == "before"
        shutil.rmtree(folder if lost == "all of it" else folder / "control")
        queue.put("after")
        assert queue.get(timeout=5).payload == "after"
        queue.close()
