"""Bitterness of wine: nine judges rate eight bottles on five points.

Data: Randall (1989), The analysis of sensory data by generalised linear model, Biometrical Journal 31, table 1.
Estimates: Christensen (2019), A Tutorial on fitting Cumulative Link Mixed Models with clmm2 from the ordinal package:
`clm` without judges, `clmm` with a random judge by the Laplace approximation.
"""

import numpy as np

# One row per judge. Bottles in pairs: cold without contact, cold with, warm without, warm with contact.
BITTERNESS = np.array(
    [
        [2, 3, 3, 4, 4, 4, 5, 5],
        [1, 2, 1, 3, 2, 3, 5, 4],
        [2, 3, 3, 2, 5, 5, 4, 4],
        [3, 2, 3, 2, 3, 2, 5, 3],
        [2, 3, 4, 3, 3, 3, 3, 3],
        [3, 2, 3, 2, 2, 4, 5, 4],
        [1, 1, 2, 2, 2, 3, 2, 3],
        [2, 2, 2, 3, 3, 3, 3, 4],
        [1, 2, 3, 2, 3, 2, 4, 4],
    ]
)
IS_WARM = np.array([0, 0, 0, 0, 1, 1, 1, 1])
HAS_CONTACT = np.array([0, 0, 1, 1, 0, 0, 1, 1])

WITHOUT_JUDGES = {"effects": (2.503, 1.528), "thresholds": (-1.344, 1.251, 3.467, 5.006), "log_likelihood": -86.49}
LAPLACE = {
    "effects": (3.063, 1.835),
    "thresholds": (-1.624, 1.513, 4.229, 6.089),
    "sd": 1.131,
    "log_likelihood": -81.57,
}
