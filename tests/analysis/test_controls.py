"""Control dictionaries: known answers, and rows that lie as the language model's."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sae_rna.analysis import controls
from sae_rna.analysis.controls import Components, Latents, Neurons, untrained, window_names
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser
from sae_rna.records.composition import kmer_names, kmers, windows
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders

WIDTH, LATENTS = 6, 24
texts = st.lists(st.text("ACGUN", max_size=15).map("A".__add__), min_size=1, max_size=4)


def states(tokens=200, width=WIDTH, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(tokens, width)) @ rng.normal(size=(width, width)) + 5).astype(np.float32)


def standardised(values):
    return (values - values.mean(0)) / values.std(0)


def stack_of(architecture, sparsity=3, members=1, seed=0):
    members = tuple(Member(layer + 1, sparsity, seed) for layer in range(members))
    config = AutoencoderConfig(architecture, members, WIDTH, LATENTS, training={"epochs": 2})
    values = torch.as_tensor(states())[:, None].expand(-1, len(members), -1)
    stack = SparseAutoencoders(config, Standardiser.fit(values)).eval()
    with torch.no_grad():
        for weights in stack.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    return stack


def difference(encoded):
    """Positive less negative half."""
    half = encoded.shape[1] // 2
    return encoded[:, :half] - encoded[:, half:]


def test_neurons_of_both_signs_are_the_standardised_dimensions():
    values = states()
    neurons = Neurons.fit(values)
    encoded = neurons.encode(torch.as_tensor(values))
    assert encoded.shape == (200, neurons.latents) == (200, 2 * WIDTH)
    assert (encoded >= 0).all() and not (encoded[:, :WIDTH] * encoded[:, WIDTH:]).any()
    np.testing.assert_allclose(difference(encoded), standardised(values), atol=1e-5)


def test_neurons_keep_the_statistics_of_the_tokens_they_were_fitted_on():
    neurons, other = Neurons.fit(states()), states(seed=1)
    expected = (other - states().mean(0)) / states().std(0)
    np.testing.assert_allclose(difference(neurons.encode(other)), expected, atol=1e-4)


def test_a_dimension_that_never_changes_does_not_fire():
    values = states()
    values[:, 2] = 7
    encoded = Neurons.fit(values).encode(values)
    assert not encoded[:, [2, WIDTH + 2]].any()


def test_principal_components_are_the_singular_vectors():
    values = states()
    components = Components.fit(values, "pca", count=3)
    scores = difference(components.encode(values))
    left, size, _ = np.linalg.svd(standardised(values), full_matrices=False)
    expected = (left * size)[:, :3]
    np.testing.assert_allclose(scores * np.sign((scores * expected).sum(0)), expected, atol=1e-3)
    assert components.latents == 6 and components.converged


def test_all_principal_components_together_lose_nothing():
    values = states()
    components = Components.fit(values)
    scores = difference(components.encode(values))
    np.testing.assert_allclose(scores @ components.model.components_, standardised(values), atol=1e-4)


def test_independent_components_unmix_planted_sources():
    rng = np.random.default_rng(0)
    sources = np.column_stack([rng.laplace(size=5000), rng.uniform(-1, 1, 5000), rng.exponential(size=5000)])
    values = (sources @ rng.normal(size=(3, 3)) + 2).astype(np.float32)
    independent, principal = (Components.fit(values, method) for method in ("ica", "pca"))
    agreement = {}
    for name, components in (("ica", independent), ("pca", principal)):
        scores = difference(components.encode(values))
        agreement[name] = np.abs(np.corrcoef(scores.T, sources.T)[:3, 3:])
    assert (
        independent.converged
        and (agreement["ica"].max(0) > 0.99).all()
        and (agreement["ica"].max(1) > 0.99).all()
    )
    assert agreement["pca"].max(0).min() < 0.95  # the sources are not to be had without independence
    encoded = independent.encode(values)
    assert encoded.shape[1] == independent.latents == 6 and (encoded >= 0).all()


def test_components_that_do_not_converge_say_so_and_end(monkeypatch):
    monkeypatch.setattr(controls, "ICA_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        components = Components.fit(states(), "ica")
    assert not components.converged


def test_independent_components_are_the_same_again():
    values = states()
    first, second = (Components.fit(values, "ica", 2, seed=3).encode(values) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_impossible_components_and_states_are_refused():
    with pytest.raises(ValueError, match="7 components are impossible with 200 tokens of 6 dimensions"):
        Components.fit(states(), count=7)
    with pytest.raises(ValueError, match='"pca" or by "ica", not by "nmf"'):
        Components.fit(states(), "nmf")
    with pytest.raises(ValueError, match=r"shape \[tokens, width\], not \[2, 3, 4\]"):
        Neurons.fit(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match=r"shape \[tokens, 6\], not \[200, 5\]"):
        Neurons.fit(states()).encode(states()[:, :5])
    with pytest.raises(ValueError, match=r"shape \[tokens, 6\], not \[200, 5\]"):
        Latents(stack_of("topk")).encode(states()[:, :5])


@pytest.mark.parametrize("architecture", ["topk", "relu-l1", "jumprelu"])
def test_latents_are_those_of_the_autoencoder_whatever_the_chunks(architecture, monkeypatch):
    stack, values = stack_of(architecture), torch.as_tensor(states())
    expected = stack.encode(stack.standardise(values[:, None]).transpose(0, 1))[0].detach().numpy()
    monkeypatch.setattr(controls, "ENCODED_TOKENS", 7)
    dictionary = Latents(stack)
    encoded = dictionary.encode(values)
    assert sparse.isspmatrix_csr(encoded) and encoded.shape == (200, dictionary.latents) and encoded.nnz
    np.testing.assert_allclose(encoded.toarray(), expected, atol=1e-5)


def test_a_stack_of_several_is_no_single_dictionary():
    with pytest.raises(
        ValueError, match=r"2 autoencoders is no single dictionary: choose one with only\(layer\)"
    ):
        Latents(stack_of("topk", members=2))
    assert Latents(stack_of("topk", members=2).only(2)).latents == LATENTS


def test_untrained_is_where_training_began():
    trained = stack_of("topk", members=2, seed=4)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    begun, other = untrained(trained), untrained(trained, seed=1)
    fresh = SparseAutoencoders(trained.config, trained.standardise)
    assert torch.equal(begun.encoder_weight, fresh.encoder_weight) and not torch.equal(
        other.encoder_weight, fresh.encoder_weight
    )
    assert torch.equal(begun.standardise.mean, trained.standardise.mean) and torch.equal(
        begun.standardise.std, trained.standardise.std
    )
    assert begun.config.layers == trained.config.layers and begun.config.training == {} and not begun.training
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_untrained_has_the_same_k(architecture):
    encoded = Latents(untrained(stack_of(architecture, sparsity=3))).encode(states())
    assert encoded.getnnz(axis=1).max() == 3 and encoded.shape[1] == LATENTS


def test_windows_name_their_columns():
    encoded, names = windows(["GAC"], reach=1), window_names(1)
    found = [{names[column] for column in row.indices} for row in encoded]
    assert found == [{"G+0", "A+1"}, {"G-1", "A+0", "C+1"}, {"A-1", "C+0"}]
    assert encoded.shape == (3, len(names)) == (3, 12)


def test_kmers_name_their_columns():
    assert kmer_names(1) == list("ACGU")
    assert (
        kmer_names(2)[:6] == ["AA", "AC", "AG", "AU", "CA", "CC"]
        and kmer_names(2)[-1] == "UU"
        and len(kmer_names(5)) == 1024
    )
    encoded, names = kmers(["GACU", "A"], 3), kmer_names(3)
    assert [[names[column] for column in row.indices] for row in encoded] == [[], ["GAC"], ["ACU"], [], []]


@given(texts, st.integers(1, 4))
def test_kmers_are_the_substrings_around_each_nucleotide(sequences, k):
    encoded, names = kmers(sequences, k), kmer_names(k)
    expected = []
    for sequence in sequences:
        for place, base in enumerate(sequence):
            start = place - (k - 1) // 2
            around = sequence[max(start, 0) : start + k]
            if base != "N":
                expected.append([around] if start >= 0 and len(around) == k and "N" not in around else [])
    assert encoded.shape == (len(expected), 4**k)
    assert [
        [names[column] for column in encoded.indices[a:b]] for a, b in zip(encoded.indptr, encoded.indptr[1:])
    ] == expected
    assert (encoded.data == 1).all()


@given(texts)
def test_windows_of_no_reach_are_kmers_of_one(sequences):
    np.testing.assert_array_equal(windows(sequences, 0).toarray(), kmers(sequences, 1).toarray())


def test_kmers_without_letters_are_refused():
    with pytest.raises(ValueError, match="k is 1 or more"):
        kmers(["ACGU"], 0)


def test_rows_are_those_of_the_hidden_states(tiny_model):
    sequences = ["ACGNUNNA", "NGG", "CUUNACGUACG"]
    parts = list(LanguageModel.load(str(tiny_model), device="cpu").hidden_states(sequences, [1]))
    where = sorted(
        (int(row), int(place)) for part in parts for row, place in zip(part.sequence_T, part.position_T)
    )
    bases = [sequences[row][place] for row, place in where]
    assert "N" not in bases
    assert ["ACGU"[column] for column in kmers(sequences, 1).indices] == bases
    centre = windows(sequences, 2).toarray().reshape(len(where), 4, 5)[:, :, 2]
    assert ["ACGU"[column] for column in centre.argmax(1)] == bases and (centre.sum(1) == 1).all()
    assert kmers(sequences, 3).shape[0] == len(where)
