"""Studies: set up, preview, open, watch, close, unblind."""

from django.urls import path

from annotation.views import research

urlpatterns = [
    path("studies/", research.study_list, name="study_list"),
    path("studies/new/", research.study_new, name="study_new"),
    path("studies/<uuid:public_id>/", research.study_detail, name="study_detail"),
    path("studies/<uuid:public_id>/set-up/", research.study_setup, name="study_setup"),
    path("studies/<uuid:public_id>/set-up/name/", research.study_setup_name, name="study_setup_name"),
    path("studies/<uuid:public_id>/set-up/items/", research.study_setup_items, name="study_setup_items"),
    path("studies/<uuid:public_id>/set-up/items/remove/", research.study_setup_remove, name="study_setup_remove"),
    path("studies/<uuid:public_id>/set-up/systems/", research.study_setup_systems, name="study_setup_systems"),
    path("studies/<uuid:public_id>/set-up/raters/", research.study_setup_raters, name="study_setup_raters"),
    path("studies/<uuid:public_id>/set-up/options/", research.study_setup_options, name="study_setup_options"),
    path("studies/<uuid:public_id>/set-up/consent/", research.study_setup_consent, name="study_setup_consent"),
    path("studies/<uuid:public_id>/preview/", research.study_preview, name="study_preview"),
    path("studies/<uuid:public_id>/open/", research.study_open, name="study_open"),
    path("studies/<uuid:public_id>/pause/", research.study_pause, name="study_pause"),
    path("studies/<uuid:public_id>/resume/", research.study_resume, name="study_resume"),
    path("studies/<uuid:public_id>/close/", research.study_close, name="study_close"),
    path("studies/<uuid:public_id>/progress/", research.study_progress, name="study_progress"),
    path("studies/<uuid:public_id>/progress/now/", research.study_progress_fragment, name="study_progress_fragment"),
    path("studies/<uuid:public_id>/flags/", research.study_flags, name="study_flags"),
    path("studies/<uuid:public_id>/plan/", research.study_plan, name="study_plan"),
    path("studies/<uuid:public_id>/unblind/", research.study_unblind, name="study_unblind"),
    path("studies/<uuid:public_id>/audit/", research.study_audit, name="study_audit"),
]
