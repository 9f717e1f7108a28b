"""Behind https. Refuses to start with a weak key or without host names."""

from django.core.exceptions import ImproperlyConfigured

from config.settings.base import *  # noqa: F403
from config.settings.base import ALLOWED_HOSTS, IS_DEMO, PUBLIC_URL, SECRET_KEY

if len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 16:
    raise ImproperlyConfigured(
        "SECRET_KEY is too short or too regular: unset it and one is made, or give 50+ random characters."
    )
if not ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        "ALLOWED_HOSTS is empty: name the hosts the site answers to, e.g. ALLOWED_HOSTS=rate.example.org."
    )
if IS_DEMO:
    raise ImproperlyConfigured("QINGTING_DEMO cannot be combined with production settings.")
if not PUBLIC_URL.startswith("https://"):
    raise ImproperlyConfigured("PUBLIC_URL must start with https:// so that invitation links do.")

SECURE_SSL_REDIRECT = True
SECURE_REDIRECT_EXEMPT = [r"^healthz$"]  # probes ask from inside, in plain http
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = True
SESSION_COOKIE_NAME = "__Host-sessionid"
CSRF_COOKIE_SECURE = True
CSRF_COOKIE_NAME = "__Host-csrftoken"
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]
LANGUAGE_COOKIE_SECURE = True
