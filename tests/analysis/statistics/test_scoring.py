from itertools import groupby

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.stats import false_discovery_control
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from sae_rna.analysis.statistics import scoring as concepts
from sae_rna.analysis.statistics.annotations import Annotations
from sae_rna.analysis.statistics.scoring import (
    annotate_elements,
    auroc,
    best_features,
    concept_scores,
    discoveries,
    element_scores,
    rank_scores,
    score,
    top_features,
    type_scores,
)
from sae_rna.records.structure import ELEMENTS, element_string
from sae_rna.sae.features import pool_sequences

LETTERS = list(ELEMENTS)
quick = settings(deadline=None, max_examples=50)  # no deadline: a busy machine is no failure


def token_table(element_strings):
    """Token table of records given by their element letters."""
    lengths = [len(letters) for letters in element_strings]
    return pd.DataFrame(
        {
            "record": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            "position": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            "element": pd.Categorical(list("".join(element_strings)), categories=LETTERS),
        }
    )


@st.composite
def annotated_activations(draw, alphabet="SHE"):
    """Activations [T, F] with zeros, ties and values on the thresholds, their scales, and a token table."""
    strings = draw(st.lists(st.text(alphabet, min_size=1, max_size=8), min_size=1, max_size=5))
    shape = sum(map(len, strings)), draw(st.integers(1, 3))
    values = draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 4.0])))
    scale = draw(arrays(np.float32, shape[1], elements=st.sampled_from([0.0, 4.0, 8.0])))
    return values, scale, token_table(strings)


def instances_of(tokens):
    """Element instances as lists of row numbers with their letter, by a plain loop."""
    rows = list(enumerate(zip(tokens["record"], tokens["element"])))
    return [(key[1], [row for row, _ in run]) for key, run in groupby(rows, key=lambda item: item[1])]


def letters_of(labels):
    """Letters of annotations that give every row one element."""
    assert np.diff(labels.instance_NC.indptr).tolist() == [1] * len(labels.record_N)
    return "".join(LETTERS[c] for c in labels.instance_NC.indices)


def harmonic(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


def reference_score(values, scale, tokens, feature, letter, threshold):
    """precision, token recall, element recall by plain loops."""
    fires = [scale[feature] > 0 and value / scale[feature] > threshold for value in values[:, feature]]
    is_letter = [element == letter for element in tokens["element"]]
    hits = sum(a and b for a, b in zip(fires, is_letter))
    instances = [rows for name, rows in instances_of(tokens) if name == letter]
    found = sum(any(fires[row] for row in rows) for rows in instances)
    share = lambda part, whole: part / whole if whole else 0.0  # noqa: E731
    return share(hits, sum(fires)), share(hits, sum(is_letter)), share(found, len(instances))


def planted(rng, sequences, latents=24, noise=0.02):
    """Hairpins with a feature (3) that marks stems, one (7) that marks hairpin loops, and random others."""
    structures = []
    for _ in range(sequences):
        stem, loop, left, right = rng.integers([4, 4, 3, 3], [9, 8, 10, 10])
        structures.append("." * left + "(" * stem + "." * loop + ")" * stem + "." * right)
    tokens = token_table([element_string(structure) for structure in structures])
    activations = rng.exponential(size=(len(tokens), latents)) * (rng.random((len(tokens), latents)) < 0.1)
    for feature, letter in ((3, "S"), (7, "H")):
        fires = (tokens["element"] == letter).to_numpy() ^ (rng.random(len(tokens)) < noise)
        activations[:, feature] = fires * rng.uniform(0.6, 1.0, len(tokens))
    return sparse.csr_matrix(activations.astype(np.float32)), tokens


def noise(rng, sequences, latents=30):
    """Element runs and features of assorted densities that know nothing of each other."""
    strings = [
        "".join(np.repeat(rng.choice(list("SHE"), 16), rng.integers(2, 7, 16))) for _ in range(sequences)
    ]
    tokens = token_table(strings)
    density = rng.uniform(0.01, 0.4, latents)
    activations = rng.exponential(size=(len(tokens), latents)) * (
        rng.random((len(tokens), latents)) < density
    )
    return sparse.csr_matrix(activations), tokens


# --- annotations ----------------------------------------------------------------------------------------------------------------------


def test_elements_are_runs_of_a_letter_within_a_record():
    labels = annotate_elements(token_table(["EESSHHHSSE", "ESS"]))
    assert labels.instance_NC.data.tolist() == [1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7, 7]
    assert letters_of(labels) == "EESSHHHSSEESS"
    assert dict(zip(labels.concepts, labels.elements_C)) == {
        "S": 3,
        "H": 1,
        "I": 0,
        "B": 0,
        "M": 0,
        "X": 0,
        "E": 3,
        "K": 0,
    }
    assert dict(zip(labels.concepts, labels.rows_C)) == {
        "S": 6,
        "H": 3,
        "I": 0,
        "B": 0,
        "M": 0,
        "X": 0,
        "E": 4,
        "K": 0,
    }


def test_a_nucleotide_without_element_is_named():
    tokens = token_table(["ESS", "ESE"]).assign(element=["E", "S", "S", "E", "Q", "E"])
    with pytest.raises(ValueError, match="record 1, position 2: 'Q' is no element"):
        annotate_elements(tokens)
    with pytest.raises(ValueError, match="record 0, position 3: 'nan' is no element"):
        annotate_elements(tokens.assign(element=["E", "S", np.nan, "E", "E", "E"]))


@quick
@given(st.lists(st.text("SHEK", min_size=1, max_size=9), min_size=1, max_size=5), st.integers(0, 2**32))
def test_a_shift_rotates_every_record_and_keeps_its_instances(strings, seed):
    labels = annotate_elements(token_table(strings))
    shifted = labels.shifted(np.random.default_rng(seed))
    assert (shifted.record_N == labels.record_N).all()
    for number, letters in enumerate(strings):
        rows = labels.record_N == number
        after = "".join(np.array(list(letters_of(shifted)))[rows])
        offsets = range(1, len(letters)) if len(letters) > 1 else [0]
        assert after in {letters[k:] + letters[:k] for k in offsets}
        before, turned = (labels.instance_NC.data[rows], shifted.instance_NC.data[rows])
        assert any((np.roll(before, -k) == turned).all() for k in offsets)
    assert (shifted.elements_C == labels.elements_C).all()


def test_shifts_reach_every_offset_but_the_identity():
    labels = annotate_elements(token_table(["SHEK"]))
    rng = np.random.default_rng(0)
    seen = {letters_of(labels.shifted(rng)) for _ in range(200)}
    assert seen == {"HEKS", "EKSH", "KSHE"}


# --- scores ---------------------------------------------------------------------------------------------------------------------------


def test_scores_known_answer():
    tokens = token_table(["EESSHHHSSE"])
    #                       E  E  S  S  H  H  H  S  S  E
    activations = np.array([[0, 0, 4, 0, 1, 0, 0, 0, 0, 0]], dtype=float).T
    scores = score(
        sparse.csr_matrix(activations), np.array([4.0]), annotate_elements(tokens), thresholds=(0.0, 0.25)
    )
    stem, hairpin, end = (LETTERS.index(letter) for letter in "SHE")
    assert scores.precision[0, stem].tolist() == [0.5, 1.0]  # 1 / 4 is not above .25
    assert scores.token_recall[0, stem].tolist() == [0.25, 0.25]
    assert scores.element_recall[0, stem].tolist() == [0.5, 0.5]
    assert scores.f1[0, stem].tolist() == pytest.approx([0.5, 2 / 3])
    assert scores.token_f1[0, stem].tolist() == pytest.approx([1 / 3, 0.4])
    assert scores.enrichment[0, stem].tolist() == [0.5 / 0.4, 1 / 0.4]
    assert scores.element_recall[0, hairpin].tolist() == [1.0, 0.0]
    assert scores.f1[0, end].tolist() == [0.0, 0.0]
    assert scores.enrichment[0, LETTERS.index("K")].tolist() == [0.0, 0.0]


@quick
@given(annotated_activations())
def test_scores_equal_plain_loops(case):
    values, scale, tokens = case
    thresholds = (0.0, 0.25, 0.5)
    scores = score(sparse.csr_matrix(values), scale, annotate_elements(tokens), thresholds)
    for feature in range(values.shape[1]):
        for c, letter in enumerate(LETTERS):
            for h, threshold in enumerate(thresholds):
                precision, token_recall, element_recall = reference_score(
                    values, scale, tokens, feature, letter, threshold
                )
                assert scores.precision[feature, c, h] == pytest.approx(precision)
                assert scores.token_recall[feature, c, h] == pytest.approx(token_recall)
                assert scores.element_recall[feature, c, h] == pytest.approx(element_recall)
                assert scores.f1[feature, c, h] == pytest.approx(harmonic(precision, element_recall))
                assert scores.token_f1[feature, c, h] == pytest.approx(harmonic(precision, token_recall))


def test_token_scores_equal_scikit_learn():
    activations, tokens = noise(np.random.default_rng(1), 20)
    scale = activations.max(axis=0).toarray().ravel()
    scores = score(activations, scale, annotate_elements(tokens))
    fires = activations.toarray() / scale > 0.15
    for feature in range(5):
        for letter in "SHE":
            at, truth = (feature, LETTERS.index(letter), 1), tokens["element"] == letter
            assert scores.precision[at] == pytest.approx(
                precision_score(truth, fires[:, feature], zero_division=0)
            )
            assert scores.token_recall[at] == pytest.approx(recall_score(truth, fires[:, feature]))


@quick
@given(annotated_activations())
def test_auroc_equals_scikit_learn(case):
    values, _, tokens = case
    area = auroc(sparse.csr_matrix(values), annotate_elements(tokens))
    for feature in range(values.shape[1]):
        for c, letter in enumerate(LETTERS):
            truth = (tokens["element"] == letter).to_numpy()
            if truth.all() or not truth.any():
                assert np.isnan(area[feature, c])
            else:
                assert area[feature, c] == pytest.approx(roc_auc_score(truth, values[:, feature]))


@quick
@given(annotated_activations(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(case, random):
    values, scale, tokens = case
    records = list(range(tokens["record"].max() + 1))
    random.shuffle(records)
    rows = np.concatenate([np.flatnonzero(tokens["record"] == record) for record in records])
    before = score(sparse.csr_matrix(values), scale, annotate_elements(tokens))
    after = score(sparse.csr_matrix(values[rows]), scale, annotate_elements(tokens.iloc[rows]))
    for name in ("precision", "token_recall", "element_recall", "f1", "token_f1"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@quick
@given(annotated_activations())
def test_recalls_are_consistent_and_fall_with_the_threshold(case):
    values, scale, tokens = case
    scores = score(sparse.csr_matrix(values), scale, annotate_elements(tokens))
    assert ((scores.element_recall > 0) == (scores.token_recall > 0)).all()
    for recall in (scores.token_recall, scores.element_recall):
        assert (np.diff(recall, axis=-1) <= 0).all()


@quick
@given(st.data())
def test_element_recall_is_at_least_token_recall_where_instances_are_equally_long(data):
    tokens = token_table(["EEESSSHHHSSSEEE"] * 3)
    values = data.draw(arrays(np.float32, (len(tokens), 2), elements=st.sampled_from([0.0, 1.0])))
    scores = score(sparse.csr_matrix(values), np.ones(2), annotate_elements(tokens), thresholds=(0.0,))
    assert (scores.element_recall >= scores.token_recall - 1e-12).all()


def test_a_long_missed_instance_weighs_more_in_token_recall():
    scores = score(
        sparse.csr_matrix(np.r_[np.zeros(9), 0, 1][:, None]),
        np.ones(1),
        annotate_elements(token_table(["SSSSSSSSSHS"])),
    )
    assert scores.element_recall[0, 0, 0] == 0.5 and scores.token_recall[0, 0, 0] == pytest.approx(0.1)


def test_one_unit_of_activation_is_as_good_as_another():
    activations, tokens = noise(np.random.default_rng(2), 10)
    factors = 2.0 ** np.arange(activations.shape[1])
    before = element_scores((activations, tokens), (activations, tokens), shuffles=2)
    scaled = activations @ sparse.diags(factors)
    pd.testing.assert_frame_equal(before, element_scores((scaled, tokens), (scaled, tokens), shuffles=2))


def test_a_feature_that_never_fired_in_the_selection_set_never_fires():
    scores = score(sparse.csr_matrix(np.ones((3, 1))), np.zeros(1), annotate_elements(token_table(["SSH"])))
    assert not scores.precision.any() and not scores.element_recall.any()


# --- choice on the selection set, scores on the held-out set -----------------------------------------------------------------------------


def test_best_features_take_the_highest_f1_among_the_retained():
    tokens = token_table(["SSHH"])
    activations = sparse.csr_matrix(np.array([[1.0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]))
    scores = score(activations, np.ones(3), annotate_elements(tokens))
    feature, level = best_features(scores)
    assert feature[:2].tolist() == [0, 2] and level[:2].tolist() == [0, 0]
    feature, _ = best_features(scores, np.array([False, True, True]))
    assert feature[:2].tolist() == [1, 2]
    with pytest.raises(ValueError, match="no feature is retained"):
        best_features(scores, np.zeros(3, bool))
    with pytest.raises(ValueError, match="marked among 2, the activations have 3"):
        best_features(scores, np.ones(2, bool))


def test_planted_features_are_found_and_hold_out():
    rng = np.random.default_rng(0)
    table = element_scores(planted(rng, 150), planted(rng, 150), seed=1).set_index("element")
    assert table.index.tolist() == ["S", "H", "E"]
    assert table.loc["S", "feature"] == 3 and table.loc["H", "feature"] == 7
    for letter in "SH":
        assert table.loc[letter, "f1"] > 0.9 and table.loc[letter, "auroc"] > 0.95
        assert table.loc[letter, "f1"] > table.loc[letter, ["null_p95", "base_f1"]].max() + 0.1


def test_element_scores_table_is_made_of_the_parts():
    rng = np.random.default_rng(3)
    (known, known_tokens), (unseen, unseen_tokens) = selection, heldout = planted(rng, 30), planted(rng, 20)
    allowed = np.arange(known.shape[1]) != 3
    table = element_scores(selection, heldout, allowed, shuffles=3)
    assert list(table.columns) == concepts.ELEMENT_COLUMNS
    scale = known.max(axis=0).toarray().ravel()
    values, unseen_values = known.toarray().astype(float), unseen.toarray().astype(float)
    for row in table.itertuples():
        best = max(
            harmonic(
                *np.take(
                    reference_score(values, scale, known_tokens, feature, row.element, threshold), [0, 2]
                )
            )
            for feature in np.flatnonzero(allowed)
            for threshold in concepts.THRESHOLDS
        )
        assert row.selection_f1 == pytest.approx(best) and row.feature != 3
        precision, token_recall, element_recall = reference_score(
            unseen_values, scale, unseen_tokens, row.feature, row.element, row.threshold
        )
        truth = (unseen_tokens["element"] == row.element).to_numpy()
        assert (row.precision, row.token_recall, row.element_recall) == pytest.approx(
            (precision, token_recall, element_recall)
        )
        assert (row.f1, row.token_f1) == pytest.approx(
            (harmonic(precision, element_recall), harmonic(precision, token_recall))
        )
        assert row.auroc == pytest.approx(roc_auc_score(truth, unseen_values[:, row.feature]))
        assert (row.base_rate, row.base_f1) == pytest.approx((truth.mean(), harmonic(truth.mean(), 1.0)))
        assert row.tokens == truth.sum()
        assert row.elements == sum(letter == row.element for letter, _ in instances_of(unseen_tokens))


def test_the_held_out_set_has_no_say_in_the_choice():
    rng = np.random.default_rng(4)
    selection, heldout, other = noise(rng, 30), noise(rng, 20), noise(rng, 10)
    columns = ["element", "feature", "threshold", "selection_f1"]
    tables = [element_scores(selection, sample, shuffles=1)[columns] for sample in (heldout, other)]
    pd.testing.assert_frame_equal(*tables)


def test_held_out_activations_are_scaled_by_the_selection_maximum():
    tokens = token_table(["SSHH"])
    selection = sparse.csr_matrix(np.array([[10.0], [9], [7], [1]])), tokens  # best for stems: above .8 of 10
    weak = (
        sparse.csr_matrix(np.array([[1.0], [1], [0], [0]])),
        tokens,
    )  # perfect if it were scaled by its own maximum
    row = element_scores(selection, weak, shuffles=1).set_index("element").loc["S"]
    assert row["threshold"] == 0.8 and row["f1"] == 0.0 and row["auroc"] == 1.0
    strong = (
        sparse.csr_matrix(np.array([[20.0], [20], [10], [10]])),
        tokens,
    )  # all of it above .8 of 10, half of it above .8 of 20
    row = element_scores(selection, strong, shuffles=1).set_index("element").loc["S"]
    assert row["threshold"] == 0.8 and row["precision"] == 0.5


def test_an_always_on_feature_scores_base_f1_and_auroc_half():
    tokens = token_table(["EESSHHHSSE", "SSSHHHHSSS"])
    always = sparse.csr_matrix(np.ones((len(tokens), 1)))
    table = element_scores((always, tokens), (always, tokens))
    np.testing.assert_allclose(table["f1"], table["base_f1"])
    np.testing.assert_allclose(
        table["null_p95"].iloc[:2], table["base_f1"].iloc[:2]
    )  # a shift does not change composition
    np.testing.assert_allclose(table["auroc"], 0.5)


def test_an_element_missing_from_either_set_has_no_row():
    rng = np.random.default_rng(5)
    ones = lambda tokens: (sparse.csr_matrix(rng.random((len(tokens), 2))), tokens)  # noqa: E731
    table = element_scores(ones(token_table(["SSHE"])), ones(token_table(["SSHB"])), shuffles=2)
    assert table["element"].tolist() == ["S", "H"]


def test_noise_does_not_beat_the_null():
    """Real labels are then one draw from the null: 1 in 21 exceeds the highest of 20 shuffles; tolerance 15 % of the elements."""
    above = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        table = element_scores(noise(rng, 40), noise(rng, 40), seed=seed)
        above += (table["f1"] > table["null_p95"]).tolist()
    assert len(above) == 75 and np.mean(above) < 0.15


def test_the_null_repeats_choice_and_scoring_on_shifted_annotations():
    rng = np.random.default_rng(9)
    (known, known_tokens), (unseen, unseen_tokens) = selection, heldout = planted(rng, 30), planted(rng, 20)
    allowed = np.arange(known.shape[1]) != 5
    scale, all_C, best = known.max(axis=0).toarray().ravel(), np.arange(len(LETTERS)), []
    rng = np.random.default_rng(1)
    for _ in range(4):
        feature, level = best_features(
            score(known, scale, annotate_elements(known_tokens).shifted(rng)), allowed
        )
        best.append(
            score(unseen, scale, annotate_elements(unseen_tokens).shifted(rng)).f1[feature, all_C, level]
        )
    table = element_scores(selection, heldout, allowed, shuffles=4, seed=1)
    rows = [LETTERS.index(letter) for letter in table["element"]]
    np.testing.assert_allclose(table["null_p95"], np.max(best, axis=0)[rows])


def test_scores_are_reproducible_and_the_seed_moves_only_the_null():
    rng = np.random.default_rng(6)
    selection, heldout = noise(rng, 20), noise(rng, 20)
    first, again, other = (element_scores(selection, heldout, shuffles=5, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    pd.testing.assert_frame_equal(first.drop(columns="null_p95"), other.drop(columns="null_p95"))
    assert (first["null_p95"] != other["null_p95"]).any()


def test_input_that_does_not_fit_is_refused():
    tokens = token_table(["SSH"])
    good = sparse.csr_matrix(np.ones((3, 2))), tokens
    with pytest.raises(ValueError, match="held-out set's activations have 2 rows, their annotations 3"):
        element_scores(good, (sparse.csr_matrix(np.ones((2, 2))), tokens))
    with pytest.raises(ValueError, match="held-out set's activations have 1 features, the selection set 2"):
        element_scores(good, (sparse.csr_matrix(np.ones((3, 1))), tokens))
    with pytest.raises(ValueError, match="thresholds must ascend from 0 or more, not 0.5, 0.5"):
        element_scores(good, good, thresholds=(0.5, 0.5))
    with pytest.raises(ValueError, match="made of shuffles: 1 or more"):
        element_scores(good, good, shuffles=0)
    with pytest.raises(ValueError, match="the selection set's activations are empty"):
        element_scores((sparse.csr_matrix((0, 2)), tokens.iloc[:0]), good)


# --- the table of top features ------------------------------------------------------------------------------------------------------------


def test_top_features_begin_with_the_chosen_ones_and_descend():
    rng = np.random.default_rng(7)
    elements = planted(rng, 60), planted(rng, 45)
    types = [
        (pool_sequences(a, tokens["record"]), np.resize(["x", "y", "z"], tokens["record"].nunique()))
        for a, tokens in elements
    ]
    allowed = np.arange(24) != 10
    table = top_features(elements, types, count=4, retained_F=allowed)
    assert list(table.columns) == concepts.TOP_COLUMNS
    assert len(table) == 4 * (3 + 3) and 10 not in table["feature"].tolist()
    best = table[table["rank"] == 1].set_index("label")
    by_element = element_scores(*elements, allowed, shuffles=1).set_index("element")
    columns = ["feature", "threshold", "selection_f1", "f1", "precision", "auroc", "base_rate"]
    pd.testing.assert_frame_equal(best.loc[list("SHE"), columns], by_element[columns], check_names=False)
    by_type = type_scores(*types, allowed, shuffles=1).set_index("type")
    columns = ["feature", "selection_auroc", "auroc", "f1", "base_rate"]
    pd.testing.assert_frame_equal(best.loc[list("xyz"), columns], by_type[columns], check_names=False)
    for (kind, _), group in table.groupby(["kind", "label"]):
        assert group["rank"].tolist() == [1, 2, 3, 4] and group["feature"].is_unique
        assert group["selection_f1" if kind == "element" else "selection_auroc"].is_monotonic_decreasing
    np.testing.assert_allclose(table["enrichment"], table["precision"] / table["base_rate"])


def test_top_features_of_elements_alone_or_of_fewer_features_than_asked():
    rng = np.random.default_rng(8)
    allowed = np.isin(np.arange(24), [3, 7])
    table = top_features(elements=(planted(rng, 20), planted(rng, 20)), count=5, retained_F=allowed)
    assert set(table["kind"]) == {"element"} and table.groupby("label").size().tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="neither elements nor types"):
        top_features()


# --- many, overlapping concepts -----------------------------------------------------------------------------------------------------------


def runs(masks_NC, record_N):
    """Annotations of concepts given as columns."""
    names = [f"concept {number}" for number in range(masks_NC.shape[1])]
    return Annotations.of(
        names, ["made up"] * len(names), [np.flatnonzero(mask) for mask in masks_NC.T], record_N
    )


def random_concepts(rng, records, length=50, count=20, share=(0.02, 0.4)):
    """Overlapping concepts of assorted shares, in runs of assorted lengths, the features of `noise` knowing nothing of them."""
    record_N = np.repeat(np.arange(records), length)
    masks = []
    for _ in range(count):
        run = int(rng.integers(1, 9))
        rate = rng.uniform(*share) / run
        masks.append(np.convolve(rng.random(len(record_N)) < rate, np.ones(run), "same") > 0)
    return runs(np.column_stack(masks), record_N)


def random_features(rng, rows, latents=30, density=(0.01, 0.3)):
    values = rng.exponential(size=(rows, latents)) * (
        rng.random((rows, latents)) < rng.uniform(*density, latents)
    )
    return values.astype(np.float32)


@st.composite
def overlapping(draw):
    """Activations with ties and zeros, and overlapping concepts of records that may be a single row."""
    rows, latents, count = draw(st.integers(1, 25)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    values = draw(arrays(np.float32, (rows, latents), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 4.0])))
    masks = draw(arrays(bool, (rows, count)))
    borders = draw(arrays(bool, rows))
    borders[0] = False
    return values, masks, np.cumsum(borders)


@quick
@given(overlapping())
def test_scores_of_overlapping_concepts_equal_plain_loops(case):
    values, masks, record_N = case
    thresholds = (0.0, 0.25, 0.5)
    scores = score(
        sparse.csr_matrix(values), np.full(values.shape[1], 4.0), runs(masks, record_N), thresholds
    )
    for c, mask in enumerate(masks.T):
        cut = [
            row
            for row in range(1, len(mask))
            if mask[row] != mask[row - 1] or record_N[row] != record_N[row - 1]
        ]
        instances = [piece for piece in np.split(np.arange(len(mask)), cut) if mask[piece[0]]]
        for f in range(values.shape[1]):
            for h, threshold in enumerate(thresholds):
                fires = values[:, f] / 4 > threshold
                hits = (fires & mask).sum()
                assert scores.precision[f, c, h] == (hits / fires.sum() if fires.any() else 0)
                assert scores.token_recall[f, c, h] == (hits / mask.sum() if mask.any() else 0)
                found = sum(fires[piece].any() for piece in instances)
                assert scores.element_recall[f, c, h] == (found / len(instances) if instances else 0)


@quick
@given(overlapping())
def test_rank_scores_equal_scikit_learn(case):
    values, masks, record_N = case
    area, precision = rank_scores(sparse.csr_matrix(values), runs(masks, record_N))
    for f in range(values.shape[1]):
        for c, mask in enumerate(masks.T):
            assert (
                np.isnan(precision[f, c])
                if not mask.any()
                else precision[f, c] == pytest.approx(average_precision_score(mask, values[:, f]))
            )
            trivial = mask.all() or not mask.any()
            assert (
                np.isnan(area[f, c])
                if trivial
                else area[f, c] == pytest.approx(roc_auc_score(mask, values[:, f]))
            )


def test_stored_zeros_are_no_firing():
    values = sparse.csr_matrix((np.array([0.0, 2, 0, 1]), (np.arange(4), np.zeros(4, int))), shape=(6, 1))
    labels = runs(np.array([[1, 1, 0, 0, 0, 1]], bool).T, np.zeros(6, int))
    plain = sparse.csr_matrix(values.toarray())
    for function in (
        lambda a: rank_scores(a, labels)[0],
        lambda a: rank_scores(a, labels)[1],
        lambda a: score(a, [2.0], labels).f1,
    ):
        np.testing.assert_array_equal(function(values), function(plain))


def planted_concepts(rng, records):
    """Noise, save that feature 4 marks 95 % of the rows of concept 2 and of few others, and feature 9 half of those of concept 6."""
    labels = random_concepts(rng, records)
    values = random_features(rng, len(labels.record_N))
    members = labels.members.toarray()
    values[:, 4] = np.where(members[:, 2], rng.random(len(values)) < 0.95, rng.random(len(values)) < 0.003)
    values[:, 9] = np.where(members[:, 6], rng.random(len(values)) < 0.5, rng.random(len(values)) < 0.02)
    return sparse.csr_matrix(values), labels


def test_planted_features_are_discovered_and_the_other_concepts_are_not():
    rng = np.random.default_rng(0)
    selection, heldout = planted_concepts(rng, 100), planted_concepts(rng, 100)
    table = concept_scores(selection, heldout)
    assert list(table.columns) == concepts.CONCEPT_COLUMNS
    assert table["concept"].tolist() == list(heldout[1].concepts) and set(table["group"]) == {"made up"}
    members, fires = heldout[1].members.toarray(), heldout[0].toarray() > 0
    for concept, feature in ((2, 4), (6, 9)):
        row = table.loc[concept]
        assert (
            row["feature"] == feature
            and row["p_value"] == pytest.approx(1 / 21)
            and row["f1"] > row["null_p95"]
        )
        assert row["precision"] == pytest.approx(precision_score(members[:, concept], fires[:, feature]))
        assert row["token_recall"] == pytest.approx(recall_score(members[:, concept], fires[:, feature]))
    assert table.loc[2, "f1"] > 0.9 and table.loc[2, "token_recall"] == pytest.approx(0.95, abs=0.02)
    assert np.flatnonzero(discoveries(table)).tolist() == [2, 6]


def test_nothing_is_discovered_in_noise():
    """Of 30 data sets of 20 concepts one in twenty may have a discovery at a rate of 5 %: 7 or more are less likely than .1 %."""
    any_found, pooled, exact = [], [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sets = [(sparse.csr_matrix(random_features(rng, 2000)), random_concepts(rng, 40)) for _ in range(2)]
        table = concept_scores(*sets, seed=seed)
        any_found.append(discoveries(table).any())
        pooled += table["p_pooled"].tolist()
        exact += table["p_value"].tolist()
    assert not any_found[0] and np.sum(any_found) < 7
    for p_values in (
        np.array(pooled),
        np.array(exact),
    ):  # the same share lies below any bound, within the error of 600 values
        for bound, error in ((0.05, 0.03), (0.2, 0.06), (0.5, 0.08)):
            assert np.mean(p_values <= bound) == pytest.approx(bound, abs=error)


def test_discoveries_are_those_of_benjamini_and_hochberg():
    p_values = [0.001, 0.02, 0.045, 0.2, 0.9]  # 5 % * rank / 5: .01, .02, .03, .04, .05
    scores = pd.DataFrame({"p_pooled": p_values})
    assert discoveries(scores).tolist() == [True, True, False, False, False]
    assert discoveries(scores, 0.08).tolist() == [True, True, True, False, False]
    assert not discoveries(scores.iloc[:0]).size
    with pytest.raises(ValueError, match="score with 3 shuffles or more"):
        discoveries(scores.assign(p_pooled=np.nan))


def test_twenty_shuffles_can_discover_a_single_concept_of_many_only_by_pooling():
    rng = np.random.default_rng(5)
    sets = [planted_concepts(rng, 60) for _ in range(2)]
    one = [(a, runs(labels.members.toarray()[:, [2, *range(7, 20)]], labels.record_N)) for a, labels in sets]
    table = concept_scores(*one, seed=3)
    assert discoveries(table)[0] and not (false_discovery_control(table["p_value"]) <= 0.05).any()


def test_null_and_p_value_repeat_choice_and_scoring_on_shuffled_annotations():
    rng = np.random.default_rng(9)
    (known, labels), (unseen, other) = selection, heldout = (
        planted_concepts(rng, 20),
        planted_concepts(rng, 25),
    )
    scale, all_C, null = known.max(axis=0).toarray().ravel(), np.arange(20), []
    families = [np.arange(20) // 3, np.arange(25) // 2]
    rng = np.random.default_rng(1)
    for _ in range(7):
        feature, level = best_features(score(known, scale, labels.shifted(rng, families[0])))
        null.append(score(unseen, scale, other.shifted(rng, families[1])).f1[feature, all_C, level])
    table = concept_scores(selection, heldout, shuffles=7, seed=1, families=families, min_instances=1)
    np.testing.assert_allclose(table["null_p95"], np.max(null, axis=0))
    np.testing.assert_allclose(
        table["p_value"], (1 + (np.array(null) >= table["f1"].to_numpy()).sum(axis=0)) / 8
    )
    plain = concept_scores(selection, heldout, shuffles=0, min_instances=1)
    columns = ["null_p95", "p_value", "p_pooled", "f1_low", "f1_high", "auroc_low", "auroc_high"]
    assert plain[columns].isna().all(axis=None)
    pd.testing.assert_frame_equal(plain.drop(columns=columns), table.drop(columns=columns))


def test_pooled_p_values_by_plain_loops():
    rng = np.random.default_rng(2)
    null, value = rng.normal(size=(6, 4)) * [1, 2, 3, 0], np.array([1.0, 9.0, -3.0, 0.0])
    floor = np.median([np.std(column, ddof=1) for column in null.T])
    pool = []
    for column in null.T:
        for r in range(6):
            others = np.delete(column, r)
            pool.append((column[r] - others.mean()) / (others.std(ddof=1) + floor))
    for c, p_value in enumerate(concepts._pooled_p(value, null)):
        z = (value[c] - null[:, c].mean()) / (null[:, c].std(ddof=1) + floor)
        assert p_value == pytest.approx((1 + sum(x >= z for x in pool)) / 25)


def family_noise(rng, families, per_family=8, length=40, latents=30):
    """Features and concepts that each family's copies of one RNA share, and that know nothing of each other."""
    label = random_concepts(rng, families, length, 12).members.toarray().reshape(families, length, -1)
    values = random_features(rng, families * length, latents).reshape(families, length, -1)
    copies = [
        np.repeat(x, per_family, axis=0).reshape(families * per_family * length, -1) for x in (values, label)
    ]
    record_N = np.repeat(np.arange(families * per_family), length)
    return (sparse.csr_matrix(copies[0]), runs(copies[1], record_N)), np.repeat(
        np.arange(families), per_family
    )


def test_what_copies_share_does_not_pass_for_agreement_where_families_are_known():
    """1 in 21 reaches p = 1/21 by chance; tolerance 12 % with families, while shifting every copy by itself is fooled more often."""
    lowest = {"families": [], "records": []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        (selection, known), (heldout, unseen) = family_noise(rng, 7, 35), family_noise(rng, 7, 35)
        for unit, families in (("families", (known, unseen)), ("records", None)):
            table = concept_scores(selection, heldout, families=families, seed=seed)
            lowest[unit] += (table["p_value"] < 0.05).tolist()
    assert np.mean(lowest["families"]) < 0.12 < np.mean(lowest["records"])


def test_intervals_are_percentiles_over_resampled_families():
    """Every resample is laid out row by row, and scored like any other set."""
    rng = np.random.default_rng(3)
    selection, heldout = (
        (activations, runs(labels.members.toarray()[:, :5], labels.record_N))
        for activations, labels in (planted_concepts(rng, 24) for _ in range(2))
    )
    family_S = np.repeat(list("abcdef"), 4)
    table = concept_scores(
        selection, heldout, shuffles=0, families=(None, family_S), bootstraps=40, seed=5, min_instances=1
    )
    weights = np.random.default_rng((5, 1)).multinomial(6, np.full(6, 1 / 6), 40)
    scale, family_N = (
        selection[0].max(axis=0).toarray().ravel(),
        np.searchsorted(list("abcdef"), family_S)[heldout[1].record_N],
    )
    members, values, f1, area = heldout[1].members.toarray(), heldout[0].toarray(), [], []
    for weight in weights:
        rows = np.concatenate([np.flatnonzero(family_N == g) for g in range(6) for _ in range(weight[g])])
        number_N = np.cumsum(np.r_[0, np.diff(heldout[1].record_N[rows]) != 0])
        labels, level = (
            runs(members[rows], number_N),
            np.searchsorted(concepts.THRESHOLDS, table["threshold"]),
        )
        choice = np.asarray(table["feature"]), np.arange(5), level
        f1.append(score(sparse.csr_matrix(values[rows]), scale, labels).f1[choice])
        area.append([roc_auc_score(members[rows, c], values[rows, f]) for c, f in enumerate(choice[0])])
    np.testing.assert_allclose(
        np.stack(table["f1_resampled"]).T, f1, rtol=1e-6
    )  # so that two features meet on the same resamples
    np.testing.assert_allclose(table[["f1_low", "f1_high"]].T, np.percentile(f1, (2.5, 97.5), axis=0))
    np.testing.assert_allclose(
        table[["auroc_low", "auroc_high"]].T, np.percentile(area, (2.5, 97.5), axis=0), atol=2e-3
    )
    assert (table["f1_low"] <= table["f1"]).all() and (table["f1"] <= table["f1_high"]).all()


def test_the_lead_of_two_features_on_the_same_families_is_surer_than_either_of_them():
    rng = np.random.default_rng(4)
    family = rng.normal(0.5, 0.1, 400)  # what makes a family hard for one feature makes it hard for the other
    low, high = concepts.lead_interval(family + 0.05, family + rng.normal(0, 0.005, 400))
    assert 0.03 < low < 0.05 < high < 0.07 and np.ptp(np.percentile(family, (2.5, 97.5))) > 0.3
    np.testing.assert_allclose(concepts.lead_interval(family, family), 0)
    assert np.isnan(concepts.lead_interval(family, np.empty(0))).all()
    lacking = np.where(np.arange(400) < 10, np.nan, family)  # resamples without the concept
    np.testing.assert_allclose(concepts.lead_interval(lacking + 1, lacking), 1)


def test_intervals_over_families_of_copies_are_wider_and_one_family_has_none():
    (selection, _), (heldout, family_S) = (family_noise(np.random.default_rng(seed), 10) for seed in (1, 2))
    by_record, by_family, single = (
        concept_scores(selection, heldout, shuffles=0, families=(None, names), bootstraps=200)
        for names in (None, family_S, ["one"] * 80)
    )
    for name in ("f1", "auroc"):
        width = [(table[f"{name}_high"] - table[f"{name}_low"]).mean() for table in (by_record, by_family)]
        assert width[1] > 1.5 * width[0]  # 8 copies a family: sqrt(8) = 2.8 times
        assert single[[f"{name}_low", f"{name}_high"]].isna().all(axis=None)


def test_concepts_with_few_instances_have_no_row():
    record_N = np.repeat(np.arange(20), 5)
    masks = np.zeros((100, 3), bool)
    masks[:50:5, 0] = masks[:45:5, 1] = True  # 10 and 9 instances
    masks[:40, 2] = True  # 8
    sets = (sparse.csr_matrix(np.random.default_rng(0).random((100, 2))), runs(masks, record_N))
    assert concept_scores(sets, sets, shuffles=0)["concept"].tolist() == ["concept 0"]
    assert concept_scores(sets, sets, shuffles=0, min_instances=9)["concept"].tolist() == [
        "concept 0",
        "concept 1",
    ]
    assert len(concept_scores(sets, sets, shuffles=5, min_instances=11, bootstraps=5)) == 0


def test_concept_scores_refuse_what_does_not_fit():
    labels = runs(np.ones((4, 1), bool), np.array([0, 0, 1, 1]))
    good = sparse.csr_matrix(np.ones((4, 2))), labels
    with pytest.raises(ValueError, match="different concepts: annotate both with one table"):
        concept_scores(good, (good[0], runs(np.ones((4, 2), bool), labels.record_N)))
    with pytest.raises(ValueError, match="3 families do not fit 2 sequences"):
        concept_scores(good, good, families=(None, ["a", "b", "c"]))
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="held-out set's activations are negative or not a number"):
            concept_scores(good, (sparse.csr_matrix(np.full((4, 2), wrong)), labels))
