"""A key that does not show itself: not in repr, messages, pickles or anything an endpoint echoes back."""

from __future__ import annotations

from typing import NoReturn

HIDDEN = "[key]"


class Secret:
    """An API key. `reveal()` is the one way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Raises ValueError if `value` cannot stand in a header; the message does not repeat it."""
        value = value.strip()
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("A key is one word of printable ASCII characters. Copy it anew from the provider's page.")
        self._value = value

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the key, and without starts or ends of it of 8 characters or more: providers echo those."""
        value = self._value
        for length in range(len(value), 7, -1):
            text = text.replace(value[:length], HIDDEN).replace(value[-length:], HIDDEN)
        return text.replace(value, HIDDEN)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not pickled: pass the id of the row that holds it.")
