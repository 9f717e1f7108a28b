"""score with one more option: nearness of meaning by a sentence encoder in a local folder."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import CommandError

from annotation.formats.pairs import PairTable
from annotation.management.commands.score import Command as ScoreCommand
from annotation.management.importing import ProgressLine
from annotation.reporting.table import Cell, Column, Table
from metrics.embedding import METRICS, embedding_scores
from metrics.results import ResultRow
from models_runtime.engine.errors import EngineError

TITLES = ("Precision", "Recall", "F1")


class Command(ScoreCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--embedding",
            type=Path,
            metavar="FOLDER",
            help="also BERTScore, by the encoder in this folder (safetensors)",
        )
        parser.add_argument("--layer", type=int, metavar="N", help="of the encoder (default: two thirds of the way up)")
        parser.add_argument("--device", default="cpu", help="of the encoder: cpu (default) or cuda")

    def further(self, pairs: PairTable, options: dict[str, Any]) -> tuple[list[Table], list[ResultRow]]:
        folder: Path | None = options["embedding"]
        if folder is None:
            return [], []
        # Here and not above: it loads torch, which takes seconds that other scores need not wait.
        from models_runtime.engine.embedding import load_encoder, similarity

        try:
            encoder = load_encoder(folder, layer=options["layer"], device=options["device"])
        except EngineError as error:
            raise CommandError(f"--embedding: {error}") from error
        progress = ProgressLine(self.stderr)
        found = similarity(
            pairs.hypotheses,
            pairs.references,
            encoder,
            on_progress=lambda done, total: progress("Encoded", done, total),
        )
        progress.end()
        if found.n_cut:
            self.stderr.write(f"{found.n_cut} texts were longer than the encoder reads; only their beginnings count.")
        clusters = np.unique(np.array(pairs.clusters, dtype=object).astype(str), return_inverse=True)[1].astype(
            np.int64
        )
        seed = options["seed"] if options["interval"] else None
        rows = []
        for system, scores_NM in found.scores_NM.items():
            estimates = embedding_scores(scores_NM, pairs.references, encoder.source, clusters=clusters, seed=seed)
            whose = {"system": system} if system else {}
            rows += [ResultRow(metric, "", e, whose, {"protocol": "embedding"}) for metric, e in estimates.items()]
        return [_table(rows)], rows


def _table(rows: list[ResultRow]) -> Table:
    systems = list(dict.fromkeys(row.stratum.get("system", "") for row in rows))
    of = {(row.stratum.get("system", ""), row.metric): row.estimate for row in rows}
    has_names = systems != [""]
    lines = []
    for system in systems:
        estimates = [of[system, metric] for metric in METRICS]
        scores = [Cell(text="–") if estimate.reason else Cell(estimate=estimate) for estimate in estimates]
        lines.append([*([Cell(text=system)] if has_names else []), *scores, Cell(value=estimates[0].n["pairs"])])
    columns = [
        *([Column("system", "system")] if has_names else []),
        *(Column(metric, title, "number") for metric, title in zip(METRICS, TITLES, strict=True)),
        Column("pairs", "Pairs", "count"),
    ]
    caption = "Greedy matching of the words' vectors, percent; not rescaled, so only differences mean something."
    return Table("scores-embedding", "Scores by embedding", caption, columns, lines)
