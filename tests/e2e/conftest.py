"""A real server on a database of its own, and a real Chromium. Nothing is shared with the other tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
SCREENSHOTS = ROOT / "docs" / "screenshots"
PATIENCE_MS = 30_000  # for a page on a machine that does other work, too
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/e2e" in str(item.fspath):
            item.add_marker(pytest.mark.e2e)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Site:
    """The server under test."""

    url: str
    folder: Path
    env: dict[str, str]
    process: subprocess.Popen | None = None
    links: dict[str, str] = field(default_factory=dict)

    def manage(self, *args: str) -> str:
        return self.python("manage.py", *args)

    def python(self, *args: str) -> str:
        done = subprocess.run(
            [sys.executable, *args], cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=120
        )
        if done.returncode:
            raise RuntimeError(f"{args} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def seed(self, **options) -> dict:
        """A study with its one-time links; see seed.py."""
        return json.loads(self.python("-m", "tests.e2e.seed", json.dumps(options)).splitlines()[-1])

    def rows(self, query: str, *values) -> list[tuple]:
        """What the database holds, read beside the server."""
        with sqlite3.connect(f"file:{self.folder / 'qingting.sqlite3'}?mode=ro", uri=True, timeout=20) as connection:
            return connection.execute(query, values).fetchall()

    def write(self, query: str, *values) -> None:
        with sqlite3.connect(self.folder / "qingting.sqlite3", timeout=20) as connection:
            connection.execute(query, values)

    def start(self) -> None:
        port = self.url.rsplit(":", 1)[1]
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}"),
                *("--workers", "1", "--threads", "4", "--worker-class", "gthread", "--timeout", "60"),
            ],
            cwd=ROOT,
            env=self.env,
            stdout=log,
            stderr=log,
        )
        for _ in range(150):
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=2)
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError((self.folder / "server.log").read_text()[-4000:])

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


def make_site(folder: Path) -> Site:
    """A migrated site on a database of its own, not started yet."""
    url = f"http://127.0.0.1:{free_port()}"
    env = os.environ | {
        "QINGTING_DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{folder / 'qingting.sqlite3'}",
        "CELERY_BROKER_URL": "filesystem://",
        "DJANGO_SETTINGS_MODULE": "config.settings.dev",
        "QINGTING_DEMO": "1",  # staff without a second factor; the second factor has tests of its own
        "PUBLIC_URL": url,
        "ALLOWED_ENDPOINTS": "http://127.0.0.1:9",  # where nobody answers
        "PYTHONPATH": str(ROOT),
    }
    site = Site(url=url, folder=folder, env=env)
    site.manage("migrate", "--verbosity", "0")
    site.manage("collectstatic", "--noinput", "--verbosity", "0")
    return site


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Iterator[Site]:
    """An empty site; tests put studies into it with site.seed(…)."""
    site = make_site(tmp_path_factory.mktemp("site"))
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="session")
def demo_site(tmp_path_factory) -> Iterator[Site]:
    """The site that make demo shows; `links` holds its one-time links by role."""
    site = make_site(tmp_path_factory.mktemp("demo"))
    lines = site.manage("load_demo").splitlines()
    site.links = dict(line.split() for line in lines)
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    # A container's root cannot open Chromium's own sandbox; outside of tests it stays on.
    args = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        args.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()


def follow(target: Locator, key: str = "") -> None:
    """Click (or press a key on) what leads to another page, and wait for that page: a click alone does not."""
    with target.page.expect_navigation():
        target.press(key) if key else target.click()


def go_on(page: Page, previous: str) -> None:
    """Wait until the rating page shows another response: it changes its own address, without a navigation."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while previous in page.url:
        assert time.monotonic() < end, f"still on {page.url}"
        page.wait_for_timeout(50)


@pytest.fixture
def new_context(chromium):
    """new_context(language="en", width=1280, height=720, dark=False) -> a browser profile that reports trouble."""
    contexts: list[BrowserContext] = []

    def make(language: str = "en", width: int = 1280, height: int = 720, dark: bool = False, **options):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            locale="zh-CN" if language == "zh-hans" else "en-GB",
            color_scheme="dark" if dark else "light",
            **options,
        )
        context.set_default_timeout(PATIENCE_MS)
        context.add_cookies([
            {"name": "django_language", "value": language, "domain": "127.0.0.1", "path": "/"}
        ])  # fmt: skip
        context.foreign = []
        context.troubles = []
        context.on("request", lambda request: note_foreign(context, request.url))
        context.on("page", lambda page: page.on("console", lambda message: note_trouble(context, message)))
        context.on("page", lambda page: page.on("pageerror", lambda error: context.troubles.append(str(error))))
        contexts.append(context)
        return context

    def note_foreign(context, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:")):
            context.foreign.append(url)

    def note_trouble(context, message) -> None:
        if "Content Security Policy" in message.text or "TrustedHTML" in message.text:
            context.troubles.append(message.text)

    yield make
    for context in contexts:
        foreign, troubles = context.foreign, context.troubles
        context.close()
        assert not foreign, f"a page asked another host: {foreign}"
        assert not troubles, f"a page broke its own policy or threw: {troubles}"


@pytest.fixture
def enter():
    """enter(context, link) -> a page signed in through a one-time link."""

    def go(context: BrowserContext, link: str) -> Page:
        page = context.new_page()
        page.goto(link)
        follow(page.locator("main form button").first)
        return page

    return go
