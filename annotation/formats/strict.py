"""JSON and text held to the rules: no NaN, no bottomless nesting, no NUL, no lone surrogates."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

# Control characters but \n and \t. Line ends are made \n before this is asked.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNTRANSPORTABLE = re.compile("[\x00\ud800-\udfff]")
_LINE_END = re.compile("\r\n?|[\u2028\u2029]")


class BadJSON(Exception):
    """`code` is one of "broken_json", "json_too_deep", "json_number"; `position` counts characters from 0."""

    def __init__(self, code: str, position: int = 0, **params: str | int) -> None:
        super().__init__(code)
        self.code = code
        self.position = position
        self.params = params


class BadText(Exception):
    """`code` is "nul" or "surrogate"; `position` is the index of the character."""

    def __init__(self, code: str, position: int) -> None:
        super().__init__(code)
        self.code = code
        self.position = position


def _refuse_constant(name: str) -> NoReturn:
    raise BadJSON("json_number", found=name)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # 1e999
        raise BadJSON("json_number", found=digits[:40])
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and the index after it. Raises BadJSON."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise BadJSON("broken_json", error.pos, reason=error.msg) from error
    except RecursionError as error:  # raised by the scanner itself; nothing of ours is on the stack
        raise BadJSON("json_too_deep", start) from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise BadJSON("json_number", start, found="…") from error


def decode(text: str) -> Any:
    """The JSON value that `text` is, whole. Raises BadJSON."""
    start = len(text) - len(text.lstrip(" \t\r\n"))
    value, end = decode_at(text, start)
    rest = text[end:].strip(" \t\r\n")
    if rest:
        raise BadJSON("broken_json", end, reason="Extra data")
    return value


def check_text(text: str) -> None:
    """Raises BadText if a character could not be stored or shown: NUL, or half of a surrogate pair."""
    if found := _UNTRANSPORTABLE.search(text):
        raise BadText("nul" if found[0] == "\x00" else "surrogate", found.start())


def clean_text(text: str) -> tuple[str, bool]:
    """The text with \\n as line end, without control characters and outer blanks; whether any had to go."""
    plain = _LINE_END.sub("\n", text)
    without = _CONTROL.sub("", plain)
    return without.strip(), without != plain
