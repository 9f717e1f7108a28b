"""Datasets, systems and imports."""

from django.urls import URLPattern, path

from annotation.views import library

urlpatterns: list[URLPattern] = [
    path("datasets/", library.dataset_list, name="dataset_list"),
    path("datasets/<uuid:public_id>/", library.dataset_detail, name="dataset_detail"),
    path("imports/new/", library.import_new, name="import_new"),
    path("imports/<uuid:public_id>/", library.import_detail, name="import_detail"),
    path("systems/", library.system_list, name="system_list"),
    path("systems/new/", library.system_new, name="system_new"),
    path("systems/<uuid:public_id>/", library.system_detail, name="system_detail"),
]
