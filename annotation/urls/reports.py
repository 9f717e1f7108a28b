"""The report of a study and its files."""

from django.urls import URLPattern, path

from annotation.views import reports

urlpatterns: list[URLPattern] = [
    path("studies/<uuid:public_id>/report/", reports.study_report, name="study_report"),
    path("studies/<uuid:public_id>/export/<slug:kind>/<slug:format>/", reports.study_export, name="study_export"),
]
