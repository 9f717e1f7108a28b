"""Who may call an endpoint. Signed out: 401. Signed in with another role: 404, as if it were not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import Http404
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from annotation.models import Role

if TYPE_CHECKING:  # the framework reads this module, as a setting, while it loads its own views
    from rest_framework.views import APIView


class _HasRole(BasePermission):
    roles: frozenset[str] = frozenset()

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not request.user or not request.user.is_authenticated:
            return False
        if request.user.role not in self.roles:
            raise Http404
        return True


class Nobody(_HasRole):
    """The default: an endpoint that names no permission is closed."""


class IsRater(_HasRole):
    roles = frozenset({Role.RATER.value})


class IsStaffRole(_HasRole):
    roles = frozenset({Role.RESEARCHER.value, Role.ADMIN.value})


class IsAdminRole(_HasRole):
    roles = frozenset({Role.ADMIN.value})
