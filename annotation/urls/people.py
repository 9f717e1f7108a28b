"""Coming in, accounts, invitations and tokens."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
