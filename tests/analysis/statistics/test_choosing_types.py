"""Choice on the selection set, scores on the held-out set: RNA types."""

import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import typed
from scipy import sparse
from sklearn.metrics import f1_score, roc_auc_score

from sae_rna.analysis.statistics.annotations import annotate_types
from sae_rna.analysis.statistics.choosing import score_concepts, score_types
from sae_rna.analysis.statistics.nulls import discoveries
from sae_rna.analysis.statistics.scoring import THRESHOLDS


def test_planted_type_features_are_found_and_hold_out():
    rng = np.random.default_rng(0)
    marked = {"tRNA": 5, "snoRNA": 11}
    table = score_types(typed(rng, 90, marked), typed(rng, 60, marked))
    assert (
        list(table.columns) == ("type feature auroc selection_auroc f1 base_rate null_p95 sequences").split()
    )
    table = table.set_index("type")
    for name, feature in marked.items():
        assert table.loc[name, "feature"] == feature
        assert table.loc[name, ["auroc", "selection_auroc", "f1"]].tolist() == [1.0, 1.0, 1.0]
        assert table.loc[name, "null_p95"] < 0.75
    assert (table["sequences"] == 20).all() and table["base_rate"].tolist() == pytest.approx([1 / 3] * 3)


def test_type_scores_equal_plain_loops():
    rng = np.random.default_rng(1)
    (known, known_types), (unseen, unseen_types) = selection, heldout = typed(rng, 40, {}), typed(rng, 30, {})
    table = score_types(selection, heldout, shuffles=2)
    scale = known.toarray().max(axis=0)
    for row in table.itertuples():
        areas = [roc_auc_score(known_types == row.type, column) for column in known.toarray().T]
        assert row.feature == np.argmax(areas) and row.selection_auroc == pytest.approx(max(areas))
        assert row.auroc == pytest.approx(
            roc_auc_score(unseen_types == row.type, unseen.toarray()[:, row.feature])
        )
        known_f1 = [
            f1_score(known_types == row.type, known.toarray()[:, row.feature] / scale[row.feature] > t)
            for t in THRESHOLDS
        ]
        threshold = THRESHOLDS[int(np.argmax(known_f1))]
        assert row.f1 == pytest.approx(
            f1_score(
                unseen_types == row.type, unseen.toarray()[:, row.feature] / scale[row.feature] > threshold
            )
        )


def family_noise(rng, families, per_family=8, latents=30):
    """Features that are alike within a family and know nothing of types."""
    types = np.repeat(rng.permutation(np.resize(["tRNA", "rRNA", "snoRNA"], families)), per_family)
    level = np.repeat(rng.exponential(size=(families, latents)), per_family, axis=0)
    pooled = level * rng.uniform(0.9, 1.1, level.shape)
    return (sparse.csr_matrix(pooled), types), np.repeat(np.arange(families), per_family)


def test_features_of_families_do_not_pass_for_features_of_types():
    """Tolerance 20 % of the types above the null with families; sequences are fooled in far more."""
    above = {"families": [], "sequences": []}
    for seed in range(15):
        rng = np.random.default_rng(seed)
        (selection, known), (heldout, unseen) = family_noise(rng, 18), family_noise(rng, 12)
        for unit, families in (("families", (known, unseen)), ("sequences", (None, None))):
            table = score_types(selection, heldout, families=families, shuffles=40, seed=seed)
            above[unit] += (table["auroc"] > table["null_p95"]).tolist()
    assert np.mean(above["families"]) < 0.2 < np.mean(above["sequences"])


def test_sequences_of_unknown_family_are_permuted_one_by_one():
    rng = np.random.default_rng(10)
    selection, heldout = typed(rng, 30, {}), typed(rng, 24, {})
    unknown, own = (([None] * 30, [np.nan] * 24), (range(30), range(24)))
    tables = [
        score_types(selection, heldout, families=families, shuffles=9)
        for families in (unknown, own, (None, None))
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])


def test_types_without_signal_do_not_beat_the_null():
    """Expected 5 %; tolerance 15 % of the types over all seeds."""
    above = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        table = score_types(typed(rng, 60, {}), typed(rng, 45, {}), shuffles=40, seed=seed)
        above += (table["auroc"] > table["null_p95"]).tolist()
    assert len(above) == 60 and np.mean(above) < 0.15


def test_types_of_one_set_only_stay_as_negatives_without_a_row():
    rng = np.random.default_rng(2)
    known, known_types = typed(rng, 30, {})
    unseen, unseen_types = typed(rng, 30, {})
    unseen_types = np.where(unseen_types == "rRNA", "riboswitch", unseen_types)
    table = score_types((known, known_types), (unseen, unseen_types), shuffles=2).set_index("type")
    assert table.index.tolist() == ["snoRNA", "tRNA"]
    feature = table.loc["tRNA", "feature"]
    assert table.loc["tRNA", "auroc"] == pytest.approx(
        roc_auc_score(unseen_types == "tRNA", unseen.toarray()[:, feature])
    )


def test_types_that_cannot_be_scored_are_refused():
    rng = np.random.default_rng(3)
    pooled, types = typed(rng, 12, {})
    with pytest.raises(ValueError, match="need 2 RNA types or more, there is 1"):
        score_types((pooled, ["tRNA"] * 12), (pooled, ["tRNA"] * 12))
    with pytest.raises(ValueError, match="family one has sequences of more than one type"):
        score_types((pooled, types), (pooled, types), families=(["one"] * 12, range(12)))


def test_concept_scores_of_types_permute_families():
    rng = np.random.default_rng(4)
    sets = [
        (pooled, annotate_types(types, ["rRNA", "snoRNA", "tRNA"]))
        for pooled, types in (typed(rng, 60, {"tRNA": 5}) for _ in range(2))
    ]
    table = score_concepts(*sets, shuffles=40).set_index("concept")
    assert table.loc["tRNA", ["feature", "f1", "p_value", "tokens", "elements"]].tolist() == pytest.approx(
        [5, 1, 1 / 41, 20, 20]
    )
    assert table.index[discoveries(table)].tolist() == ["tRNA"] and set(table["group"]) == {"type"}
    fooled = {"families": [], "sequences": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        ((known, known_types), family_S), ((unseen, unseen_types), family_U) = (
            family_noise(rng, 18),
            family_noise(rng, 12),
        )
        names = sorted(set(known_types))
        sets = (known, annotate_types(known_types, names)), (unseen, annotate_types(unseen_types, names))
        for unit, families in (("families", (family_S, family_U)), ("sequences", (None, None))):
            fooled[unit] += (score_concepts(*sets, families=families, seed=seed)["p_value"] < 0.05).tolist()
    assert np.mean(fooled["families"]) < 0.14 < np.mean(fooled["sequences"])
