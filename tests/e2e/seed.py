"""Makes a study in the site under test and prints its links as JSON: python -m tests.e2e.seed '{"n_items": 2}'."""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import count

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.dev")
django.setup()

from django.conf import settings  # noqa: E402
from django.utils import timezone  # noqa: E402

from annotation.models import Member, Role  # noqa: E402
from annotation.services.opening import open_study  # noqa: E402
from annotation.services.people import create_sign_in_link  # noqa: E402
from tests import factories  # noqa: E402

DIALOGUE = [
    {"role": "client", "text": "最近一闭上眼就想到白天没做完的事，越想越清醒。"},
    {"role": "counsellor", "text": "躺下来，脑子却还在上班。这样有多久了？"},
    {"role": "client", "text": "快两个月了。昨晚三点才睡着，今天开会差点说错话，我怕大家看出来我撑不住了。"},
]
REPLIES = [
    "两个月，每晚都和没做完的事待在一起，一定很累。你说怕别人看出来，这份怕是从什么时候开始的？",
    "建议你睡前一小时不看手机，把第二天要做的事写在纸上，再做十分钟腹式呼吸。",
    "大家都这样，习惯就好了。",
    "听起来你很想把一切都顶住，又担心顶不住。如果今晚先允许一件事没做完，你会选哪一件？",
]


factories._numbers = count(time.time_ns() // 1000)  # names differ from those of an earlier call


def link(person) -> str:
    _invitation, token = create_sign_in_link(person=person, by=None)
    return f"{settings.PUBLIC_URL}/join/{token}/"


def main(options: dict) -> dict:
    if "again" in options:  # a fresh link for the person in this seat; it ends the older one
        return {"link": link(Member.objects.get(pk=options["again"]).user)}
    risky = options.pop("risky", False)
    is_open = options.pop("is_open", True)
    is_new = options.pop("is_new", False)  # raters have neither agreed nor practised yet
    hostile = options.pop("hostile", "")
    n_systems = options.get("n_systems", 4)
    options.setdefault("n_raters", 2)
    researcher = factories.make_user(role=Role.RESEARCHER)
    study = factories.make_study(researcher=researcher, contact="study@example.org", **options)
    for number, study_item in enumerate(study.study_items.select_related("item").order_by("number")):
        item = study_item.item
        item.turns = [*DIALOGUE, *([{"role": "client", "text": hostile}] if hostile else [])]
        item.risks = ["self_harm"] if risky and number == 0 else []
        item.save()
        for index, response in enumerate(item.responses.order_by("id")):
            text = f"{REPLIES[(index + number) % len(REPLIES)]}{hostile}"
            type(response).objects.filter(pk=response.pk).update(text=text, original=text)
    factories.seat_raters(study)
    if is_new:
        study.members.raters().update(consented_at=None, practice_passed_at=None)
    if is_open:
        open_study(study=study, by=researcher)
    admin = factories.make_user(role=Role.ADMIN)
    raters = list(study.members.raters().select_related("user"))
    return {
        "study": str(study.public_id),
        "study_pk": study.pk,
        "seats": [str(rater.public_id) for rater in raters],
        "seat_pks": [rater.pk for rater in raters],
        "rater_links": [link(rater.user) for rater in raters],
        "researcher_link": link(researcher),
        "admin_link": link(admin),
        "n_systems": n_systems,
        "dataset": str(study.study_items.first().item.dataset.public_id),
        "systems": [arm.system.name for arm in study.arms.select_related("system")],
        "now": timezone.now().isoformat(),
    }


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}), sys.stdout)
