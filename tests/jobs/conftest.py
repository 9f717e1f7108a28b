"""Sites with real workers. A migrated database is made once and copied for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.jobs.site import Site, need


@pytest.fixture(scope="session")
def templates(tmp_path_factory) -> Iterator[Callable[[str], Site]]:
    made: dict[str, Site] = {}

    def template(database: str) -> Site:
        if database not in made:
            made[database] = Site(tmp_path_factory.mktemp("template"), database=database)
            made[database].migrate()
        return made[database]

    yield template
    for site in made.values():
        site.close()


@pytest.fixture
def make_site(templates, tmp_path) -> Iterator[Callable[..., Site]]:
    """make_site(broker=…, database=…, **environment) -> Site; its workers are killed at the end."""
    made: list[Site] = []

    def make(*, broker: str = "filesystem", database: str = "sqlite", folder=tmp_path, **env: str) -> Site:
        need(broker, database)
        site = Site(folder, broker=broker, database=database, **env)
        made.append(site)
        site.copy_database(templates(database))
        return site

    yield make
    for site in made:
        site.close()
