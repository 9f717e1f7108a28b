"""Work in the background."""

from django.urls import URLPattern, path

from annotation.views import jobs

urlpatterns: list[URLPattern] = [
    path("jobs/", jobs.job_list, name="job_list"),
    path("jobs/<uuid:public_id>/", jobs.job_detail, name="job_detail"),
    path("jobs/<uuid:public_id>/fragment/", jobs.job_fragment, name="job_fragment"),
    path("jobs/<uuid:public_id>/cancel/", jobs.job_cancel, name="job_cancel"),
    path("jobs/<uuid:public_id>/retry/", jobs.job_retry, name="job_retry"),
]
