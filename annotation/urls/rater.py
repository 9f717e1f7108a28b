"""What a rater meets, from consent to the last page."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
