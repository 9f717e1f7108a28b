"""corpus_figures: what a corpus is like, drawn from its statistics; for the page and, as PDF, for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import get_language
from django.utils.translation import gettext as _

from annotation import topics
from annotation.figures import charts
from annotation.figures.charts import Chart, Words
from annotation.reporting.figures import Figure
from training.models import Corpus

N_WORDS = 30


def corpus_figures(corpus: Corpus) -> list[Figure]:
    """All figures of a corpus, in the reader's language; those that its folder says nothing about are left out."""
    known: Mapping[str, Any] = corpus.statistics
    figures = []
    if "topics" in known:
        figures += [
            _figure("topics", _("Topics"), _("Dialogues of the training by topic."), _topics(known)),
            _figure(
                "words",
                _("Words of the counsellor"),
                _("The most frequent words of at least two characters, without stop words, in the training."),
                _words_said(known),
            ),
        ]
    for key, title, x, y in (
        ("rounds", _("Rounds of a dialogue"), _("Counsellor turns"), _("Dialogues")),
        ("client_characters", _("Length of client turns"), _("Length in characters"), _("Turns")),
        ("counsellor_characters", _("Length of counsellor turns"), _("Length in characters"), _("Turns")),
        ("context_tokens", _("Length of contexts"), _("Length in tokens"), _("Samples")),
        ("target_tokens", _("Length of targets"), _("Length in tokens"), _("Samples")),
    ):
        if key in known:
            caption = _("In the training; each bar counts what is at least as long as its left end.")
            figures.append(_figure(key, title, caption, _histogram(known[key], title, x, y)))
    return figures


def _figure(key: str, title: str, caption: str, chart: Chart) -> Figure:
    return Figure(key.replace("_", "-"), title, caption, chart)


def _words() -> Words:
    return Words(
        empty=_("Nothing to draw yet."),
        name=_("Name"),
        count=_("Count"),
        share=_("Share"),
        at_least=_("From"),
        below=_("To"),
    )


def _topics(known: Mapping[str, Any]) -> Chart:
    names = topics.names(get_language() or "")
    rows = [(names[slug], known["topics"].get(slug, 0)) for slug in names]
    n_other = sum(known["unknown_topics"].values())
    rows += [(_("other topics"), n_other), (_("no topic"), known["topics"].get("", 0) - n_other)]
    rows.sort(key=lambda row: -row[1])
    return charts.bars(rows, title=_("Topics"), lang=get_language() or "en", words=_words())


def _words_said(known: Mapping[str, Any]) -> Chart:
    rows = [(term["word"], term["n"]) for term in known["terms"][:N_WORDS]]
    title = _("Words of the counsellor")
    return charts.bars(rows, title=title, has_shares=False, lang=get_language() or "en", words=_words())


def _histogram(counts: Mapping[str, int], title: str, x: str, y: str) -> Chart:
    return charts.histogram(
        [int(length) for length in counts],
        times=list(counts.values()),
        is_whole=True,
        title=title,
        x=x,
        y=y,
        lang=get_language() or "en",
        words=_words(),
    )
