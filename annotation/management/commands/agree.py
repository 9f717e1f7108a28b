"""agree: every agreement coefficient of any ratings, with intervals, without a database."""

from __future__ import annotations

from argparse import ArgumentParser
from contextlib import suppress
from typing import Any, get_args

import pandas as pd
from django.core.management.base import CommandError
from django.utils.translation import override

from annotation import problems
from annotation.formats.problems import Findings, TooManyProblems
from annotation.formats.ratings import Layout, RatingFields, read_ratings
from annotation.management.plainfiles import PlainFileCommand, opened, refused
from annotation.plainfiles import agreement_tables, written
from metrics.panels import ConstantKappa, agreement_panel
from metrics.table import RatingTable, Scale

UNNAMED = "rating"  # the dimension of a scale without a name
SPLITS = ("system", "dataset", "topic")
FIELDS = "--item, --rater, --value, --system, --dimension or --dialogue"
EXAMPLES = """\
examples:
  manage.py agree ratings.csv --scale empathy=0,1,2 --scale safety=0,1
      long: a row for each rating, columns item, rater, dimension, value and, where known, system, dialogue
  manage.py agree sheet.csv --scale 0,1,2 --item id --rater ann,bob,cem
      wide: a row for each item, a column for each rater
  manage.py agree ratings.jsonl --scale empathy=0,1,2 --by system --dialogue conversation --format latex
      also within each system; whole conversations are resampled
  manage.py agree ratings.csv --scale safety=0,1 --constant-kappa paper_one --format json
      where everyone gave the same score, Fleiss' kappa is 1 by convention instead of undefined

A scale names all its points, used or not: unused points count in some coefficients. A rating that was not given is an
empty cell or no row at all; it is left out and never filled in. Nothing is asked of the database.
"""


class Command(PlainFileCommand):
    help = "Agreement of raters from a JSONL, CSV or XLSX file: all coefficients, with intervals."
    examples = EXAMPLES

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="ratings")
        parser.add_argument(
            "--scale", action="append", required=True, metavar="DIMENSION=POINTS",
            help="a dimension and its points, such as empathy=0,1,2; 0,1,2 alone if there is but one dimension",
        )  # fmt: skip
        parser.add_argument(
            "--layout", choices=get_args(Layout), help="default: long if there are columns for rater and value"
        )
        parser.add_argument("--item", default="item", metavar="FIELD", help="what was rated")
        parser.add_argument("--rater", metavar="FIELD", help="long: the rater's column; wide: ann,bob,cem")
        parser.add_argument("--value", default="value", metavar="FIELD", help="the rating, in a long table")
        parser.add_argument("--system", metavar="FIELD", help='who wrote what was rated; "system" if it is there')
        parser.add_argument("--dimension", metavar="FIELD", help='"dimension" if there is such a column')
        parser.add_argument("--dialogue", metavar="FIELD", help='what is drawn as a whole; "dialogue" if it is there')
        parser.add_argument("--by", action="append", choices=SPLITS, help="also within each of these (may be repeated)")
        parser.add_argument("--constant-kappa", choices=get_args(ConstantKappa), default="undefined")
        self.add_output(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["language"]:
            with override(options["language"]):
                self._agree(options)
        else:
            self._agree(options)

    def _agree(self, options: dict[str, Any]) -> None:
        scales = [_scale(text) for text in options["scale"]]
        if len({scale.dimension for scale in scales}) < len(scales):
            raise CommandError("--scale: a dimension has two scales.")
        table = self._read(options, scales)
        by = options["by"]
        if by is None:
            by = [name for name in SPLITS if table.has(name) and len(table.levels(name)) > 1]
        rows = agreement_panel(table, by=by, seed=options["seed"], constant_kappa=options["constant_kappa"])
        self.stdout.write(written(agreement_tables(rows), rows, options["format"]))

    def _read(self, options: dict[str, Any], scales: list[Scale]) -> RatingTable:
        named = {what: options[what] for what in ("system", "dimension") if options[what]}
        if options["dialogue"]:
            named["cluster"] = options["dialogue"]
        raters: list[str] = []
        rater = options["rater"] or "rater"
        if options["layout"] == "wide" or "," in rater:
            raters = [name.strip() for name in rater.split(",") if name.strip()] if options["rater"] else []
        fields = RatingFields(item=options["item"], rater=rater, value=options["value"], **named)
        source, file_format = opened(options["file"])
        findings = Findings()
        with suppress(TooManyProblems):
            found = read_ratings(
                source,
                file_format,
                fields,
                {scale.dimension: scale.points for scale in scales},
                findings,
                layout="wide" if raters else options["layout"],
                raters=raters,
                needed=[*named, *(options["by"] or [])],
            )
        if findings.problems:
            raise refused(findings, FIELDS)
        self.said_encoding(source, findings)
        if not found.rows:
            raise CommandError(
                f"{problems.plain(source.name)}: there is no rating in it; {found.n_missing} cells are empty."
            )
        if found.n_missing:
            self.stderr.write(f"{found.n_missing} cells are empty and were left out.")
        return RatingTable.from_frame(pd.DataFrame(found.rows), scales)


def _scale(text: str) -> Scale:
    """ "empathy=0,1,2" as a scale. Raises CommandError if it is none."""
    name, _, points = text.rpartition("=")
    try:
        return Scale(name.strip() or UNNAMED, tuple(float(point) for point in points.split(",")))
    except ValueError as error:
        raise CommandError(
            f"--scale {problems.plain(text)}: name a dimension and its points in rising order, such as empathy=0,1,2."
        ) from error
