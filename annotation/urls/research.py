"""Studies: set up, watch, close, report, unblind."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
