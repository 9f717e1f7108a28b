"""describe: what is wrong with a file, as a sentence in the reader's language that names the place and the way out."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from annotation.formats.problems import Place, Problem

_SENTENCES: dict[str, Promise] = {
    # The file as a whole
    "empty_file": gettext_lazy("The file is empty."),
    "unknown_format": gettext_lazy("The format was not recognised. It can be one of: %(expected)s."),
    "wrong_format": gettext_lazy("The file is %(found)s, which cannot be read here. It can be one of: %(expected)s."),
    "utf16": gettext_lazy("The text is UTF-16. Save it as UTF-8 and try again."),
    "encoding": gettext_lazy(
        "The text is neither UTF-8 nor GB18030: byte %(offset)s does not fit. Save it as UTF-8 and try again."
    ),
    "nul_byte": gettext_lazy("There is a NUL byte at offset %(offset)s, so this is not clean text."),
    "line_too_long": gettext_lazy("The line is longer than %(limit)s kB."),
    "changed": gettext_lazy("The file was changed while it was read. Try again when it is complete."),
    "no_items": gettext_lazy("There is nothing in it to take in."),
    "sample_too_large": gettext_lazy("The sample asks for %(wanted)s dialogues, but there are only %(found)s."),
    # Archives and sheets
    "broken_archive": gettext_lazy("The archive cannot be read: %(reason)s."),
    "archive_too_large": gettext_lazy("Unpacked, the archive is larger than %(limit)s MB."),
    "member_too_large": gettext_lazy("The archive holds a file that is far larger than a dialogue."),
    "too_many_members": gettext_lazy("There are more files in it than can be taken in at once."),
    "dialogue_too_large": gettext_lazy("The dialogue is larger than %(limit)s kB."),
    "broken_xlsx": gettext_lazy("The workbook cannot be read: %(reason)s."),
    "xlsx_too_large": gettext_lazy("A workbook can have at most %(limit)s MB. Use JSONL for more."),
    "xlsx_bomb": gettext_lazy("Unpacked, the workbook is larger than %(limit)s MB. Use JSONL for more."),
    "too_many_rows": gettext_lazy("A table can have at most %(limit)s rows. Use JSONL for more."),
    # JSON and tables
    "broken_json": gettext_lazy("This is not valid JSON: %(reason)s."),
    "json_too_deep": gettext_lazy("The JSON is nested too deeply."),
    "json_number": gettext_lazy("JSON has no such number: %(found)s. Use ordinary numbers, or null."),
    "not_a_list": gettext_lazy("Expected a JSON list, […]."),
    "not_an_object": gettext_lazy("Expected a JSON object, {…}."),
    "broken_csv": gettext_lazy("The table cannot be read (line %(line)s): %(reason)s."),
    "no_header": gettext_lazy("The first row must name the columns: %(expected)s."),
    "missing_columns": gettext_lazy("These columns are missing: %(missing)s. Found: %(found)s."),
    "unknown_columns": gettext_lazy("These columns are not known: %(found)s. Known are: %(expected)s."),
    "repeated_columns": gettext_lazy("These columns are there more than once: %(found)s."),
    "row_length": gettext_lazy("The row has %(found)s cells, but the header has %(expected)s."),
    "formula": gettext_lazy("The cell holds a formula. Put its value there as text."),
    # Fields
    "missing": gettext_lazy("The value is missing."),
    "not_text": gettext_lazy("Expected text."),
    "too_long": gettext_lazy("There are %(found)s characters; at most %(limit)s can be kept."),
    "nul": gettext_lazy("Character %(position)s is a NUL, which cannot be kept."),
    "surrogate": gettext_lazy("Character %(position)s is half of a surrogate pair, which is no character."),
    "turns_type": gettext_lazy(
        "Expected the turns of a dialogue: a list, or lines such as “来访者：…” and “咨询师：…”."
    ),
    "turn_type": gettext_lazy("Expected a turn with “role” and “content”."),
    "turn_role": gettext_lazy("Unknown role “%(found)s”. Use “client” or “counsellor”."),
    "turn_text": gettext_lazy("The turn has no text in “content”."),
    "turn_without_role": gettext_lazy("The turn does not begin with who speaks, such as “来访者：”: “%(found)s”."),
    "too_many_turns": gettext_lazy("The dialogue has %(found)s turns; at most %(limit)s can be kept."),
    "no_turns": gettext_lazy("There are no turns."),
    "last_turn": gettext_lazy("The last turn must be the client’s: the response comes after it."),
    "duplicate_key": gettext_lazy("“%(key)s” is there already: %(first)s."),
    "conflicting_field": gettext_lazy("“%(key)s” has another value here than in %(first)s."),
    "not_a_number": gettext_lazy("“%(found)s” is no number. Leave the cell empty where nothing was rated."),
    "off_scale": gettext_lazy("%(found)s is not on the scale %(expected)s."),
    "no_scale": gettext_lazy("No scale was given for “%(found)s”. Scales were given for: %(expected)s."),
    "unknown_number": gettext_lazy("The study has no item number “%(found)s”."),
    "unknown_arm": gettext_lazy("The study has no arm “%(found)s”. Its arms are: %(expected)s."),
    "unknown_dimension": gettext_lazy("The rubric has no dimension “%(found)s”. It has: %(expected)s."),
    "conflicting_item": gettext_lazy(
        "“%(key)s” is in the dataset already, with other content. Give the item another key, or use a new dataset."
    ),
    "empty_response": gettext_lazy("The response is empty."),
    "repeat": gettext_lazy("“%(found)s” is no repeat. Use a whole number from 0 to %(limit)s."),
    "unknown_item": gettext_lazy("The dataset has no item “%(key)s”."),
    "unknown_system": gettext_lazy("There is no system “%(slug)s”. Register it first, or let the import create it."),
    "reference_system": gettext_lazy(
        "“%(slug)s” is the human reference: its responses are the counsellors’ replies that come with the items."
    ),
    "bad_slug": gettext_lazy("“%(slug)s” is no short name for a system. Use letters, digits, “-” and “_”."),
    "conflicting_response": gettext_lazy(
        "“%(system)s” has another response to “%(key)s” already. Give the second one another “repeat”."
    ),
}
_UNITS: dict[str, Promise] = {
    "line": gettext_lazy("line %(number)s"),
    "row": gettext_lazy("row %(number)s"),
    "entry": gettext_lazy("entry %(number)s"),
}
CODES = frozenset(_SENTENCES)


def describe(problem: Problem) -> str:
    """What is wrong, without the place."""
    sentence = str(_SENTENCES[problem.code]) % {name: plain(str(value)) for name, value in problem.params.items()}
    where = [
        _("line %(number)s") % {"number": problem.params["line"]}
        if problem.place.unit == "entry" and "line" in problem.params
        else "",
        _("column %(number)s") % {"number": problem.params["column"]} if "column" in problem.params else "",
    ]
    found = ", ".join(part for part in where if part)
    return f"{sentence} ({found})" if found else sentence


def where(place: Place) -> str:
    """The place in words: file, and line, row or entry."""
    name = plain(place.file, limit=200)
    return f"{name}, {position(place)}" if place.number is not None else name


def position(place: Place) -> str:
    """The line, row or entry in words; "" for a whole file."""
    return str(_UNITS[place.unit]) % {"number": place.number} if place.number is not None and place.unit else ""


def sentence(problem: Problem) -> str:
    """Place, field and what is wrong in one line."""
    field = f" [{plain(problem.field)}]" if problem.field else ""
    return f"{where(problem.place)}{field}: {describe(problem)}"


def plain(text: str, *, limit: int = 120) -> str:
    """The text on one line, safe for a terminal: what does not print (controls, direction marks) shows as �."""
    shown = "".join(character if character.isprintable() else "�" for character in text[: limit + 1])
    return f"{shown[:limit]}…" if len(shown) > limit else shown
