"""Features of types: survivors alone are shown, and a probe reads what is planted and nothing else."""

import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import TYPES, rnas
from analysis.statistics.samples import noise_of_families as noise
from scipy import sparse

from sae_rna import figures
from sae_rna.analysis import confounds, type_features
from sae_rna.analysis.type_features import effects, probe, surviving, type_activations
from sae_rna.parameters import Parameters
from sae_rna.records.composition import kmer_frequencies, length_and_gc
from sae_rna.study import Study

# -- selectivity
# -----------------------------------------------------------------------------------------------


def preferences(layer, features, setting="unseen families"):
    rows = pd.DataFrame({"setting": setting, "layer": layer, "feature": features, "type": "hairpin"})
    return rows.assign(effect=1.0, adjusted_effect=1.0, significant=True, replicates=False)


def test_figure_5_shows_all_retained_features_and_marks_survivors_and_explained_ones(study):
    rnas = study.activations("types")
    live = np.flatnonzero(rnas.retained(3))[:8]
    tested = preferences(3, live)
    tested.loc[:2, "replicates"] = True
    tested.loc[2, "effect"] = -1.0  # ahead only when adjusted
    tested = pd.concat([tested, preferences(3, live, "seen families")], ignore_index=True)
    tested.loc[(tested.feature == live[1]) & (tested.setting == "seen families"), "replicates"] = True
    kept = surviving(tested)
    assert kept.feature[kept.setting == "unseen families"].tolist() == live[:2].tolist()
    explained = kept[["setting", "layer", "type", "feature"]].assign(explained=kept.feature == live[0])
    shown = type_activations(rnas, kept, explained, [1, 3], top_k=4, filtered=True)
    assert set(shown.feature) == set(live[:2]) and set(shown.layer) == {3}
    assert set(shown.feature[shown.explained]) == {live[0]}
    marked = shown[shown.survives != ""].set_index("feature")
    assert set(marked.type) == {"hairpin"}
    assert marked.survives.to_dict() == {
        live[0]: "unseen families", live[1]: "seen families, unseen families"
    }  # fmt: skip
    pooled, records = rnas.pooled(3)
    (row,) = shown[(shown.feature == live[0]) & (shown.type == "hairpin")].to_dict("records")
    column = pooled[:, [live[0]]].toarray().ravel()
    assert row["activation"] == pytest.approx(column[records.type == "hairpin"].mean() / column.max())
    every = type_activations(rnas, kept, explained, [1, 3], top_k=rnas.summary.feature.max() + 1)
    for layer in (1, 3):
        assert set(every.feature[every.layer == layer]) == set(np.flatnonzero(rnas.retained(layer)))
    assert set(every.type) == set(rnas.records.type)
    numbers = type_features.numbers(rnas, tested, tested.head(0), shown)
    assert (numbers["shown"], numbers["explained"], numbers["surviving"]) == (2, 1, 3)
    assert (numbers["significant"], numbers["replicated"], numbers["empty_cells"]) == (16, 4, 0)
    assert effects(tested).surviving.tolist() == [2, 1] and effects(tested).tested.tolist() == [8, 8]


def test_types_that_cannot_be_tested_leave_tables_and_figures_that_say_so(study, records_file, tmp_path):
    plain = tmp_path / "plain.parquet"
    pd.read_parquet(records_file).drop(columns="family").to_parquet(plain)
    values = vars(study.parameters) | {"types": str(plain), "run": str(tmp_path / "run")}
    rnas = Study(Parameters(**values)).activations("types")
    with pytest.warns(UserWarning, match="'family'"):
        tested = type_features.prefer_types(rnas)
    explained = confounds.explain_types(rnas, surviving(tested))
    shown = type_activations(rnas, surviving(tested), explained, [1, 3], 4, filtered=True)
    assert tested.empty and effects(tested).empty and shown.empty
    numbers = type_features.numbers(rnas, tested, tested, shown)
    assert numbers["pairs"] == numbers["shown"] == numbers["random_surviving"] == 0
    assert "no feature" in figures.type_effects(effects(tested)).to_dict()["description"].lower()
    assert (
        figures.type_features(shown, [1, 3], kind="surviving").to_dict()["description"].count("0 features")
        == 2
    )
    assert type_features.types_found(tested, tested, 3).startswith("no type could be tested")
    every = type_activations(rnas, surviving(tested), explained, [1, 3], 4)
    assert set(every.layer) == {1, 3} and (every.survives == "").all() and not every.explained.any()


def test_what_is_said_of_types_needs_three_of_them():
    rows = pd.concat([preferences(6, [1, 2, 3, 4]), preferences(6, [1, 2], "seen families")])
    rows["type"] = ["a", "b", "c", "c", "a", "b"]
    rows["replicates"] = [True, False, True, True, True, True]
    said = type_features.types_found(rows, rows.assign(replicates=False), 6)
    assert "in unseen families 2 of 3 types that can be tested have a feature of their own, 2 of them" in said
    assert "random weights: 0" in said
    assert "in seen families only 2 types can be tested, too few" in said
    assert "2 of 3 types that can be tested have a feature of their own, 0 of them" in (
        type_features.types_found(rows, rows, 5)
    )


def test_probes_are_compared_by_their_intervals():
    names = ["length and GC content", "SAE features, layer 1", "SAE features, layer 6"]
    rows = {"setting": "unseen families", "representation": names, "balanced_accuracy": [0.3, 0.33, 0.2]}
    table = pd.DataFrame(rows | {"low": [0.25, 0.28, 0.15], "high": [0.35, 0.4, 0.24]})
    said = type_features.compare_probes(table)
    assert said == (
        "unseen families: features reach 0.20 to 0.33, length and GC content 0.30, and the intervals overlap "
        "in 1 of 2 layers and lie below in 1"
    )


def test_best_features_of_types_are_chosen_on_the_selection_families(study):
    rnas = study.activations("types")
    scores = type_features.score_types(rnas, shuffles=3)
    best = type_features.best_by_type(scores)
    assert set(best.type) == {"hairpin", "branched"} and best.auroc.is_monotonic_decreasing
    for _, row in best.iterrows():
        assert row.selection_auroc == scores.selection_auroc[scores.type == row.type].max()
    table = type_features.type_table(best, confounds.explain_types(rnas, best), rnas.records)
    assert table.explained.isin([True, False]).all() and len(table) == 2
    heldout = rnas.records[rnas.records.split == "heldout"]
    assert table.families.tolist() == [heldout.family[heldout.type == name].nunique() for name in table.type]
    assert len(type_features.headed(table)) == 2


def test_top_features_say_which_are_explained(study):
    structures, types = study.activations("structures"), study.activations("types")
    table = type_features.top_features(structures, types, layer=3)
    rows = table[table.kind == "element"].rename(columns={"label": "element"})
    found = confounds.explain_elements(structures, rows)
    assert rows.explained.tolist() == found.explained.tolist() and set(table.kind) == {"element", "type"}
    shown = type_features.top_table(table).set_index("name")
    stem = table[(table.label == "S") & (table["rank"] == 1)].iloc[0]
    assert shown.loc["stem", "feature, unseen families"] == str(stem.feature)
    assert shown.loc["stem", "AUROC, unseen families"] == stem.base_auroc
    assert shown.loc["stem", "explained, unseen families"] == ("yes" if stem.explained else "no")
    assert len(shown) == len(table.drop_duplicates(["kind", "label"]))


def test_top_features_of_two_settings_stand_side_by_side():
    row = {"kind": "type", "label": "tRNA", "rank": 1, "feature": 7, "base_auroc": 0.6, "enrichment": 2.0}
    other = row | {"feature": 9, "setting": "unseen families", "explained": True}
    top = pd.DataFrame([row | {"setting": "seen families", "explained": False}, other, other | {"rank": 2}])
    top = pd.concat([top, top.head(1).assign(label="CD-box")])
    table = type_features.top_table(top).set_index("name")
    assert table.loc["tRNA", ["feature, seen families", "feature, unseen families"]].tolist() == ["7", "9"]
    assert pd.isna(table.loc["CD-box", "feature, unseen families"]) and len(table) == 2


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


def test_probes_that_cannot_be_fitted_are_refused():
    rng = np.random.default_rng(20)
    known, unseen, labels = probe_sets(rng)
    with pytest.raises(ValueError, match="short has 143 held-out rows for 144 held-out sequences"):
        probe({"short": (np.zeros((192, 2)), np.zeros((143, 2)))}, *labels)
    with pytest.raises(ValueError, match="1 RNA types have 2 families to fit on"):
        probe({}, ["tRNA"] * 192, ["tRNA"] * 144, labels[2])
