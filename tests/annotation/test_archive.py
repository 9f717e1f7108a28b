"""An archive rebuilds every number and figure elsewhere, and names the line that somebody touched."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from annotation.archiving import archive_study
from annotation.models import AuditEvent, System
from annotation.reporting.archive import MANIFEST, NotAnArchive, check, write_archive
from annotation.reporting.datafiles import RATINGS, SETTINGS
from annotation.reporting.numbers import Report
from annotation.services.text_counts import count_texts
from metrics.report import compute
from tests import factories
from tests.annotation.rated import rate, unblind, varied
from tests.annotation.small_data import small_data
from tests.annotation.test_report_tables import facts

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def packed_study(open_study, researcher, tmp_path):
    """A path: an unblinded study, packed."""
    rate(open_study, varied)
    unblind(open_study, researcher)
    return packed(open_study, tmp_path / "study.zip")


def packed(study, path, *, with_texts=True):
    archive = archive_study(study=study, with_texts=with_texts, by=None)
    path.write_bytes(archive.file.read())
    return path


def changed(path: Path, name: str, change, *, with_sums: bool = False) -> Path:
    """A copy in which one file is changed; with_sums: and the manifest made to fit, as a forger would."""
    with zipfile.ZipFile(path) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    files[name] = change(files.get(name, b""))
    if with_sums:
        manifest = json.loads(files[MANIFEST])
        lines = [hashlib.sha256(line).hexdigest()[:8] for line in files[name].split(b"\n")]
        manifest["files"][name] = {"sha256": hashlib.sha256(files[name]).hexdigest(), "lines": "".join(lines)}
        files[MANIFEST] = json.dumps(manifest).encode()
    copy = path.with_name("changed.zip")
    with zipfile.ZipFile(copy, "w") as archive:
        for entry, content in files.items():
            archive.writestr(entry, content)
    return copy


def another_score(content: bytes, score: bytes = b"") -> bytes:
    """Line 5 with another value."""
    lines = content.split(b"\n")
    cells = lines[4].split(b",")
    cells[4] = score or (b"1.0" if cells[4] == b"0.0" else b"0.0")
    lines[4] = b",".join(cells)
    return b"\n".join(lines)


def test_an_archive_is_reproduced_in_another_process_without_a_database(packed_study, tmp_path):
    env = os.environ | {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing", "QINGTING_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "manage.py", "reproduce", str(packed_study), "--out", str(tmp_path / "rebuilt")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Reproduced: every byte is as the archive claims." in done.stdout
    with zipfile.ZipFile(packed_study) as archive:
        names = [name for name in archive.namelist() if name.startswith("results/")]
        for name in names:
            assert (tmp_path / "rebuilt" / name.removeprefix("results/")).read_bytes() == archive.read(name)
    assert {Path(name).suffix for name in names} == {".jsonl", ".txt", ".csv", ".tex", ".svg", ".pdf"}


def test_the_same_state_gives_the_same_bytes(packed_study, open_study, tmp_path):
    again = packed(open_study, tmp_path / "again.zip")
    assert again.read_bytes() == packed_study.read_bytes()
    assert AuditEvent.objects.filter(action="study.archived").count() == 2


def test_a_touched_rating_is_named_by_its_line(packed_study):
    found = check(changed(packed_study, RATINGS, another_score))
    assert found.differences[0] == f"{RATINGS}, line 5: changed since the archive was made"
    assert any(line.startswith("results/numbers.jsonl, line ") for line in found.differences)


def test_a_forger_who_mends_the_checksums_is_caught_by_the_numbers(packed_study):
    found = check(changed(packed_study, RATINGS, another_score, with_sums=True))
    assert not [line for line in found.differences if "changed since" in line]
    assert [line for line in found.differences if line.startswith("results/tables/scores.csv, line ")]


def test_a_touched_result_is_named_with_what_the_data_give(packed_study):
    name = "results/tables/counts.csv"
    found = check(changed(packed_study, name, lambda content: content.replace(b",4,", b",5,", 1), with_sums=True))
    (line,) = found.differences
    assert line.startswith(f"{name}, line 2: the archive says ")


def test_a_broken_line_of_data_is_named(packed_study):
    def cut(content):
        lines = content.split(b"\n")
        lines[6] = lines[6].replace(b",", b";", 2)
        return b"\n".join(lines)

    with pytest.raises(NotAnArchive, match=r"data/ratings.csv, line 7: \d+ cells where the heading has"):
        check(changed(packed_study, RATINGS, cut))
    with pytest.raises(NotAnArchive, match=r"data/ratings.csv, line 5: \w+ is 7, the scale is"):
        check(changed(packed_study, RATINGS, lambda content: another_score(content, b"7.0")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no zip at all", "no zip file"),
        (b"", "no zip file"),
        (None, "no manifest.json inside"),
        ({"format": "other"}, "names the format"),
        ({"format": "qingting-study", "version": 99}, "version 99"),
        ({"format": "qingting-study", "version": 1, "files": {}, "software": {}}, "Nothing can be computed"),
    ],
)
def test_what_is_no_archive_is_told_so(tmp_path, content, said):
    path = tmp_path / "wrong.zip"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
            if content is not None:
                archive.writestr(MANIFEST, json.dumps(content))
    with pytest.raises(CommandError, match=said):
        call_command("reproduce", path)


def test_an_archive_whose_bytes_were_damaged_on_the_way_is_told_so(tmp_path):
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, "0123456789" * 1000)
    content = bytearray(path.read_bytes())
    start = 30 + len(MANIFEST)  # of the packed bytes, behind the entry's head
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(CommandError, match="no zip file that can be read"):
        call_command("reproduce", path)


def test_nothing_names_a_system_or_a_person_before_the_unblinding(open_study, researcher, tmp_path):
    rate(open_study, varied)
    path = packed(open_study, tmp_path / "blind.zip")
    with zipfile.ZipFile(path) as archive:
        everything = "\n".join(archive.read(name).decode("latin-1") for name in archive.namelist())
    names = [name for system in System.objects.all() for name in (system.name, system.slug)]
    people = [member.user.username for member in open_study.members.exclude(user=None)]
    assert not [name for name in [*names, *people] if name in everything]
    assert '"seed": null' in everything
    assert check(path).is_reproduced


def test_texts_can_stay_at_home(open_study, tmp_path):
    item = open_study.study_items.first().item
    text = open_study.study_items.first().study_responses.first().text
    without = packed(open_study, tmp_path / "without.zip", with_texts=False)
    with zipfile.ZipFile(without) as archive:
        everything = "\n".join(archive.read(name).decode("utf-8", "replace") for name in archive.namelist())
    assert item.content_hash in everything
    assert text not in everything
    assert item.turns[0]["text"] not in everything


def test_text_metrics_are_rebuilt_from_their_counts(researcher, tmp_path):
    study = factories.make_study(researcher=researcher, n_items=3)
    for number, row in enumerate(study.study_items.select_related("item")):
        type(row.item).objects.filter(pk=row.item_id).update(reference=f"听起来你很难过，第{number}次了。")
    study = factories.open_for_rating(study, by=researcher)
    rate(study, varied)
    count_texts(dataset=study.study_items.first().item.dataset)
    path = packed(study, tmp_path / "texts.zip")
    found = check(path)
    assert found.is_reproduced
    assert b"B-1" in found.rebuilt["tables/paper.tex"]
    assert b"bleu_4" in found.rebuilt["tables/texts.csv"]
    counts = "data/texts-1.csv"
    line = lambda content: content.split(b"\n")[1]  # noqa: E731
    forged = changed(path, counts, lambda c: c.replace(line(c), line(c)[:-1] + b"9", 1), with_sums=True)
    assert not check(forged).is_reproduced


def test_the_page_offers_it(open_study, researcher, as_user):
    rate(open_study, varied)
    client = as_user(researcher)
    address = reverse("study_archive", args=[open_study.public_id])
    assert address in client.get(reverse("study_report", args=[open_study.public_id])).content.decode()
    response = client.get(address)
    content = b"".join(response.streaming_content)
    assert response["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None


# An archive from plain data: no study, so a hundred ways to touch it cost little.


@pytest.fixture(scope="module")
def small_archive(tmp_path_factory):
    """A path: two arms, four items, two raters, texts, a judge, and answers about blinding."""
    told, data = facts(), small_data()
    path = tmp_path_factory.mktemp("archive") / "small.zip"
    with path.open("wb") as file:
        write_archive(file, facts=told, data=data, report=Report(told, compute(data), "", ""), more={},
                      code_version="qingting 0.0")  # fmt: skip
    return path


def field(name, value):
    """A change of one field of a JSON file."""
    return lambda content: json.dumps(json.loads(content) | {name: value}).encode()


def replaced(old: bytes, new: bytes):
    """A change of some bytes that are really there."""

    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    return change


BROKEN = [
    ("study.json", field("arms", []), "data/ratings.csv: system A is not in study.json"),
    ("study.json", field("datasets", []), "data/ratings.csv: dataset set is not in study.json"),
    ("study.json", field("n_items", None), "study.json: TypeError('n_items is None, not int')"),
    ("study.json", field("per_day", [["soon", 1]]), "study.json: ValueError"),
    ("study.json", lambda _: b"[" * 100_000, "study.json: RecursionError"),
    (SETTINGS, field("seed", -1), "data/settings.json: seed is -1, not a whole number from 0 on"),
    (SETTINGS, field("n_bootstrap", 0), "data/settings.json: n_bootstrap is 0"),
    (SETTINGS, field("n_flips", 10**12), "data/settings.json: n_flips is 1000000000000"),
    (SETTINGS, field("scales", []), "data/settings.json: "),
    (SETTINGS, field("texts", [{}]), "data/settings.json: 'dataset'"),
    (RATINGS, replaced(b",A,", b",Z,"), "data/ratings.csv: system Z is not in study.json"),
    (RATINGS, replaced(b"rater,", b"item,"), "data/ratings.csv, line 1: a column is there twice"),
    (RATINGS, lambda content: content + b'"' + b"x" * 200_000, "data/ratings.csv, line 18: field larger"),
    ("data/judges.csv", replaced(b",judge,", b",R1,"), "R1 is among the human raters"),
    ("data/texts-1.csv", replaced(b"\nB,", b"\nZ,"), "data/texts-1.csv: arm Z is not in study.json"),
    ("data/texts-1.csv", replaced(b".match_1", b".match_x"), "not counted: codepoints.match_1"),
    ("data/texts-1.csv", lambda content: content.replace(b"\nA,0,0,a,", b"\nA,0,0,a,-"), "data/texts-1.csv, line 2: "),
    ("data/exit.json", field("systems", ["B", "C"]), "system A is none of B, C"),
    (MANIFEST, field("files", {"README.txt": 1}), "manifest.json has no checksums of README.txt"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "said"), BROKEN, ids=[f"{name}: {said[:40]}" for name, _, said in BROKEN])
def test_data_that_no_study_leaves_are_told_and_never_a_traceback(small_archive, name, change, said):
    with pytest.raises(NotAnArchive) as error:
        check(changed(small_archive, name, change))
    assert said in str(error.value)
    if name != MANIFEST:
        assert f"{name}, line" in str(error.value)  # and the change itself is named beside what came of it


def test_results_that_differ_in_an_end_of_line_alone_are_not_the_same(small_archive):
    name = "results/tables/scores.csv"  # three lines
    longer = check(changed(small_archive, name, lambda content: content + b"\n", with_sums=True))
    assert longer.differences == [f"{name}, line 5: the archive says '', the data give nothing"]
    shorter = check(changed(small_archive, name, lambda content: content[:-1], with_sums=True))
    assert shorter.differences == [f"{name}, line 4: the archive says nothing, the data give ''"]


def test_what_the_methods_say_is_rebuilt_from_the_facts(small_archive):
    found = check(
        changed(small_archive, "study.json", field("n_items", 400), with_sums=True), code_version="qingting 1"
    )
    assert [line[:35] for line in found.differences] == [
        "results/methods.en.txt, line 1: the", "results/methods.zh.txt, line 1: the"
    ]  # fmt: skip
    assert found.other_software == ["qingting 0.0, here qingting 1"]


def test_a_file_that_is_there_twice_is_refused(small_archive, tmp_path):
    path = tmp_path / "twice.zip"
    path.write_bytes(small_archive.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(RATINGS, "another")
    with pytest.raises(NotAnArchive, match=r"data/ratings\.csv is in the zip twice"):
        check(path)
