"""The stream gives every token of every layer, standardised, shuffled, and the same for the same seed."""

import numpy as np
import pytest
import torch

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import ActivationStream, Standardiser, hidden_states


@pytest.fixture(scope="module")
def model(tiny_model):
    return LanguageModel.load(str(tiny_model))


def sequences(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGU"), rng.integers(10, 50))) for _ in range(count)]


def stream_of(model, batch=16, buffer_tokens=300_000, seed=0, texts=None):
    return ActivationStream(
        model, texts or sequences(), [1, 3], batch=batch, buffer_tokens=buffer_tokens, seed=seed
    )


def rows(batches):
    return torch.cat([batch.transpose(0, 1).flatten(1) for batch in batches])


def test_standardised_training_tokens_have_mean_zero_and_variance_one_in_every_layer_and_dimension(model):
    stream = stream_of(model, batch=1)
    x = torch.cat(list(stream.epochs(1)), 1)
    assert x.shape[1] == stream.tokens
    torch.testing.assert_close(x.mean(1), torch.zeros(2, 32), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(1, correction=0), torch.ones(2, 32), atol=1e-3, rtol=0)


def test_a_dimension_that_never_changes_standardises_to_zero():
    values = torch.ones(10, 1, 3)
    assert (Standardiser.fit(values)(values) == 0).all()


def test_an_epoch_holds_every_token_once_and_keeps_the_layers_of_a_token_together(model):
    texts = sequences()
    stream = stream_of(model, batch=1, texts=texts)
    given = rows(stream.epochs(1))
    direct = torch.cat(
        [stream.standardise(states.values_TLD).flatten(1) for states in model.hidden_states(texts, [1, 3])]
    )
    assert given.shape == direct.shape
    distance = torch.cdist(given, direct)
    assert distance.min(0).values.max() < 0.01 and distance.min(1).values.max() < 0.01


def test_streaming_through_a_small_buffer_gives_the_same_tokens_as_holding_all_of_them(model):
    texts = sequences(3000)
    streamed = ActivationStream(model, texts, [1, 3], batch=64, buffer_tokens=32_768, seed=0)
    assert not streamed.fits and streamed.buffer.nbytes == 4 * 32_768 * 2 * 32
    given = sum(batch.shape[1] for batch in streamed.epochs(1))
    total = sum(map(len, texts))
    assert total - 64 * 40 < given <= total
    sample = rows(
        list(ActivationStream(model, texts, [1, 3], batch=64, buffer_tokens=32_768, seed=0).epochs(1))[::60]
    )
    direct = torch.cat(
        [streamed.standardise(states.values_TLD).flatten(1) for states in model.hidden_states(texts, [1, 3])]
    )
    nearest, place = torch.cdist(sample, direct).min(1)
    assert nearest.max() < 0.01
    assert len(place.unique()) > 0.9 * len(
        sample
    )  # like contexts give like tokens in so small a model; little else comes twice


@pytest.mark.parametrize("buffer_tokens", [4096, 300_000])
@pytest.mark.parametrize("start", [0, 1, 30, 77, 150])
def test_a_stream_that_starts_later_gives_the_very_batches_of_one_that_came_so_far(
    model, buffer_tokens, start
):
    texts = sequences(400)
    whole, later = (
        ActivationStream(model, texts, [1, 3], batch=64, buffer_tokens=buffer_tokens, seed=3)
        for _ in range(2)
    )
    assert whole.fits == (buffer_tokens == 300_000)
    expected, given = list(whole.epochs(1.7))[start:], list(later.epochs(1.7, start=start))
    assert len(given) == len(expected) > 10
    assert all(torch.equal(one, two) for one, two in zip(expected, given))


@pytest.mark.parametrize("buffer_tokens", [4096, 300_000])
def test_a_layer_sees_the_same_batches_whatever_layers_are_read_with_it(model, buffer_tokens):
    texts = sequences(400)
    together = ActivationStream(model, texts, [1, 2, 3], batch=64, buffer_tokens=buffer_tokens, seed=3)
    alone = ActivationStream(model, texts, [2], batch=64, buffer_tokens=buffer_tokens, seed=3)
    for one, other in zip(together.epochs(1.3), alone.epochs(1.3), strict=True):
        assert torch.equal(one[1], other[0])


def test_letters_that_are_no_nucleotides_are_not_counted(model):
    stream = stream_of(model, texts=["ACGUNNACGU" * 4, "ACGU" * 10])
    assert stream.tokens == 32 + 40
    assert sum(batch.shape[1] for batch in stream.epochs(1)) == (72 // 16) * 16


def test_whatever_changes_the_batches_changes_the_key(model):
    texts = sequences()
    changed = [("batch", 32), ("buffer_tokens", 200_000), ("seed", 1), ("texts", texts[:-1])]
    keys = [str(stream_of(model, **{"texts": texts} | {name: value}).key) for name, value in changed]
    assert len({str(stream_of(model, texts=texts).key), *keys}) == 5


def test_the_seed_decides_the_order_and_nothing_else(model):
    one, same, other = (torch.cat(list(stream_of(model, seed=seed).epochs(1)), 1) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_second_epoch_is_shuffled_anew(model):
    stream = stream_of(model)
    batches = list(stream.epochs(2))
    half = len(batches) // 2
    assert not torch.equal(batches[0], batches[half])


def test_too_small_a_buffer_and_too_little_data_say_what_to_do(model):
    for batch, least in ((10_000, 20_000), (10, 49)):
        with pytest.raises(ValueError, match=f"set buffer_tokens to {least} or more"):
            ActivationStream(model, sequences(), [1], batch=batch, buffer_tokens=30)
    with pytest.raises(ValueError, match="too few"):
        ActivationStream(model, ["ACGU"], [1], batch=16)


def test_all_hidden_states_come_in_the_order_of_the_sequences(model):
    texts = [
        "ACGUACGUACGU",
        "GN",
        "ACG",
    ]  # not in the order of their lengths, one with a letter without state
    together = hidden_states(model, texts, [1, 3])
    alone = [next(model.hidden_states([text], [1, 3])).values_TLD.numpy() for text in texts]
    assert together.shape == (12 + 1 + 3, 2, 32)
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
