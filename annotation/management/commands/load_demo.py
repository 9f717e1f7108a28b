"""manage.py load_demo: fill an empty site with the demonstration and print its three one-time links."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from annotation.models import Dataset, Role, Study, User
from annotation.reports import report_state
from annotation.services.demo import load_demo
from annotation.services.people import create_invitation, create_sign_in_link
from annotation.services.text_counts import count_texts
from annotation.tasks import report_soon


class Command(BaseCommand):
    help = "Fill an empty demonstration site with made-up studies and print one-time links."

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.IS_DEMO:
            raise CommandError("This is not a demonstration site. Use make demo, or set QINGTING_DEMO=1.")
        if User.objects.exists():
            raise CommandError("The site already holds people. The demonstration starts from an empty one.")
        demo = load_demo()
        for dataset in Dataset.objects.all():
            count_texts(dataset=dataset)
        for study in Study.objects.exclude(state=Study.State.DRAFT):  # by the worker, while people find their way in
            report_soon(study, state=report_state(study), by_id=None)
        _invitation, rater = create_invitation(role=Role.RATER, seat=demo.free_seat, by=demo.researcher)
        _invitation, researcher = create_sign_in_link(person=demo.researcher, by=demo.admin)
        _invitation, admin = create_sign_in_link(person=demo.admin, by=None)
        for name, token in (("rater", rater), ("researcher", researcher), ("admin", admin)):
            path = reverse("accept_invitation", args=[token])
            self.stdout.write(f"{name:<11} {settings.PUBLIC_URL}{path}")
