import doctest

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from sae_rna.sae import features
from sae_rna.sae.features import (
    FeatureSummary,
    load_csr,
    pool_max,
    pool_sequences,
    pool_types,
    run_numbers,
    save_csr,
    tau,
    to_csc,
    to_csr,
    type_activation,
)


def summarise(activations, record):
    """The summary of activations that are at hand whole."""
    summary = FeatureSummary(activations.shape[1])
    summary.update(activations, record)
    return summary.table()


quick = settings(max_examples=50)


@st.composite
def token_activations(draw):
    """Dense activations [T, F] with many zeros and ties, and each token's record (not sorted)."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    names = draw(st.permutations(range(10, 10 + 3 * len(lengths), 3)))
    shape = sum(lengths), draw(st.integers(1, 4))
    values = draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0])))
    return values, np.repeat(names, lengths)


def reference_pool(values, record):
    names = list(dict.fromkeys(record.tolist()))
    return np.array([[values[record == name, f].max() for f in range(values.shape[1])] for name in names])


@quick
@given(token_activations())
def test_pooling_equals_a_loop_over_sequences(case):
    values, record = case
    expected = reference_pool(values, record)
    for form in (values, sparse.csr_matrix(values), sparse.csc_matrix(values)):
        pooled = pool_sequences(form, record)
        assert sparse.isspmatrix_csr(pooled)
        np.testing.assert_array_equal(pooled.toarray(), expected)


@quick
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 6), st.integers(1, 5)),
        elements=st.sampled_from([0.0, -0.0, -1.0, 0.5, np.nan]),
    )
)
def test_a_sparse_matrix_of_dense_values_is_scipys(values):
    forms = values, np.asfortranarray(values), sparse.csc_matrix(values)
    pairs = [(to_csr(form), sparse.csr_matrix(values)) for form in forms]
    for made, expected in [*pairs, *((to_csc(form), sparse.csc_matrix(values)) for form in forms)]:
        assert (
            made.shape == expected.shape
            and made.has_canonical_format
            and made.indices.dtype == expected.indices.dtype
        )
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(made, part), getattr(expected, part))


@quick
@given(token_activations())
def test_summary_equals_a_loop_over_features(case):
    values, record = case
    table = summarise(sparse.csr_matrix(values), record)
    for row in table.itertuples():
        column = values[:, row.feature]
        assert row.sequences == len({name for name, value in zip(record, column) if value > 0})
        assert row.density == pytest.approx((column > 0).sum() / len(column))
        assert row.maximum == column.max()
    assert (table["feature"] == np.arange(values.shape[1])).all()


@quick
@given(token_activations(), st.data())
def test_summary_of_chunks_is_the_summary_of_the_whole(case, data):
    values, record = case
    names = list(dict.fromkeys(record.tolist()))
    cuts = data.draw(st.sets(st.integers(0, len(names)), max_size=3))
    summary = FeatureSummary(values.shape[1])
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(names)]):
        rows = np.isin(record, names[start:stop])
        chunk = values[rows]
        summary.update(chunk if data.draw(st.booleans()) else sparse.csr_matrix(chunk), record[rows])
    pd.testing.assert_frame_equal(summary.table(), summarise(values, record))


def test_stored_zeros_do_not_fire():
    stored = sparse.csr_matrix((np.array([0.0, 2.0]), ([0, 1], [0, 1])), shape=(2, 2))
    table = summarise(stored, np.array([0, 1]))
    assert table["sequences"].tolist() == [0, 1] and table["density"].tolist() == [0.0, 0.5]


def test_activations_without_any_firing_are_summarised():
    table = summarise(sparse.csr_matrix((4, 3)), np.array([0, 0, 1, 1]))
    assert (table[["sequences", "density", "maximum"]] == 0).all(axis=None)


def test_sequences_are_counted_and_not_tokens():
    activations = np.zeros((24, 2))
    activations[:12, 0] = 1.0  # one sequence, twelve tokens
    activations[12:22, 1] = 1.0  # ten sequences, a token each
    record = np.r_[np.zeros(12, int), np.arange(1, 13)]
    assert summarise(activations, record)["sequences"].tolist() == [1, 10]


def test_records_are_numbered_in_order_of_appearance():
    assert run_numbers(np.array([5, 5, 5, 2, 2, 9])).tolist() == [0, 0, 0, 1, 1, 2]
    assert run_numbers(np.array([])).tolist() == []


@quick
@given(token_activations())
def test_sparse_and_dense_maxima_agree(case):
    values, record = case
    groups = run_numbers(record)
    np.testing.assert_array_equal(
        pool_max(sparse.csr_matrix(values), groups).toarray(), pool_max(values, groups)
    )


def test_types_average_the_scaled_sequence_maxima():
    pooled = sparse.csr_matrix(np.array([[2.0, 0.0, 0.0], [4.0, 1.0, 0.0], [0.0, 1.0, 0.0]]))
    table = pool_types(pooled, ["tRNA", "tRNA", "rRNA"], np.array([4.0, 1.0, 0.0]))
    assert table.index.tolist() == ["rRNA", "tRNA"]
    np.testing.assert_allclose(table.to_numpy(), [[0.0, 1.0, 0.0], [0.75, 0.5, 0.0]])


def test_a_sequence_without_type_is_refused():
    with pytest.raises(ValueError, match="sequence 2 has no type"):
        pool_types(sparse.csr_matrix((2, 1)), ["tRNA", None], np.ones(1))


def test_type_activation_is_the_union_of_the_strongest_features_of_every_type():
    by_type = pool_types(
        sparse.csr_matrix(np.array([[9.0, 5.0, 1.0, 0.0], [2.0, 8.0, 1.0, 9.0]])),
        ["a", "b"],
        np.full(4, 10.0),
    )
    table = type_activation(by_type, per_type=1)
    assert table.columns.tolist() == ["feature", "type", "activation", "rank"]
    assert list(table.itertuples(index=False, name=None)) == [
        (0, "a", 0.9, 1),
        (0, "b", 0.2, 3),
        (3, "a", 0.0, 4),
        (3, "b", 0.9, 1),
    ]
    assert set(type_activation(by_type, 1, retained_F=np.array([True, True, True, False]))["feature"]) == {
        0,
        1,
    }


def test_tau_known_answers():
    by_type = np.array([[1.0, 5.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(tau(by_type), [0.0, 1.0, np.nan, 0.75])


@quick
@given(
    arrays(float, (4, 3), elements=st.floats(0.01, 1.0)),
    st.permutations(range(4)),
    st.sampled_from([0.25, 2.0, 8.0]),
)
def test_tau_lies_between_0_and_1_and_ignores_scale_and_order(by_type, order, factor):
    values = tau(by_type)
    assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_allclose(tau(factor * by_type[list(order)]), values)


@quick
@given(token_activations())
def test_a_saved_matrix_comes_back_as_it_was(tmp_path_factory, case):
    matrix = sparse.csr_matrix(case[0])
    path = tmp_path_factory.mktemp("csr") / "new" / "matrix.safetensors"
    save_csr(matrix, path)
    again = load_csr(path)
    assert again.shape == matrix.shape and again.dtype == matrix.dtype
    assert (again != matrix).nnz == 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "matrix.safetensors"
    save_csr(sparse.csr_matrix(np.eye(2)), path)

    def half_written(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(features, "save_file", half_written)
    with pytest.raises(OSError):
        save_csr(sparse.csr_matrix(np.ones((2, 2))), path)
    assert (load_csr(path).toarray() == np.eye(2)).all()


def test_examples_in_docstrings():
    assert doctest.testmod(features).failed == 0
