"""try_locally: a local system writes a few words to a greeting, so that one knows before a batch whether it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jobs.errors import JobRefused
from jobs.registry import RunningJob
from jobs.supervisor import Message
from models_runtime.engine.prompts import Turn
from models_runtime.engine.protocol import Work
from models_runtime.runtimes import LocalSettings
from models_runtime.services.local import check_family, job_of, run_worker

NEW_TOKENS = 32


def try_locally(running: RunningJob, settings: LocalSettings, turns: tuple[Turn, ...]) -> Mapping[str, Any]:
    """What the system wrote and what it is. Raises ChildFailed, JobRefused."""
    job = job_of(settings)
    short = min(NEW_TOKENS, settings.decoding.max_new_tokens)
    said: dict[str, Message] = {}

    def hear(message: Message) -> None:
        if message["type"] == "ready":
            check_family(settings, message["spec"]["family"])
        said[message["type"]] = message

    work = [Work("greeting", 0, turns)]
    decoding = replace(settings.decoding, max_new_tokens=short)
    run_worker(running, replace(job, decoding=decoding), work, hear)
    if "response" not in said:
        raise JobRefused(str(said.get("error", {}).get("message", "There was no answer.")))
    ready, provenance = said["ready"], said["response"]["provenance"]
    return {
        "asked": turns[-1].text,
        "text": said["response"]["text"],
        "spec": ready["spec"],
        "notes": ready["notes"],
        "device": ready["device"],
        "seconds": provenance["seconds"],
    }
