"""Systems that answer, templates, batches."""

from django.urls import URLPattern, path

from models_runtime.views import batches, runtimes

urlpatterns: list[URLPattern] = [
    path("systems/<uuid:public_id>/runtime/", runtimes.runtime, name="runtime"),
    path("systems/<uuid:public_id>/runtime/try/", runtimes.runtime_try, name="runtime_try"),
    path("templates/", runtimes.template_list, name="template_list"),
    path("templates/new/", runtimes.template_new, name="template_new"),
    path("templates/<slug:template_id>/", runtimes.template_detail, name="template_detail"),
    path("batches/", batches.batch_list, name="batch_list"),
    path("batches/new/", batches.batch_new, name="batch_new"),
    path("batches/confirm/", batches.batch_confirm, name="batch_confirm"),
    path("batches/<uuid:public_id>/", batches.batch_detail, name="batch_detail"),
    path("batches/<uuid:public_id>/pause/", batches.batch_pause, name="batch_pause"),
    path("batches/<uuid:public_id>/resume/", batches.batch_resume, name="batch_resume"),
    path("batches/<uuid:public_id>/cancel/", batches.batch_cancel, name="batch_cancel"),
    path("batches/<uuid:public_id>/retry/", batches.batch_retry, name="batch_retry"),
]
