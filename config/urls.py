"""One include per app."""

from django.urls import include, path

from annotation.admin import site

urlpatterns = [
    path("", include("annotation.urls")),
    path("", include("models_runtime.urls")),
    path("", include("training.urls")),
    path("api/v1/", include("annotation.api.urls")),
    path("django-admin/", site.urls),
]

handler403 = "annotation.views.errors.forbidden"
handler404 = "annotation.views.errors.not_found"
handler500 = "annotation.views.errors.server_error"
