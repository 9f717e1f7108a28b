"""seal, unseal: secrets that must be read again, such as TOTP seeds, encrypted at rest.

Keys come from FIELD_ENCRYPTION_KEYS, newest first: the first one seals, all of them unseal, so a key can be
replaced by putting a new one in front of it.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def seal(text: str) -> str:
    """`text`, encrypted and authenticated; ASCII."""
    return _fernet(tuple(settings.FIELD_ENCRYPTION_KEYS)).encrypt(text.encode()).decode("ascii")


def unseal(sealed: str) -> str:
    """The text that was sealed. Raises ImproperlyConfigured if none of the keys opens it."""
    try:
        return _fernet(tuple(settings.FIELD_ENCRYPTION_KEYS)).decrypt(sealed.encode("ascii")).decode()
    except InvalidToken as error:
        raise ImproperlyConfigured(
            "A stored secret cannot be opened: none of FIELD_ENCRYPTION_KEYS sealed it. Put the old key back."
        ) from error
