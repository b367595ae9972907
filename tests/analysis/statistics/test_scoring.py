import numpy as np
import pytest
from analysis.statistics.samples import (
    LETTERS,
    harmonic,
    noise,
    overlapping,
    overlapping_bases,
    quick,
    reference_base_auroc,
    reference_score,
    runs,
    score,
    token_table,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from sae_rna.analysis.statistics.annotations import annotate_elements
from sae_rna.analysis.statistics.scoring import Sample, rank_scores


@st.composite
def annotated_activations(draw, alphabet="SHE"):
    """Activations [T, F] with zeros, ties and values on the thresholds, their scales, and a token table."""
    strings = draw(st.lists(st.text(alphabet, min_size=1, max_size=8), min_size=1, max_size=5))
    shape = sum(map(len, strings)), draw(st.integers(1, 3))
    values = draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 4.0])))
    scale = draw(arrays(np.float32, shape[1], elements=st.sampled_from([0.0, 4.0, 8.0])))
    return values, scale, token_table(strings)


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
    area = rank_scores(sparse.csr_matrix(values), annotate_elements(tokens))[0]
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


def test_a_feature_that_never_fired_in_the_selection_set_never_fires():
    scores = score(sparse.csr_matrix(np.ones((3, 1))), np.zeros(1), annotate_elements(token_table(["SSH"])))
    assert not scores.precision.any() and not scores.element_recall.any()


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


# --- base-stratified AUROC ---------------------------------------------------------------------------------


def base_auroc(values, labels, features=None):
    return Sample(sparse.csr_matrix(values), labels, np.ones(values.shape[1])).base_auroc(features)


def test_a_feature_that_is_nothing_but_a_base_has_one_half_however_rich_in_it_stems_are():
    tokens = token_table(["SSSSSSHHHHSSSSSSEEEE"], ["GGGGCCAAGAGGCGGGAUAG"])
    guanine = (tokens["base"] == "G").to_numpy()[:, None].astype(float)
    labels, stem = annotate_elements(tokens), LETTERS.index("S")
    assert base_auroc(guanine, labels)[0, stem] == 0.5
    assert rank_scores(guanine, labels)[0][0, stem] > 0.7
    exact = (tokens["element"] == "S").to_numpy()[:, None].astype(float)
    assert base_auroc(exact, labels)[0, stem] == 1 and base_auroc(1 - exact, labels)[0, stem] == 0


def test_bases_weigh_by_their_pairs():
    #           G: 2 stems x 1, all 2 pairs right;  A: 1 stem x 3, 1 of 3 right, 1 tied, 1 wrong;  C, U: no pairs
    tokens = token_table(["SSHSHHHSE"], ["GGGAAAACU"])
    values = np.array([[3, 2, 1, 2, 1, 2, 3, 9, 0]], float).T
    assert base_auroc(values, annotate_elements(tokens))[0, LETTERS.index("S")] == (2 + 1.5) / (2 + 3)


@quick
@given(overlapping_bases())
def test_base_stratified_auroc_equals_scikit_learn_base_by_base(case):
    values, masks, record_N, base_N = case
    labels = runs(masks, record_N, base_N)
    found = base_auroc(values, labels)
    for f in range(values.shape[1]):
        for c, mask in enumerate(masks.T):
            areas, pairs = [], []
            for base in (b"A", b"C", b"G", b"U"):
                of, here = mask[base_N == base], values[base_N == base, f]
                if of.any() and not of.all():
                    areas.append(roc_auc_score(of, here))
                    pairs.append(of.sum() * (~of).sum())
            expected = np.average(areas, weights=pairs) if pairs else 0.5
            assert found[f, c] == pytest.approx(expected)
    np.testing.assert_allclose(found, reference_base_auroc(values, masks, base_N))
    some = np.array([values.shape[1] - 1, 0])
    np.testing.assert_allclose(base_auroc(values, labels, some), found[some])


@quick
@given(overlapping())
def test_without_bases_it_is_the_auroc(case):
    values, masks, record_N = case
    labels = runs(masks, record_N)
    area = rank_scores(sparse.csr_matrix(values), labels)[0]
    np.testing.assert_allclose(base_auroc(values, labels), np.where(np.isnan(area), 0.5, area))
