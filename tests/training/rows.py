"""Rows of corpora and rewritings as pages meet them, without a model and without a run; and one real corpus."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from annotation.models import System
from jobs.models import Job
from models_runtime.runtimes import EndpointSettings
from models_runtime.services.runtimes import set_runtime
from tests import factories
from training.corpus.cleaning import Rules
from training.corpus.rewriting import PLAIN, Checks
from training.models import Corpus, ReviewCase, Rewriting

_numbers = count(1)
HASH = "ab" * 32
PART = {
    "n_dialogues": 8,
    "n_samples": 20,
    "n_context_tokens": 900,
    "n_target_tokens": 300,
    "longest_context": 99,
    "longest_target": 33,
    "content_hash": HASH,
}
CARD = {
    "sources": [
        {"name": "<b>a</b>.json", "sha256": HASH, "counts": {"n_dialogues_read": 9, "n_broken": 1}, "problems": []}
    ],
    "family": "chatglm",
    "template": {"id": "soulchat"},
    "limits": {"max_context": 1536, "max_target": 512, "cut": "ends"},
    "split": {"seed": 1, "test_share": 0.02, "n_held_out": 0},
    "cleaning": {"rules": {}, "counts": {"n_remove_phone": 1, "n_review_string:自杀": 2, "n_dialogues_remove": 1}},
    "counts": {"n_dialogues_read": 9, "n_duplicate_dialogues": 1},
    "named": {"n_duplicate_dialogues": ["a.json: 3"]},
    "train": PART,
    "test": PART,
}
STATISTICS = {
    "topics": {"emotion": 5, "": 3},
    "unknown_topics": {"其他": 1},
    "rounds": {"8": 5, "9": 3},
    "client_characters": {"20": 9},
    "counsellor_characters": {"31": 9, "300": 1},
    "context_tokens": {"50": 20},
    "target_tokens": {"15": 20},
    "terms": [{"word": "感受", "n": 7, "n_dialogues": 4}],
    "segmentation": "words",
    "removed": {"phone": ["a.json: 7"]},
}
PLAN = {
    "template": None,
    "test_share": 0.25,
    "seed": 1,
    "limits": {"context": 400, "target": 100, "cut": None},
    "max_broken": 0,
    "rules": Rules().to_json(),
    "is_against_database": True,
}


def ready_corpus(name: str | None = None, **fields) -> Corpus:
    """One that is prepared, as far as the database knows."""
    given = {"weights": "toy", "plan": PLAN, "card": CARD, "statistics": STATISTICS, "content_hash": HASH}
    return Corpus.objects.create(name=name or f"corpus {next(_numbers)}", **{**given, **fields})


def make_case(corpus: Corpus, *texts: str, found: str = "王小明") -> ReviewCase:
    """A dialogue that waits, in whose first turn something was found."""
    texts = texts or ("我叫王小明，睡不好。", "谢谢你告诉我。")
    name = f"{next(_numbers):032x}"
    turns = [{"role": ("client", "counsellor")[n % 2], "content": text} for n, text in enumerate(texts[:-1])]
    dialogue = {"key": name[-3:], "turns": turns, "topic": "", "reference": texts[-1]}
    row = {"verdict": "undecided", "name": name, "place": "a.json", "dialogue": dialogue}
    row["why"] = [{"rule": "name", "turn": 1, "found": found}]
    return ReviewCase.objects.create(corpus=corpus, name=name, row=row)


def make_rewriting(name: str | None = None, *, system: System | None = None, **fields) -> Rewriting:
    """One that is over, by an endpoint that nobody asks."""
    settings = EndpointSettings("http://127.0.0.1:9/v1", "toy-1")
    given = {
        "system": system or factories.make_system(),
        "kind": "endpoint",
        "settings": settings.to_json(),
        "style": PLAIN.to_json(),
        "checks": vars(Checks()),
        "questions": {"name": "q.jsonl", "upload": "", "sha256": HASH},
        "n_questions": 2,
        "n_done": 2,
        "n_accepted": 1,
        "counts": {"accepted": 1, "too_few_rounds": 3},
        "job": Job.objects.create(kind="training.rewrite", state=Job.State.DONE),
    }
    return Rewriting.objects.create(name=name or f"rewriting {next(_numbers)}", **{**given, **fields})


def endpoint_system(url: str, slug: str | None = None, **settings) -> System:
    system = factories.make_system(slug)
    set_runtime(system=system, settings=EndpointSettings(url, "toy-1", **settings), by=None)
    return system


def write_dialogues(rewriting: Rewriting, text: str = '{"key": "1", "turns": [], "reference": ""}\n') -> Path:
    rewriting.folder.mkdir(parents=True, exist_ok=True)
    rewriting.dialogues_file.write_text(text, encoding="utf-8")
    return rewriting.dialogues_file
