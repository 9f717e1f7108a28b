"""The API under /api/v1/: its description for staff, the rating page's endpoints, exports."""

from django.urls import URLPattern, path
from drf_spectacular.views import SpectacularJSONAPIView

from annotation.api.docs import api_docs
from annotation.api.exports import export_urlpatterns
from annotation.api.rating import rating_urlpatterns

urlpatterns: list[URLPattern] = [
    path("schema/", SpectacularJSONAPIView.as_view(), name="api_schema"),
    path("docs/", api_docs, name="api_docs"),
    *rating_urlpatterns,
    *export_urlpatterns,
]
