"""The cast, introduced once: an admin, a researcher, two raters and a stranger."""

from __future__ import annotations

import pytest
from django.test import Client
from hypothesis import settings as hypothesis_settings

from annotation.models import Member, Role, Study, User
from tests import factories


def pytest_addoption(parser):
    parser.addoption(
        "--database-only", action="store_true", help="only tests that open a database: for a second pass on another one"
    )


def pytest_collection_modifyitems(config, items):
    if config.getoption("--database-only"):
        left_out = [item for item in items if not _opens_the_database(item)]
        items[:] = [item for item in items if _opens_the_database(item)]
        config.hook.pytest_deselected(items=left_out)


def _opens_the_database(item) -> bool:
    return bool({"db", "transactional_db"} & set(getattr(item, "fixturenames", ()))) or bool(
        item.get_closest_marker("django_db")
    )


hypothesis_settings.register_profile("tests", deadline=None)  # how long an example takes says nothing on a busy machine
hypothesis_settings.load_profile("tests")


@pytest.fixture(autouse=True)
def english(settings):
    """Pages speak English in tests unless a test says otherwise."""
    settings.LANGUAGE_CODE = "en"


@pytest.fixture(autouse=True)
def no_second_factor(settings):
    """Tests of the second factor switch it on again."""
    settings.STAFF_NEEDS_SECOND_FACTOR = False


@pytest.fixture
def admin(db) -> User:
    return factories.make_user("ada", role=Role.ADMIN)


@pytest.fixture
def researcher(db) -> User:
    return factories.make_user("rui", role=Role.RESEARCHER)


@pytest.fixture
def other_researcher(db) -> User:
    """A researcher of another study: everything here is a stranger's business."""
    return factories.make_user("otto", role=Role.RESEARCHER)


@pytest.fixture
def study(db, researcher) -> Study:
    """A draft with 4 items, 4 systems and 3 rater seats; `researcher` belongs to it."""
    return factories.make_study(researcher=researcher)


@pytest.fixture
def open_study(study, researcher) -> Study:
    """The same study, opened; three raters sit in its seats, ready to rate."""
    return factories.open_for_rating(study, by=researcher)


@pytest.fixture
def rater(open_study) -> Member:
    """The first seat of the open study; `rater.user` is the person."""
    return open_study.members.raters().first()


@pytest.fixture
def second_rater(open_study) -> Member:
    return open_study.members.raters()[1]


@pytest.fixture
def stranger(db) -> User:
    """A rater without any seat."""
    return factories.make_user("sam", role=Role.RATER)


@pytest.fixture
def as_user():
    """as_user(user) -> a client that is signed in as that user and must carry CSRF tokens only if asked to."""

    def sign_in(user: User, *, enforce_csrf_checks: bool = False) -> Client:
        client = Client(enforce_csrf_checks=enforce_csrf_checks)
        client.force_login(user)
        return client

    return sign_in
