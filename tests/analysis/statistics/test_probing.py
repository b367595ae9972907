"""Linear probes and what goes with an element within one base."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from sae_rna.analysis.statistics.probing import association, base_auroc, probe


def test_a_probe_reads_a_linear_rule_and_finds_nothing_in_noise():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 3000, 8)), rng.normal(size=(2, 3000, 8))
    labels = x[..., 0] + 0.3 * x[..., 1] > 0
    assert roc_auc_score(labels[1], probe(x[0], labels[0], x[1])) > 0.99
    chance = roc_auc_score(labels[1], probe(noise[0], labels[0], noise[1]))
    assert chance == pytest.approx(0.5, abs=0.04)


def test_the_auroc_within_bases_is_the_mean_over_bases_weighted_by_pairs():
    rng = np.random.default_rng(1)
    base, member = rng.choice(list("ACGU"), 400, p=[0.4, 0.3, 0.2, 0.1]), rng.random(400) < 0.3
    guess = rng.normal(size=400) + member * (base == "G") - 3
    parts = [(member[base == one], guess[base == one]) for one in "ACGU"]
    weights = [own.sum() * (~own).sum() for own, _ in parts]
    expected = np.average([roc_auc_score(own, values) for own, values in parts], weights=weights)
    assert base_auroc(guess, member, base) == pytest.approx(expected)


def test_a_guess_that_knows_nothing_but_the_base_has_one_half():
    base = np.array(list("GGGGAAAA"))
    member = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    assert base_auroc((base == "G") * 1.0, member, base) == 0.5


def test_the_association_is_the_correlation_after_the_means_of_each_base_are_taken_off():
    rng = np.random.default_rng(2)
    base, member = rng.choice(list("ACGU"), 300), rng.random(300) < 0.4
    values = rng.normal(size=(300, 4)) * (rng.random((300, 4)) < 0.3) + 2 * member[:, None] * [1, 0, -1, 0]
    within = lambda x: x - np.array([x[base == one].mean(0) for one in base])  # noqa: E731
    own, truth = within(values), within(member * 1.0)
    expected = [abs(np.corrcoef(column, truth)[0, 1]) for column in own.T]
    np.testing.assert_allclose(association(values, member, base), expected, atol=1e-9)
    np.testing.assert_allclose(association(sparse.csr_matrix(values), member, base), expected, atol=1e-9)


def test_a_column_that_only_tells_bases_apart_goes_with_nothing():
    base, member = np.array(list("GGAAGGAA")), np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    columns = np.column_stack([base == "G", np.zeros(8)]).astype(float)
    np.testing.assert_allclose(association(columns, member, base), [0, 0], atol=1e-9)
