"""What composition explains: planted features that are covariates, and some that no covariate tells."""

import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import reference_base_auroc
from given import Given
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_rna.analysis import confounds, structure_features
from sae_rna.analysis.confounds import (
    GROUPS,
    covariates,
    explain_elements,
    explain_types,
    sequence_covariates,
)
from sae_rna.analysis.statistics.choosing import score_elements, score_types

SETTING = "unseen families"
quick = settings(max_examples=40)
sequences_of = st.lists(st.text("ACGUN", min_size=1, max_size=9), min_size=1, max_size=4)


def explain(activations, tokens, records, chosen, **options):
    """`explain_elements` of layer 1, by group."""
    rnas = Given(activations, records, tokens)
    return explain_elements(rnas, chosen.assign(layer=1, setting=SETTING), by_group=True, **options)


def choices(elements):
    """Features 0, 1 ... chosen for elements."""
    return pd.DataFrame({"element": list(elements), "feature": range(len(elements))})


def explain_pooled(pooled, records, chosen):
    return explain_types(Given(pooled, records), chosen.assign(layer=1, setting=SETTING))


def records_and_tokens(sequences, elements=None, splits=("selection", "heldout")):
    """Records that take turns in the splits, and their tokens without the N."""
    records = pd.DataFrame(
        {"sequence": sequences, "split": [splits[row % len(splits)] for row in range(len(sequences))]}
    )
    length = records["sequence"].str.len()
    tokens = pd.DataFrame(
        {
            "record": np.repeat(np.arange(len(records), dtype=np.int32), length),
            "position": np.concatenate([np.arange(n, dtype=np.int32) for n in length]),
            "base": pd.Categorical(list("".join(sequences)), categories=list("ACGUN")),
            "element": list("".join(elements or ["S" * n for n in length])),
        }
    )
    return records, tokens[tokens["base"] != "N"]


def random_rnas(rng, count=80, splits=("selection", "heldout")):
    """RNAs of 30 to 60 nt of varying GC content; runs of stem, hairpin loop and end know nothing of it."""
    sequences, elements = [], []
    for _ in range(count):
        length, strong = rng.integers(30, 61), rng.uniform(0.2, 0.8)
        share = np.array([1 - strong, strong, strong, 1 - strong]) / 2
        sequences.append("".join(rng.choice(list("ACGU"), length, p=share)))
        elements.append("".join(np.repeat(rng.choice(list("SHE"), 40), rng.integers(2, 7, 40)))[:length])
    return records_and_tokens(sequences, elements, splits)


def planted(rng, **options):
    """A feature of each group of covariates, one that marks stems and one that fires anywhere; by name."""
    records, tokens = random_rnas(rng, **options)
    known = covariates(tokens, records)
    stems = (tokens["element"] == "S").to_numpy()
    chance = rng.random((2, len(tokens)))
    features = {
        "base": known["base"][:, 2],  # G
        "neighbours": 3 * known["neighbours"][:, 4],  # A, two before
        "position": known["position"][:, 2] > 0.6,
        "composition": known["composition"][:, 0] > 0.5,
        "stem": (stems ^ (chance[0] < 0.03)) * (0.7 + 0.3 * chance[1]),
        "noise": rng.exponential(size=len(tokens)) * (rng.random(len(tokens)) < 0.2),
    }
    activations = sparse.csr_matrix(np.stack(list(features.values()), axis=1).astype(np.float32))
    chosen = pd.DataFrame({"element": "S", "feature": np.arange(len(features))}, index=list(features))
    return activations, tokens, records, chosen


# --- covariates ------------------------------------------------------------------------------------


@quick
@given(sequences_of, st.integers(0, 3))
def test_covariates_of_nucleotides_are_those_of_a_plain_loop(sequences, reach):
    records, tokens = records_and_tokens(sequences)
    found = covariates(tokens, records, reach)
    assert list(found) == list(GROUPS) and all(values.dtype == np.float32 for values in found.values())
    for row, (record, position) in enumerate(zip(tokens["record"], tokens["position"])):
        sequence = sequences[record]
        last, bases = len(sequence) - 1, [letter for letter in sequence if letter != "N"]
        around = [position + offset for offset in range(-reach, reach + 1) if offset]
        letters = [sequence[place] if 0 <= place <= last else "" for place in around]
        expected = {
            "base": [sequence[position] == base for base in "ACGU"],
            "neighbours": [letter == base for letter in letters for base in "ACGU"],
            "position": [position, last - position, position / last if last else 0],
            "composition": [sum(letter in "GC" for letter in bases) / len(bases), len(sequence)],
        }
        for group, values in expected.items():
            assert found[group][row] == pytest.approx(np.array(values, float))


@quick
@given(sequences_of)
def test_covariates_of_sequences_are_those_of_a_plain_loop(sequences):
    values = sequence_covariates(pd.DataFrame({"sequence": sequences}))
    for sequence, row in zip(sequences, values, strict=True):
        bases = [letter for letter in sequence if letter != "N"]
        pairs = [a + b for a, b in zip(sequence, sequence[1:]) if "N" not in a + b]
        expected = [len(sequence), sum(letter in "GC" for letter in bases) / max(len(bases), 1)]
        expected += [bases.count(base) / max(len(bases), 1) for base in "ACGU"]
        expected += [pairs.count(a + b) / max(len(pairs), 1) for a in "ACGU" for b in "ACGU"]
        assert row == pytest.approx(np.array(expected))


def test_covariates_do_not_depend_on_the_other_records():
    records, tokens = random_rnas(np.random.default_rng(0), count=12)
    some, of_some = records.iloc[:5], tokens["record"] < 5
    found, of_all = covariates(tokens[of_some], some), covariates(tokens, records)
    assert all((found[group] == of_all[group][of_some]).all() for group in GROUPS)


# --- nucleotides ------------------------------------------------------------------------------------


def test_a_feature_that_is_a_covariate_is_explained_by_its_group_and_one_of_stems_is_not():
    activations, tokens, records, chosen = planted(np.random.default_rng(0))
    table = explain(activations, tokens, records, chosen).set_axis(chosen.index)
    for group in GROUPS:
        assert table.loc[group, ["r2", f"r2_{group}"]].min() > 0.97 and table.loc[group, "explained"]
        # neighbours tell of composition, and where they are missing, of position
        assert table.loc[group, [f"r2_{other}" for other in GROUPS if other != group]].max() < 0.4
    assert not table.loc["stem", "explained"]
    assert table.loc["stem", "r2"] < 0.1
    own, confound = table.loc["stem", ["own_base_auroc", "confound_base_auroc"]]
    assert own > 0.9 and confound < 0.6
    assert table.loc["noise", "r2"] < 0.05


def test_either_half_of_the_rule_makes_a_feature_explained():
    records, tokens = random_rnas(np.random.default_rng(12))
    guanine, stem = (tokens["base"] == "G").to_numpy(), (tokens["element"] == "S").to_numpy()
    end = (tokens["element"] == "E").to_numpy() * 1.0
    activations = sparse.csr_matrix(np.stack([np.where(guanine, 1, 0.3 * stem), end], axis=1))
    table = explain(activations, tokens, records, choices("SS"))
    assert table["explained"].all()
    (base, other) = table[["r2", "own_base_auroc", "confound_base_auroc"]].itertuples(index=False)
    assert base.r2 > 0.8 and base.confound_base_auroc < base.own_base_auroc
    assert other.r2 < 0.1 and other.confound_base_auroc > other.own_base_auroc


def test_a_concept_that_is_two_neighbours_is_found_as_well_by_the_covariates():
    rng = np.random.default_rng(1)
    sequences = ["".join(rng.choice(list("ACGU"), 50)) for _ in range(60)]
    after_g = ["".join("S" if before == "G" else "H" for before in "A" + of[:-1]) for of in sequences]
    records, tokens = records_and_tokens(sequences, after_g)
    stem = (tokens["element"] == "S").to_numpy()[:, None]
    activations = sparse.csr_matrix(stem * rng.uniform(0.7, 1.0, (len(tokens), 1)))
    row = explain(activations, tokens, records, choices("S")).iloc[0]
    assert row["own_base_auroc"] == row["confound_base_auroc"] == 1
    assert row["explained"] and row["r2"] > 0.9 and row["r2_neighbours"] > 0.9 and row["r2_base"] < 0.1


def test_a_feature_that_is_a_base_has_nothing_of_its_own_for_the_concept():
    activations, tokens, records, chosen = planted(np.random.default_rng(21))
    row = explain(activations, tokens, records, chosen.loc[["base"]]).iloc[0]
    assert row["own_base_auroc"] == 0.5 and row["r2_base"] > 0.97 and row["explained"]


def test_each_setting_is_explained_by_its_own_families():
    splits = ("selection", "heldout", "seen-selection", "seen-heldout")
    activations, tokens, records, chosen = planted(np.random.default_rng(22), count=80, splits=splits)
    seen = records["split"].str.startswith("seen").to_numpy()
    rnas = Given(activations, records, tokens)
    both = [chosen.assign(layer=1, setting=name) for name in ("seen families", SETTING)]
    table = explain_elements(rnas, pd.concat(both))
    assert table["setting"].tolist() == ["seen families"] * 6 + [SETTING] * 6
    for setting, own in (("seen families", seen), (SETTING, ~seen)):
        numbers = np.flatnonzero(own)
        alone = records[own].assign(split=records["split"].str.removeprefix("seen-")).reset_index(drop=True)
        rows = np.isin(tokens["record"], numbers)
        of = tokens[rows].assign(record=np.searchsorted(numbers, tokens["record"][rows]))
        expected = explain(activations[rows], of, alone, chosen)
        found = table[table["setting"] == setting]
        for column in ("r2", "own_base_auroc", "confound_base_auroc"):
            np.testing.assert_allclose(found[column], expected[column])


def test_own_score_is_the_score_of_elements():
    activations, tokens, records, _ = planted(np.random.default_rng(2))
    split = records["split"].to_numpy()[tokens["record"]]
    sets = [split == name for name in ("selection", "heldout")]
    chosen = score_elements(*((activations[rows], tokens[rows]) for rows in sets), shuffles=1)
    table = explain(activations, tokens, records, chosen)
    assert len(chosen) == 3 and table["own_base_auroc"].tolist() == chosen["base_auroc"].tolist()


def test_the_score_is_that_of_the_prediction_as_just_another_feature(monkeypatch):
    activations, tokens, records, chosen = planted(np.random.default_rng(3))
    heldout = (records["split"] == "heldout").to_numpy()[tokens["record"]]
    made = []
    regress = confounds._regress
    monkeypatch.setattr(confounds, "_regress", lambda *given: made.append(regress(*given)) or made[0])
    chosen = chosen.assign(element=list("SHESHE"))
    table = explain(activations, tokens, records, chosen)
    members = np.column_stack([tokens["element"][heldout] == letter for letter in "SHE"])
    for values, name in ((activations.toarray(), "own"), (made[0][0], "confound")):
        expected = reference_base_auroc(values[heldout], members, tokens["base"][heldout])
        np.testing.assert_allclose(table[f"{name}_base_auroc"], expected[range(6), [0, 1, 2, 0, 1, 2]])
    # trees that say less than nothing say nothing
    assert made[0][0].min() == 0 and (made[0][0] == 0).sum() > 10


def test_the_regression_sees_the_selection_split_alone():
    records, tokens = random_rnas(np.random.default_rng(4))
    heldout = (records["split"] == "heldout").to_numpy()[tokens["record"]]
    fires = np.where(heldout, tokens["base"] == "C", tokens["base"] == "G")
    row = explain(sparse.csr_matrix(fires[:, None] * 1.0), tokens, records, choices("S"))
    assert row["r2"].item() < -0.5 and row["r2_base"].item() < -0.5


def test_other_splits_play_no_part_and_rows_follow_the_choices():
    activations, tokens, records, chosen = planted(
        np.random.default_rng(5), count=90, splits=("train", "selection", "heldout")
    )
    table = explain(activations, tokens, records, chosen)
    used = (records["split"] != "train").to_numpy()[tokens["record"]]
    changed = sparse.csr_matrix(activations.toarray() * used[:, None])
    pd.testing.assert_frame_equal(explain(changed, tokens, records, chosen), table)
    order = [3, 0, 0, 5]
    pd.testing.assert_frame_equal(
        explain(activations, tokens, records, chosen.iloc[order]),
        table.iloc[order].reset_index(drop=True),
        check_exact=True,
    )


def test_the_sample_follows_the_seed(monkeypatch):
    monkeypatch.setattr(confounds, "FITTED_TOKENS", 1000)
    activations, tokens, records, chosen = planted(np.random.default_rng(6), count=90)
    first, again, other = (explain(activations, tokens, records, chosen, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (first["r2"] != other["r2"]).any() and (first["own_base_auroc"] == other["own_base_auroc"]).all()


@quick
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(1, 40), st.integers(0, 99))
def test_a_sample_is_of_whole_records_within_the_limit(lengths, limit, seed):
    record_T = np.repeat(np.arange(len(lengths)) * 2, lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confounds, "FITTED_TOKENS", limit)
        drawn = confounds._sample(record_T, seed)
    assert len(drawn) == len(set(drawn)) > 0 and set(drawn) <= set(record_T)
    total = np.isin(record_T, drawn).sum()
    assert total <= limit or len(drawn) == 1
    left = [length for record, length in enumerate(lengths) if 2 * record not in drawn]
    assert len(drawn) == 1 or not left or total + max(left) > limit


def test_a_feature_that_never_fires_on_held_out_families_has_no_r2():
    activations, tokens, records, chosen = planted(np.random.default_rng(7), count=40)
    heldout = (records["split"] == "heldout").to_numpy()[tokens["record"]]
    row = explain(
        sparse.csr_matrix(activations.toarray() * ~heldout[:, None]), tokens, records, chosen.loc[["stem"]]
    ).iloc[0]
    assert row["r2"] == 0 and row["own_base_auroc"] == 0.5


def test_what_does_not_fit_is_refused():
    activations, tokens, records, chosen = planted(np.random.default_rng(8), count=8)
    with pytest.raises(ValueError, match="'heldout'"):
        explain(activations, tokens, records.assign(split="selection"), chosen)


def test_where_nothing_is_chosen_nothing_is_explained():
    activations, tokens, records, chosen = planted(np.random.default_rng(8), count=8)
    table = explain(activations, tokens, records, chosen.head(0))
    assert table.empty and {"layer", "element", "feature", "explained"} <= set(table)


def test_layers_are_explained_one_by_one_and_rows_follow_the_choices():
    activations, tokens, records, chosen = planted(np.random.default_rng(14), count=20)
    rnas = Given(activations, records, tokens)
    rnas.by_layer[2] = activations[:, ::-1]
    mixed = chosen.assign(layer=[1, 2, 1, 2, 2, 1], feature=[0, 4, 2, 2, 1, 5], setting=SETTING)
    table = explain_elements(rnas, mixed)
    expected = explain(activations, tokens, records, chosen)  # feature f of layer 2 is 5 - f of layer 1
    assert table[["layer", "feature"]].to_numpy().tolist() == mixed[["layer", "feature"]].to_numpy().tolist()
    np.testing.assert_allclose(table["r2"], expected["r2"])
    np.testing.assert_allclose(table["confound_base_auroc"], expected["confound_base_auroc"])


# --- sequences ------------------------------------------------------------------------------------


def planted_types(rng, count=400):
    """Features of length, of GC content and of a type that neither shows; types A and B."""
    records, _ = random_rnas(rng, count)
    records["type"] = rng.choice(["A", "B"], count)
    length, gc = sequence_covariates(records)[:, :2].T
    features = [
        length > 45,
        gc,
        (records["type"] == "A").to_numpy() * rng.uniform(0.5, 1.0, count) + rng.uniform(0, 0.3, count),
    ]
    chosen = pd.DataFrame({"type": "A", "feature": range(3)}, index=["length", "composition", "type"])
    return sparse.csr_matrix(np.stack(features, axis=1).astype(np.float32)), records, chosen


def test_length_and_composition_explain_features_of_types_but_not_the_type_itself():
    pooled, records, chosen = planted_types(np.random.default_rng(9))
    table = explain_pooled(pooled, records, chosen).set_axis(chosen.index)
    assert table["explained"].tolist() == [True, True, False]
    assert table.loc[["length", "composition"], "r2"].min() > 0.9
    assert table.loc["type", "r2"] < 0.1
    assert table.loc["type", "own_auroc"] == 1 and 0.35 < table.loc["type", "confound_auroc"] < 0.65


def test_a_feature_of_another_type_tells_less_of_this_one_than_chance():
    pooled, records, chosen = planted_types(np.random.default_rng(13))
    row = explain_pooled(pooled, records, chosen.loc[["type"]].assign(type="B")).iloc[0]
    assert row["own_auroc"] == 0 < row["confound_auroc"] and row["r2"] < 0.1 and row["explained"]


def test_own_auroc_is_the_score_of_types():
    pooled, records, _ = planted_types(np.random.default_rng(10))
    sets = [
        (pooled[(records["split"] == name).to_numpy()], records["type"][records["split"] == name])
        for name in ("selection", "heldout")
    ]
    chosen = score_types(*sets, shuffles=1)
    table = explain_pooled(pooled, records, chosen)
    assert table["own_auroc"].tolist() == chosen["auroc"].tolist() and table["type"].tolist() == ["A", "B"]


def test_types_that_do_not_fit_are_refused():
    pooled, records, chosen = planted_types(np.random.default_rng(11), count=50)
    with pytest.raises(ValueError, match="'heldout'"):
        explain_pooled(pooled, records.assign(split="selection"), chosen)


# --- tables of the page -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def marked(study):
    """Scores of the small study's elements with what explains them, and the latter."""
    rnas, p = study.activations("structures"), study.parameters
    scores = study.kept(structure_features.score_elements, rnas, shuffles=p.shuffles, seed=p.seed)
    explained = study.kept(explain_elements, rnas, scores, seed=p.seed)
    return confounds.mark(scores, explained), explained


def test_every_score_is_marked_with_what_explains_its_feature(marked):
    scores, explained = marked
    found = explained.set_index(["layer", "element", "feature"])
    for row in scores.itertuples():
        expected = found.loc[(row.layer, row.element, row.feature)]
        columns = ["explained", "r2", "confound_base_auroc", "own_base_auroc"]
        found_row = row.explained, row.r2, row.confound_base_auroc, row.base_auroc
        assert found_row == pytest.approx(tuple(expected[columns]))


def test_marking_keeps_scores_of_which_nothing_is_known(marked):
    scores, explained = marked
    plain = scores.drop(columns=["explained", "r2", "confound_base_auroc"])
    table = confounds.mark(plain, explained.iloc[1:])
    assert len(table) == len(plain) and table.explained.isna().tolist() == [True] + [False] * (len(plain) - 1)


def test_what_explains_the_best_features_is_told_by_group(study, marked):
    scores, _ = marked
    best = structure_features.best_by_element(scores)
    groups = confounds.group_table(
        explain_elements(study.activations("structures"), best, study.parameters.seed, by_group=True)
    )
    assert groups.element.tolist() == best.concept.tolist()
    assert groups.feature.tolist() == best.feature.tolist()
    np.testing.assert_allclose(groups["R2 of all"], best.r2)
    assert {"base", "neighbours", "position", "GC and length"} < set(groups.columns)
    numbers = confounds.numbers(scores)
    assert numbers["explained"] == best.explained.sum() and numbers["elements"] == len(best)
    assert numbers["by_setting"] == f"{best.explained.sum()} of {len(best)} elements in unseen families"
    assert numbers["all_explained"] == scores.explained.sum() and numbers["features"] == len(scores)
