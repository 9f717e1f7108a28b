"""What the pages about people read: an invitation, everybody here, the seats of a study, one's own tokens."""

from __future__ import annotations

from dataclasses import dataclass

from allauth.mfa.models import Authenticator
from django.db.models import Exists, OuterRef, Prefetch, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.errors import InvitationUnusable
from annotation.models import ApiToken, Invitation, Member, Role, Study, User
from annotation.models.people import hash_token


def usable_invitation(token: str) -> Invitation:
    """The invitation behind a link. Raises InvitationUnusable, which does not say whether it ever existed."""
    links = Invitation.objects.usable().select_related("user")
    invitation: Invitation | None = links.filter(token_hash=hash_token(token)).first()
    if invitation is None or (invitation.user is not None and not invitation.user.is_active):
        raise InvitationUnusable(
            _("This link was used before, has expired or was withdrawn. Ask whoever sent it for a new one.")
        )
    return invitation


def everybody() -> QuerySet[User]:
    """All accounts, staff first, each with `has_second_factor`."""
    totp = Authenticator.objects.filter(user=OuterRef("pk"), type=Authenticator.Type.TOTP)
    return User.objects.annotate(has_second_factor=Exists(totp)).order_by("-is_active", "role", "username")


def pending_staff_invitations() -> QuerySet[Invitation]:
    """Unused links for new researchers and admins."""
    return (
        Invitation.objects.usable()
        .filter(user=None, role__in=[Role.RESEARCHER, Role.ADMIN])
        .select_related("study", "created_by")
    )


def pending_invitations_of(study: Study) -> QuerySet[Invitation]:
    """Unused links to a study: for its seats and for researchers."""
    return Invitation.objects.usable().filter(study=study, user=None)


@dataclass(frozen=True)
class Seat:
    """One rater's seat as its page shows it."""

    member: Member
    state: str  # withdrawn, taken, invited or empty
    invitation: Invitation | None
    label: str  # for whom its link was made


def seats_of(study: Study) -> list[Seat]:
    """The raters' seats in order, each with the link that waits for an answer, or the note on the one that was used."""
    waiting = Prefetch("invitations", Invitation.objects.usable(), to_attr="waiting")
    used = Prefetch("invitations", Invitation.objects.exclude(used_at=None), to_attr="used")
    seats = []
    for member in study.members.raters().select_related("user").prefetch_related(waiting, used):
        invitation = member.waiting[0] if member.waiting else None
        if member.withdrawn_at:
            state = "withdrawn"
        elif member.user_id:
            state = "taken"
        else:
            state = "invited" if invitation else "empty"
        label = next((link.label for link in (*member.waiting, *member.used)), "")
        seats.append(Seat(member, state, invitation, label))
    return seats


def researchers_of(study: Study) -> QuerySet[Member]:
    return study.members.researchers().select_related("user").order_by("user__username")


def researchers_outside(study: Study) -> QuerySet[User]:
    """Researchers who could be added to the study."""
    return User.objects.filter(role=Role.RESEARCHER, is_active=True).exclude(seats__study=study).order_by("username")


def usable_tokens(person: User) -> QuerySet[ApiToken]:
    return person.api_tokens.filter(revoked_at=None, expires_at__gt=timezone.now())


def contacts_for(person: User | None) -> list[str]:
    """Whom a rater can ask: the contacts of the studies that the person sits in."""
    if person is None or not person.is_rater:
        return []
    named = Member.objects.of_user(person).exclude(study__contact="")
    return list(named.order_by("study__contact").values_list("study__contact", flat=True).distinct())
