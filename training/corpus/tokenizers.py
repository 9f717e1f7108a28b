"""Which tokenizer the ids of a corpus are made with, told without loading one. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models_runtime.engine.prompts import Template
from models_runtime.engine.spec import TOKENIZER_FILES, Family, digest_of
from training.corpus.store import file_digest


def tokenizer_files(weights: Path, family: Family) -> dict[str, str]:
    """Name ► SHA-256 of the files in a model's folder that its tokenizer is read from."""
    return {name: file_digest(weights / name) for name in TOKENIZER_FILES[family] if (weights / name).is_file()}


def tokenizer_digest(family: Family, template: Template, files: Mapping[str, str]) -> str:
    """SHA-256 over family, template and the tokenizer's files: the same turns make the same ids."""
    return digest_of({"family": family, "template": template.to_json(), "files": dict(files)})
