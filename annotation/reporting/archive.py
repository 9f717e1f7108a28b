"""A study in one zip: what was asked, what was shown, what was rated, every number and figure, and checksums of all.

Nothing in it is a date of packing or a path, so the same state of a study gives the same bytes. `check` computes all
results again from the data inside and says, by file and line, what is not as the archive claims.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from annotation.formats.source import BROKEN_ZIP
from annotation.reporting.datafiles import JUDGES, RATINGS, TEXTS, Unreadable, data_files, read_data
from annotation.reporting.facts import StudyFacts
from annotation.reporting.numbers import Report
from annotation.reporting.rendered import rendered
from metrics.report import StudyData, compute

FORMAT, FORMAT_VERSION = "qingting-study", 1
MANIFEST, FACTS, README = "manifest.json", "study.json", "README.txt"
RESULTS = "results/"
LARGEST = 2 * 1024**3  # bytes, unpacked
MOST_FILES = 1000
LINE_DIGITS = 8  # of a line's SHA-256: enough to point at a line, while the file's own sum guards it
SHOWN = 20  # differences that are named one by one
# What reading or computing may raise where somebody wrote into the data.
_BROKEN = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
PACKAGES = ("numpy", "pandas", "scipy", "statsmodels", "jieba", "rjieba", "RapidFuzz", "fpdf2", "fonttools")
_TEXT = (".csv", ".json", ".jsonl", ".txt", ".tex", ".svg")
_ABOUT = """A study of Qingting, packed whole.

  manifest.json   SHA-256 of every file and of every line, and the versions of the software that made it
  study.json      the study as its report describes it
  protocol.json   rubric, plan, settings
  data/           ratings, text counts and seeds: all that the numbers are computed from
  items.jsonl, responses.jsonl, order.csv   what was shown, to whom, in which order
  results/        numbers, tables, figures and the paragraph on methods

To compute everything again and compare it, on any machine with Qingting and without a database:

  python manage.py reproduce THIS.zip
"""


def software() -> dict[str, str]:
    """Name ► version of everything that a number may depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_archive(
    file: IO[bytes], *, facts: StudyFacts, data: StudyData, report: Report, more: Mapping[str, bytes], code_version: str
) -> str:
    """Pack a study; the SHA-256 of its manifest, which stands for all of it.

    more: further files, such as items and responses.
    """
    files = {
        README: _ABOUT.encode(),
        FACTS: _json(facts.to_dict()),
        **data_files(data),
        **more,
        **{f"{RESULTS}{name}": content for name, content in rendered(report).items()},
    }
    manifest = _json(
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "code": code_version,
            "software": software(),
            "files": {name: _sums(name, content) for name, content in sorted(files.items())},
        }
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [(MANIFEST, manifest), *sorted(files.items())]:
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return hashlib.sha256(manifest).hexdigest()


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True) + "\n").encode()


def _sums(name: str, content: bytes) -> dict[str, str]:
    sums = {"sha256": hashlib.sha256(content).hexdigest()}
    if name.endswith(_TEXT):
        sums["lines"] = "".join(_line_sums(content))
    return sums


def _line_sums(content: bytes) -> list[str]:
    return [hashlib.sha256(line).hexdigest()[:LINE_DIGITS] for line in content.split(b"\n")]


# Checking.


class NotAnArchive(ValueError):
    """The file is no archive of a study, or not one that can be read; the message says why."""


@dataclass
class Checked:
    """What a check found. `differences` name file and line; without any, everything is as the archive claims."""

    manifest_sha256: str
    n_files: int = 0
    n_numbers: int = 0
    n_rebuilt: int = 0
    differences: list[str] = field(default_factory=list)
    other_software: list[str] = field(default_factory=list)
    rebuilt: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_reproduced(self) -> bool:
        return not self.differences


def check(path: Path, *, code_version: str = "", on_progress: Callable[[int, int], None] | None = None) -> Checked:
    """Read an archive, compare every checksum, compute everything again and compare every line.

    code_version: of this software, to be named beside that of the archive if they differ.
    Raises NotAnArchive if there is nothing to compute from; it names the files that were changed, too.
    """
    files = _unpacked(path)
    manifest = _manifest(files)
    found = Checked(hashlib.sha256(files[MANIFEST]).hexdigest(), n_files=len(files))
    here = software()
    found.other_software = [
        f"{name} {then}, here {here.get(name, 'unknown')}"
        for name, then in manifest["software"].items()
        if here.get(name) != then
    ]
    if code_version and manifest.get("code") != code_version:
        found.other_software.insert(0, f"{manifest.get('code')}, here {code_version}")
    found.differences += _changed_files(files, manifest["files"])
    try:
        report = _computed(files, on_progress)
        found.rebuilt = rendered(report)
    except _BROKEN as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        told = reason if isinstance(error, Unreadable) else f"The data do not fit together: {reason}"
        changed = "".join(f"\n{line}" for line in found.differences[:SHOWN])
        raise NotAnArchive(f"Nothing can be computed from this archive. {told}{changed}") from error
    found.n_numbers = sum(1 for _row in report.rows())
    then = {name.removeprefix(RESULTS): content for name, content in files.items() if name.startswith(RESULTS)}
    for name in sorted(then.keys() | found.rebuilt.keys()):
        found.differences += _compared(name, then.get(name), found.rebuilt.get(name))
    found.n_rebuilt = len(found.rebuilt)
    return found


def _computed(files: Mapping[str, bytes], on_progress: Callable[[int, int], None] | None) -> Report:
    try:
        facts = StudyFacts.from_dict(json.loads(files[FACTS]))
    except _BROKEN as error:
        raise Unreadable(f"{FACTS}: {error!r}") from error
    data = read_data(files)
    for stranger in _strangers(facts, data):
        raise Unreadable(stranger)
    return Report(facts, compute(data, on_progress=on_progress), "", "")


def _strangers(facts: StudyFacts, data: StudyData) -> Iterator[str]:
    """Arms, datasets and dimensions in the data that the study does not have."""
    arms, datasets = {arm.code for arm in facts.arms}, {dataset.slug for dataset in facts.datasets}
    tables = {RATINGS: data.ratings, JUDGES: data.judges}
    for name, table in tables.items():
        if table is None:
            continue
        known = {"system": arms, "dataset": datasets, "dimension": {dimension.key for dimension in facts.dimensions}}
        for column, those in known.items():
            for level in table.levels(column) if table.has(column) else ():
                if level not in those:
                    yield f"{name}: {column} {level} is not in {FACTS}"
    for number, (slug, texts) in enumerate(sorted(data.texts.items()), start=1):
        for level in sorted(set(texts.statistics) - arms):
            yield f"{TEXTS.format(number)}: arm {level} is not in {FACTS}"
        if slug not in datasets:
            yield f"{TEXTS.format(number)}: dataset {slug} is not in {FACTS}"


def _unpacked(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_FILES or sum(entry.file_size for entry in entries) > LARGEST:
                raise NotAnArchive(f"{path.name} unpacks to more than an archive of a study holds")
            files = {entry.filename: archive.read(entry) for entry in entries}
            if len(files) < len(entries):
                names = [entry.filename for entry in entries]
                twice = next(name for name in names if names.count(name) > 1)
                raise NotAnArchive(f"{twice} is in the zip twice, so nobody can say which one is meant")
            return files
    except (*BROKEN_ZIP, OSError, UnicodeError) as error:
        raise NotAnArchive(f"{path.name} is no zip file that can be read: {error}") from error


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    if MANIFEST not in files:
        raise NotAnArchive(f"There is no {MANIFEST} inside, so this is no archive of a study")
    try:
        manifest: dict[str, Any] = json.loads(files[MANIFEST])
        if manifest["format"] != FORMAT:
            raise NotAnArchive(f"{MANIFEST} names the format {manifest['format']!r}, not {FORMAT!r}")
        if manifest["version"] != FORMAT_VERSION:
            raise NotAnArchive(
                f"The archive has version {manifest['version']} of the format; this software reads {FORMAT_VERSION}"
            )
        if not all(isinstance(manifest[name], dict) for name in ("files", "software")):
            raise NotAnArchive(f"{MANIFEST} lists no files")
        for name, sums in manifest["files"].items():
            if not isinstance(sums, dict) or not all(isinstance(value, str) for value in sums.values()):
                raise NotAnArchive(f"{MANIFEST} has no checksums of {name}")
    except (KeyError, TypeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotAnArchive(f"{MANIFEST} cannot be read: {error!r}") from error
    return manifest


def _changed_files(files: Mapping[str, bytes], listed: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    for name in sorted(listed.keys() - files.keys()):
        yield f"{name}: listed in {MANIFEST}, but missing"
    for name in sorted(files.keys() - listed.keys() - {MANIFEST}):
        yield f"{name}: not listed in {MANIFEST}"
    for name in sorted(files.keys() & listed.keys()):
        if hashlib.sha256(files[name]).hexdigest() == listed[name].get("sha256"):
            continue
        sums = listed[name].get("lines", "")
        then = [sums[i : i + LINE_DIGITS] for i in range(0, len(sums), LINE_DIGITS)]
        lines = [number for number, (a, b) in enumerate(zip_longest(then, _line_sums(files[name])), start=1) if a != b]
        place = f", {'lines' if len(lines) > 1 else 'line'} {_listed(lines)}" if then and lines else ""
        yield f"{name}{place}: changed since the archive was made"


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return ", ".join(str(number) for number in numbers[:SHOWN]) + more


def _compared(name: str, then: bytes | None, now: bytes | None) -> Iterator[str]:
    if then == now:
        return
    place = f"{RESULTS}{name}"
    if then is None or now is None:
        yield f"{place}: {'not in the archive' if then is None else 'cannot be rebuilt from the data'}"
        return
    if not name.endswith(_TEXT):
        yield f"{place}: not the same bytes"
        return
    pairs = enumerate(zip_longest(then.split(b"\n"), now.split(b"\n")), start=1)
    lines = [(number, a, b) for number, (a, b) in pairs if a != b]
    for number, a, b in lines[:SHOWN]:
        yield f"{place}, line {number}: the archive says {_short(a)}, the data give {_short(b)}"
    if len(lines) > SHOWN:
        yield f"{place}: {len(lines) - SHOWN} more lines differ"


def _short(line: bytes | None) -> str:
    if line is None:
        return "nothing"
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 300 else f"{text[:300]}…")
