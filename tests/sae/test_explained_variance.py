"""Explained variance by global moments."""

import pytest
import torch

from sae_rna.sae.explained_variance import ExplainedVariance


def evaluate(batches):
    variance = ExplainedVariance()
    for x, reconstruction in batches:
        variance.update(x, reconstruction)
    return variance.value()


def test_predicting_the_mean_gives_exactly_zero_and_the_truth_one():
    x = torch.randn(2, 300, 5, dtype=torch.float64) * 3 + 7
    mean = x.mean(1, keepdim=True).expand_as(x)
    assert evaluate([(x, mean)]).abs().max() < 1e-12
    assert evaluate([(x, x)]).tolist() == [1.0, 1.0]


def test_a_constant_offset_costs_nothing_since_only_variance_counts():
    x = torch.randn(1, 100, 4)
    assert evaluate([(x, x + 3)]).item() == pytest.approx(1, abs=1e-6)


def test_batches_do_not_matter_and_the_formula_is_that_of_the_whole():
    x, guess = torch.randn(3, 500, 6) + 2, torch.randn(3, 500, 6)
    whole = 1 - (x - guess).var(1, correction=0).sum(-1) / x.var(1, correction=0).sum(-1)
    parts = evaluate([(x[:, a:b], guess[:, a:b]) for a, b in ((0, 10), (10, 333), (333, 500))])
    torch.testing.assert_close(parts.float(), whole, atol=1e-5, rtol=1e-5)
