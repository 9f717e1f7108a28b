"""How people come in: links that work once, seats, roles for life, accounts, tokens, second factor."""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import time_machine
from allauth.mfa.models import Authenticator
from django.contrib.auth import hashers
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from annotation.errors import DomainError, InvitationUnusable, RoleConflict
from annotation.models import ApiToken, AuditEvent, Invitation, Member, Role, User
from annotation.models.people import hash_token
from annotation.secrets import seal, unseal
from annotation.services import people
from tests import factories
from tests.second_factor import six_digits


@pytest.fixture
def seat(study) -> Member:
    return study.members.raters().first()


@pytest.fixture
def seat_link(seat, researcher) -> str:
    return people.create_invitation(role=Role.RATER, seat=seat, by=researcher)[1]


def join(client: Client, secret: str):
    return client.post(reverse("accept_invitation", args=[secret]))


# --- Links ----------------------------------------------------------------------------------------------


def test_looking_at_a_link_does_not_use_it(client, seat_link, seat):
    for _i in range(3):
        page = client.get(reverse("accept_invitation", args=[seat_link]))
        assert page.status_code == 200
        assert "no-store" in page["Cache-Control"]
    seat.refresh_from_db()
    assert seat.user is None
    assert User.objects.filter(role=Role.RATER).count() == 0


def test_a_rater_comes_in_by_link_and_takes_the_seat(client, seat_link, seat):
    answer = join(client, seat_link)
    assert answer.status_code == 302
    assert answer["Location"] == reverse("home")
    seat.refresh_from_db()
    assert seat.user.role == Role.RATER
    assert not seat.user.has_usable_password()
    assert not seat.user.is_staff
    assert client.get(reverse("account")).context["user"] == seat.user


def test_the_note_on_a_link_stays_beside_its_seat(client, as_user, researcher, seat, study):
    """Whoever invited somebody must still know who sits where."""
    secret = people.create_invitation(role=Role.RATER, seat=seat, by=researcher, label="Dr Wang")[1]
    page = reverse("study_people", args=[study.public_id])
    assert "Dr Wang" in as_user(researcher).get(page).content.decode()
    join(client, secret)
    seat.refresh_from_db()
    text = as_user(researcher).get(page).content.decode()
    assert "Dr Wang" in text
    assert seat.user.username in text


def test_the_language_can_be_changed_where_a_link_is_shown(as_user, admin, seat, study):
    client = as_user(admin)
    for action, data in (
        (reverse("invite_staff"), {"role": "admin"}),
        (reverse("make_seat_link", args=[study.public_id, seat.public_id]), {}),
    ):
        page = client.post(action, data)
        address = re.search(r'name="next" value="([^"]+)"', page.content.decode()).group(1)
        assert client.get(address).status_code == 200


@pytest.mark.parametrize(("language", "words"), [("zh-hans", "至少需要 12 个字符"), ("en", "at least 12 characters")])
def test_a_refused_password_is_explained_in_the_language_of_the_page(as_user, admin, language, words):
    admin.set_unusable_password()
    admin.save()
    client = as_user(admin)
    client.cookies["django_language"] = language
    answer = client.post(reverse("account_set_password"), {"password1": "short", "password2": "short"})
    assert words in answer.content.decode()
    if language == "zh-hans":
        assert "password" not in re.sub(r"<[^>]*>", "", answer.content.decode()).lower()


def test_a_link_works_once(client, seat_link, seat):
    join(client, seat_link)
    other = Client()
    assert join(other, seat_link).status_code == 410
    assert other.get(reverse("accept_invitation", args=[seat_link])).status_code == 410
    assert "_auth_user_id" not in other.session
    assert User.objects.filter(role=Role.RATER).count() == 1


def test_no_password_is_hashed_when_a_class_begins(client, seat_link, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a password was hashed")

    hasher = hashers.get_hasher("default")
    monkeypatch.setattr(type(hasher), "encode", refuse)
    assert join(client, seat_link).status_code == 302


def test_a_hundred_behind_one_address_are_not_held_up(study, researcher):
    for number in range(10, 45):  # more than allauth's 30 sign-ins a minute from one address
        seat = Member.objects.create(study=study, role=Role.RATER, number=number)
        secret = people.create_invitation(role=Role.RATER, seat=seat, by=researcher)[1]
        assert join(Client(), secret).status_code == 302


def test_it_expires_and_can_be_revoked(client, seat, researcher):
    _late, secret = people.create_invitation(role=Role.RATER, seat=seat, by=researcher, lifetime=timedelta(seconds=-1))
    assert join(client, secret).status_code == 410
    invitation, secret = people.create_invitation(role=Role.RATER, seat=seat, by=researcher)
    people.revoke_invitation(invitation=invitation, by=researcher)
    assert join(client, secret).status_code == 410
    assert join(client, "x" * 43).status_code == 410
    seat.refresh_from_db()
    assert seat.user is None


def test_a_new_link_for_a_seat_ends_the_older_one(client, seat, seat_link, researcher):
    _invitation, newer = people.create_invitation(role=Role.RATER, seat=seat, by=researcher)
    assert join(client, seat_link).status_code == 410
    assert join(client, newer).status_code == 302


def test_only_the_hash_is_kept(seat_link):
    dump = "".join(serializers.serialize("json", model.objects.all()) for model in (Invitation, AuditEvent))
    assert seat_link not in dump
    assert hash_token(seat_link) in dump


def test_signing_in_changes_the_session_key(client, seat_link):
    client.get(reverse("help"))
    session = client.session
    session["before"] = 1
    session.save()
    client.cookies["sessionid"] = session.session_key
    before = session.session_key
    join(client, seat_link)
    assert client.session.session_key != before


def test_a_signed_in_rater_takes_one_more_seat_with_the_same_account(as_user, stranger, seat_link, seat):
    client = as_user(stranger)
    assert join(client, seat_link).status_code == 302
    seat.refresh_from_db()
    assert seat.user == stranger
    assert User.objects.filter(role=Role.RATER).count() == 1


def test_a_rater_has_one_seat_in_a_study(as_user, study, researcher, stranger, seat_link):
    client = as_user(stranger)
    join(client, seat_link)
    second = study.members.raters()[1]
    secret = people.create_invitation(role=Role.RATER, seat=second, by=researcher)[1]
    assert join(client, secret).status_code == 409
    assert Invitation.objects.usable().filter(token_hash=hash_token(secret)).exists()  # still there for its reader


@pytest.mark.parametrize("role", ["researcher", "admin"])
def test_staff_never_take_a_raters_seat(as_user, seat, seat_link, role):
    staff = factories.make_user(role=role)
    answer = join(as_user(staff), seat_link)
    assert answer.status_code == 409
    assert "another role" in answer.content.decode()
    seat.refresh_from_db()
    assert seat.user is None
    assert Invitation.objects.usable().filter(token_hash=hash_token(seat_link)).exists()


def test_a_rater_never_becomes_staff(as_user, study, admin, stranger):
    secret = people.create_invitation(role=Role.RESEARCHER, study=study, by=admin)[1]
    assert join(as_user(stranger), secret).status_code == 409
    secret = people.create_invitation(role=Role.ADMIN, by=admin)[1]
    assert join(as_user(stranger), secret).status_code == 409
    stranger.refresh_from_db()
    assert stranger.role == Role.RATER


def test_the_database_has_the_last_word_on_seats(study, stranger):
    first, second = study.members.raters()[:2]
    Member.objects.filter(pk=first.pk).update(user=stranger)
    with pytest.raises(IntegrityError), transaction.atomic():
        Member.objects.filter(pk=second.pk).update(user=stranger)


def test_a_researcher_joins_the_study_of_the_link(client, study, admin):
    secret = people.create_invitation(role=Role.RESEARCHER, study=study, by=admin, label="Dr Li")[1]
    join(client, secret)
    newcomer = User.objects.get(role=Role.RESEARCHER, username__startswith="researcher-")
    assert study.members.researchers().filter(user=newcomer).exists()
    assert not newcomer.is_staff


def test_createadmin_prints_a_link_that_makes_an_admin(client, db, settings, capsys):
    settings.PUBLIC_URL = "https://rate.example.org"
    call_command("createadmin", "--label", "first")
    printed = capsys.readouterr().out.strip()
    assert printed.startswith("https://rate.example.org/join/")
    answer = client.post(printed.removeprefix("https://rate.example.org"))
    assert answer.status_code == 302
    newcomer = User.objects.get()
    assert newcomer.role == Role.ADMIN
    assert newcomer.is_staff
    assert not newcomer.is_superuser
    assert not newcomer.has_usable_password()


def test_only_admins_invite_admins(study, researcher):
    with pytest.raises(RoleConflict):
        people.create_invitation(role=Role.ADMIN, by=researcher)


def test_a_taken_or_withdrawn_seat_invites_nobody(open_study, researcher, rater):
    with pytest.raises(DomainError):
        people.create_invitation(role=Role.RATER, seat=rater, by=researcher)


def test_a_sign_in_link_signs_its_person_in_and_ends_other_sessions_of_the_browser(as_user, admin, stranger):
    client = as_user(admin)
    _invitation, secret = people.create_sign_in_link(person=stranger, by=admin)
    assert join(client, secret).status_code == 302
    assert client.get(reverse("account")).context["user"] == stranger
    assert join(client, secret).status_code == 410


def test_a_sign_in_link_does_not_replace_the_second_factor(client, admin):
    with_second_factor(admin)
    _invitation, secret = people.create_sign_in_link(person=admin, by=None)
    answer = join(client, secret)
    assert answer["Location"] == reverse("mfa_authenticate")
    assert "_auth_user_id" not in client.session
    assert client.get(reverse("people")).status_code == 302


def test_researchers_make_sign_in_links_only_for_raters_of_their_own_studies(
    rater, researcher, other_researcher, admin
):
    people.create_sign_in_link(person=rater.user, by=researcher)
    with pytest.raises(RoleConflict):
        people.create_sign_in_link(person=rater.user, by=other_researcher)
    elsewhere = factories.make_study(researcher=other_researcher)
    Member.objects.filter(pk=elsewhere.members.raters().first().pk).update(user=rater.user)
    with pytest.raises(RoleConflict):
        people.create_sign_in_link(person=rater.user, by=researcher)
    with pytest.raises(RoleConflict):
        people.create_sign_in_link(person=admin, by=researcher)


def test_two_acceptances_one_after_the_other(seat_link):
    first = people.accept_invitation(token=seat_link, person=None, language="en")
    with pytest.raises(InvitationUnusable):
        people.accept_invitation(token=seat_link, person=None, language="en")
    assert User.objects.filter(role=Role.RATER).get() == first


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_of_many_acceptances_at_once_exactly_one_wins():
    if connection.vendor != "postgresql":
        pytest.skip("SQLite lets one writer in at a time; test_two_acceptances_one_after_the_other is its case")
    study = factories.make_study(researcher=factories.make_user(role=Role.RESEARCHER))
    seat = study.members.raters().first()
    secret = people.create_invitation(role=Role.RATER, seat=seat, by=None)[1]
    start = threading.Barrier(8)

    def accept(_number: int) -> bool:
        start.wait()
        try:
            people.accept_invitation(token=secret, person=None, language="en")
        except InvitationUnusable:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(accept, range(8))) == 1
    assert User.objects.filter(role=Role.RATER).count() == 1
    seat.refresh_from_db()
    assert seat.user is not None


# --- Accounts -------------------------------------------------------------------------------------------


def test_the_account_page_changes_what_is_one_s_own_and_nothing_else(as_user, rater):
    client = as_user(rater.user)
    client.post(
        reverse("account"),
        {"name": "李", "language": "zh-hans", "role": "admin", "is_staff": "on", "is_superuser": "on", "username": "x"},
    )
    rater.user.refresh_from_db()
    assert (rater.user.first_name, rater.user.language, rater.user.has_shortcuts) == ("李", "zh-hans", False)
    assert (rater.user.role, rater.user.is_staff, rater.user.is_superuser) == (Role.RATER, False, False)
    assert rater.user.username != "x"


def test_a_deactivated_person_is_out_at_the_next_request(as_user, admin, rater):
    client = as_user(rater.user)
    assert client.get(reverse("account")).status_code == 200
    people.deactivate_person(person=rater.user, by=admin)
    assert client.get(reverse("account")).status_code == 302
    assert client.get(reverse("api_next", args=[rater.public_id])).status_code == 401
    people.reactivate_person(person=rater.user, by=admin)
    assert User.objects.get(pk=rater.user.pk).is_active


def test_a_session_does_not_come_back_with_the_account(as_user, admin, rater):
    client = as_user(rater.user)
    people.deactivate_person(person=rater.user, by=admin)
    people.reactivate_person(person=rater.user, by=admin)  # no request in between
    assert client.get(reverse("account")).status_code == 302
    _invitation, secret = people.create_sign_in_link(person=rater.user, by=admin)
    join(client, secret)
    assert client.get(reverse("account")).status_code == 200


def test_a_forgotten_password_is_replaced_after_a_link(client, as_user, admin, researcher):
    researcher.set_password("correct horse battery")
    researcher.save()
    new = {"password1": "an entirely new sentence", "password2": "an entirely new sentence"}
    client.force_login(researcher)  # an ordinary session must know the old one
    assert client.post(reverse("account_set_password"), new)["Location"] == reverse("account_change_password")
    _invitation, secret = people.create_sign_in_link(person=researcher, by=admin)
    other = Client()
    join(other, secret)
    assert other.get(reverse("account_change_password"))["Location"] == reverse("account_set_password")
    assert other.post(reverse("account_set_password"), new)["Location"] == reverse("account")
    researcher.refresh_from_db()
    assert researcher.check_password("an entirely new sentence")
    assert client.get(reverse("account")).status_code == 302  # sessions of the old password are over
    later = time.time() + 2 * 3600
    with time_machine.travel(later, tick=False):
        assert other.get(reverse("account_set_password"))["Location"] == reverse("account_change_password")


def test_nobody_deactivates_themselves(admin):
    with pytest.raises(DomainError):
        people.deactivate_person(person=admin, by=admin)


def test_signing_out_takes_a_post_and_clears_the_browser(as_user, stranger):
    client = as_user(stranger)
    assert client.get(reverse("account_logout")).status_code == 200
    answer = client.post(reverse("account_logout"))
    assert answer["Clear-Site-Data"] == '"storage"'
    assert client.get(reverse("account")).status_code == 302


def test_a_wrong_password_says_the_same_as_an_unknown_name(client, db):
    user = factories.make_user("known")
    user.set_password("correct horse battery")
    user.save()
    messages = []
    for login in ("known", "nobody-here"):
        page = client.post(reverse("account_login"), {"login": login, "password": "wrong guess here"})
        assert page.status_code == 200
        messages.append(re.findall(r'role="alert">(.*?)</div>', page.content.decode(), re.S))
    assert messages[0] == messages[1] != []


def test_too_many_wrong_passwords_are_refused_across_processes(client, db, settings):
    user = factories.make_user("known")
    user.set_password("correct horse battery")
    user.save()
    assert "LocMem" not in settings.CACHES["default"]["BACKEND"]
    for _i in range(6):
        page = client.post(reverse("account_login"), {"login": "known", "password": "wrong guess here"})
    page = client.post(reverse("account_login"), {"login": "known", "password": "correct horse battery"})
    assert page.status_code in (200, 429)
    assert "_auth_user_id" not in client.session


def test_a_password_sign_in_goes_where_it_was_going_but_never_to_another_host(client, db):
    user = factories.make_user("known", role=Role.RATER)
    user.set_password("correct horse battery")
    user.save()
    for target, expected in ((reverse("account"), reverse("account")), ("https://evil.example/", reverse("home"))):
        answer = client.post(
            reverse("account_login"), {"login": "known", "password": "correct horse battery", "next": target}
        )
        assert answer["Location"] == expected
        client.post(reverse("account_logout"))


def test_there_is_no_way_to_sign_up_or_to_reset_a_password_by_mail(client, db):
    for path in ("signup/", "email/", "password/reset/", "3rdparty/", "login/code/"):
        assert client.get(f"/account/{path}").status_code == 404
        assert client.get(f"/accounts/{path}").status_code == 404


# --- The second factor ----------------------------------------------------------------------------------


def with_second_factor(user: User, password: str = "correct horse battery") -> str:
    """Give `user` a password and an authenticator app; the seed comes back."""
    seed = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    user.set_password(password)
    user.save()
    Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data={"secret": seal(seed)})
    return seed


def test_new_staff_set_password_then_second_factor_then_get_in(
    client, study, admin, settings, django_capture_on_commit_callbacks
):
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    secret = people.create_invitation(role=Role.RESEARCHER, study=study, by=admin)[1]
    join(client, secret)
    for name in ("home", "account", "study_list", "mfa_activate_totp", "mfa_index"):
        assert client.get(reverse(name))["Location"] == reverse("account_set_password")
    assert client.get(reverse("api_schema")).status_code == 403

    password = "a long enough sentence"
    answer = client.post(reverse("account_set_password"), {"password1": password, "password2": password})
    assert answer.status_code == 302
    for name in ("home", "account", "study_list", "mfa_index", "account_change_password"):
        assert client.get(reverse(name))["Location"] == reverse("mfa_activate_totp")
    assert client.get(reverse("api_schema")).status_code == 403

    page = client.get(reverse("mfa_activate_totp"))
    assert page.status_code == 200  # no second question for the password just chosen
    seed = page.context["form"].secret
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(reverse("mfa_activate_totp"), {"code": six_digits(seed)})
    assert answer["Location"] == reverse("mfa_view_recovery_codes")
    codes = client.get(reverse("mfa_view_recovery_codes"))
    assert codes.status_code == 200
    assert client.get(reverse("api_schema")).status_code == 200

    rows = "".join(str(authenticator.data) for authenticator in Authenticator.objects.all())
    assert seed not in rows
    assert not any(code in rows for code in codes.context["unused_codes"])
    assert seed not in str(dict(client.session))
    totp = Authenticator.objects.get(type=Authenticator.Type.TOTP)
    assert unseal(totp.data["secret"]) == seed


def test_staff_with_a_second_factor_are_asked_for_it(client, admin, settings):
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    seed = with_second_factor(admin)
    answer = client.post(reverse("account_login"), {"login": "ada", "password": "correct horse battery"})
    assert answer["Location"] == reverse("mfa_authenticate")
    assert client.get(reverse("people")).status_code == 302  # not signed in yet
    assert client.post(reverse("mfa_authenticate"), {"code": "000000"}).status_code == 200
    assert "_auth_user_id" not in client.session
    answer = client.post(reverse("mfa_authenticate"), {"code": six_digits(seed)})
    assert answer["Location"] == reverse("home")
    assert client.get(reverse("people")).status_code == 200


def test_a_session_older_than_the_second_factor_must_give_it(as_user, admin, settings):
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    seed = with_second_factor(admin)
    client = as_user(admin)  # the first factor only
    answer = client.get(reverse("people"))
    assert answer["Location"].startswith(reverse("mfa_reauthenticate"))
    assert client.get("/django-admin/").status_code == 302
    client.post(reverse("mfa_reauthenticate"), {"code": six_digits(seed)})
    assert client.get(reverse("people")).status_code == 200


def test_who_switches_the_second_factor_off_sets_up_a_new_one_at_once(client, admin, settings):
    settings.STAFF_NEEDS_SECOND_FACTOR = True
    seed = with_second_factor(admin)
    client.post(reverse("account_login"), {"login": "ada", "password": "correct horse battery"})
    client.post(reverse("mfa_authenticate"), {"code": six_digits(seed)})
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    assert client.get(reverse("mfa_deactivate_totp")).status_code == 200
    assert client.post(reverse("mfa_deactivate_totp")).status_code == 302
    assert client.get(reverse("people"))["Location"] == reverse("mfa_activate_totp")


def test_an_admin_removes_a_lost_second_factor(as_user, admin, researcher):
    with_second_factor(researcher)
    as_user(admin).post(reverse("remove_second_factor", args=[researcher.username]))
    assert not Authenticator.objects.filter(user=researcher).exists()
    assert AuditEvent.objects.filter(action="second_factor.removed").exists()


def test_an_old_key_still_opens_and_the_new_one_seals(settings):
    old, new = "A" * 43 + "=", "B" * 42 + "A="
    settings.FIELD_ENCRYPTION_KEYS = [old]
    sealed = seal("seed")
    settings.FIELD_ENCRYPTION_KEYS = [new, old]
    assert unseal(sealed) == "seed"
    resealed = seal("seed")
    settings.FIELD_ENCRYPTION_KEYS = [new]
    assert unseal(resealed) == "seed"
    with pytest.raises(Exception, match="FIELD_ENCRYPTION_KEYS"):
        unseal(sealed)


# --- Pages for staff ------------------------------------------------------------------------------------


def shown_link(page) -> str:
    return re.search(r'value="(http[^"]+/join/[^"]+)"', page.content.decode()).group(1)


def test_a_link_is_shown_once(as_user, admin, study, client):
    page = as_user(admin).post(
        reverse("invite_staff"), {"role": "researcher", "study": study.public_id, "label": "Dr <b>Li</b>"}
    )
    link = shown_link(page)
    assert "<b>Li" not in page.content.decode()
    assert link not in as_user(admin).get(reverse("people")).content.decode()
    assert client.post(link.removeprefix("http://127.0.0.1:8000")).status_code == 302


def test_a_researcher_invites_raters_to_the_seats_of_the_study(as_user, study, seat, researcher, client):
    staff = as_user(researcher)
    page = staff.post(reverse("make_seat_link", args=[study.public_id, seat.public_id]), {"label": "Wang"})
    link = shown_link(page)
    assert "Wang" in staff.get(reverse("study_people", args=[study.public_id])).content.decode()
    client.post(link.removeprefix("http://127.0.0.1:8000"))
    seat.refresh_from_db()
    assert seat.user is not None
    page = staff.post(reverse("make_seat_link", args=[study.public_id, seat.public_id]))  # now: sign in again
    again = Client()
    again.post(shown_link(page).removeprefix("http://127.0.0.1:8000"))
    assert again.get(reverse("account")).context["user"] == seat.user


def test_seats_are_listed_with_a_fixed_number_of_queries(as_user, researcher, django_assert_max_num_queries):
    study = factories.make_study(researcher=researcher, n_raters=30, n_items=1, n_systems=1)
    for seat in study.members.raters()[:20]:
        people.create_invitation(role=Role.RATER, seat=seat, by=researcher)
    client = as_user(researcher)
    client.get(reverse("help"))
    with django_assert_max_num_queries(8):
        assert client.get(reverse("study_people", args=[study.public_id])).status_code == 200


def test_a_link_of_another_study_is_not_mine_to_revoke(as_user, study, seat, researcher, other_researcher):
    invitation, _secret = people.create_invitation(role=Role.RATER, seat=seat, by=researcher)
    mine = factories.make_study(researcher=other_researcher)
    answer = as_user(other_researcher).post(
        reverse("revoke_study_invitation", args=[mine.public_id]), {"invitation": invitation.pk}
    )
    assert answer.status_code == 404
    invitation.refresh_from_db()
    assert invitation.revoked_at is None
    as_user(researcher).post(reverse("revoke_study_invitation", args=[study.public_id]), {"invitation": invitation.pk})
    invitation.refresh_from_db()
    assert invitation.revoked_at


def test_only_researchers_are_added_to_a_study(as_user, study, researcher, other_researcher, stranger, admin):
    client = as_user(researcher)
    url = reverse("add_researcher", args=[study.public_id])
    for name in (stranger.username, admin.username, "nobody"):
        assert client.post(url, {"username": name}).status_code == 422
    assert client.post(url, {"username": other_researcher.username}).status_code == 302
    assert study.members.researchers().filter(user=other_researcher).exists()
    with pytest.raises(RoleConflict):
        people.add_researcher(study=study, person=stranger, by=researcher)


@pytest.mark.parametrize("poison", ["role", "is_staff", "is_superuser", "user", "token_hash", "used_by", "surprise"])
def test_unknown_fields_change_nobody(as_user, study, researcher, admin, rater, poison):
    """Every form of this area, sent with a field that it does not have."""
    extra = {poison: "admin"}
    client = as_user(researcher)
    before = list(User.objects.order_by("pk").values("pk", "role", "is_staff", "is_superuser", "is_active"))
    seat = study.members.raters().first()
    client.post(reverse("account"), {"name": "R", "language": "en", **extra})
    client.post(reverse("api_tokens"), {"name": "t", "days": 30, **extra})
    client.post(reverse("make_seat_link", args=[study.public_id, seat.public_id]), extra)
    client.post(reverse("invite_researcher", args=[study.public_id]), extra)
    client.post(reverse("add_researcher", args=[study.public_id]), {"username": rater.user.username, **extra})
    rating = as_user(rater.user)
    rating.post(reverse("account"), {"name": "R", "language": "en", **extra})
    assert list(User.objects.order_by("pk").values("pk", "role", "is_staff", "is_superuser", "is_active")) == before
    assert not Invitation.objects.filter(role=Role.ADMIN).exists()
    assert not ApiToken.objects.exclude(user=researcher).exists()


# --- Tokens ---------------------------------------------------------------------------------------------


@pytest.fixture
def token(researcher) -> str:
    return people.create_api_token(person=researcher, name="export", lifetime=timedelta(days=30))[1]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_a_token_reads_the_owners_studies(client, token, study):
    answer = client.get(reverse("api_study_detail", args=[study.public_id]), headers=bearer(token))
    assert answer.status_code == 200
    hidden = factories.make_study(researcher=factories.make_user(role=Role.RESEARCHER))
    answer = client.get(reverse("api_study_detail", args=[hidden.public_id]), headers=bearer(token))
    assert answer.status_code == 404


def test_a_token_never_writes(client, token, study):
    for method in ("post", "put", "patch", "delete"):
        answer = getattr(client, method)(reverse("api_study_list"), headers=bearer(token))
        assert answer.status_code == 403
        assert answer.json()["code"] == "permission_denied"


@pytest.mark.parametrize("end", ["expire", "revoke", "deactivate", "garble"])
def test_a_token_ends(client, token, researcher, admin, end):
    stored = ApiToken.objects.get()
    if end == "expire":
        ApiToken.objects.update(expires_at=timezone.now())
    elif end == "revoke":
        people.revoke_api_token(token=stored, by=researcher)
    elif end == "deactivate":
        people.deactivate_person(person=researcher, by=admin)
    else:
        token = token[:-1] + "\xe9"
    answer = client.get(reverse("api_study_list"), headers=bearer(token))
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"


def test_use_is_noted_at_most_once_a_minute(client, token):
    client.get(reverse("api_study_list"), headers=bearer(token))
    first = ApiToken.objects.get().last_used_at
    assert first is not None
    client.get(reverse("api_study_list"), headers=bearer(token))
    assert ApiToken.objects.get().last_used_at == first
    ApiToken.objects.update(last_used_at=first - timedelta(minutes=2))
    client.get(reverse("api_study_list"), headers=bearer(token))
    assert ApiToken.objects.get().last_used_at >= first


def test_a_rater_gets_no_token(rater):
    with pytest.raises(RoleConflict):
        people.create_api_token(person=rater.user, name="x", lifetime=timedelta(days=1))


def test_the_page_shows_a_token_once_and_only_ones_own(as_user, researcher, other_researcher):
    client = as_user(researcher)
    page = client.post(reverse("api_tokens"), {"name": "export", "days": 30})
    secret = page.context["secret"]
    assert secret in page.content.decode()
    assert secret not in client.get(reverse("api_tokens")).content.decode()
    stored = ApiToken.objects.get()
    assert stored.token_hash == hash_token(secret)
    assert as_user(other_researcher).post(reverse("api_token_revoke", args=[stored.public_id])).status_code == 404
    client.post(reverse("api_token_revoke", args=[stored.public_id]))
    stored.refresh_from_db()
    assert stored.revoked_at


def test_no_secret_reaches_the_database_or_the_log(as_user, client, seat, researcher, admin, study, caplog):
    """One of each kind of secret is made and used; afterwards none stands in any table or any log line."""
    caplog.set_level(logging.DEBUG)
    _invitation, link = people.create_invitation(role=Role.RATER, seat=seat, by=researcher)
    join(client, link)
    seat.refresh_from_db()
    _invitation, sign_in = people.create_sign_in_link(person=seat.user, by=admin)
    join(Client(), sign_in)
    page = as_user(researcher).post(reverse("api_tokens"), {"name": "export", "days": 30})
    token = page.context["secret"]
    Client().get(reverse("api_study_list"), headers=bearer(token))
    join(Client(), link)  # refused, and perhaps logged
    rows = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            rows.append(str(cursor.fetchall()))
    everything = "".join(rows)
    assert hash_token(token) in everything  # the search looks where it should
    for secret in (link, sign_in, token):
        assert secret not in everything
        assert secret not in caplog.text


def test_every_act_is_in_the_log(as_user, admin, researcher, study, seat, client):
    staff = as_user(admin)
    page = staff.post(reverse("make_seat_link", args=[study.public_id, seat.public_id]))
    client.post(shown_link(page).removeprefix("http://127.0.0.1:8000"))
    staff.post(reverse("deactivate_person", args=[researcher.username]))
    staff.post(reverse("reactivate_person", args=[researcher.username]))
    staff.post(reverse("make_sign_in_link", args=[researcher.username]))
    actions = list(AuditEvent.objects.order_by("id").values_list("action", flat=True))
    assert actions == [
        "invitation.created",
        "invitation.accepted",
        "person.deactivated",
        "person.reactivated",
        "sign_in_link.created",
    ]
