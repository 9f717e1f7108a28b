"""What an authenticator app shows."""

from __future__ import annotations

import time

from allauth.mfa import app_settings
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value


def six_digits(seed: str) -> str:
    """The code of this moment."""
    return str(format_hotp_value(hotp_value(seed, int(time.time()) // app_settings.TOTP_PERIOD)))
