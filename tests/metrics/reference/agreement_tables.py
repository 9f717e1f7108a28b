"""Published tables of ratings, typed in, with the values printed beside them, and values of second packages.

A row is one response, a character one rating in rater order; "." is a missing rating.
"""

import numpy as np

from metrics.table import FloatArray, Scale


def ratings_of(rows: str) -> FloatArray:
    """Shape (n_responses, n_raters) from words such as "22."; a dot is NaN."""
    return np.array([[np.nan if sign == "." else float(sign) for sign in row] for row in rows.split()])


def ratings_of_crosstab(counts: list[list[int]]) -> FloatArray:
    """Shape (n_responses, 2) with points 1, 2, … from how often two raters gave each pair of points."""
    pairs = [(i + 1, j + 1) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)]
    return np.array(pairs, dtype=np.float64)


def ratings_of_counts(counts: list[list[int]]) -> FloatArray:
    """Shape (n_responses, n_raters) with points 1, 2, … from how many raters gave each point to a response."""
    return np.array([np.repeat(np.arange(len(row)) + 1.0, row) for row in counts])


# Fleiss (1971), Psychological Bulletin 76, table 1: 30 patients, 6 psychiatrists, 5 diagnoses (1 depression,
# 2 personality disorder, 3 schizophrenia, 4 neurosis, 5 other). Printed: kappa .430. Kappas of the diagnoses as
# printed by kappam.fleiss(diagnoses, detail = TRUE) of the R package irr.
DIAGNOSES = ratings_of(
    """
    444444 222555 233335 555555 222444 113333 333355 113334 114444 555555
    144444 124444 222333 144444 224445 333335 111455 111112 224444 133555
    555555 244444 224555 114444 144445 222224 111155 224444 133333 555555
    """
)
DIAGNOSIS_SCALE = Scale("diagnosis", (1, 2, 3, 4, 5))
DIAGNOSES_KAPPA = 0.430
DIAGNOSES_CATEGORY_KAPPAS = (0.245, 0.245, 0.520, 0.471, 0.566)

# Wikipedia, "Fleiss' kappa", worked example: 10 subjects, 14 raters, 5 points; counts per point. Printed: .210.
WIKIPEDIA = ratings_of_counts(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
WIKIPEDIA_KAPPA = 0.210

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: 12 units, 4 observers.
# Printed: .743 nominal, .815 ordinal, .849 interval. Full precision: krippendorff 0.9.0.
FOUR_OBSERVERS = ratings_of("11.1 2232 3333 3333 2222 1234 4444 1121 2222 .555 ..11 .3..")
FOUR_OBSERVERS_SCALE = Scale("value", (1, 2, 3, 4, 5))
FOUR_OBSERVERS_ALPHA = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849}

# Gwet (2014), Handbook of Inter-Rater Reliability, 4th ed., the example of 12 subjects and 4 raters with missing
# ratings, as distributed with irrCAC (raw_4raters). Printed there to five digits.
GWET = ratings_of("11.1 2232 3333 3333 2222 1234 4444 1121 2222 .555 ..11 ..3.")
GWET_SCALE = Scale("category", (1, 2, 3, 4, 5))
GWET_PRINTED = {
    "percent_agreement": 0.81818,
    "fleiss_kappa": 0.76117,
    "gwet_ac": 0.77544,
    "brennan_prediger": 0.77273,
    "conger_kappa": 0.76282,
}

# Gwet (2014), 15 subjects and 5 observers on 0 … 3 with missing ratings, irrCAC raw_5observers.
FIVE_OBSERVERS = ratings_of("112.2 1101. 2333. .00.0 000.0 000.0 102.1 1.20. 222.2 2111. .100. 0000. 1222. 33223 111.1")
FIVE_OBSERVERS_SCALE = Scale("value", (0, 1, 2, 3))

# Cohen (1968), Psychological Bulletin 70, the example also used by R psych, cohen.kappa: 200 cases, personality
# disorder, neurosis, psychosis; weights are penalties. Printed: kappa .492, weighted kappa .348.
COHEN_1968 = ratings_of_crosstab([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
COHEN_1968_PENALTIES = np.array([[0.0, 1, 3], [1, 0, 6], [3, 6, 0]])

# SAS/STAT documentation of PROC FREQ, the 3 x 3 example that statsmodels 0.15.0 tests against (test_inter_rater.py).
# Printed: kappa .4842, weighted kappa (linear) .4701.
SAS_FREQ = ratings_of_crosstab([[0, 4, 1], [0, 8, 0], [0, 1, 5]])
THREE_POINTS = Scale("severity", (1, 2, 3))

# Feinstein & Cicchetti (1990), Journal of Clinical Epidemiology 43: equal observed agreement, unequal kappa.
# Each: table, observed agreement, kappa as printed.
PARADOXES = [
    ([[40, 9], [6, 45]], 0.85, 0.70),
    ([[80, 10], [5, 5]], 0.85, 0.32),
    ([[45, 15], [25, 15]], 0.60, 0.13),
    ([[25, 35], [5, 35]], 0.60, 0.26),
]
TWO_POINTS = Scale("finding", (1, 2))

# Shrout & Fleiss (1979), Psychological Bulletin 86, table 2: 6 targets, 4 judges. Printed: ICC(2,1) .29,
# ICC(2,4) .62. Full precision: pingouin 0.6.1, ICC(A,1) and ICC(A,k).
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=np.float64
)
TEN_POINTS = Scale("score", tuple(range(1, 11)))
SHROUT_FLEISS_ICC = (0.28976377952755916, 0.6200505475989893)

# 200 invented responses rated 0, 1 or 2 by three raters (numpy default_rng(20231031)), complete and with 15 % missing.
COMPLETE = ratings_of(
    """
    222 111 120 222 222 222 222 121 221 212 111 221 122 212 122 221 222 212 221 222
    222 222 121 221 122 222 011 222 212 222 000 222 121 110 021 222 121 112 111 112
    111 221 121 110 111 122 111 121 222 121 000 111 111 222 000 211 100 122 222 100
    222 222 222 100 111 000 111 211 121 101 111 222 222 000 222 010 112 222 110 121
    222 121 221 011 122 011 101 110 000 112 222 111 100 121 221 222 222 211 112 122
    110 222 111 111 122 221 122 112 111 121 222 212 222 102 222 000 222 211 122 211
    222 101 111 111 222 112 222 111 212 222 122 222 111 210 212 100 212 222 101 102
    122 212 011 010 101 001 121 221 122 222 221 110 000 222 212 001 222 211 121 222
    212 222 121 221 100 222 212 222 122 111 121 121 111 211 212 212 000 121 111 001
    211 222 222 110 122 222 010 222 222 222 222 000 121 100 212 112 222 122 222 121
    """
)
INCOMPLETE = ratings_of(
    """
    22. 111 120 222 222 .2. .22 121 .2. 2.2 1.1 22. 12. 212 122 .21 22. 212 22. 222
    222 222 .21 221 122 2.2 0.1 222 212 .2. 000 222 121 110 021 2.2 121 112 1.1 112
    .11 2.1 121 11. 111 122 111 121 222 ..1 000 111 111 222 000 2.1 100 122 2.2 100
    2.. 222 222 10. 1.. .00 1.1 211 121 101 .11 22. 222 000 222 0.0 112 .22 1.0 121
    222 121 .21 011 122 011 101 110 000 112 222 11. 100 .21 221 .22 222 211 .12 122
    11. 22. 111 1.1 12. 221 122 11. 111 121 .22 21. .22 .02 2.2 .00 222 .11 1.2 21.
    222 10. 11. 111 2.2 1.2 2.2 11. 212 222 122 222 111 21. 212 .00 21. .2. 101 1.2
    .22 21. 01. 010 101 001 121 ..1 122 .22 2.1 110 000 222 212 00. 222 2.1 12. 222
    212 222 121 221 .00 222 212 ..2 12. 11. 121 121 ..1 211 212 212 000 121 111 001
    211 .22 22. .10 .22 222 .10 222 222 222 22. 000 .21 100 2.2 112 222 .2. 222 121
    """
)
CEHS_SCALE = Scale("empathy", (0, 1, 2))
WIDER_SCALE = Scale("empathy", (0, 1, 2, 3))  # the same ratings where a fourth point was offered and never used

# irrCAC 0.4.4 (Python), digits=16: by table, weights, coefficient.
IRRCAC = {
    ("gwet", "identity"): {
        "fleiss_kappa": 0.7611692754224112,
        "gwet_ac": 0.775444068126995,
        "brennan_prediger": 0.7727272727272727,
        "conger_kappa": 0.7628174413033062,
    },
    ("gwet", "linear"): {
        "fleiss_kappa": 0.8179447670973093,
        "gwet_ac": 0.8587391364326112,
        "brennan_prediger": 0.8484848484848484,
        "conger_kappa": 0.813776319966141,
    },
    ("gwet", "quadratic"): {
        "fleiss_kappa": 0.8649350649350654,
        "gwet_ac": 0.914000723551605,
        "brennan_prediger": 0.9015151515151518,
        "conger_kappa": 0.8577106562225335,
    },
    ("five_observers", "identity"): {
        "fleiss_kappa": 0.4576216867721697,
        "gwet_ac": 0.4966220548726144,
        "brennan_prediger": 0.4874074074074073,
        "conger_kappa": 0.4692742785926565,
    },
    ("five_observers", "linear"): {
        "fleiss_kappa": 0.6118500438159825,
        "gwet_ac": 0.6896394228858524,
        "brennan_prediger": 0.6657777777777781,
        "conger_kappa": 0.6240524157689556,
    },
    ("five_observers", "quadratic"): {
        "fleiss_kappa": 0.7507191283046873,
        "gwet_ac": 0.8304335726545763,
        "brennan_prediger": 0.8062222222222225,
        "conger_kappa": 0.7617880605091111,
    },
    ("complete", "identity"): {
        "fleiss_kappa": 0.3566833452466025,
        "gwet_ac": 0.4506038996816975,
        "brennan_prediger": 0.4224999999999983,
        "conger_kappa": 0.3582085405495496,
    },
    ("complete", "linear"): {
        "fleiss_kappa": 0.4562504320044226,
        "gwet_ac": 0.6076729129916784,
        "brennan_prediger": 0.5574999999999996,
        "conger_kappa": 0.4570968484011957,
    },
    ("complete", "quadratic"): {
        "fleiss_kappa": 0.5787070072784394,
        "gwet_ac": 0.7447320724435184,
        "brennan_prediger": 0.6925000000000029,
        "conger_kappa": 0.5789401615774378,
    },
    ("incomplete", "identity"): {
        "fleiss_kappa": 0.3461971257632885,
        "gwet_ac": 0.441121461535349,
        "brennan_prediger": 0.4126984126984119,
        "conger_kappa": 0.3527996726355949,
    },
    ("incomplete", "linear"): {
        "fleiss_kappa": 0.4504790379388837,
        "gwet_ac": 0.6004085250728797,
        "brennan_prediger": 0.5496031746031745,
        "conger_kappa": 0.4573724562753637,
    },
    ("incomplete", "quadratic"): {
        "fleiss_kappa": 0.5769046437460108,
        "gwet_ac": 0.73950102575593,
        "brennan_prediger": 0.6865079365079374,
        "conger_kappa": 0.5834597978182594,
    },
    ("incomplete_wider", "identity"): {
        "fleiss_kappa": 0.3461971257632885,
        "gwet_ac": 0.5108149962637663,
        "brennan_prediger": 0.4779541446208106,
        "conger_kappa": 0.3527996726355948,
    },
    ("incomplete_wider", "linear"): {
        "fleiss_kappa": 0.4504790379388778,
        "gwet_ac": 0.7501959538044617,
        "brennan_prediger": 0.6797178130511434,
        "conger_kappa": 0.4573724562753589,
    },
    ("incomplete_wider", "quadratic"): {
        "fleiss_kappa": 0.5769046437459997,
        "gwet_ac": 0.890288798420351,
        "brennan_prediger": 0.8328042328042297,
        "conger_kappa": 0.5834597978182514,
    },
}

# krippendorff 0.9.0, by table and level.
KRIPPENDORFF = {
    "four_observers": {"nominal": 0.743421052631579, "ordinal": 0.8153875037548814, "interval": 0.8491071428571428},
    "gwet": {"nominal": 0.743421052631579, "ordinal": 0.8153875037548814, "interval": 0.8491071428571428},
    "five_observers": {"nominal": 0.48053024026512003, "ordinal": 0.7686851594862338, "interval": 0.7718648087755707},
    "complete": {"nominal": 0.35775553967119367, "ordinal": 0.5463959999817856, "interval": 0.5794091622663051},
    "incomplete": {"nominal": 0.35621508666020174, "ordinal": 0.5464682990849108, "interval": 0.5911106031041042},
    "incomplete_wider": {"nominal": 0.35621508666020196, "ordinal": 0.5464682990849108, "interval": 0.5911106031041042},
}

# pingouin 0.6.1, ICC(A,1) and ICC(A,k); of INCOMPLETE only the complete rows.
PINGOUIN = {
    "complete": (0.5801615752731515, 0.8056594335802586),
    "incomplete": (0.6073622721321381, 0.8227148703956344),
}

# scikit-learn 1.9.1, cohen_kappa_score of COMPLETE by pair of raters: identity, linear, quadratic.
SKLEARN_COHEN = {
    (0, 1): (0.3052649200636143, 0.4116823084465612, 0.5459345300950369),
    (0, 2): (0.4180004157139887, 0.5053988157436433, 0.61599158337717),
    (1, 2): (0.3510005408328827, 0.45406753386803267, 0.5750708215297451),
}
