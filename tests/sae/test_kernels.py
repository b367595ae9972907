"""The compiled kernels, and the training steps built on them, against plain dense PyTorch."""

import copy
import math

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna.extraction.stream import Standardiser
from sae_rna.sae import fast_cpu, kernels
from sae_rna.sae import trainer as training
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.trainer import DEAD_AFTER_TOKENS, Trainer

quick = settings(deadline=None, max_examples=60)  # no deadline: a busy machine is no failure
both_types = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
BY_HAND = ("topk", "batchtopk", "matryoshka", "relu-l1", "relu-l1-mean")
WITH_K = BY_HAND[:3]


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
    x = {
        "any": normal,
        "ties": (2 * normal).round(),
        "all negative": -normal.abs() - 1e-3,
        "few positive": torch.where(torch.rand(tokens, latents, generator=generator) < 0.05, normal.abs(), -normal.abs()),
        "all equal": torch.full((tokens, latents), 0.7),
        "zeros of both signs": normal.sign() * 0.0,
        "of all magnitudes": normal * 10.0 ** torch.randint(-44, 38, (tokens, latents), generator=generator),
        "one much larger": normal + 100.0 * (torch.arange(latents) == latents // 2),
    }[draw(st.sampled_from(["any", "ties", "all negative", "few positive", "all equal", "zeros of both signs", "of all magnitudes",
                            "one much larger"]))]  # fmt: skip
    return x, k


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
    """A batch with random codes, what the kernels make of it, and the same in float64 by automatic
    differentiation."""

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
            x.numpy(), bias.numpy(), kernels.as_array(self.dictionary), self.start, self.indices, self.values, self.prefixes, self.scale,
            kernels.as_array(self.residual), self.slopes, self.errors,
        )  # fmt: skip
        self.encoder, self.decoder = torch.full((LATENTS, WIDTH), 7.0), torch.full((LATENTS, WIDTH), 7.0)
        self.bias, self.squares = np.full(LATENTS, 7, np.float32), np.full(LATENTS, 7, np.float32)
        first, tokens, places = kernels.by_latent(self.start, self.indices, LATENTS)
        kernels.gradients(
            kernels.as_array(self.inputs), kernels.as_array(self.residual), first, tokens, self.values[places],
            self.slopes[places], self.prefixes, self.encoder.numpy(), self.decoder.numpy(), self.bias, self.squares,
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
    # x^ is [.5, 3] with the first two latents and [2.5, 3] with all, so the residuals are [-.5, 1] and [1.5,
    # 1].
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


# The optimiser.


class Optimised:
    """A matrix under the compiled AdamW."""

    def __init__(self, rows=9, columns=21):
        self.weight = torch.randn(rows, columns)
        self.mean, self.square = torch.zeros(rows, columns), torch.zeros(rows, columns)
        self.count = 0

    def step(self, gradient, touched=None, *, scale=1.0, rate=0.01, decay=0.0, unit_norm=False, copied=None):
        self.count += 1
        touched = torch.ones(len(self.weight), dtype=torch.bool) if touched is None else touched
        parts = self.weight, self.mean, self.square, gradient, touched
        fast_cpu.adam(*parts, scale, rate, (0.9, 0.999), self.count, decay, unit_norm, copied)


def gradient_like(weight):
    """Away from zero, where the definitions of epsilon differ."""
    return torch.randn_like(weight).sign() * (torch.rand_like(weight) + 0.3)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@both_types
def test_adam_is_torchs_adamw_where_every_row_is_touched(kind, decay):
    mine = Optimised()
    other = torch.nn.Parameter(mine.weight.clone())
    reference = torch.optim.AdamW([other], weight_decay=decay, betas=(0.9, 0.999), eps=1e-8)
    for number in range(6):
        gradient = torch.randn_like(other).to(kind)
        reference.param_groups[0]["lr"] = rate = 0.05 / (number + 1)
        other.grad = gradient.float() * 0.25
        reference.step()
        mine.step(gradient, scale=0.25, rate=rate, decay=decay)
    torch.testing.assert_close(mine.weight, other.data, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.mean, reference.state[other]["exp_avg"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.square, reference.state[other]["exp_avg_sq"], rtol=1e-5, atol=1e-7)


def test_adam_is_torchs_sparse_adam_where_rows_rest():
    mine = Optimised()
    other = torch.nn.Parameter(mine.weight.clone())
    reference = torch.optim.SparseAdam([other], lr=0.01)
    for _ in range(6):
        touched, gradient = torch.rand(9) < 0.5, gradient_like(other)
        touched[4] = False
        rows = touched.nonzero().flatten()
        other.grad = torch.sparse_coo_tensor(rows[None], gradient[rows], other.shape, check_invariants=True)
        reference.step()
        before = mine.weight.clone(), mine.mean.clone(), mine.square.clone()
        mine.step(torch.where(touched[:, None], gradient, torch.nan), touched)
        for old, new in zip(before, (mine.weight, mine.mean, mine.square)):
            assert torch.equal(old[~touched], new[~touched]) and not (old[touched] == new[touched]).any()
    torch.testing.assert_close(mine.weight, other.data, rtol=1e-5, atol=1e-6)


def test_adams_first_step_is_the_rate_against_the_gradients_sign():
    mine = Optimised()
    before, gradient = mine.weight.clone(), gradient_like(mine.weight)
    mine.step(gradient, rate=0.02)
    torch.testing.assert_close(mine.weight, before - 0.02 * gradient.sign(), rtol=1e-5, atol=1e-6)


def test_unit_norm_makes_touched_rows_unit_and_leaves_the_others():
    mine, free = Optimised(), Optimised()
    free.weight = mine.weight.clone()
    before, gradient, touched = mine.weight.clone(), torch.randn(9, 21), torch.arange(9) % 3 > 0
    mine.step(gradient, touched, unit_norm=True)
    free.step(gradient)
    torch.testing.assert_close(
        mine.weight[touched], torch.nn.functional.normalize(free.weight, dim=1)[touched]
    )
    torch.testing.assert_close(mine.weight[touched].norm(dim=1), torch.ones(6), rtol=1e-6, atol=1e-6)
    assert torch.equal(mine.weight[~touched], before[~touched])


@pytest.mark.parametrize("unit_norm", [False, True])
@both_types
def test_the_copy_is_the_new_weights_in_bfloat16(kind, unit_norm):
    mine = Optimised()
    copied, touched = torch.full((9, 21), 7.0, dtype=torch.bfloat16), torch.arange(9) % 3 > 0
    for _ in range(3):
        mine.step(torch.randn(9, 21).to(kind), touched, unit_norm=unit_norm, copied=copied)
        assert torch.equal(copied[touched], mine.weight[touched].bfloat16()) and (copied[~touched] == 7).all()


def test_copies_are_rounded_to_the_nearest_bfloat16_and_ties_to_even():
    bits = torch.randint(-(2**31), 2**31, (64, 256), dtype=torch.int64).to(torch.int32)
    bits[:16] = (bits[:16] & ~0xFFFF) | 0x8000  # ties
    bits[16, :4] = torch.tensor(
        [0x7F7FFFFF, 0x7F800000, 0x00000001, 0x00008001]
    )  # the largest, infinity and tiny ones
    mine = Optimised(64, 256)
    mine.weight = bits.view(torch.float32).nan_to_num(1.0, posinf=torch.inf, neginf=-torch.inf)
    before, copied = mine.weight.clone(), torch.empty(64, 256, dtype=torch.bfloat16)
    mine.step(torch.zeros(64, 256), rate=0.0, copied=copied)
    assert torch.equal(mine.weight, before)
    assert torch.equal(copied, before.bfloat16())


@pytest.mark.parametrize(("decay", "unit_norm"), [(0.0, False), (0.1, False), (0.0, True)])
@both_types
def test_plain_adam_equals_the_compiled_one(kind, decay, unit_norm):
    mine = Optimised()
    plain = [mine.weight.clone(), mine.mean.clone(), mine.square.clone()]
    for number in range(1, 5):
        gradient, touched = torch.randn(9, 21).to(kind), torch.rand(9) < 0.6
        mine.step(gradient, touched, scale=0.5, rate=0.03, decay=decay, unit_norm=unit_norm)
        training.adam(*plain, gradient, touched, 0.5, 0.03, (0.9, 0.999), number, decay, unit_norm)
    for compiled, other in zip((mine.weight, mine.mean, mine.square), plain):
        torch.testing.assert_close(compiled, other, rtol=1e-5, atol=1e-6)


# Training steps.


def planted(tokens, generator, directions=40, width=32):
    """Sparse sums of random directions."""
    active = torch.rand(tokens, directions, generator=generator) < 3 / directions
    basis = torch.nn.functional.normalize(
        torch.randn(directions, width, generator=torch.Generator().manual_seed(1)), dim=1
    )
    return (active * (torch.rand(tokens, directions, generator=generator) + 0.5)) @ basis


def trainer(architecture, precision="float32", automatic=False, rate=3e-3, steps=100, latents=96):
    """A new one; `automatic` replaces the step written by hand."""
    sparsity = {"relu-l1": 0.02, "relu-l1-mean": 0.02 / 32, "jumprelu": 0.02}.get(architecture, 4)
    facts = AutoencoderConfig(architecture, members=(Member(1, sparsity),), width=32, latents=latents)
    made = Trainer(
        SparseAutoencoders(facts, Standardiser(torch.zeros(1, 32), torch.ones(1, 32))), steps, rate, precision
    )
    assert (made.gradients == made.automatic_gradients) == (architecture == "jumprelu")
    if automatic:
        made.gradients = made.automatic_gradients
    return made


def mark_dead(made, dead):
    made.idle_tokens_F[dead] = DEAD_AFTER_TOKENS + 1.0


DEAD = {"none": slice(0, 0), "few": slice(20, 25), "many": slice(20, 70)}  # AuxK takes half the width, 16


def automatic_gradients(made, x):
    """Of the loss, by name, and their norm; the trainer is left as it is."""
    sae = copy.deepcopy(made.sae)
    output = sae(x[None], (made.idle_tokens_F > DEAD_AFTER_TOKENS)[None])
    (output.error + output.penalty).sum().backward()
    gradients = {name: parameter.grad[0] for name, parameter in sae.named_parameters()}
    return (
        gradients,
        math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients.values())),
        output,
    )


@pytest.mark.parametrize("size", [1.0, 0.01], ids=["clipped", "unclipped"])
@pytest.mark.parametrize(
    ("architecture", "dead"),
    [*((name, dead) for name in WITH_K for dead in DEAD), ("relu-l1", "none"), ("relu-l1-mean", "none")],
)
def test_one_step_has_the_gradient_of_the_loss_clipped_at_norm_one(architecture, dead, size, monkeypatch):
    monkeypatch.setattr(fast_cpu, "TOKENS_AT_ONCE", 50)  # several products, the last one short
    x = size * planted(128, torch.Generator().manual_seed(2))
    for automatic in (False, True):
        made = trainer(architecture, automatic=automatic)
        if architecture == "relu-l1-mean" and size == 1:
            with torch.no_grad():
                made.sae.decoder_weight *= 30  # its gradients are small otherwise
        with torch.no_grad():
            made.sae.encoder_bias.normal_(std=0.1 * size, generator=torch.Generator().manual_seed(3))
            made.sae.decoder_bias.normal_(std=0.1 * size, generator=torch.Generator().manual_seed(4))
        mark_dead(made, DEAD[dead])
        gradients, norm, output = automatic_gradients(made, x)
        assert norm > 1.2 if size == 1 else norm < 0.8
        made.step(x)
        for name, gradient in gradients.items():
            mean, square = made.optimizer.means[name], made.optimizer.squares[name]
            clipped = gradient.T if name.startswith("encoder") else gradient
            clipped = clipped * min(1, 1 / norm)
            close(mean, 0.1 * clipped, 2e-5)
            close(square, 0.001 * clipped.square(), 1e-4)
        error, penalty = made.terms / len(x)
        assert error.item() == pytest.approx(output.error.item(), rel=1e-5)
        assert penalty.item() == pytest.approx(output.penalty.item(), rel=1e-5)
        assert (penalty > 0) == (dead != "none" or architecture not in WITH_K)
        fired = (output.features[0] > 0).sum(0)
        assert made.fired_F.tolist() == fired.tolist()
        idle = torch.full((96,), 128.0)
        idle[DEAD[dead]] += DEAD_AFTER_TOKENS + 1
        assert made.idle_tokens_F.tolist() == idle.where(fired == 0, 0).tolist()


@pytest.mark.parametrize(
    ("architecture", "dead"),
    [*((name, dead) for name in WITH_K for dead in DEAD), ("relu-l1", "none"), ("relu-l1-mean", "none")],
)
def test_several_steps_by_hand_equal_automatic_differentiation(architecture, dead):
    mine, reference = trainer(architecture), trainer(architecture, automatic=True)
    start = {name: weight.clone() for name, weight in mine.optimizer.weights.items()}
    generator = torch.Generator().manual_seed(6)
    for _ in range(8):
        x = planted(128, generator)
        for made in (mine, reference):
            mark_dead(made, DEAD[dead])  # some of which do fire
            made.step(x)
    for name, weight in reference.optimizer.weights.items():
        moved = (weight - start[name]).norm()
        assert moved > 0 and (mine.optimizer.weights[name] - weight).norm() < 1e-3 * moved, name
        assert torch.equal(
            mine.optimizer.weights[name],
            mine.sae.get_parameter(name)[0].T if "encoder" in name else mine.sae.get_parameter(name)[0],
        )
    if architecture in WITH_K:
        torch.testing.assert_close(
            mine.sae.decoder_weight.norm(dim=-1), torch.ones(1, 96), rtol=1e-5, atol=1e-5
        )
    if architecture in ("batchtopk", "matryoshka"):
        assert (
            mine.sae.threshold.item() == pytest.approx(reference.sae.threshold.item(), rel=1e-4)
            and mine.sae.threshold > 0
        )
    report, expected = mine.report(), reference.report()
    for made in (report, expected):
        made.pop("tokens_per_second")
    names = [name for name, value in report.items() if isinstance(value, float)]
    assert "explained_variance" in names and "penalty" in names
    assert {name: report[name] for name in names} == pytest.approx(
        {name: expected[name] for name in names}, rel=1e-4, abs=1e-6
    )
    assert report.keys() == expected.keys()


@pytest.mark.parametrize("architecture", [*BY_HAND, "jumprelu"])
def test_training_is_torchs_adamw_with_warm_up_cosine_decay_clipping_and_constraint(architecture):
    made, decay = trainer(architecture, rate=0.02, steps=12), 0.0
    assert made.optimizer.decay == (1e-4 if architecture.startswith("relu") else 0)
    if architecture.startswith("relu"):
        made.optimizer.decay = decay = 0.7  # large enough to be seen
    other = copy.deepcopy(made.sae)
    start = copy.deepcopy(other.state_dict())
    reference = torch.optim.AdamW(other.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    generator = torch.Generator().manual_seed(6)
    for step in range(8):
        x = planted(128, generator)
        mark_dead(made, slice(None))  # so that no row rests
        made.step(x)
        output = other(x[None], torch.ones(1, 96, dtype=torch.bool))
        (output.error + output.penalty).sum().backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        reference.param_groups[0]["lr"] = 0.02 * (step + 1) / 50 * (1 + math.cos(math.pi * step / 12)) / 2
        reference.step()
        reference.zero_grad()
        if not architecture.startswith("relu"):
            with torch.no_grad():
                other.decoder_weight /= other.decoder_weight.norm(dim=-1, keepdim=True)
    for name, parameter in other.named_parameters():
        moved = (parameter - start[name]).norm()
        assert moved > 0 and (made.sae.get_parameter(name) - parameter).norm() < 2e-3 * moved, name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", WITH_K)
def test_latents_that_neither_fired_nor_are_dead_rest(architecture, precision):
    made = trainer(architecture, precision, latents=300)
    generator = torch.Generator().manual_seed(6)
    made.step(planted(4, generator))
    mark_dead(made, slice(20, 25))
    before = copy.deepcopy(
        (made.optimizer.weights, made.optimizer.means, made.optimizer.squares, made.optimizer.copies)
    )
    made.fired_F.zero_()
    made.step(planted(4, generator))
    moves = made.fired_F > 0
    moves[20:25] = True
    assert 10 < moves.sum() < 100
    for old, new in zip(
        before, (made.optimizer.weights, made.optimizer.means, made.optimizer.squares, made.optimizer.copies)
    ):
        for name in old.keys() - {"decoder_bias"}:
            assert torch.equal(old[name][~moves], new[name][~moves]), name
    assert not torch.equal(
        before[0]["decoder_weight"][20:25], made.optimizer.weights["decoder_weight"][20:25]
    )


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize(
    ("architecture", "broken"),
    [*((name, "data") for name in BY_HAND), *((name, "dead latent") for name in WITH_K)],
)
def test_weights_and_moments_stay_as_they_are_where_the_loss_is_not_finite(architecture, broken, automatic):
    made, x = trainer(architecture, automatic=automatic), planted(64, torch.Generator().manual_seed(6))
    made.step(x)
    if broken == "data":
        x[7, 3] = torch.nan
    else:  # the error is finite, the auxiliary loss is not
        mark_dead(made, slice(5, 7))
        made.optimizer.weights["encoder_bias"][5:7] = -1e30
        made.optimizer.weights["decoder_weight"][5:7] = torch.nan
    before = copy.deepcopy(made.state()[0])
    made.step(x)
    assert made.diverged_at == 1
    for name, value in made.state()[0].items():
        if name.startswith(("weight", "mean", "square")):
            assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


@pytest.mark.parametrize("architecture", BY_HAND)
def test_the_copies_of_a_trainer_are_its_weights_in_bfloat16(architecture):
    made, generator = trainer(architecture, "bfloat16"), torch.Generator().manual_seed(6)
    for _ in range(3):
        made.step(planted(64, generator))
        for name in ("encoder_weight", "decoder_weight"):
            assert made.optimizer.copies[name].dtype == torch.bfloat16
            assert torch.equal(made.optimizer.copies[name], made.optimizer.weights[name].bfloat16())


@pytest.mark.parametrize("architecture", BY_HAND)
def test_bfloat16_explains_as_much_variance_as_dense_float32(architecture):
    mine, reference = (
        trainer(architecture, "bfloat16", rate=1e-2),
        trainer(architecture, "float32", automatic=True, rate=1e-2),
    )
    generator = torch.Generator().manual_seed(6)
    for step in range(100):
        if step == 80:
            mine.report(), reference.report()
        x = planted(256, generator)
        mine.step(x)
        reference.step(x)
    found, expected = mine.report()["explained_variance"], reference.report()["explained_variance"]
    assert expected > 0.6
    assert found == pytest.approx(expected, abs=0.005)
    x = planted(2000, generator)
    rest = mine.sae(x[None]).reconstruction[0].detach() - x
    assert 1 - (rest.var(0).sum() / x.var(0).sum()).item() == pytest.approx(found, abs=0.03)


# Any number of threads.


def everything(kind):
    """Results of every kernel and of some training steps."""
    torch.manual_seed(5)
    x = torch.randn(61, 300).to(kind)
    found = [*kernels.top_k(kernels.as_bits(x), 7)]
    rows = np.arange(7) < found[2][:, None]
    found[:2] = found[0][rows], found[1][rows]  # what lies behind a token's codes is not defined
    found += kernels.batch_top_k(kernels.as_bits(x), 400, 1.0)
    found += Problem(kind, (3, 6, 12, 24, LATENTS)).results() + Problem(kind, (LATENTS,)).results()
    sums = np.empty((4, 300))
    kernels.moments(x.float().numpy(), kernels.as_array(x), np.float32(0.5), sums)
    slopes, bias, fired, activity, squares = (
        x.clone(),
        *(np.empty(300, t) for t in (np.float32, np.int32, np.float32)),
        np.empty(61, np.float32),
    )
    kernels.relu_slopes(
        kernels.as_array(x.relu()), kernels.as_array(slopes), np.float32(0.1), bias, fired, activity
    )
    kernels.squared_norms(kernels.as_array(x), squares)
    adam, copied = Optimised(), torch.zeros(9, 21, dtype=torch.bfloat16)
    for _ in range(3):
        adam.step(torch.randn(9, 21).to(kind), unit_norm=True, copied=copied)
    found += [
        sums,
        slopes.float(),
        bias,
        fired,
        activity,
        squares,
        adam.weight,
        adam.mean,
        adam.square,
        copied.float(),
    ]
    for architecture in BY_HAND:
        made, generator = (
            trainer(architecture, str(kind).removeprefix("torch.")),
            torch.Generator().manual_seed(6),
        )
        for _ in range(4):
            mark_dead(made, slice(20, 30))
            made.step(planted(96, generator))
        found += [value.clone() for value in made.state()[0].values()]
    return [np.asarray(result) for result in found]


@pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads: set NUMBA_NUM_THREADS to 2 or more"
)
@both_types
def test_results_are_the_same_bit_by_bit_for_one_and_two_threads(kind):
    results = []
    for count in (1, 2):
        numba.set_num_threads(count)
        results.append(everything(kind))
    assert len(results[0]) == len(results[1]) > 100
    for one, two in zip(*results):
        assert one.dtype == two.dtype and one.tobytes() == two.tobytes()
