"""Every setting, with its unit and its reason. dev, test and production hold only differences."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

import environ
from csp.constants import NONE, SELF

from config import env

BASE_DIR = env.ROOT
DATA_DIR = env.data_dir()

DEBUG = False
SECRET_KEY = env.secret_key()
ALLOWED_HOSTS = env.allowed_hosts()
PUBLIC_URL = env.public_url()
IS_DEMO = env.is_demo()

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "jobs",
    "models_runtime",  # before annotation: its command `score` has one more option
    "annotation",
    "training",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "annotation.middleware.AccessMiddleware",
    "annotation.middleware.DomainErrorMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "annotation.context_processors.site",
            ],
        },
    },
]

# --- Database -------------------------------------------------------------------------------------------
# SQLite before these releases can lose committed pages when two WAL connections write and checkpoint at the
# same instant (sqlite.org/wal.html#walresetbug). There the rollback journal is used instead.
_linked = sqlite3.sqlite_version_info
SQLITE_HAS_SAFE_WAL = _linked >= (3, 51, 3) or (3, 50, 7) <= _linked < (3, 51, 0) or (3, 44, 6) <= _linked < (3, 45, 0)
# PERSIST rather than DELETE: it commits by overwriting the journal's head and syncing it. DELETE commits by removing
# the file and, unless synchronous is EXTRA, does not sync the folder: after a power cut the journal may be back and
# would undo a rating that was acknowledged. Of the modes that keep it, PERSIST took least on a quiet disk: 0.65 ms a
# commit against 0.75 (TRUNCATE) and 0.86 (DELETE with EXTRA).
SQLITE_JOURNAL_MODE = "WAL" if SQLITE_HAS_SAFE_WAL else "PERSIST"
SQLITE_INIT = ";".join(
    [
        f"PRAGMA journal_mode={SQLITE_JOURNAL_MODE}",
        "PRAGMA journal_size_limit=16777216",  # bytes that a kept journal may hold after a large import: 16 MB
        # FULL: a rating that was acknowledged survives a power cut. NORMAL gives the same under WAL for a crash
        # of the program, but not for one of the machine; the save path can pay for FULL.
        "PRAGMA synchronous=FULL",
        "PRAGMA temp_store=MEMORY",
        "PRAGMA cache_size=-16000",  # KiB: 16 MB a connection
    ]
)


def database(url: str) -> dict[str, object]:
    """Django's description of the database behind `url`, with the options each engine needs."""
    config: dict[str, object] = environ.Env.db_url_config(url)
    if str(config["ENGINE"]).endswith("sqlite3"):
        config["OPTIONS"] = {
            # A transaction that reads first and writes later cannot be helped by the busy timeout: take the
            # write lock at its start.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,  # seconds to wait for the write lock
            "init_command": SQLITE_INIT,
        }
    else:
        config["CONN_HEALTH_CHECKS"] = True
        # The same few statements are asked all day: planned once per connection, the rating path costs the server
        # about half (4.9 ► 2.4 ms of its processor time a rating). A pooler in front must keep prepared statements.
        config["OPTIONS"] = {"server_side_binding": True, "prepare_threshold": 5}
    config["CONN_MAX_AGE"] = None  # one connection per thread, kept
    return config


DATABASES = {"default": database(env.database_url())}
# With IMMEDIATE, wrapping every request in a transaction would make every page view a writer.
ATOMIC_REQUESTS = False

# Log-in counters must be seen by all processes, so per-process memory will not do.
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": env.cache_url()}
    if env.cache_url()
    else {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "site_cache",
        "OPTIONS": {"MAX_ENTRIES": 5000},  # previews and reports beside the log-in counters
    }
}

# --- People ---------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "annotation.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "annotation.passwords.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "annotation.passwords.CommonPasswordValidator"},
    {"NAME": "annotation.passwords.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "account_login"
ACCOUNT_ADAPTER = "annotation.adapters.AccountAdapter"
MFA_ADAPTER = "annotation.adapters.MFAAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_PREVENT_ENUMERATION = True
ALLAUTH_TRUSTED_PROXY_COUNT = env.trusted_proxy_count()
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Qingting"
MFA_TOTP_TOLERANCE = 1  # periods of 30 s, for people who type slowly and clocks that are off (RFC 6238, section 5.2)
STAFF_NEEDS_SECOND_FACTOR = True
INVITATION_LIFETIME = timedelta(days=14)

SESSION_COOKIE_AGE = 12 * 3600  # seconds of idleness; a working day
SESSION_SAVE_EVERY_REQUEST = False  # middleware renews a session that is half used up
SESSION_ABSOLUTE_AGE = 7 * 24 * 3600  # seconds after which a fresh sign-in is asked for in any case
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = False  # the rating page reads it anew after signing in again in another tab
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_FAILURE_VIEW = "annotation.views.errors.csrf_failure"

# --- Headers --------------------------------------------------------------------------------------------
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Enforced. No inline script or style, no other host. Trusted types are on wherever htmx is not
# (annotation.views.staff relaxes that one directive for pages that poll).
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": [NONE],
    },
}

# --- Language and time ----------------------------------------------------------------------------------
LANGUAGE_CODE = "zh-hans"
LANGUAGES = [("zh-hans", "简体中文"), ("en", "English")]
LOCALE_PATHS = [BASE_DIR / "locale"]
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
USE_TZ = True
TIME_ZONE = "Asia/Shanghai"  # what pages show; the database holds UTC

# --- Files ----------------------------------------------------------------------------------------------
STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "config.storage.StaticStorage"},
}
MEDIA_ROOT = DATA_DIR / "uploads"  # named by us, never served
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024  # bytes of a form or JSON body
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes; larger uploads go to disk
UPLOAD_MAX_BYTES = 2 * 1024**3  # the SoulChatCorpus release is 0.9 GB

# --- API ------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "annotation.api.authentication.TokenAuthentication",
    ],
    # DRF views opt out of the site's log-in middleware, so the default here must refuse.
    "DEFAULT_PERMISSION_CLASSES": ["annotation.api.permissions.Nobody"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "annotation.api.errors.exception_handler",
    "DEFAULT_VERSIONING_CLASS": None,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
    "STRICT_JSON": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Qingting API",
    "DESCRIPTION": "Blinded human evaluation of counselling LLMs.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["annotation.api.permissions.IsStaffRole"],
    "SERVE_AUTHENTICATION": ["rest_framework.authentication.SessionAuthentication"],
}

# --- Work in the background -----------------------------------------------------------------------------
CELERY_BROKER_URL = env.broker_url()
BROKER_DIR = DATA_DIR / "broker"
if CELERY_BROKER_URL.startswith("filesystem"):
    CELERY_BROKER_TRANSPORT: str | None = "config.broker:Transport"
    for _folder in ("messages", "control"):
        (BROKER_DIR / _folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
        "data_folder_in": str(BROKER_DIR / "messages"),
        "data_folder_out": str(BROKER_DIR / "messages"),
        "control_folder": str(BROKER_DIR / "control"),
    }
elif CELERY_BROKER_URL.startswith("redis"):
    # Else the client waits for ever on a broker that no longer answers, and with it whoever launches a job.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 3.0, "socket_timeout": 3.0}  # seconds a try
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True  # the job row in the database is the truth
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# RabbitMQ closes the channel of a worker that holds a hint for 30 minutes because it is busy. It should connect anew:
# without the first line it would shut down in the middle of a training, with the last it would break off the job.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1  # a busy worker leaves the hints to the others
CELERY_TASK_ACKS_LATE = False  # a hint that is lost costs one sweep; one that comes again after an hour helps nobody

CELERY_TASK_DEFAULT_QUEUE = "default"
GPU_QUEUES = env.gpu_queues()  # each wants a worker of its own: docs/operations.md
CELERY_BEAT_SCHEDULE = {"sweep": {"task": "jobs.sweep", "schedule": 30.0}}  # seconds
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat")
JOB_LEASE_SECONDS = 60  # a job whose worker has been silent this long is taken back
JOB_RETRY_SECONDS = 15  # before the second attempt of a job that failed; doubled before each further one
JOB_LOG_DIR = DATA_DIR / "job-logs"  # what child processes wrote to standard error

# --- Systems that answer --------------------------------------------------------------------------------
MODEL_DIRS = env.model_dirs()  # an admin types a folder; without this list it could be any of the machine's
ALLOWED_ENDPOINTS = env.allowed_endpoints()  # likewise for the URL of an endpoint
CORPUS_DIRS = env.corpus_dirs()  # likewise for the files that a corpus is made of
BATCH_DIR = DATA_DIR / "batches"  # what a running batch hands to its child process; gone when it ends
CORPUS_DIR = DATA_DIR / "corpora"  # a folder for each corpus that was prepared here
REWRITING_DIR = DATA_DIR / "rewritings"  # what models wrote, one file of attempts for each rewriting
RUN_DIR = DATA_DIR / "runs"  # a folder for each run: curves, checkpoints, weights; systems answer from there
WEIGHTS_DIGESTS = DATA_DIR / "weights-digests.json"  # spares hashing gigabytes that did not change

REPORT_RESAMPLES = 2000  # dialogues are drawn anew so many times for each interval of a report
REPORT_EXCHANGES = 10_000  # systems change places so many times for each test
REPORT_AT_ONCE = 20_000  # values and texts up to which a page computes its numbers while the reader waits

FIELD_ENCRYPTION_KEYS = env.fernet_keys()

# --- Rating ---------------------------------------------------------------------------------------------
IDLE_AFTER_SECONDS = 90  # no input for this long stops the active clock; long enough to read a dialogue
BREAK_AFTER_MINUTES = 25  # of active time; a suggestion, never a lock
SUPPORT_CONTACT = ""  # shown on the help page where a study names none

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.log_level()},
    # Django logs every 4xx as a warning; ours are answers, not accidents.
    # httpx2 would write a line for each request to an endpoint, kombu one for each broker that is a folder, fontTools
    # some seventy for each figure that becomes a PDF.
    "loggers": {
        "django.request": {"level": "ERROR"},
        "fontTools": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "kombu.connection": {"level": "ERROR" if CELERY_BROKER_URL.startswith("filesystem:") else "WARNING"},
    },
}
