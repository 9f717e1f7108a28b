"""doctor: a table of what is in order and what is not; exit status 1 on problems."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.doctor import findings


class Command(BaseCommand):
    help = "Check database, cache, keys, hosts, broker, disk, clock, fonts and deployment settings."
    requires_system_checks: list[str] = []  # it reports them itself, in one line

    def handle(self, *args: Any, **options: Any) -> None:
        n_problems = 0
        for finding in findings():
            n_problems += finding.state == "problem"
            self.stdout.write(f"{finding.state:8} {finding.what:16} {finding.says}")
        if n_problems:
            raise CommandError(f"{n_problems} problem(s) found.", returncode=1)
