"""The 16 cells of a pair, against plain regressions and tests of the same."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from sae_rna.analysis.statistics import pairing

CELLS = [first + second for first in "ACGU" for second in "ACGU"]
CANONICAL = np.array([cell in ("GC", "CG", "AU", "UA", "GU", "UG") for cell in CELLS])


def columns(partner_of=str):
    """The regression's columns: a one, the bases of i and j, and what counts as canonical."""
    bases = [[base == cell[side] for cell in CELLS] for side in (0, 1) for base in "CGU"]
    counted = [cell[0] + partner_of(cell[1]) in ("GC", "CG", "AU", "UA", "GU", "UG") for cell in CELLS]
    return np.array([[True] * 16, *bases, counted], float).T


def test_the_cells_are_in_the_order_of_the_pairs():
    assert ["".join(pair) for pair in pairing.PAIRS] == CELLS


def test_gamma_is_the_coefficient_of_the_least_squares_fit():
    y_C = np.random.default_rng(0).normal(size=16)
    fitted = np.linalg.lstsq(columns(), y_C, rcond=None)[0]
    assert pairing.contrasts()[0] @ y_C == pytest.approx(fitted[-1])


def test_the_other_contrasts_are_those_of_the_23_other_bijections():
    y_C = np.random.default_rng(1).normal(size=16)
    others = [dict(zip("ACGU", order)) for order in permutations("ACGU") if order != tuple("ACGU")]
    expected = [np.linalg.lstsq(columns(names.get), y_C, rcond=None)[0][-1] for names in others]
    assert len(others) == 23
    assert sorted(pairing.contrasts()[1:] @ y_C) == pytest.approx(sorted(expected))


def test_main_effects_leave_no_gamma_under_any_bijection_and_pairing_leaves_all_of_it():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=4), rng.normal(size=4)
    y_C = 3 + np.add.outer(first, second).ravel()
    assert np.abs(pairing.contrasts() @ y_C).max() < 1e-12
    gamma_K = pairing.contrasts() @ (y_C + 0.7 * CANONICAL)
    assert gamma_K[0] == pytest.approx(0.7) and (gamma_K[1:] < 0.6).all()


def test_an_answer_to_strong_bases_on_both_sides_is_as_large_under_another_bijection():
    strong_C = np.array([set(cell) <= set("GC") for cell in CELLS], float)
    gamma_K = pairing.contrasts() @ strong_C
    assert gamma_K[0] > 0.1 and gamma_K[1:].max() >= gamma_K[0] - 1e-12


@pytest.mark.parametrize("pair", ["GC", "CG", "AU", "UA", "GU", "UG"])
def test_a_pair_is_broken_by_one_mutation_and_rescued_by_a_second(pair):
    weights_2C = pairing.break_and_rescue(pair)
    assert weights_2C @ CANONICAL == pytest.approx([1, 1])
    assert weights_2C.sum(1) == pytest.approx([0, 0])
    broken = {cell for cell, weight in zip(CELLS, weights_2C[0]) if weight < 0}
    assert all((cell[0] == pair[0]) != (cell[1] == pair[1]) for cell in broken)
    rescued = {cell for cell, weight in zip(CELLS, weights_2C[1]) if weight > 0}
    assert rescued and all(cell[0] != pair[0] and cell[1] != pair[1] for cell in rescued)


def test_p_is_the_largest_of_the_paired_tests():
    gamma_GKF = np.random.default_rng(3).normal(size=(12, 4, 30)) + np.linspace(0, 2, 30) * (
        np.arange(4) == 0
    ).reshape(-1, 1)
    tests = [stats.ttest_1samp(gamma_GKF[:, 0], 0, alternative="greater").pvalue]
    tests += [
        stats.ttest_rel(gamma_GKF[:, 0], gamma_GKF[:, k], alternative="greater").pvalue for k in (1, 2, 3)
    ]
    found = pairing.p_values(gamma_GKF)
    positive = found < 1  # where a mean is not above 0 the test says 1 at once
    assert positive.sum() > 20
    np.testing.assert_allclose(found[positive], np.max(tests, axis=0)[positive])
    assert (np.max(tests, axis=0)[~positive] >= 0.5).all()


def test_what_never_changes_and_a_single_family_have_no_p_value_below_one():
    assert (pairing.p_values(np.zeros((9, 3, 2))) == 1).all()
    assert (pairing.p_values(np.ones((1, 3, 2))) == 1).all()


def test_intervals_are_those_of_resampled_families():
    gamma_GF = np.random.default_rng(4).normal(size=(40, 2)) + 1
    low_F, high_F = pairing.intervals(gamma_GF, np.random.default_rng(0))
    error_F = gamma_GF.std(0) / np.sqrt(40)
    np.testing.assert_allclose(low_F, gamma_GF.mean(0) - 1.96 * error_F, atol=0.05)
    np.testing.assert_allclose(high_F, gamma_GF.mean(0) + 1.96 * error_F, atol=0.05)
