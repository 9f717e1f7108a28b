"""Django's admin, for looking: every table of the domain, for admins with a second factor, almost all read-only.

Nothing is added or deleted here, and what can be changed is listed by name. The rest goes through the services,
which keep the rules and write the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from csp.decorators import csp_replace
from django.conf import settings
from django.contrib import admin
from django.db import models
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import URLPattern, URLResolver, reverse
from django.utils.translation import gettext_lazy as _

from annotation.middleware import has_passed_second_factor
from annotation.models import (
    ApiToken,
    Arm,
    Assignment,
    AuditEvent,
    AuthorGuess,
    Dataset,
    Dimension,
    ImportRecord,
    Invitation,
    Item,
    Judge,
    JudgeRating,
    Member,
    Placement,
    PracticeAnswer,
    Rating,
    RatingEvent,
    Response,
    Rubric,
    Study,
    StudyItem,
    StudyResponse,
    System,
    User,
)
from annotation.services.audit import record
from jobs.models import Job


class Site(admin.AdminSite):
    site_header = site_title = _("Qingting tables")
    index_title = _("For looking; changes go through the site's pages")
    enable_nav_sidebar = False

    def has_permission(self, request: HttpRequest) -> bool:
        user = request.user
        if not (user.is_authenticated and user.is_active and user.is_admin):
            return False
        return not settings.STAFF_NEEDS_SECOND_FACTOR or has_passed_second_factor(request)

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:
        inner: Callable[..., HttpResponseBase] = super().admin_view(view, cacheable)

        # Django's own scripts write HTML as strings; every other directive of the policy stays.
        @csp_replace({"require-trusted-types-for": None, "trusted-types": None})
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if request.user.is_authenticated and not self.has_permission(request):
                raise Http404
            return inner(request, *args, **kwargs)

        return guarded

    def get_urls(self) -> list[URLResolver | URLPattern]:
        """Without the pages that nothing here uses."""
        unwanted = {"password_change_done", "view_on_site", "autocomplete"}
        return [route for route in super().get_urls() if getattr(route, "name", None) not in unwanted]

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The site's own sign-in, which asks for the second factor."""
        return redirect(f"{reverse('account_login')}?{urlencode({'next': reverse('admin:index')})}")

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_logout")

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_change_password")


site = Site(name="admin")

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class ReadOnly(_ModelAdmin):
    """A table to look at. `editable` names the few fields that no study and no log depends on."""

    editable: tuple[str, ...] = ()
    actions = None
    list_per_page = 50
    show_full_result_count = False  # no COUNT over millions of rows for a number nobody needs
    view_on_site = False

    def get_urls(self) -> list[URLPattern]:
        """The list, one row and its history: pages to add or delete do not even exist."""
        wanted = ("_changelist", "_change", "_history")
        return [route for route in super().get_urls() if (route.name or "").endswith(wanted)]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return True

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return bool(self.editable)

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        names = [field.name for field in self.opts.fields if field.name not in (self.exclude or ())]
        return [name for name in names if name not in self.editable]

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm[Any], change: bool) -> None:
        obj.save(update_fields=[name for name in form.changed_data if name in self.editable])
        record(
            "admin.changed",
            by=request.user,  # type: ignore[arg-type]  # has_permission let nobody else in
            table=self.opts.model_name,
            row=obj.pk,
            fields=sorted(form.changed_data),
        )


@admin.register(User, site=site)
class UserAdmin(ReadOnly):
    editable = ("first_name", "last_name", "language", "has_shortcuts")
    exclude = ("password", "groups", "user_permissions")
    list_display = ("username", "role", "first_name", "is_active", "last_login")
    list_filter = ("role", "is_active")
    search_fields = ("username", "first_name")


@admin.register(Member, site=site)
class MemberAdmin(ReadOnly):
    list_display = ("id", "study", "role", "number", "user", "n_final", "n_placements", "withdrawn_at")
    list_select_related = ("study", "user")
    list_filter = ("role",)


@admin.register(Invitation, site=site)
class InvitationAdmin(ReadOnly):
    exclude = ("token_hash",)
    list_display = ("id", "role", "label", "study", "created_at", "expires_at", "used_at", "revoked_at")
    list_select_related = ("study",)


@admin.register(ApiToken, site=site)
class ApiTokenAdmin(ReadOnly):
    exclude = ("token_hash",)
    list_display = ("name", "last_four", "user", "created_at", "expires_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)


@admin.register(PracticeAnswer, site=site)
class PracticeAnswerAdmin(ReadOnly):
    list_display = ("id", "member", "practice_set", "item_id", "is_within_tolerance", "created_at")
    list_select_related = ("member",)


@admin.register(AuditEvent, site=site)
class AuditEventAdmin(ReadOnly):
    list_display = ("id", "at", "action", "actor", "study", "detail")
    list_select_related = ("actor", "study")
    list_filter = ("action",)


@admin.register(Dataset, site=site)
class DatasetAdmin(ReadOnly):
    editable = ("source", "licence")
    list_display = ("slug", "name", "n_items", "created_at")


@admin.register(ImportRecord, site=site)
class ImportRecordAdmin(ReadOnly):
    list_display = ("id", "kind", "dataset", "file_name", "created_by", "created_at")
    list_select_related = ("dataset", "created_by")


@admin.register(Item, site=site)
class ItemAdmin(ReadOnly):
    list_display = ("id", "key", "dataset", "topic", "n_characters")
    list_select_related = ("dataset",)


@admin.register(System, site=site)
class SystemAdmin(ReadOnly):
    editable = ("description",)
    list_display = ("slug", "name", "kind", "created_at")


@admin.register(Response, site=site)
class ResponseAdmin(ReadOnly):
    list_display = ("id", "item", "system", "repeat", "created_at")
    list_select_related = ("item", "system")


@admin.register(Rubric, site=site)
class RubricAdmin(ReadOnly):
    list_display = ("slug", "version", "created_at")


@admin.register(Dimension, site=site)
class DimensionAdmin(ReadOnly):
    list_display = ("id", "rubric", "key", "order", "highest")
    list_select_related = ("rubric",)


@admin.register(Study, site=site)
class StudyAdmin(ReadOnly):
    list_display = ("name", "state", "rubric", "opened_at", "closed_at", "unblinded_at")
    list_select_related = ("rubric",)
    list_filter = ("state",)


@admin.register(Arm, site=site)
class ArmAdmin(ReadOnly):
    list_display = ("id", "study", "code", "system")
    list_select_related = ("study", "system")


@admin.register(StudyItem, site=site)
class StudyItemAdmin(ReadOnly):
    list_display = ("id", "study", "number", "item")
    list_select_related = ("study", "item")


@admin.register(StudyResponse, site=site)
class StudyResponseAdmin(ReadOnly):
    list_display = ("id", "study_item", "arm", "n_masks")
    list_select_related = ("study_item", "arm")


@admin.register(Assignment, site=site)
class AssignmentAdmin(ReadOnly):
    list_display = ("id", "rater", "study_item", "is_repeat")
    list_select_related = ("rater", "study_item")


@admin.register(Placement, site=site)
class PlacementAdmin(ReadOnly):
    list_display = ("public_id", "rater", "slot", "position", "state", "rev", "submitted_at")
    list_select_related = ("rater",)


@admin.register(Rating, site=site)
class RatingAdmin(ReadOnly):
    list_display = ("id", "placement", "dimension", "value")
    list_select_related = ("placement", "dimension")


@admin.register(RatingEvent, site=site)
class RatingEventAdmin(ReadOnly):
    list_display = ("op_id", "placement", "rev", "state", "created_at")
    list_select_related = ("placement",)


@admin.register(AuthorGuess, site=site)
class AuthorGuessAdmin(ReadOnly):
    list_display = ("id", "placement", "arm", "created_at")
    list_select_related = ("placement", "arm")


@admin.register(Judge, site=site)
class JudgeAdmin(ReadOnly):
    list_display = ("name", "study", "model", "n_ratings", "created_by", "created_at")
    list_select_related = ("study", "created_by")


@admin.register(JudgeRating, site=site)
class JudgeRatingAdmin(ReadOnly):
    list_display = ("id", "judge", "study_response", "dimension", "value")
    list_select_related = ("judge", "study_response", "dimension")


@admin.register(Job, site=site)
class JobAdmin(ReadOnly):
    list_display = ("public_id", "kind", "state", "attempt", "created_by", "created_at", "finished_at")
    list_select_related = ("created_by",)
    list_filter = ("state", "kind")
