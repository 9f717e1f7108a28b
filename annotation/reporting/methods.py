"""A paragraph for the methods section of a paper, in both languages, written from the signatures of the numbers.

A sentence is there only if the report holds the number it speaks of, and every setting in it is read from that
number's signature: what was not done is not claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from annotation.reporting.numbers import Report, rounded
from annotation.reporting.published import published
from metrics.results import ResultRow

_EN: Mapping[str, str] = {
    "design": "{n_systems} systems answered {n_items} items, and each response was rated by {raters_per_item} of "
    "{n_raters} raters on {dimensions} (rubric {rubric}). Raters saw responses without their systems, {presentation}, "
    "in an order balanced over systems and drawn beforehand (SHA-256 of the design {design_hash}).",
    "blocked": "all responses to one item in a row",
    "interleaved": "responses to one item apart from one another",
    "repeats": "{n_repeats} responses came a second time, unannounced, to measure each rater’s agreement with "
    "themselves.",
    "plan": "The analysis plan was frozen before systems were named (SHA-256 {plan_hash}).",
    "unfinished": "Ratings are not complete: {n_final} of {n_placed} had been submitted.",
    "scores": "Scores are means over the raters of a response and then over responses, with {confidence} % {interval} "
    "intervals from {n_bootstrap} resamples of dialogues (seed {seed}).",
    "agreement": "Agreement between raters is given as percent agreement, Fleiss’ κ, ordinal Krippendorff’s α and "
    "Gwet’s AC2 with quadratic weights, with percentile intervals from {n_bootstrap} resamples of dialogues; where "
    "all ratings are equal, coefficients are reported as undefined.",
    "comparison": "Systems were compared in pairs by exchanging them within dialogues ({n_flips} random sign flips, or "
    "all there are where at most {exact_up_to} dialogues differ), with Holm’s correction over the pairs of each "
    "dimension; Cliff’s δ and the probability of superiority are given as effect sizes.",
    "mixed": "A cumulative logit mixed model with systems and raters as fixed and dialogues and responses as random "
    "effects was fitted by maximum likelihood (numerical quadrature), beside generalised estimating equations "
    "clustered by dialogue.",
    "texts": "BLEU and ROUGE follow the protocol “{protocol}”: BLEU on {bleu_tokens} with smoothing {smoothing}, "
    "ROUGE F1 on {rouge_tokens}, averaged over {n_pairs} pairs of response and reference.",
    "differences": "Differences in text metrics were tested by paired approximate randomisation "
    "({n_permutations} exchanges within dialogues).",
    "power": "With this design, a true difference of {detectable} points on {dimension} is found with a probability "
    "of 80 % as the hardest of all pairs.",
    "source": "Published figures are those of {source}.",
    "software": "Computed with Qingting on NumPy {numpy}.",
}
_ZH: Mapping[str, str] = {
    "design": "{n_systems} 个系统回答了 {n_items} 个条目，每条回复由 {n_raters} 位评分者中的 {raters_per_item} 位按"
    "{dimensions}评分（评分标准 {rubric}）。评分者看不到回复出自哪个系统，{presentation}，"
    "顺序在各系统间平衡并事先抽定（设计的 SHA-256：{design_hash}）。",
    "blocked": "同一条目的回复依次出现",
    "interleaved": "同一条目的回复彼此隔开",
    "repeats": "另有 {n_repeats} 条回复在未告知的情况下再次出现，用于衡量评分者自身的一致性。",
    "plan": "分析计划在揭盲之前冻结（SHA-256：{plan_hash}）。",
    "unfinished": "评分尚未完成：计划 {n_placed} 次，已提交 {n_final} 次。",
    "scores": "得分先对每条回复的各评分者取平均，再对回复取平均；{confidence} % 区间（{interval}）来自对对话的 "
    "{n_bootstrap} 次重抽样（随机种子 {seed}）。",
    "agreement": "评分者间一致性以一致百分比、Fleiss κ、有序 Krippendorff α 与二次加权 Gwet AC2 表示，"
    "百分位区间来自对对话的 {n_bootstrap} 次重抽样；所有评分相同时，系数记为无定义。",
    "comparison": "系统两两比较采用对话内互换的置换检验（{n_flips} 次随机符号翻转；"
    "有差异的对话不超过 {exact_up_to} 段时穷举全部），"
    "并在每个维度的所有系统对之间作 Holm 校正；效应量为 Cliff δ 与优势概率。",
    "mixed": "以最大似然法（数值求积）拟合累积 logit 混合模型，系统与评分者为固定效应，"
    "对话与回复为随机效应；并列给出按对话聚类的广义估计方程。",
    "texts": "BLEU 与 ROUGE 采用规程“{protocol}”：BLEU 以 {bleu_tokens} 为单位，平滑方法 {smoothing}；"
    "ROUGE F1 以 {rouge_tokens} 为单位；对 {n_pairs} 对回复与参考取平均。",
    "differences": "文本指标的差异以配对近似随机化检验（对话内互换 {n_permutations} 次）。",
    "power": "在此设计下，{dimension}上 {detectable} 分的真实差异作为所有系统对中最难的一对，有 80 % 的概率被发现。",
    "source": "已发表数值出自 {source}。",
    "software": "以倾听（Qingting）计算，NumPy {numpy}。",
}
_BETWEEN = {"en": " ", "zh": ""}


def signature_parts(signature: str) -> dict[str, str]:
    """The settings of a signature by name."""
    pairs = (part.partition(":") for part in signature.split("|"))
    return {_plain(name): _plain(value) for name, _colon, value in pairs}


def _plain(text: str) -> str:
    return text.replace("%3A", ":").replace("%7C", "|").replace("%25", "%")


def methods_paragraph(report: Report, language: str) -> str:
    """The paragraph in "zh" or "en"; empty before the first rating."""
    if report.is_empty:
        return ""
    words = _ZH if language.startswith("zh") else _EN
    told = [words[name].format_map(values) for name, values in _sentences(report, words, language)]
    return _BETWEEN["zh" if words is _ZH else "en"].join(told)


def _sentences(report: Report, words: Mapping[str, str], language: str) -> list[tuple[str, Mapping[str, object]]]:
    facts = report.facts
    found: list[tuple[str, Mapping[str, object]]] = []

    def tell(sentence: str, **values: object) -> None:
        found.append((sentence, values))

    separator = "、" if words is _ZH else ", "
    scores = _first(report, "mean_score")
    n_raters = max((row.estimate.n.get("raters", 0) for row in report.rows("scores")), default=0)
    tell(
        "design",
        n_systems=len(facts.arms),
        n_items=facts.n_items,
        raters_per_item=facts.raters_per_item,
        n_raters=n_raters,
        dimensions=separator.join(f"{d.name(language)} (0–{d.highest})" for d in facts.dimensions),
        rubric=facts.rubric,
        presentation=words[facts.presentation],
        design_hash=facts.design_hash[:12],
    )
    if facts.n_repeats_final:
        tell("repeats", n_repeats=facts.n_repeats_final)
    if facts.plan_frozen_at:
        tell("plan", plan_hash=facts.plan_hash[:12])
    if not facts.is_complete:
        tell("unfinished", n_final=facts.totals.n_final, n_placed=facts.totals.n_placed)
    if scores is not None:
        parts = signature_parts(scores.estimate.signature)
        percent = rounded(float(parts["confidence"]), 0, percent=True)
        interval = {"bca": "BCa"}.get(parts["interval"].split("-")[0], parts["interval"].split("-")[0])
        found.append(("scores", parts | {"confidence": percent, "interval": interval}))
    for name, metric in (("agreement", "fleiss_kappa"), ("comparison", "p_sign_flip"), ("mixed", "clmm_system")):
        row = _first(report, metric)
        if row is not None:
            found.append((name, signature_parts(row.estimate.signature)))
    found += _about_texts(report)
    typical = [row for row in report.rows("power") if row.metric == "minimum_detectable_difference"]
    hardest = [row for row in typical if "systems" not in row.detail and row.estimate.value is not None]
    if hardest:
        row = max(hardest, key=lambda one: (int(one.detail["tests"]), one.estimate.value or 0))
        names = {d.key: d.name(language) for d in facts.dimensions}
        tell("power", detectable=rounded(row.estimate.value or 0.0), dimension=names[row.dimension])
    if any(published().has_row(d.published_as, arm.system_slug) for d in facts.datasets for arm in facts.arms):
        tell("source", source=published().source)
    if scores is not None:
        tell("software", numpy=signature_parts(scores.estimate.signature)["numpy"])
    return found


def _about_texts(report: Report) -> Iterator[tuple[str, Mapping[str, object]]]:
    bleu, rouge = _first(report, "bleu_4", "texts"), _first(report, "rouge_l", "texts")
    if bleu is None or rouge is None:
        return
    parts = signature_parts(bleu.estimate.signature)
    rouge_tokens = signature_parts(rouge.estimate.signature)["tokens"]
    yield "texts", parts | {"bleu_tokens": parts["tokens"], "rouge_tokens": rouge_tokens, "n_pairs": parts["n"]}
    difference = _first(report, "bleu_4_difference", "text_differences")
    if difference is not None:
        yield "differences", signature_parts(difference.estimate.signature)


def _first(report: Report, metric: str, *sections: str) -> ResultRow | None:
    """The first row of a metric that has a value; its signature speaks for the others."""
    return next(
        (row for row in report.rows(*sections) if row.metric == metric and row.estimate.value is not None), None
    )
