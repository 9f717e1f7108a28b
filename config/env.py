"""The only reader of environment variables.

Every variable is read here, by name, with its type and its default, so that one file answers
"what can I set?". Secrets that nobody set are made on first use and kept in the data folder (mode 0600).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

ROOT = Path(__file__).resolve().parent.parent
_env = environ.Env()


def data_dir() -> Path:
    """QINGTING_DATA_DIR: where database, uploads, broker folder and keys live; made if missing."""
    folder = Path(_env.str("QINGTING_DATA_DIR", default=str(ROOT / "data"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def database_url() -> str:
    """DATABASE_URL: sqlite:///path or postgres://user:password@host:port/name."""
    return str(_env.str("DATABASE_URL", default=f"sqlite:///{data_dir() / 'qingting.sqlite3'}"))


def broker_url() -> str:
    """CELERY_BROKER_URL: filesystem:// (one machine, the default), redis://… or amqp://…."""
    return str(_env.str("CELERY_BROKER_URL", default="filesystem://"))


def gpu_queues() -> list[str]:
    """GPU_QUEUES: gpu.0,gpu.1,…: one queue, and one worker that listens to it, for each GPU; empty = none."""
    names = [str(name) for name in _env.list("GPU_QUEUES", default=[])]
    for name in names:
        # The filesystem broker finds a queue's messages by the end of a file's name: "0" would take those of "gpu.0".
        if not re.fullmatch(r"gpu\.[A-Za-z0-9-]+", name):
            raise ImproperlyConfigured(f"GPU_QUEUES: {name!r} is no name such as gpu.0 or gpu.a100-1.")
    return names


def model_dirs() -> list[Path]:
    """MODEL_DIRS: comma-separated folders; weights and adapters are read from below them only."""
    names = [str(name) for name in _env.list("MODEL_DIRS", default=[])]
    return [Path(name).resolve() for name in names] or [data_dir() / "models"]


def corpus_dirs() -> list[Path]:
    """CORPUS_DIRS: comma-separated folders; files of dialogues are read from below them, beside those uploaded."""
    names = [str(name) for name in _env.list("CORPUS_DIRS", default=[])]
    return [Path(name).resolve() for name in names] or [data_dir() / "dialogues"]


def allowed_endpoints() -> list[str]:
    """ALLOWED_ENDPOINTS: comma-separated origins that may be called, each with the private networks it may be in:
    https://api.openai.com,http://vllm.lan:8000 10.0.0.0/24; empty = none."""
    return [str(entry) for entry in _env.list("ALLOWED_ENDPOINTS", default=[])]


def cache_url() -> str:
    """CACHE_URL: redis://… where several machines serve the site; empty = a table of the database."""
    return str(_env.str("CACHE_URL", default=""))


def is_demo() -> bool:
    """QINGTING_DEMO: the demonstration; its pages say so, and staff need no second factor."""
    return bool(_env.bool("QINGTING_DEMO", default=False))


def is_debug() -> bool:
    """DEBUG: Django's error pages; for development only."""
    return bool(_env.bool("DEBUG", default=False))


def log_level() -> str:
    """LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""
    return str(_env.str("LOG_LEVEL", default="INFO"))


def allowed_hosts() -> list[str]:
    """ALLOWED_HOSTS: comma-separated host names the site answers to."""
    return list(_env.list("ALLOWED_HOSTS", default=[]))


def public_url() -> str:
    """PUBLIC_URL: scheme and host that invitation links start with, e.g. https://rate.example.org."""
    return str(_env.str("PUBLIC_URL", default="http://127.0.0.1:8000")).rstrip("/")


def trusted_proxy_count() -> int:
    """TRUSTED_PROXY_COUNT: how many proxies in front add to X-Forwarded-For."""
    return int(_env.int("TRUSTED_PROXY_COUNT", default=0))


def secret_key() -> str:
    """SECRET_KEY, or the one kept in the data folder."""
    return str(_env.str("SECRET_KEY", default="") or _kept("secret_key", lambda: secrets.token_urlsafe(64)))


def fernet_keys() -> list[str]:
    """FIELD_ENCRYPTION_KEYS: comma-separated Fernet keys, newest first, or the one kept in the data folder."""
    given = list(_env.list("FIELD_ENCRYPTION_KEYS", default=[]))
    return given or [_kept("field_key", lambda: Fernet.generate_key().decode())]


def _kept(name: str, make: Callable[[], str]) -> str:
    """The secret in `data_dir()/name`; made once, atomically, readable by its owner only."""
    path = data_dir() / name
    if not path.exists():
        fresh = path.with_name(f"{name}.{os.getpid()}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make())
        try:
            os.link(fresh, path)  # fails if another process was faster: then its secret is the one
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()
