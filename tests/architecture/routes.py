"""THE TABLE: what every route answers to everybody. A new route without a row fails test_routes.py.

One line per route and method. `of` names the object the address belongs to (see `addresses` in test_routes.py):
"study" is open, `researcher` works on it and `rater` sits in it; "draft" is a second study of the same researcher.
`other_rater` sits in the same study in another seat; `other_researcher` works elsewhere.

302 for `anonymous` means: sign in first. 404 means: not for you, whether it exists or not. Never 403 for that.
Routes of Django's admin follow one rule (ADMIN_RULE) and need no lines.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ROLES = ("anonymous", "rater", "other_rater", "researcher", "other_researcher", "admin")


@dataclass(frozen=True)
class Row:
    name: str
    method: str
    of: str
    anonymous: int
    rater: int
    other_rater: int
    researcher: int
    other_researcher: int
    admin: int
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def is_api(self) -> bool:
        return self.name.startswith("api_") and self.name not in ("api_tokens", "api_token_revoke")


OP = {
    "op_id": "6f2a1c1e-5c8e-4a52-9d0b-3f4a5b6c7d8e",
    "base_rev": 0,
    "scores": {},
    "is_final": False,
}
FINAL = {"op_id": "6f2a1c1e-5c8e-4a52-9d0b-3f4a5b6c7d8e", "base_rev": "0"}

CONSENT = {"has_agreed": "on", "is_ready_for_sensitive": "on"}
LANGUAGE = {"language": "en", "next": "/help/"}
NOBODY = {"login": "nobody", "password": "wrong guess here"}
PASSWORD = "correct horse battery"  # the researcher has one; everybody else came in by a link
NEW_PASSWORD = {"password1": "a fine long sentence", "password2": "a fine long sentence"}

LAUNCH = {"key": "6f2a1c1e-5c8e-4a52-9d0b-3f4a5b6c7d8e"}  # without one, such a page is asked for again with one

# fmt: off
TABLE = [
    #   name                        method  of            anon rater other resea other admin  body
    # --- the door ---
    Row("home",                     "GET",  "",           302, 302, 302, 302, 302, 302),
    Row("help",                     "GET",  "",           200, 200, 200, 200, 200, 200),
    Row("healthz",                  "GET",  "",           200, 200, 200, 200, 200, 200),
    Row("robots",                   "GET",  "",           200, 200, 200, 200, 200, 200),
    Row("set_language",             "POST", "",           302, 302, 302, 302, 302, 302, LANGUAGE),
    Row("accept_invitation",        "GET",  "seat link",  200, 200, 200, 200, 200, 200),
    Row("accept_invitation",        "POST", "seat link",  302, 409, 409, 409, 409, 409),
    # --- one's own account ---
    Row("account",                  "GET",  "",           302, 200, 200, 200, 200, 200),
    Row("account",                  "POST", "",           302, 302, 302, 302, 302, 302, LANGUAGE),
    Row("api_tokens",               "GET",  "",           302, 404, 404, 200, 200, 200),
    Row("api_tokens",               "POST", "",           302, 404, 404, 200, 200, 200, {"name": "t", "days": 30}),
    Row("api_token_revoke",         "POST", "token",      302, 404, 404, 302, 404, 404),
    Row("account_login",            "GET",  "",           200, 302, 302, 302, 302, 302),
    Row("account_login",            "POST", "",           200, 302, 302, 302, 302, 302, NOBODY),
    Row("account_logout",           "GET",  "",           302, 200, 200, 200, 200, 200),
    Row("account_logout",           "POST", "",           302, 302, 302, 302, 302, 302),
    Row("account_inactive",         "GET",  "",           200, 200, 200, 200, 200, 200),
    Row("account_reauthenticate",   "GET",  "",           302, 403, 403, 200, 403, 403),
    Row("account_reauthenticate",   "POST", "",           302, 403, 403, 302, 403, 403, {"password": PASSWORD}),
    Row("account_set_password",     "GET",  "",           302, 200, 200, 302, 200, 200),
    Row("account_set_password",     "POST", "",           302, 302, 302, 302, 302, 302, NEW_PASSWORD),
    Row("account_change_password",  "GET",  "",           302, 302, 302, 200, 302, 302),
    Row("account_change_password",  "POST", "",           302, 302, 302, 200, 302, 302),
    Row("mfa_index",                "GET",  "",           302, 200, 200, 200, 200, 200),
    Row("mfa_authenticate",         "GET",  "",           302, 302, 302, 302, 302, 302),
    Row("mfa_authenticate",         "POST", "",           302, 302, 302, 302, 302, 302, {"code": "000000"}),
    Row("mfa_reauthenticate",       "GET",  "",           302, 403, 403, 302, 403, 403),
    Row("mfa_reauthenticate",       "POST", "",           302, 403, 403, 302, 403, 403, {"code": "000000"}),
    Row("mfa_activate_totp",        "GET",  "",           302, 200, 200, 302, 200, 200),
    Row("mfa_activate_totp",        "POST", "",           302, 200, 200, 302, 200, 200, {"code": "000000"}),
    Row("mfa_deactivate_totp",      "GET",  "",           302, 404, 404, 404, 404, 404),
    Row("mfa_deactivate_totp",      "POST", "",           302, 404, 404, 404, 404, 404),
    Row("mfa_view_recovery_codes",  "GET",  "",           302, 404, 404, 404, 404, 404),
    Row("mfa_generate_recovery_codes", "GET", "",         302, 200, 200, 302, 200, 200),
    Row("mfa_generate_recovery_codes", "POST", "",        302, 200, 200, 302, 200, 200),
    Row("mfa_download_recovery_codes", "GET", "",         302, 404, 404, 404, 404, 404),
    # --- people ---
    Row("people",                   "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("invite_staff",             "POST", "",           302, 404, 404, 404, 404, 200, {"role": "admin"}),
    Row("revoke_staff_invitation",  "POST", "",           302, 404, 404, 404, 404, 404, {"invitation": "999999"}),
    Row("make_sign_in_link",        "POST", "person",     302, 404, 404, 404, 404, 200),
    Row("deactivate_person",        "POST", "person",     302, 404, 404, 404, 404, 302),
    Row("reactivate_person",        "POST", "person",     302, 404, 404, 404, 404, 302),
    Row("remove_second_factor",     "POST", "person",     302, 404, 404, 404, 404, 302),
    Row("study_people",             "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("make_seat_link",           "POST", "study seat", 302, 404, 404, 200, 404, 200),
    Row("invite_researcher",        "POST", "study",      302, 404, 404, 200, 404, 200),
    Row("revoke_study_invitation",  "POST", "study",      302, 404, 404, 404, 404, 404, {"invitation": "999999"}),
    Row("add_researcher",           "POST", "study",      302, 404, 404, 422, 404, 422, {"username": "nobody"}),
    # --- raters ---
    Row("rater_home",               "GET",  "",           302, 302, 302, 404, 404, 404),
    Row("rater_consent",            "GET",  "seat",       302, 200, 404, 404, 404, 404),
    Row("rater_consent",            "POST", "seat",       302, 302, 404, 404, 404, 404, CONSENT),
    Row("rater_guide",              "GET",  "seat",       302, 200, 404, 404, 404, 404),
    Row("rater_practice",           "GET",  "seat",       302, 302, 404, 404, 404, 404),
    Row("rater_practice",           "POST", "seat",       302, 302, 404, 404, 404, 404),
    Row("rate",                     "GET",  "seat",       302, 200, 404, 404, 404, 404),
    Row("rate",                     "POST", "seat",       302, 200, 404, 404, 404, 404),
    Row("rate_placement",           "GET",  "placement",  302, 200, 404, 404, 404, 404),
    Row("rate_placement",           "POST", "placement",  302, 422, 404, 404, 404, 404, FINAL),
    Row("rate_previous",            "GET",  "placement",  302, 302, 404, 404, 404, 404),
    Row("rate_notice",              "POST", "placement",  302, 302, 404, 404, 404, 404, {"answer": "open"}),
    Row("rater_break",              "GET",  "seat",       302, 200, 404, 404, 404, 404),
    Row("rater_progress",           "GET",  "seat",       302, 200, 404, 404, 404, 404),
    Row("rater_done",               "GET",  "seat",       302, 302, 404, 404, 404, 404),
    Row("rater_done",               "POST", "seat",       302, 302, 404, 404, 404, 404),
    Row("rater_finish",             "POST", "seat",       302, 302, 404, 404, 404, 404),
    Row("rater_authors",            "GET",  "seat",       302, 302, 404, 404, 404, 404),
    Row("rater_authors",            "POST", "seat",       302, 302, 404, 404, 404, 404),
    Row("rater_withdraw",           "GET",  "seat",       302, 200, 404, 404, 404, 404),
    Row("rater_withdraw",           "POST", "seat",       302, 200, 404, 404, 404, 404),
    # --- studies ---
    Row("study_list",               "GET",  "",           302, 404, 404, 200, 200, 200),
    Row("study_new",                "GET",  "",           302, 404, 404, 200, 200, 200),
    Row("study_new",                "POST", "",           302, 404, 404, 302, 302, 302, {"name": "New"}),
    Row("study_detail",             "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_setup",              "GET",  "draft",      302, 404, 404, 200, 404, 200),
    Row("study_setup_name",         "POST", "draft",      302, 404, 404, 302, 404, 302, {"name": "Other"}),
    Row("study_setup_items",        "POST", "draft",      302, 404, 404, 422, 404, 422),
    Row("study_setup_remove",       "POST", "draft",      302, 404, 404, 302, 404, 302),
    Row("study_setup_systems",      "POST", "draft",      302, 404, 404, 302, 404, 302),
    Row("study_setup_raters",       "POST", "draft",      302, 404, 404, 422, 404, 422),
    Row("study_setup_options",      "POST", "draft",      302, 404, 404, 422, 404, 422),
    Row("study_setup_consent",      "POST", "draft",      302, 404, 404, 422, 404, 422),
    Row("study_preview",            "GET",  "draft",      302, 404, 404, 200, 404, 200),
    Row("study_open",               "POST", "draft",      302, 404, 404, 302, 404, 302),
    Row("study_pause",              "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_pause",              "POST", "study",      302, 404, 404, 302, 404, 302),
    Row("study_resume",             "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_resume",             "POST", "study",      302, 404, 404, 302, 404, 302),
    Row("study_close",              "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_close",              "POST", "study",      302, 404, 404, 302, 404, 302),
    Row("study_progress",           "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_progress_fragment",  "GET",  "study",      302, 404, 404, 302, 404, 302),
    Row("study_flags",              "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_plan",               "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_plan",               "POST", "study",      302, 404, 404, 302, 404, 302, {"plan": "Means by arm."}),
    Row("study_unblind",            "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_unblind",            "POST", "study",      302, 404, 404, 422, 404, 422),
    Row("study_audit",              "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_report",             "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_table",              "GET",  "table",      302, 404, 404, 200, 404, 200),
    Row("study_report_job",         "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_figure",             "GET",  "figure",     302, 404, 404, 404, 404, 404),
    Row("study_archive",            "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_judges",             "GET",  "study",      302, 404, 404, 200, 404, 200),
    Row("study_judges",             "POST", "study",      302, 404, 404, 422, 404, 422),
    Row("judge_delete",             "POST", "judge",      302, 404, 404, 302, 404, 302),
    Row("study_export",             "GET",  "export",     302, 404, 404, 200, 404, 200),
    # --- the library ---
    Row("dataset_list",             "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("dataset_detail",           "GET",  "dataset",    302, 404, 404, 404, 404, 200),
    Row("import_new",               "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("import_new",               "POST", "",           302, 404, 404, 404, 404, 422),
    Row("import_detail",            "GET",  "import",     302, 404, 404, 404, 404, 200),
    Row("system_list",              "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("system_new",               "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("system_new",               "POST", "",           302, 404, 404, 404, 404, 422),
    Row("system_detail",            "GET",  "system",     302, 404, 404, 404, 404, 200),
    Row("system_detail",            "POST", "system",     302, 404, 404, 404, 404, 422),
    # --- systems that answer ---
    Row("runtime",                  "GET",  "system",     302, 404, 404, 404, 404, 200),
    Row("runtime",                  "POST", "system",     302, 404, 404, 404, 404, 422),
    Row("runtime_try",              "POST", "system",     302, 404, 404, 404, 404, 302),
    Row("template_list",            "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("template_new",             "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("template_new",             "POST", "",           302, 404, 404, 404, 404, 422),
    Row("template_detail",          "GET",  "template",   302, 404, 404, 404, 404, 200),
    Row("template_detail",          "POST", "template",   302, 404, 404, 404, 404, 422),
    Row("batch_list",               "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("batch_new",                "GET",  "",           302, 404, 404, 404, 404, 302),
    Row("batch_confirm",            "GET",  "",           302, 404, 404, 404, 404, 302),
    Row("batch_confirm",            "POST", "",           302, 404, 404, 404, 404, 422, LAUNCH),
    Row("batch_detail",             "GET",  "batch",      302, 404, 404, 404, 404, 200),
    Row("batch_pause",              "POST", "batch",      302, 404, 404, 404, 404, 302),
    Row("batch_resume",             "POST", "batch",      302, 404, 404, 404, 404, 302),
    Row("batch_cancel",             "POST", "batch",      302, 404, 404, 404, 404, 302),
    Row("batch_retry",              "POST", "batch",      302, 404, 404, 404, 404, 302),
    # --- training ---
    Row("run_list",                 "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("run_new",                  "GET",  "",           302, 404, 404, 404, 404, 302),
    Row("run_confirm",              "GET",  "",           302, 404, 404, 404, 404, 302),
    Row("run_confirm",              "POST", "",           302, 404, 404, 404, 404, 422, LAUNCH),
    Row("run_detail",               "GET",  "run",        302, 404, 404, 404, 404, 200),
    Row("run_fragment",             "GET",  "run",        302, 404, 404, 404, 404, 200),
    Row("run_table",                "GET",  "run table",  302, 404, 404, 404, 404, 200),
    Row("run_stop",                 "POST", "run",        302, 404, 404, 404, 404, 302),
    Row("run_resume",               "POST", "run",        302, 404, 404, 404, 404, 302),
    Row("run_remove",               "GET",  "run",        302, 404, 404, 404, 404, 200),
    Row("run_remove",               "POST", "run",        302, 404, 404, 404, 404, 302),
    Row("run_remove_checkpoints",   "GET",  "run",        302, 404, 404, 404, 404, 200),
    Row("run_remove_checkpoints",   "POST", "run",        302, 404, 404, 404, 404, 302),
    # --- corpora ---
    Row("corpus_list",              "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("corpus_new",               "GET",  "",           302, 404, 404, 404, 404, 302),
    Row("corpus_new",               "POST", "",           302, 404, 404, 404, 404, 422, LAUNCH),
    Row("corpus_detail",            "GET",  "corpus",     302, 404, 404, 404, 404, 200),
    Row("corpus_figure",            "GET",  "corpus figure", 302, 404, 404, 404, 404, 200),
    Row("corpus_remove",            "GET",  "corpus",     302, 404, 404, 404, 404, 200),
    Row("corpus_remove",            "POST", "corpus",     302, 404, 404, 404, 404, 302),
    Row("corpus_leaks",             "POST", "corpus",     302, 404, 404, 404, 404, 302),
    Row("corpus_import_test",       "POST", "corpus",     302, 404, 404, 404, 404, 302),
    Row("corpus_review",            "GET",  "corpus",     302, 404, 404, 404, 404, 200),
    Row("corpus_decide",            "POST", "corpus case", 302, 404, 404, 404, 404, 302, {"verdict": "keep"}),
    Row("corpus_again",             "POST", "corpus",     302, 404, 404, 404, 404, 302),
    Row("rewriting_list",           "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("rewriting_new",            "GET",  "",           302, 404, 404, 404, 404, 302),
    Row("rewriting_new",            "POST", "",           302, 404, 404, 404, 404, 422, LAUNCH),
    Row("rewriting_detail",         "GET",  "rewriting",  302, 404, 404, 404, 404, 200),
    Row("rewriting_pause",          "POST", "rewriting",  302, 404, 404, 404, 404, 302),
    Row("rewriting_resume",         "POST", "rewriting",  302, 404, 404, 404, 404, 302),
    Row("rewriting_download",       "GET",  "rewriting",  302, 404, 404, 404, 404, 200),
    Row("job_list",                 "GET",  "",           302, 404, 404, 404, 404, 200),
    Row("job_detail",               "GET",  "job",        302, 404, 404, 404, 404, 200),
    Row("job_fragment",             "GET",  "job",        302, 404, 404, 404, 404, 200),
    Row("job_cancel",               "POST", "job",        302, 404, 404, 404, 404, 302),
    Row("job_retry",                "POST", "job",        302, 404, 404, 404, 404, 302),
    # --- API ---
    Row("api_docs",                 "GET",  "",           401, 404, 404, 200, 200, 200),
    Row("api_schema",               "GET",  "",           401, 404, 404, 200, 200, 200),
    Row("api_next",                 "GET",  "seat",       401, 200, 404, 404, 404, 404),
    Row("api_card",                 "GET",  "placement",  401, 200, 404, 404, 404, 404),
    Row("api_previous",             "GET",  "placement",  401, 200, 404, 404, 404, 404),
    Row("api_rating",               "PUT",  "placement only", 401, 200, 404, 404, 404, 404, OP),
    Row("api_notice",               "POST", "placement only", 401, 200, 404, 404, 404, 404, {"answer": "open"}),
    Row("api_study_list",           "GET",  "",           401, 404, 404, 200, 200, 200),
    Row("api_study_detail",         "GET",  "study",      401, 404, 404, 200, 404, 200),
    Row("api_study_ratings",        "GET",  "study",      401, 404, 404, 200, 404, 200),
    Row("api_study_scores",         "GET",  "study",      401, 404, 404, 200, 404, 200),
]
# fmt: on

# Django's admin: page -> what an admin gets for GET. Everybody else gets 404, and 302 (sign in) when signed out.
ADMIN_RULE = {
    "index": 200,
    "app_list": 200,
    "jsi18n": 200,
    "changelist": 200,
    "change": 200,
    "history": 200,
    "logout": 302,
    "password_change": 302,
    "login": 302,  # for everybody: only a way to the site's own sign-in
    "None": 404,
}
