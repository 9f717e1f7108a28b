"""For the tests: the same middleware and database rules, fast hashing, files in a folder of their own."""

import os
import tempfile

os.environ.setdefault("QINGTING_DATA_DIR", tempfile.mkdtemp(prefix="qingting-test-"))

from config.settings.base import *  # noqa: F403

STATIC_ROOT.mkdir(exist_ok=True)  # noqa: F405  (whitenoise warns where it is missing)
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # made for speed; nothing real is hashed
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
REPORT_RESAMPLES = REPORT_EXCHANGES = 100  # the methods are tested at their full number, the pages need not be
CELERY_BROKER_URL = "memory://"
CELERY_BROKER_TRANSPORT = None
CELERY_BROKER_TRANSPORT_OPTIONS = {}
if os.environ.get("QINGTING_TEST_DB"):  # test runs beside one another on one PostgreSQL
    DATABASES["default"]["TEST"] = {"NAME": f"test_qingting_{os.environ['QINGTING_TEST_DB']}"}  # noqa: F405
