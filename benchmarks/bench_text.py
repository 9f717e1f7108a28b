"""Text metrics against the script everybody copies: jieba, rouge_chinese and nltk, on the same pairs in one run.

    python -m benchmarks.bench_text [--pairs 1000 10000 80000] [--peer-pairs 10000] [--trials 10000]

Seconds are those of the processor, one core. Ours are per system when four systems share the references, with the
work on the references included; the peer is the P-tuning script of ChatGLM-6B with four BLEU orders instead of one.
A last table times the paired randomisation test against sacrebleu's. Texts are composed with a seed from invented
sentences. Prints Markdown; what each step found goes to the error stream as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is loaded: one core for both sides

import numpy as np

from benchmarks.results import Table
from metrics.randomisation import compare_systems
from metrics.segmentation import jieba_words, needs_jieba
from metrics.text import CHAR, CHATGLM, METRICS, REFERENCE, References, system_statistics, text_scores
from metrics.text import tokens_of as tokens_for
from tests.metrics.sentences import compose

N_SYSTEMS = 4
PACKAGES = ("jieba", "rjieba", "rapidfuzz", "numpy", "nltk", "rouge_chinese", "sacrebleu")
ODD_SHARE = 0.015  # leaves about one text in a hundred to jieba; in real counselling replies it is one in two hundred


def texts(n: int, seed: int) -> list[str]:
    return compose(n, seed=seed, odd_share=ODD_SHARE)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def peer(hypotheses: list[str], references: list[str]) -> list[float]:
    """Mean BLEU-1..4 and ROUGE-1/2/L in percent, as ptuning/main.py of ChatGLM-6B does it, without its rounding."""
    import jieba
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from rouge_chinese import Rouge

    scores = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        words, other = list(jieba.cut(hypothesis)), list(jieba.cut(reference))
        rouge = Rouge().get_scores(" ".join(words), " ".join(other))[0]
        smoothing = SmoothingFunction().method3
        bleu = [
            sentence_bleu([list(reference)], list(hypothesis), weights=(1 / n,) * n, smoothing_function=smoothing)
            for n in range(1, 5)
        ]
        scores.append([*bleu, *(rouge[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l"))])
    means: list[float] = (100 * np.mean(scores, axis=0)).tolist()
    return means


def ours(n: int, protocols: str) -> dict[str, Any]:
    """Run in a process of its own, so that the peak of memory is that of this run."""
    references, systems = texts(n, 0), {f"system {i}": texts(n, i) for i in range(1, N_SYSTEMS + 1)}
    jieba_words("SCL-90")  # both dictionaries are read once per process: a second that no size of data changes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tokens = CHATGLM.tokens if protocols == "chatglm" else tokens_for(CHATGLM, REFERENCE, CHAR)

    def score() -> dict[str, Any]:
        tables = system_statistics(systems, References(references, tokens=tokens, keep=False))
        return {name: text_scores(table) for name, table in tables.items()}

    spent, scores = seconds(score)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    first = scores["system 1"]
    return {
        "seconds_per_system": spent / N_SYSTEMS,
        "grown_mib": grown / 1024,
        "scores": [first[metric].value for metric in METRICS[:7]],
        "to_jieba": float(np.mean([needs_jieba(text) for text in systems["system 1"]])),
        "characters": float(np.mean([len(text) for text in systems["system 1"]])),
    }


def in_own_process(n: int, protocols: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_text", "--ours", str(n), protocols]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def randomisation(n: int, n_trials: int) -> dict[str, float]:
    """The test alone, counts at hand on both sides: sacrebleu tests BLEU-4, we test all ten metrics."""
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import Result, _paired_ar_test

    references, first, second = texts(n, 0), texts(n, 1), texts(n, 2)
    bleu = BLEU(tokenize="zh")
    counts = [bleu._extract_corpus_statistics(side, [references]) for side in (first, second)]
    bleu._extract_corpus_statistics = lambda *_: np.array(counts[1])  # type: ignore[method-assign]
    baseline = {"BLEU": (np.array(counts[0]), Result(bleu._aggregate_and_compute(counts[0]).score))}
    theirs, (_, result) = seconds(
        lambda: _paired_ar_test(baseline, "", second, [references], {"BLEU": bleu}, n_trials, seed=1)  # type: ignore[dict-item]
    )
    shared = References(references, tokens=REFERENCE.tokens)
    tables = system_statistics({"first": first, "second": second}, shared)
    spent, differences = seconds(
        lambda: compare_systems(
            tables["first"], tables["second"], REFERENCE, seed=1, n_permutations=n_trials, n_bootstrap=1
        )
    )
    return {
        "pairs": n, "trials": n_trials, "ours_seconds": spent, "sacrebleu_seconds": theirs,
        "ratio": theirs / spent, "our_p": differences["bleu_4"].p_randomisation, "sacrebleu_p": result["BLEU"].p_value,
    }  # fmt: skip


def run(sizes: list[int], peer_pairs: int, n_trials: int) -> dict[str, Any]:
    peer(texts(20, 0), texts(20, 1))  # reads jieba's dictionary
    rows = []
    for n in sizes:
        row: dict[str, Any] = {"pairs": n, "chatglm": in_own_process(n, "chatglm"), "all": in_own_process(n, "all")}
        if n <= peer_pairs:
            references, hypotheses = texts(n, 0), texts(n, 1)
            spent, scores = seconds(lambda h=hypotheses, r=references: peer(h, r))  # type: ignore[misc]
            row |= {"peer_seconds": spent, "ratio": spent / row["chatglm"]["seconds_per_system"]}
            row["largest_difference"] = float(np.max(np.abs(np.array(scores) - row["chatglm"]["scores"])))
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    test = randomisation(min(10_000, max(sizes)), n_trials)
    print(json.dumps(test), file=sys.stderr, flush=True)
    versions = {package: version(package) for package in PACKAGES}
    return {"rows": rows, "randomisation": test, "versions": versions, "load_average": os.getloadavg()[1]}


def render(results: dict[str, Any]) -> str:
    """The page: what was measured, as tables."""
    first = results["rows"][-1]["chatglm"]
    scores = Table(
        "Seven scores per pair, processor seconds per system",
        ["pairs", "ours, chatglm", "ours, all protocols", "peer script", "ratio", "largest difference, percent",
         "memory grown by, chatglm, MiB", "all protocols, MiB"],
    )  # fmt: skip
    for row in results["rows"]:
        has_peer = "peer_seconds" in row
        scores.add([
            f"{row['pairs']:,}", f"{row['chatglm']['seconds_per_system']:.2f}",
            f"{row['all']['seconds_per_system']:.2f}",
            f"{row['peer_seconds']:.1f}" if has_peer else "–", f"{row['ratio']:.0f} ×" if has_peer else "–",
            f"{row['largest_difference']:.1e}" if has_peer else "–",
            f"{row['chatglm']['grown_mib']:.0f}", f"{row['all']['grown_mib']:.0f}",
        ])  # fmt: skip
    test = Table(
        "Paired approximate randomisation, processor seconds with counts at hand",
        ["pairs", "trials", "ours, ten metrics", "sacrebleu, BLEU-4", "ratio", "our p", "its p"],
    )
    r = results["randomisation"]
    test.add([
        f"{r['pairs']:,}", f"{r['trials']:,}", f"{r['ours_seconds']:.2f}", f"{r['sacrebleu_seconds']:.1f}",
        f"{r['ratio']:.0f} ×", f"{r['our_p']:.3f}", f"{r['sacrebleu_p']:.3f}",
    ])  # fmt: skip
    packages = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return "\n".join([
        f"{N_SYSTEMS} systems share the references; {first['characters']:.0f} characters a text on average, "
        f"{100 * first['to_jieba']:.1f} % of texts have a clause for jieba itself. One core; trust the ratios, not the "
        f"seconds: {results['load_average']:.1f} processes wanted the machine's cores meanwhile.",
        "", packages, "", scores.markdown(), "", test.markdown(), "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1000, 10_000, 80_000])
    parser.add_argument("--peer-pairs", type=int, default=10_000, help="no peer above this many pairs")
    parser.add_argument("--trials", type=int, default=10_000, help="of the randomisation test")
    parser.add_argument("--ours", nargs=2, metavar=("PAIRS", "PROTOCOLS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(ours(int(options.ours[0]), options.ours[1])))
        return
    print(render(run(options.pairs, options.peer_pairs, options.trials)))


if __name__ == "__main__":
    main()
