"""Coming in, accounts, invitations and tokens.

allauth's routes are listed one by one: whatever is not here (sign-up, e-mail, password reset, social log-in) does
not exist on this site.
"""

from allauth.account import views as account_views
from allauth.mfa.base import views as mfa_views
from allauth.mfa.recovery_codes import views as code_views
from django.urls import URLPattern, path

from annotation.views import account, people

_ALLAUTH = [
    path("account/login/", account_views.login, name="account_login"),
    path("account/logout/", account.sign_out, name="account_logout"),
    path("account/inactive/", account_views.account_inactive, name="account_inactive"),
    path("account/reauthenticate/", account_views.reauthenticate, name="account_reauthenticate"),
    path("account/password/set/", account.SetPassword.as_view(), name="account_set_password"),
    path("account/password/change/", account.ChangePassword.as_view(), name="account_change_password"),
    path("account/second-factor/", mfa_views.index, name="mfa_index"),
    path("account/second-factor/authenticate/", mfa_views.authenticate, name="mfa_authenticate"),
    path("account/second-factor/reauthenticate/", mfa_views.reauthenticate, name="mfa_reauthenticate"),
    path("account/second-factor/totp/activate/", account.ActivateTOTP.as_view(), name="mfa_activate_totp"),
    path("account/second-factor/totp/deactivate/", account.DeactivateTOTP.as_view(), name="mfa_deactivate_totp"),
    path("account/second-factor/codes/", code_views.view_recovery_codes, name="mfa_view_recovery_codes"),
    path("account/second-factor/codes/new/", code_views.generate_recovery_codes, name="mfa_generate_recovery_codes"),
    path(
        "account/second-factor/codes/download/",
        code_views.download_recovery_codes,
        name="mfa_download_recovery_codes",
    ),
]

urlpatterns: list[URLPattern] = [
    path("", people.home, name="home"),
    path("help/", people.help_page, name="help"),
    path("healthz", people.healthz, name="healthz"),
    path("robots.txt", people.robots, name="robots"),
    path("language/", people.set_language, name="set_language"),
    path("join/<str:token>/", people.accept_invitation, name="accept_invitation"),
    path("account/", people.account, name="account"),
    path("account/tokens/", people.api_tokens, name="api_tokens"),
    path("account/tokens/<uuid:public_id>/revoke/", people.api_token_revoke, name="api_token_revoke"),
    *_ALLAUTH,
    path("people/", people.people, name="people"),
    path("people/invite/", people.invite_staff, name="invite_staff"),
    path("people/revoke/", people.revoke_staff_invitation, name="revoke_staff_invitation"),
    path("people/<str:username>/link/", people.make_sign_in_link, name="make_sign_in_link"),
    path("people/<str:username>/deactivate/", people.deactivate_person, name="deactivate_person"),
    path("people/<str:username>/reactivate/", people.reactivate_person, name="reactivate_person"),
    path("people/<str:username>/second-factor/", people.remove_second_factor, name="remove_second_factor"),
    path("studies/<uuid:public_id>/people/", people.study_people, name="study_people"),
    path("studies/<uuid:public_id>/people/seats/<uuid:seat>/link/", people.make_seat_link, name="make_seat_link"),
    path("studies/<uuid:public_id>/people/invite/", people.invite_researcher, name="invite_researcher"),
    path("studies/<uuid:public_id>/people/revoke/", people.revoke_study_invitation, name="revoke_study_invitation"),
    path("studies/<uuid:public_id>/people/add/", people.add_researcher, name="add_researcher"),
]
