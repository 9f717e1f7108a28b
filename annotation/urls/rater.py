"""What a rater meets, from consent to the last page."""

from django.urls import path

from annotation.views import rater

urlpatterns = [
    path("rater/", rater.home, name="rater_home"),
    path("rater/<uuid:seat>/consent/", rater.consent, name="rater_consent"),
    path("rater/<uuid:seat>/guide/", rater.guide, name="rater_guide"),
    path("rater/<uuid:seat>/practice/", rater.practice, name="rater_practice"),
    path("rater/<uuid:seat>/rate/", rater.rate, name="rate"),
    path("rater/<uuid:seat>/rate/<uuid:public_id>/", rater.rate, name="rate_placement"),
    path("rater/<uuid:seat>/rate/<uuid:public_id>/previous/", rater.previous, name="rate_previous"),
    path("rater/<uuid:seat>/rate/<uuid:public_id>/notice/", rater.notice, name="rate_notice"),
    path("rater/<uuid:seat>/break/", rater.take_break, name="rater_break"),
    path("rater/<uuid:seat>/progress/", rater.progress_page, name="rater_progress"),
    path("rater/<uuid:seat>/done/", rater.done, name="rater_done"),
    path("rater/<uuid:seat>/finish/", rater.finish, name="rater_finish"),
    path("rater/<uuid:seat>/writers/", rater.authors, name="rater_authors"),
    path("rater/<uuid:seat>/withdraw/", rater.withdraw_page, name="rater_withdraw"),
]
