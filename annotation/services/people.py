"""How people come in and go: invitations, sign-in links, seats, accounts and API tokens.

A link's secret is returned once, to be shown once; the database keeps its hash. A person has one role for life:
nothing here changes a role, because whoever has seen what staff see can no longer rate blindly.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import DomainError, InvitationUnusable, RoleConflict
from annotation.models import ApiToken, Invitation, Member, Role, Study, User
from annotation.models.people import hash_token, new_token
from annotation.services.audit import record

SIGN_IN_LINK_LIFETIME = timedelta(days=2)
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another


# --- Links ----------------------------------------------------------------------------------------------


@transaction.atomic
def create_invitation(
    *,
    role: str,
    by: User | None,
    seat: Member | None = None,
    study: Study | None = None,
    label: str = "",
    lifetime: timedelta | None = None,
) -> tuple[Invitation, str]:
    """A single-use link for somebody new: a rater for `seat`, a researcher of `study`, or an admin.

    Returns the invitation and its secret, which is not kept. A new link for a seat ends the older ones.
    `by` is None for the command line. Raises DomainError if the seat is taken or withdrawn.
    """
    if role == Role.ADMIN and by is not None and not by.is_admin:
        raise RoleConflict(_("Only an admin can invite an admin."))
    if role == Role.RATER:
        if seat is None or seat.role != Role.RATER:
            raise DomainError(_("A rater is invited to a seat."))
        if seat.user_id is not None:
            raise DomainError(_("Somebody already has this seat. Make a sign-in link for that person instead."))
        if seat.withdrawn_at is not None:
            raise DomainError(_("This seat was withdrawn."))
        study = seat.study
        seat.invitations.filter(used_at=None, revoked_at=None).update(revoked_at=timezone.now())
    elif seat is not None:
        raise RoleConflict(_("Staff never take a rater's seat."))
    elif role == Role.RESEARCHER and study is None:
        raise DomainError(_("A researcher is invited to a study."))
    secret = new_token()
    invitation = Invitation.objects.create(
        token_hash=hash_token(secret),
        role=role,
        seat=seat,
        study=study,
        label=label,
        created_by=by,
        expires_at=timezone.now() + (lifetime or settings.INVITATION_LIFETIME),
    )
    record(
        "invitation.created",
        by=by,
        study=study,
        invitation=invitation.pk,
        role=role,
        seat=seat.code if seat else None,
    )
    return invitation, secret


@transaction.atomic
def create_sign_in_link(*, person: User, by: User | None) -> tuple[Invitation, str]:
    """A single-use link that signs an existing person in again; a second factor is still asked for.

    Researchers make such links only for raters who sit in their own studies and nowhere else: a link opens the whole
    account. Raises RoleConflict otherwise.
    """
    if not person.is_active:
        raise DomainError(_("This account was deactivated."))
    if by is not None and not by.is_admin:
        elsewhere = Member.objects.of_user(person).exclude(study__in=Study.objects.visible_to(by))
        if not (by.is_site_staff and person.is_rater) or elsewhere.exists():
            raise RoleConflict(_("This person also works in other studies. Ask an admin for the link."))
    person.sign_in_links.filter(used_at=None, revoked_at=None).update(revoked_at=timezone.now())
    secret = new_token()
    invitation = Invitation.objects.create(
        token_hash=hash_token(secret),
        role=person.role,
        user=person,
        label=person.username,
        created_by=by,
        expires_at=timezone.now() + SIGN_IN_LINK_LIFETIME,
    )
    record("sign_in_link.created", by=by, invitation=invitation.pk, person=person.pk)
    return invitation, secret


@transaction.atomic
def revoke_invitation(*, invitation: Invitation, by: User) -> None:
    """End a link that nobody has used; a used or ended one stays as it is."""
    n_revoked = Invitation.objects.filter(pk=invitation.pk, used_at=None, revoked_at=None).update(
        revoked_at=timezone.now()
    )
    if n_revoked:
        record("invitation.revoked", by=by, study=invitation.study, invitation=invitation.pk)


@transaction.atomic
def accept_invitation(*, token: str, person: User | None, language: str) -> User:
    """The person whom the link lets in: a new one, or `person` (signed in already), or the one it was made for.

    Of any number of simultaneous calls exactly one succeeds. No password is hashed, so that a whole class can start
    at once. Raises InvitationUnusable, or RoleConflict if `person` cannot take what the link offers (the link then
    stays usable).
    """
    invitation: Invitation | None = (
        Invitation.objects.usable()
        .select_related("seat__study", "study", "user")
        .filter(token_hash=hash_token(token))
        .first()
    )
    if invitation is None:
        raise _unusable()
    if invitation.user is not None:
        if not invitation.user.is_active:
            raise _unusable()
        guest = invitation.user
    elif person is not None:
        _refuse_unfit(person, invitation)
        guest = person
    else:
        guest = _new_person(invitation.role, language=language)
    won = Invitation.objects.usable().filter(pk=invitation.pk).update(used_at=timezone.now(), used_by=guest)
    if not won:
        raise _unusable()
    if invitation.user is None:
        _join(guest, invitation)
    record(
        "sign_in_link.used" if invitation.user else "invitation.accepted",
        by=guest,
        study=invitation.study,
        invitation=invitation.pk,
        seat=invitation.seat.code if invitation.seat else None,
    )
    return guest


def _unusable() -> InvitationUnusable:
    return InvitationUnusable(
        _("This link was used before, has expired or was withdrawn. Ask whoever sent it for a new one.")
    )


def _refuse_unfit(person: User, invitation: Invitation) -> None:
    """Raise RoleConflict unless the signed-in `person` can take what the invitation offers."""
    if person.role != invitation.role:
        raise RoleConflict(
            _(
                "You are signed in with another role, and one person keeps one role. "
                "If this link is meant for you, sign out first; if it is not, leave it unused."
            )
        )
    study = invitation.seat.study if invitation.seat else invitation.study
    if study is None:
        raise RoleConflict(_("You already have what this link offers. Sign out if it is meant for somebody else."))
    if Member.objects.filter(study=study, user=person).exists():
        raise _already_here()


def _already_here() -> RoleConflict:
    return RoleConflict(_("You already belong to this study. Sign out if the link is meant for somebody else."))


def _new_person(role: str, *, language: str) -> User:
    name = f"{role}-{''.join(secrets.choice(_LETTERS) for _i in range(8))}"
    person = User(username=name, role=role, language=language, is_staff=role == Role.ADMIN)
    person.set_unusable_password()  # a fixed mark and random text: no hash is computed
    person.save()
    return person


def _join(person: User, invitation: Invitation) -> None:
    try:
        with transaction.atomic():  # one_role_per_person_and_study has the last word
            if invitation.seat is not None:
                free = Member.objects.filter(pk=invitation.seat.pk, user=None, withdrawn_at=None)
                if not free.update(user=person):
                    raise InvitationUnusable(_("Somebody already has this seat. Ask whoever sent the link."))
            elif invitation.role == Role.RESEARCHER and invitation.study is not None:
                Member.objects.create(study=invitation.study, user=person, role=Role.RESEARCHER)
    except IntegrityError as error:
        raise _already_here() from error


# --- People ---------------------------------------------------------------------------------------------


@transaction.atomic
def add_researcher(*, study: Study, person: User, by: User) -> Member:
    """Let a researcher who has an account work on one more study. Raises RoleConflict for anybody else."""
    if person.role != Role.RESEARCHER:
        raise RoleConflict(_("Only a researcher can be added; admins see every study, and raters none."))
    member, is_new = Member.objects.get_or_create(study=study, user=person, defaults={"role": Role.RESEARCHER})
    if is_new:
        record("researcher.added", by=by, study=study, person=person.pk)
    return member


def update_account(*, person: User, name: str, language: str, has_shortcuts: bool) -> None:
    """What people may say about themselves."""
    person.first_name = name
    person.language = language
    person.has_shortcuts = has_shortcuts
    person.save(update_fields=["first_name", "language", "has_shortcuts"])


@transaction.atomic
def deactivate_person(*, person: User, by: User) -> None:
    """Shut an account: open sessions end at their next request, links and tokens at once. Ratings stay.

    The password goes too: sessions are bound to it, so none of them comes back to life with the account.
    """
    if person.pk == by.pk:
        raise DomainError(_("You cannot deactivate yourself."))
    if not User.objects.filter(pk=person.pk, is_active=True).update(is_active=False):
        return
    now = timezone.now()
    person.is_active = False
    person.set_unusable_password()
    person.save(update_fields=["password"])
    person.sign_in_links.filter(used_at=None, revoked_at=None).update(revoked_at=now)
    person.api_tokens.filter(revoked_at=None).update(revoked_at=now)
    record("person.deactivated", by=by, person=person.pk)


@transaction.atomic
def reactivate_person(*, person: User, by: User) -> None:
    """Open an account again; the person comes back by a sign-in link, old links and tokens stay ended."""
    if User.objects.filter(pk=person.pk, is_active=False).update(is_active=True):
        person.is_active = True
        record("person.reactivated", by=by, person=person.pk)


@transaction.atomic
def remove_second_factor(*, person: User, by: User) -> None:
    """For a lost telephone: the person sets up a new second factor at the next sign-in."""
    if person.pk == by.pk:
        raise DomainError(_("Change your own second factor on your account page."))
    n_removed, _by_model = Authenticator.objects.filter(user=person).delete()
    if n_removed:
        record("second_factor.removed", by=by, person=person.pk)


# --- API tokens -----------------------------------------------------------------------------------------


@transaction.atomic
def create_api_token(*, person: User, name: str, lifetime: timedelta) -> tuple[ApiToken, str]:
    """A token for scripts, and its secret, which is not kept. Raises RoleConflict for a rater."""
    if not person.is_site_staff:
        raise RoleConflict(_("Tokens are for researchers and admins."))
    secret = new_token()
    token = ApiToken.objects.create(
        user=person,
        name=name,
        token_hash=hash_token(secret),
        last_four=secret[-4:],
        expires_at=timezone.now() + lifetime,
    )
    record("token.created", by=person, token=str(token.public_id))
    return token, secret


@transaction.atomic
def revoke_api_token(*, token: ApiToken, by: User) -> None:
    """End a token now."""
    if ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        record("token.revoked", by=by, token=str(token.public_id))
