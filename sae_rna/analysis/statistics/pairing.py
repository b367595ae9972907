"""Does a quantity depend on whether two bases pair? All 16 base combinations of a pair beside their controls.

y = a + alpha(base i) + beta(base j) + gamma * canonical(i, j): the main effects take up all that single bases
do, and gamma is what pairing does. Least squares over all 16 cells is a weighted sum of them (Frisch & Waugh
1933), so a set of weights stands for each question. Shapes: C = 16 cells, i's base before j's, both in the
order ACGU; K contrasts, the one under test first; G families, F features.
"""

from itertools import permutations, product

import numpy as np
from scipy.stats import t as student

from sae_rna.records.composition import NUCLEOTIDES
from sae_rna.records.structure import CANONICAL_PAIRS

PAIRS = tuple(product(NUCLEOTIDES, repeat=2))  # of bases: the 16 cells
BOOTSTRAPS = 1000  # resamples of the families for an interval
_CANONICAL = np.array([first + second in CANONICAL_PAIRS for first, second in PAIRS]).reshape(4, 4)


def contrasts() -> np.ndarray:
    """Weights [24, C] of gamma: of the canonical pairs, and of the 23 other bijections of the bases of j.

    Under another bijection as many pairs of bases count as canonical, in the same pattern, but wrong ones: a
    quantity that answers to strong bases, say, on both sides has the same gamma under some of them.
    """
    return np.array([_weights(_CANONICAL[:, list(order)]) for order in permutations(range(4))])


def _weights(counts_44: np.ndarray) -> np.ndarray:
    """What is left of the counted cells without the main effects, scaled to give their coefficient, [C]."""
    left = counts_44 - counts_44.mean(0) - counts_44.mean(1, keepdims=True) + counts_44.mean()
    return (left / np.square(left).sum()).ravel()


def break_and_rescue(pair: str) -> np.ndarray:
    """Weights [2, C] of what breaking a pair such as "GC" costs and of what the second mutation brings back.

    Broken are the cells in which one of the two bases has changed and which are not canonical; rescued are
    canonical ones in which both have changed. Cost: pair - broken; brought back: rescued - broken.
    """
    changed = np.array([(cell[0] != pair[0]) + (cell[1] != pair[1]) for cell in PAIRS])
    means = [
        chosen / chosen.sum()
        for chosen in (
            changed == 0,
            (changed == 1) & ~_CANONICAL.ravel(),
            (changed == 2) & _CANONICAL.ravel(),
        )
    ]
    return np.stack([means[0] - means[1], means[2] - means[1]])


def p_values(gamma_GKF: np.ndarray) -> np.ndarray:
    """One-sided p [F] that the first contrast lies above 0 *and* above every other one, families as units.

    The largest of the p-values of paired t-tests (an intersection-union test, Berger 1982, Technometrics
    24:295): its size holds however the contrasts go together. 1 for fewer than two families.
    """
    tested_GF = gamma_GKF[:, 0]
    p_F = _t_test(tested_GF)
    for contrast in range(1, gamma_GKF.shape[1]):
        p_F = np.maximum(p_F, _t_test(tested_GF - gamma_GKF[:, contrast]))
    return p_F


def _t_test(value_GF: np.ndarray) -> np.ndarray:
    """One-sided p [F] of means above 0."""
    families = len(value_GF)
    if families < 2:
        return np.ones(value_GF.shape[1])
    mean_F, error_F = value_GF.mean(0), value_GF.std(0, ddof=1) / np.sqrt(families)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean_F > 0, student.sf(mean_F / error_F, families - 1), 1.0)


def intervals(gamma_GF: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """95 % percentile interval of the mean over families, families resampled, [2, F]."""
    families = len(gamma_GF)
    draws_BG = rng.multinomial(families, np.full(families, 1 / families), BOOTSTRAPS)
    return np.percentile(draws_BG @ gamma_GF / families, (2.5, 97.5), axis=0)
