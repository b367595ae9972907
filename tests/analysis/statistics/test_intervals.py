import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import family_noise, planted_concepts, reference_base_auroc, runs, score
from scipy import sparse

from sae_rna.analysis.statistics.choosing import score_concepts
from sae_rna.analysis.statistics.intervals import lead_interval, resampled_means
from sae_rna.analysis.statistics.scoring import THRESHOLDS


def test_intervals_are_percentiles_over_resampled_families():
    """Every resample is laid out row by row, and scored like any other set."""
    rng = np.random.default_rng(3)
    selection, heldout = (
        (activations, runs(labels.members.toarray()[:, :5], labels.record_N, labels.base_N))
        for activations, labels in (planted_concepts(rng, 24) for _ in range(2))
    )
    family_S = np.repeat(list("abcdef"), 4)
    table = score_concepts(
        selection, heldout, shuffles=0, families=(None, family_S), bootstraps=40, seed=5, min_instances=1
    )
    weights = np.random.default_rng((5, 1)).multinomial(6, np.full(6, 1 / 6), 40)
    scale, family_N = (
        selection[0].max(axis=0).toarray().ravel(),
        np.searchsorted(list("abcdef"), family_S)[heldout[1].record_N],
    )
    members, values, f1, area = heldout[1].members.toarray(), heldout[0].toarray(), [], []
    base_N = heldout[1].base_N
    for weight in weights:
        rows = np.concatenate([np.flatnonzero(family_N == g) for g in range(6) for _ in range(weight[g])])
        number_N = np.cumsum(np.r_[0, np.diff(heldout[1].record_N[rows]) != 0])
        labels, level = (runs(members[rows], number_N), np.searchsorted(THRESHOLDS, table["threshold"]))
        choice = np.asarray(table["feature"]), np.arange(5), level
        f1.append(score(sparse.csr_matrix(values[rows]), scale, labels).f1[choice])
        auroc_FC = reference_base_auroc(values[rows][:, choice[0]], members[rows], base_N[rows])
        area.append(auroc_FC.diagonal())
    # so that two features meet on the same resamples; activations are sorted into classes
    np.testing.assert_allclose(np.stack(table["base_auroc_resampled"]).T, area, atol=2e-3)
    np.testing.assert_allclose(table[["f1_low", "f1_high"]].T, np.percentile(f1, (2.5, 97.5), axis=0))
    np.testing.assert_allclose(
        table[["base_auroc_low", "base_auroc_high"]].T, np.percentile(area, (2.5, 97.5), axis=0), atol=2e-3
    )
    assert (table["f1_low"] <= table["f1"]).all() and (table["f1"] <= table["f1_high"]).all()


def test_the_lead_of_two_features_on_the_same_families_is_surer_than_either_of_them():
    rng = np.random.default_rng(4)
    family = rng.normal(0.5, 0.1, 400)  # what makes a family hard for one feature makes it hard for the other
    low, high = lead_interval(family + 0.05, family + rng.normal(0, 0.005, 400))
    assert 0.03 < low < 0.05 < high < 0.07 and np.ptp(np.percentile(family, (2.5, 97.5))) > 0.3
    np.testing.assert_allclose(lead_interval(family, family), 0)
    assert np.isnan(lead_interval(family, np.empty(0))).all()
    lacking = np.where(np.arange(400) < 10, np.nan, family)  # resamples without the concept
    np.testing.assert_allclose(lead_interval(lacking + 1, lacking), 1)


def test_intervals_over_families_of_copies_are_wider_and_one_family_has_none():
    (selection, _), (heldout, family_S) = (family_noise(np.random.default_rng(seed), 10) for seed in (1, 2))
    by_record, by_family, single = (
        score_concepts(selection, heldout, shuffles=0, families=(None, names), bootstraps=200)
        for names in (None, family_S, ["one"] * 80)
    )
    for name in ("f1", "base_auroc"):
        width = [(table[f"{name}_high"] - table[f"{name}_low"]).mean() for table in (by_record, by_family)]
        assert width[1] > 1.5 * width[0]  # 8 copies a family: sqrt(8) = 2.8 times
        assert single[[f"{name}_low", f"{name}_high"]].isna().all(axis=None)


def test_means_draw_families_not_sequences():
    """Two families of a type, all of one right and none of the other: its mean is 0, 1/2 or 1. The other
    type's single family leaves no doubt."""
    index = pd.MultiIndex.from_tuples([("a", "one"), ("a", "two"), ("b", "three")])
    cells = pd.DataFrame({"sum": [50, 0, 10], "size": [50, 50, 10]}, index)
    mean, drawn = resampled_means(cells, 2000, np.random.default_rng(0))
    assert mean == 0.75 and set(drawn) == {0.5, 0.75, 1.0}
    assert np.mean(drawn == 0.75) == pytest.approx(0.5, abs=0.05)
    mean, drawn = resampled_means(cells.drop(("a", "one")), 2000, np.random.default_rng(0))
    assert mean == 0.5 and (drawn == 0.5).all()
