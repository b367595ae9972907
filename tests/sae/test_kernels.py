"""The compiled kernels against plain dense PyTorch."""

import math

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna.sae import kernels

quick = settings(max_examples=60)
both_types = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
two_threads = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads: set NUMBA_NUM_THREADS to 2 or more"
)


@pytest.fixture(autouse=True)
def _seed_and_one_thread():
    """Threads that wait for each other on a busy machine cost more than they save here."""
    torch.manual_seed(5)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


# Choosing the largest.


@st.composite
def batches(draw):
    """Numbers [B, F] of every sort that an encoder may give, and how many of each token are wanted."""
    tokens, latents = draw(st.integers(1, 5)), draw(st.integers(1, 12) | st.integers(1, 300))
    k = draw(st.integers(1, min(latents, 6)) | st.integers(1, latents) | st.just(latents))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    normal = torch.randn(tokens, latents, generator=generator)
    rare = torch.rand(tokens, latents, generator=generator) < 0.05
    kinds = {
        "any": normal,
        "ties": (2 * normal).round(),
        "all negative": -normal.abs() - 1e-3,
        "few positive": torch.where(rare, normal.abs(), -normal.abs()),
        "all equal": torch.full((tokens, latents), 0.7),
        "zeros of both signs": normal.sign() * 0.0,
        "of all magnitudes": normal * 10.0 ** torch.randint(-44, 38, (tokens, latents), generator=generator),
        "one much larger": normal + 100.0 * (torch.arange(latents) == latents // 2),
    }
    return kinds[draw(st.sampled_from(list(kinds)))], k


@both_types
@quick
@given(batch=batches())
def test_top_k_finds_what_torch_finds(kind, batch):
    x, k = batch[0].to(kind), batch[1]
    indices, values, counts = kernels.top_k(kernels.as_bits(x), k)
    for row, mine, found, count in zip(x.float().numpy(), indices, values, counts):
        expected = torch.from_numpy(row).topk(k).values.numpy()
        expected = expected[expected > 0]
        assert count == len(expected)
        assert sorted(found[:count], reverse=True) == expected.tolist()
        assert len(set(mine[:count])) == count and all(0 <= index < len(row) for index in mine[:count])
        assert row[mine[:count]].tolist() == found[:count].tolist()


@both_types
def test_top_k_takes_infinity_and_the_smallest_number_but_no_zero(kind):
    smallest = 2.0**-149 if kind == torch.float32 else 2.0**-133
    x = torch.tensor([[0.0, -0.0, smallest, -torch.inf, torch.inf, -1.0]], dtype=kind)
    indices, values, counts = kernels.top_k(kernels.as_bits(x), 6)
    assert counts.tolist() == [2] and dict(zip(indices[0, :2].tolist(), values[0, :2].tolist())) == {
        2: smallest,
        4: torch.inf,
    }


@both_types
@pytest.mark.parametrize("others", ["negative", "smaller"])
def test_the_largest_number_is_found_wherever_it_stands(kind, others):
    for latents in (*range(1, 40), 63, 64, 65, 130):
        x = (torch.rand(latents, latents) - (2 if others == "negative" else 0) + 4 * torch.eye(latents)).to(
            kind
        )
        for k in {1, min(2, latents), min(7, latents)}:
            indices, values, counts = kernels.top_k(kernels.as_bits(x), k)
            largest = values.argmax(1) if others == "smaller" else 0
            assert indices[range(latents), largest].tolist() == list(range(latents)), (latents, k)
            assert counts.tolist() == [1 if others == "negative" else k] * latents
        start, indices, _ = kernels.batch_top_k(kernels.as_bits(x), latents, 1.5)
        assert start.tolist() == list(range(latents + 1)) and indices.tolist() == list(range(latents))


@quick
@given(batch=batches())
def test_codes_in_csr_form_are_the_tokens_codes_one_after_another(batch):
    found = kernels.top_k(kernels.as_bits(batch[0]), batch[1])
    start, indices, values = kernels.to_csr(*found)
    assert start[0] == 0 and start[-1] == len(indices) == len(values)
    for b, (mine, numbers, count) in enumerate(zip(*found)):
        assert indices[start[b] : start[b + 1]].tolist() == mine[:count].tolist()
        assert values[start[b] : start[b + 1]].tolist() == numbers[:count].tolist()


@both_types
@quick
@given(
    batch=batches(),
    guess=st.sampled_from([0.0, 0.5, 0.999, 1.0, 1.001, 2.0, math.inf]),
    wanted=st.floats(0, 1),
)
def test_batch_top_k_finds_what_torch_finds_whatever_the_guess(kind, batch, guess, wanted):
    x = batch[0].to(kind)
    flat, wanted = x.float().flatten(), max(1, round(wanted * x.numel()))
    expected = flat.topk(wanted).values
    expected = expected[expected > 0]
    smallest = expected[-1].item() if len(expected) else 1.0
    start, indices, values = kernels.batch_top_k(
        kernels.as_bits(x), wanted, min(guess * smallest, 3e38) if guess < 2 else guess
    )
    assert sorted(values, reverse=True) == expected.tolist()
    places = np.repeat(np.arange(len(x)), np.diff(start)) * x.shape[1] + indices
    assert flat.numpy()[places].tolist() == values.tolist()
    stable = np.argsort(-flat.numpy(), kind="stable")[
        : len(expected)
    ]  # of equal numbers the first ones are kept
    assert places.tolist() == sorted(stable)  # by token and latent


def test_batch_top_k_of_a_known_answer():
    x = torch.tensor([[3.0, -1.0, 2.0], [0.0, 2.0, 5.0], [2.0, -4.0, -5.0]])
    for guess in (0.0, 1.9, 2.0, 2.5, 9.0):
        start, indices, values = kernels.batch_top_k(kernels.as_bits(x), 4, guess)
        assert (start.tolist(), indices.tolist(), values.tolist()) == (
            [0, 2, 4, 4],
            [0, 2, 1, 2],
            [3, 2, 2, 5],
        )
    start, indices, values = kernels.batch_top_k(kernels.as_bits(x), 9, 4.0)
    assert (start.tolist(), indices.tolist(), values.tolist()) == (
        [0, 2, 4, 5],
        [0, 2, 1, 2, 0],
        [3, 2, 2, 5, 2],
    )


@quick
@given(batch=batches())
def test_ordering_by_latent_is_undone_by_its_places(batch):
    x, _ = batch
    start, indices, _ = kernels.batch_top_k(kernels.as_bits(x), x.numel() // 2 + 1, 0.0)
    first, tokens, places = kernels.by_latent(start, indices, x.shape[1])
    assert sorted(places) == list(range(len(indices))) and first[0] == 0 and first[-1] == len(indices)
    assert tokens.tolist() == np.repeat(np.arange(len(x)), np.diff(start))[places].tolist()
    assert indices[places].tolist() == np.repeat(np.arange(x.shape[1]), np.diff(first)).tolist()
    for j in range(x.shape[1]):
        assert (np.diff(tokens[first[j] : first[j + 1]]) > 0).all()


# Residuals and gradients.

TOKENS, WIDTH, LATENTS = 37, 70, 48


class Problem:
    """A batch with random codes, what the kernels make of it, and the same by automatic differentiation."""

    def __init__(self, kind, prefixes, reverse=False):
        self.prefixes, self.scale = np.array(prefixes), np.float32(2 / TOKENS)
        x, bias = torch.randn(TOKENS, WIDTH), torch.randn(WIDTH)
        self.inputs, self.dictionary = (x - bias).to(kind), (torch.randn(LATENTS, WIDTH) / 8).to(kind)
        encoder, encoder_bias = torch.randn(LATENTS, WIDTH) / 8, 0.1 * torch.randn(LATENTS)
        leaves = [t.double().requires_grad_() for t in (encoder, encoder_bias, self.dictionary, bias)]
        z = self.inputs.double() @ leaves[0].T + leaves[1]
        self.active = (z > 0) & (torch.rand(TOKENS, LATENTS) < 0.3)
        self.active[3] = self.active[-1] = False  # tokens without codes
        self.active[:, [0, 5, LATENTS - 1]] = False  # latents that never fire
        f = z * self.active
        f.retain_grad()
        parts = [leaves[3] + f[:, :end] @ leaves[2][:end] - x.double() for end in prefixes]
        (float(self.scale) / 2 * sum(part.square().sum() for part in parts)).backward()
        self.expected_errors = torch.stack([part.square().sum(1) for part in parts])
        self.expected_residual = (
            float(self.scale) * torch.stack([sum(parts[g:]) for g in range(len(parts))]).detach()
        )
        self.encoder_slope, self.bias_slope, self.decoder_slope, self.decoder_bias_slope = (
            leaf.grad for leaf in leaves
        )

        order = [row.nonzero().flatten().tolist()[:: -1 if reverse else 1] for row in self.active]
        self.rows, self.indices = (
            np.repeat(np.arange(TOKENS), list(map(len, order))),
            np.array(sum(order, []), np.int32),
        )
        self.start = np.concatenate([[0], np.cumsum(list(map(len, order)))])
        self.values = f.detach()[self.rows, self.indices].float().numpy()
        self.expected_slopes = f.grad[self.rows, self.indices]

        self.residual = torch.empty(len(parts), TOKENS, WIDTH, dtype=kind)
        self.slopes, self.errors = (
            np.empty(len(self.indices), np.float32),
            np.empty((len(parts), TOKENS), np.float32),
        )
        kernels.residuals(
            x.numpy(), bias.numpy(), kernels.as_array(self.dictionary), self.start, self.indices, self.values,
            self.prefixes, self.scale, kernels.as_array(self.residual), self.slopes, self.errors,
        )  # fmt: skip
        self.encoder, self.decoder = torch.full((LATENTS, WIDTH), 7.0), torch.full((LATENTS, WIDTH), 7.0)
        self.bias, self.squares = np.full(LATENTS, 7, np.float32), np.full(LATENTS, 7, np.float32)
        first, tokens, places = kernels.by_latent(self.start, self.indices, LATENTS)
        kernels.gradients(
            kernels.as_array(self.inputs), kernels.as_array(self.residual), first, tokens,
            self.values[places], self.slopes[places], self.prefixes,
            self.encoder.numpy(), self.decoder.numpy(), self.bias, self.squares,
        )  # fmt: skip

    def results(self):
        return (
            self.residual.float(),
            self.slopes,
            self.errors,
            self.encoder,
            self.decoder,
            self.bias,
            self.squares,
        )


def close(mine, expected, tolerance):
    """Within `tolerance` of the expected, relative to its largest number."""
    mine, expected = torch.as_tensor(mine).double(), torch.as_tensor(expected).double()
    torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


@both_types
@pytest.mark.parametrize(
    ("prefixes", "reverse"),
    [((LATENTS,), False), ((LATENTS,), True), ((3, 6, 12, 24, LATENTS), False), ((1, LATENTS), False)],
)
def test_residuals_and_gradients_equal_automatic_differentiation_of_the_dense_formula(
    kind, prefixes, reverse
):
    problem = Problem(kind, prefixes, reverse)
    loose = 1e-5 if kind == torch.float32 else 2**-8  # bfloat16 has 8 bits
    close(problem.errors, problem.expected_errors.detach(), 1e-5)
    close(problem.slopes, problem.expected_slopes, 1e-5)
    close(problem.residual, problem.expected_residual, loose)
    close(problem.residual[0].float().sum(0), problem.decoder_bias_slope, 4 * loose)
    fired = problem.active.any(0)
    assert not fired.all() and fired.sum() > 30
    close(problem.encoder[fired], problem.encoder_slope[fired], 1e-5)
    close(problem.bias, problem.bias_slope, 1e-5)
    close(problem.decoder[fired], problem.decoder_slope[fired], loose)
    rows = (
        problem.encoder_slope.square().sum(1)
        + problem.bias_slope.square()
        + problem.decoder_slope.square().sum(1)
    )
    close(problem.squares, rows, 3 * loose)
    assert (problem.encoder[~fired] == 7).all() and (problem.decoder[~fired] == 7).all()  # left as they were
    assert not problem.bias[~fired.numpy()].any() and not problem.squares[~fired.numpy()].any()


def test_a_matryoshka_of_one_dictionary_of_known_residuals():
    x, bias = np.array([[1.0, 2.0]], np.float32), np.array([0.5, 0.0], np.float32)
    dictionary = np.array([[1, 0], [0, 1], [2, 0]], np.float32)
    residual, slopes, errors = (
        np.empty((2, 1, 2), np.float32),
        np.empty(2, np.float32),
        np.empty((2, 1), np.float32),
    )
    start, indices, values = np.array([0, 2]), np.array([1, 2], np.int32), np.array([3.0, 1.0], np.float32)
    kernels.residuals(
        x, bias, dictionary, start, indices, values, np.array([2, 3]), np.float32(2), residual, slopes, errors
    )
    # x^ is [.5, 3] with two latents and [2.5, 3] with all, so the residuals are [-.5, 1] and [1.5, 1].
    assert errors.tolist() == [[1.25], [3.25]]
    assert residual.tolist() == [[[2.0, 4.0]], [[3.0, 2.0]]]
    assert slopes.tolist() == [4.0, 6.0]


@both_types
def test_moments_are_sums_over_the_batch(kind):
    x, scale = torch.randn(300, 130), 0.125  # several blocks of rows and of columns, the last ones short
    residual = (torch.randn(300, 130) * scale).to(kind)
    sums = torch.full((4, 130), torch.nan, dtype=torch.float64)
    kernels.moments(x.numpy(), kernels.as_array(residual), np.float32(scale), sums.numpy())
    truth, rest = x.double(), residual.double() / scale
    for mine, values in zip(sums, (truth, truth.square(), rest, rest.square())):
        assert ((mine - values.sum(0)).abs() < 1e-6 * values.abs().sum(0)).all()


@both_types
def test_relu_slopes_equal_automatic_differentiation(kind):
    z = torch.randn(23, 1100).to(kind)  # three blocks of columns, the last one short
    z[:, 7], z[:, 600] = 0, -1  # latents that never fire, one of them at the kink
    upstream, penalty = torch.randn(23, 1100).to(kind), 0.3
    leaf = z.double().requires_grad_()
    f = leaf.relu()
    ((f * upstream.double()).sum() + float(np.float32(penalty)) * f.sum()).backward()
    slopes, bias = upstream.clone(), np.full(1100, 7, np.float32)
    fired, activity = np.full(1100, 7, np.int32), np.full(1100, 7, np.float32)
    kernels.relu_slopes(
        kernels.as_array(z.relu()), kernels.as_array(slopes), np.float32(penalty), bias, fired, activity
    )
    close(slopes, leaf.grad, 1e-6 if kind == torch.float32 else 2**-8)
    close(bias, leaf.grad.sum(0), 1e-6)
    close(activity, f.detach().sum(0), 1e-6)
    assert fired.tolist() == (z > 0).sum(0).tolist()


@both_types
def test_squared_norms_are_those_of_rows(kind):
    matrix, squares = torch.randn(31, 77).to(kind), np.empty(31, np.float32)
    kernels.squared_norms(kernels.as_array(matrix), squares)
    close(squares, matrix.double().square().sum(1), 1e-6)


# Any number of threads.


def everything(kind):
    """Results of every kernel."""
    torch.manual_seed(5)
    x = torch.randn(61, 300).to(kind)
    found = [*kernels.top_k(kernels.as_bits(x), 7)]
    rows = np.arange(7) < found[2][:, None]
    found[:2] = found[0][rows], found[1][rows]  # what lies behind a token's codes is not defined
    found += kernels.batch_top_k(kernels.as_bits(x), 400, 1.0)
    found += Problem(kind, (3, 6, 12, 24, LATENTS)).results() + Problem(kind, (LATENTS,)).results()
    sums, squares = np.empty((4, 300)), np.empty(61, np.float32)
    kernels.moments(x.float().numpy(), kernels.as_array(x), np.float32(0.5), sums)
    slopes, fired = x.clone(), np.empty(300, np.int32)
    bias, activity = np.empty(300, np.float32), np.empty(300, np.float32)
    kernels.relu_slopes(
        kernels.as_array(x.relu()), kernels.as_array(slopes), np.float32(0.1), bias, fired, activity
    )
    kernels.squared_norms(kernels.as_array(x), squares)
    found += [sums, slopes.float(), bias, fired, activity, squares]
    return [np.asarray(result) for result in found]


@two_threads
@both_types
def test_results_are_the_same_bit_by_bit_for_one_and_two_threads(kind):
    results = []
    for count in (1, 2):
        numba.set_num_threads(count)
        results.append(everything(kind))
    assert len(results[0]) == len(results[1]) > 25
    for one, two in zip(*results):
        assert one.dtype == two.dtype and one.tobytes() == two.tobytes()
