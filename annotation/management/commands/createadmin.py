"""createadmin: prints a one-time link by which the first admin, or one more, comes in. Never a password."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.urls import reverse

from annotation.models import Role
from annotation.services.people import create_invitation


class Command(BaseCommand):
    help = "Print a one-time link that makes whoever opens it an admin."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--label", default="", help="a note of whom the link is for")

    def handle(self, *args: Any, **options: Any) -> None:
        invitation, secret = create_invitation(role=Role.ADMIN, by=None, label=options["label"])
        self.stdout.write(settings.PUBLIC_URL + reverse("accept_invitation", args=[secret]))
        self.stderr.write(
            f"Works once, until {invitation.expires_at:%Y-%m-%d %H:%M} UTC. "
            "Whoever opens it then sets a password and a second factor."
        )
