"""What can be wrong with a corpus. Each message names the place and the way out."""

from __future__ import annotations

from annotation.formats.problems import Problem


class CorpusError(Exception):
    """The corpus cannot be made or used. `code` is a stable word for logs and pages."""

    code = "corpus"


class SourceRefused(CorpusError):
    """A file cannot be read on, or more of its records are broken than was allowed.

    problems: the first of them, each with its place; n_broken: how many were met.
    """

    code = "source_refused"

    def __init__(self, message: str, problems: list[Problem], n_broken: int) -> None:
        super().__init__(message)
        self.problems = problems
        self.n_broken = n_broken


class StoreBroken(CorpusError):
    """The folder holds no complete store, or not the one that was written."""

    code = "store_broken"


class FolderTaken(CorpusError):
    """There is something at the place of the result already, or another run is writing there."""

    code = "folder_taken"


class DiskFull(CorpusError):
    """The disk has no room left; what was written of the unfinished result is gone again."""

    code = "disk_full"
