"""Runs of training, corpora, rewritings."""

from django.urls import URLPattern, path

from training.views import corpora, rewritings, runs

urlpatterns: list[URLPattern] = [
    path("training/", runs.run_list, name="run_list"),
    path("training/new/", runs.run_new, name="run_new"),
    path("training/confirm/", runs.run_confirm, name="run_confirm"),
    path("training/<uuid:public_id>/", runs.run_detail, name="run_detail"),
    path("training/<uuid:public_id>/part/", runs.run_fragment, name="run_fragment"),
    path("training/<uuid:public_id>/stop/", runs.run_stop, name="run_stop"),
    path("training/<uuid:public_id>/resume/", runs.run_resume, name="run_resume"),
    path("training/<uuid:public_id>/remove/", runs.run_remove, name="run_remove"),
    path("training/<uuid:public_id>/checkpoints/remove/", runs.run_remove_checkpoints, name="run_remove_checkpoints"),
    path("training/<uuid:public_id>/<slug:table>.csv", runs.run_table, name="run_table"),
    path("training/corpora/", corpora.corpus_list, name="corpus_list"),
    path("training/corpora/new/", corpora.corpus_new, name="corpus_new"),
    path("training/corpora/<uuid:public_id>/", corpora.corpus_detail, name="corpus_detail"),
    path("training/corpora/<uuid:public_id>/<slug:key>.<slug:format>", corpora.corpus_figure, name="corpus_figure"),
    path("training/corpora/<uuid:public_id>/remove/", corpora.corpus_remove, name="corpus_remove"),
    path("training/corpora/<uuid:public_id>/leaks/", corpora.corpus_leaks, name="corpus_leaks"),
    path("training/corpora/<uuid:public_id>/import-test/", corpora.corpus_import_test, name="corpus_import_test"),
    path("training/corpora/<uuid:public_id>/review/", corpora.corpus_review, name="corpus_review"),
    path("training/corpora/<uuid:public_id>/review/<slug:name>/", corpora.corpus_decide, name="corpus_decide"),
    path("training/corpora/<uuid:public_id>/again/", corpora.corpus_again, name="corpus_again"),
    path("training/rewritings/", rewritings.rewriting_list, name="rewriting_list"),
    path("training/rewritings/new/", rewritings.rewriting_new, name="rewriting_new"),
    path("training/rewritings/<uuid:public_id>/", rewritings.rewriting_detail, name="rewriting_detail"),
    path("training/rewritings/<uuid:public_id>/pause/", rewritings.rewriting_pause, name="rewriting_pause"),
    path("training/rewritings/<uuid:public_id>/resume/", rewritings.rewriting_resume, name="rewriting_resume"),
    path(
        "training/rewritings/<uuid:public_id>/dialogues.jsonl", rewritings.rewriting_download, name="rewriting_download"
    ),
]
