"""Features of types: survivors alone are shown, and a probe reads what is planted and nothing else."""

import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import TYPES, rnas
from analysis.statistics.samples import noise_of_families as noise
from scipy import sparse

from sae_rna import figures
from sae_rna.analysis import confounds, type_features
from sae_rna.analysis.type_features import effects, probe, surviving, surviving_activations
from sae_rna.parameters import Parameters
from sae_rna.records.composition import kmer_frequencies, length_and_gc
from sae_rna.study import Study

# -- selectivity
# -----------------------------------------------------------------------------------------------


def preferences(layer, features):
    rows = pd.DataFrame({"layer": layer, "feature": features, "type": "hairpin"})
    return rows.assign(effect=1.0, adjusted_effect=1.0, significant=True, replicates=False)


def test_figure_5_shows_survivors_alone_and_says_which_are_explained(study):
    rnas = study.activations("types")
    live = np.flatnonzero(rnas.retained(3))[:10]
    tested = preferences(3, live)
    tested.loc[:2, "replicates"] = True
    tested.loc[2, "effect"] = -1.0  # ahead only when adjusted
    kept = surviving(tested)
    assert kept.feature.tolist() == live[:2].tolist()
    explained = kept[["layer", "type", "feature"]].assign(explained=[True, False])
    shown = surviving_activations(rnas, kept, explained, [1, 3], top_k=4)
    assert set(shown.feature) == set(live[:2]) and set(shown.layer) == {3}
    assert set(shown.feature[shown.explained]) == {live[0]}
    pooled, records = rnas.pooled(3)
    (row,) = shown[(shown.feature == live[0]) & (shown.type == "hairpin")].to_dict("records")
    column = pooled[:, [live[0]]].toarray().ravel()
    assert row["activation"] == pytest.approx(column[records.type == "hairpin"].mean() / column.max())
    numbers = type_features.numbers(rnas, tested, tested.head(0), shown)
    assert (numbers["shown"], numbers["explained"], numbers["left_out"]) == (2, 1, 8)
    assert (numbers["significant"], numbers["replicated"], numbers["types_found"]) == (10, 3, 1)
    assert effects(tested).to_dict("records") == [
        {"layer": 3, "type": "hairpin", "surviving": 2, "tested": 10}
    ]


def test_types_that_cannot_be_tested_leave_tables_and_figures_that_say_so(study, records_file, tmp_path):
    plain = tmp_path / "plain.parquet"
    pd.read_parquet(records_file).drop(columns="family").to_parquet(plain)
    values = vars(study.parameters) | {"types": str(plain), "run": str(tmp_path / "run")}
    rnas = Study(Parameters(**values)).activations("types")
    with pytest.warns(UserWarning, match="'family'"):
        tested = type_features.prefer_types(rnas)
    shown = surviving_activations(
        rnas, surviving(tested), confounds.explain_types(rnas, surviving(tested)), [1, 3], 4
    )
    assert tested.empty and effects(tested).empty and shown.empty
    numbers = type_features.numbers(rnas, tested, tested, shown)
    assert numbers["pairs"] == numbers["shown"] == numbers["left_out"] == numbers["random_surviving"] == 0
    for chart in (figures.type_effects(effects(tested)), figures.type_features(shown)):
        assert "no feature" in chart.to_dict()["description"].lower()


def test_best_features_of_types_are_chosen_on_the_selection_families(study):
    rnas = study.activations("types")
    scores = type_features.score_types(rnas, shuffles=3)
    best = type_features.best_by_type(scores)
    assert set(best.type) == {"hairpin", "branched"} and best.auroc.is_monotonic_decreasing
    for _, row in best.iterrows():
        assert row.selection_auroc == scores.selection_auroc[scores.type == row.type].max()
    table = type_features.type_table(best, confounds.explain_types(rnas, best))
    assert table.explained.isin([True, False]).all() and len(table) == 2


def test_top_features_say_which_are_explained(study):
    structures, types = study.activations("structures"), study.activations("types")
    table = type_features.top_features(structures, types, layer=3)
    rows = table[table.kind == "element"].rename(columns={"label": "element"})
    found = confounds.explain_elements(structures, rows)
    assert rows.explained.tolist() == found.explained.tolist() and set(table.kind) == {"element", "type"}


def test_first_middle_and_last_layer():
    assert type_features.first_middle_last(list(range(1, 34))) == [1, 17, 33]
    assert type_features.first_middle_last([5]) == [5]


# -- probe
# -----------------------------------------------------------------------------------------------------


def probe_sets(rng):
    known, unseen = rnas(rng, 48, 4), rnas(rng, 36, 4)
    return known, unseen, (known.type, unseen.type, (known.family, unseen.family))


def test_a_probe_reads_planted_types_with_few_weights_and_nothing_from_noise_or_families():
    rng = np.random.default_rng(17)
    known, unseen, labels = probe_sets(rng)
    marked, blank = [], []
    for records in (known, unseen):
        values = noise(rng, records, 60)
        blank.append(values.copy())
        for column, kind in enumerate(TYPES):
            values[:, column] += 5 * (records.type == kind)
        marked.append(sparse.csr_matrix(values))
    table = probe({"marked": marked, "blank": blank}, *labels).set_index("representation")
    assert table.loc["marked", "balanced_accuracy"] > 0.95 and table.loc["marked", "nonzero_weights"] < 30
    assert table.loc["blank", "low"] < 1 / 3 < table.loc["blank", "high"]
    assert table.loc["blank", "balanced_accuracy"] == pytest.approx(1 / 3, abs=0.15)
    assert (
        (table.chance == 1 / 3).all()
        and (table.types == 3).all()
        and (table.families == 36).all()
        and (table["columns"] == 60).all()
    )
    assert (table.low <= table.balanced_accuracy).all() and (table.balanced_accuracy <= table.high).all()
    assert abs(table.loc["marked", "macro_f1"] - table.loc["marked", "balanced_accuracy"]) < 0.05


def test_a_probe_of_kmers_tells_types_of_different_composition_apart():
    rng = np.random.default_rng(18)
    known, unseen = rnas(rng, 36, 2, richer=4), rnas(rng, 36, 2, richer=4)
    sets = {
        "k-mers": [kmer_frequencies(records.sequence, 1) for records in (known, unseen)],
        "length and GC": [length_and_gc(records.sequence) for records in (known, unseen)],
    }
    table = probe(sets, known.type, unseen.type, (known.family, unseen.family))
    assert (table.balanced_accuracy > 0.7).all() and table.representation.tolist() == list(sets)


def test_types_of_one_family_take_no_part_in_the_probe():
    rng = np.random.default_rng(19)
    known, unseen, _ = probe_sets(rng)
    known.loc[known.family == "family 0", "type"] = "lone"
    unseen.loc[unseen.family == "family 0", "type"] = "lone"
    table = probe(
        {"noise": (noise(rng, known), noise(rng, unseen))},
        known.type,
        unseen.type,
        (known.family, unseen.family),
    )
    assert table.types[0] == 3 and table.sequences[0] == 35 * 4 and table.families[0] == 35


def test_the_interval_draws_families_not_sequences():
    """Two families of a type, one right and one wrong: recall 0, 1/2 or 1. The other type's single family
    leaves no doubt."""
    right = np.array([True] * 50 + [False] * 50 + [True] * 10)
    kind, family = np.array(["a"] * 100 + ["b"] * 10), np.repeat(["one", "two", "three"], [50, 50, 10])
    rng = np.random.default_rng(0)
    assert type_features._bootstrap(right, kind, family, rng) == (0.75, 0.5, 1.0)
    assert type_features._bootstrap(right[50:], kind[50:], family[50:], rng) == (0.5, 0.5, 0.5)


def test_probes_that_cannot_be_fitted_are_refused():
    rng = np.random.default_rng(20)
    known, unseen, labels = probe_sets(rng)
    with pytest.raises(ValueError, match="short has 143 held-out rows for 144 held-out sequences"):
        probe({"short": (np.zeros((192, 2)), np.zeros((143, 2)))}, *labels)
    with pytest.raises(ValueError, match="1 RNA types have 2 families to fit on"):
        probe({}, ["tRNA"] * 192, ["tRNA"] * 144, labels[2])
