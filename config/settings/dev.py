"""One machine, loopback, plain http: development and the demonstration."""

from config import env
from config.settings.base import *  # noqa: F403
from config.settings.base import IS_DEMO

DEBUG = env.is_debug()
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]", *env.allowed_hosts()]
STAFF_NEEDS_SECOND_FACTOR = not IS_DEMO
