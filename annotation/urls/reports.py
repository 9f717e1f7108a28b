"""The report of a study and its files."""

from django.urls import URLPattern, path

from annotation.views import judges, reports

urlpatterns: list[URLPattern] = [
    path("studies/<uuid:public_id>/report/", reports.study_report, name="study_report"),
    path("studies/<uuid:public_id>/report/state/", reports.study_report_job, name="study_report_job"),
    path("studies/<uuid:public_id>/export/<slug:kind>/<slug:format>/", reports.study_export, name="study_export"),
    path("studies/<uuid:public_id>/report/<slug:key>.<slug:format>", reports.study_table, name="study_table"),
    path("studies/<uuid:public_id>/figures/<slug:key>.<slug:format>", reports.study_figure, name="study_figure"),
    path("studies/<uuid:public_id>/archive.zip", reports.study_archive, name="study_archive"),
    path("studies/<uuid:public_id>/judges/", judges.study_judges, name="study_judges"),
    path("studies/<uuid:public_id>/judges/<uuid:judge>/delete/", judges.judge_delete, name="judge_delete"),
]
