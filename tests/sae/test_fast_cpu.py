"""Steps derived by hand and the compiled optimiser against automatic differentiation and torch.optim."""

import copy
import math

import numba
import numpy as np
import pytest
import torch

from sae_rna.extraction.stream import Standardiser
from sae_rna.sae import fast_cpu
from sae_rna.sae import trainer as training
from sae_rna.sae.architectures import FIRST_WEIGHT
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.trainer import DEAD_AFTER_TOKENS, Trainer

both_types = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
DENSE = ("relu-l1", "relu-l1-mean", "relu-l1-matched")
BY_HAND = ("topk", "batchtopk", "matryoshka", *DENSE)
WITH_K = BY_HAND[:3]
DEAD = {"none": slice(0, 0), "few": slice(20, 25), "many": slice(20, 70)}  # AuxK takes half the width, 16
dead_and_alive = pytest.mark.parametrize(
    ("architecture", "dead"),
    [*((name, dead) for name in WITH_K for dead in DEAD), *((name, "none") for name in DENSE)],
)


@pytest.fixture(autouse=True)
def _seed_and_one_thread():
    """Threads that wait for each other on a busy machine cost more than they save here."""
    torch.manual_seed(5)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


def close(mine, expected, tolerance):
    """Within `tolerance` of the expected, relative to its largest number."""
    mine, expected = torch.as_tensor(mine).double(), torch.as_tensor(expected).double()
    torch.testing.assert_close(mine, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())


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
    unit = torch.nn.functional.normalize(free.weight, dim=1)
    torch.testing.assert_close(mine.weight[touched], unit[touched])
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
    # the largest, infinity and tiny ones
    bits[16, :4] = torch.tensor([0x7F7FFFFF, 0x7F800000, 0x00000001, 0x00008001])
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
    basis = torch.randn(directions, width, generator=torch.Generator().manual_seed(1))
    basis /= basis.norm(dim=1, keepdim=True)
    return (active * (torch.rand(tokens, directions, generator=generator) + 0.5)) @ basis


def trainer(architecture, precision="float32", automatic=False, rate=3e-3, steps=100, latents=96):
    """A new one; `automatic` replaces the step written by hand."""
    sparsity = {"relu-l1": 0.02, "relu-l1-mean": 0.02 / 32, "jumprelu": 0.02}.get(architecture, 4)
    facts = AutoencoderConfig(architecture, members=(Member(1, sparsity),), width=32, latents=latents)
    sae = SparseAutoencoders(facts, Standardiser(torch.zeros(1, 32), torch.ones(1, 32)))
    made = Trainer(sae, steps, rate, precision)
    assert (made.gradients == made.automatic_gradients) == (architecture == "jumprelu")
    if automatic:
        made.gradients = made.automatic_gradients
    return made


def mark_dead(made, dead):
    made.idle_tokens_F[dead] = DEAD_AFTER_TOKENS + 1.0


def automatic_gradients(made, x):
    """Of the loss, by name, and their norm; the trainer is left as it is."""
    sae = copy.deepcopy(made.sae)
    output = sae(x[None], (made.idle_tokens_F > DEAD_AFTER_TOKENS)[None])
    (output.error + output.penalty).sum().backward()
    gradients = {name: parameter.grad[0] for name, parameter in sae.named_parameters()}
    squares = [gradient.double().square().sum().item() for gradient in gradients.values()]
    return gradients, math.sqrt(sum(squares)), output


@pytest.mark.parametrize("size", [1.0, 0.01], ids=["clipped", "unclipped"])
@dead_and_alive
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


@dead_and_alive
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
        own = mine.sae.get_parameter(name)[0]
        assert torch.equal(mine.optimizer.weights[name], own.T if "encoder" in name else own)
    if architecture in WITH_K:
        close(mine.sae.decoder_weight.norm(dim=-1), torch.ones(1, 96), 1e-5)
    if architecture == "relu-l1-matched":
        assert mine.sae.weight.item() == pytest.approx(reference.sae.weight.item(), rel=1e-5) != FIRST_WEIGHT
    if architecture in ("batchtopk", "matryoshka"):
        assert 0 < mine.sae.threshold.item() == pytest.approx(reference.sae.threshold.item(), rel=1e-4)
    report, expected = mine.report(), reference.report()
    for made in (report, expected):
        made.pop("tokens_per_second")
    names = [name for name, value in report.items() if isinstance(value, float)]
    assert "explained_variance" in names and "penalty" in names
    numbers = [[made[name] for name in names] for made in (report, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6)
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
    rows = made.optimizer
    before = copy.deepcopy((rows.weights, rows.means, rows.squares, rows.copies))
    made.fired_F.zero_()
    made.step(planted(4, generator))
    moves = made.fired_F > 0
    moves[20:25] = True
    assert 10 < moves.sum() < 100
    for old, new in zip(before, (rows.weights, rows.means, rows.squares, rows.copies)):
        for name in old.keys() - {"decoder_bias"}:
            assert torch.equal(old[name][~moves], new[name][~moves]), name
    assert not torch.equal(before[0]["decoder_weight"][20:25], rows.weights["decoder_weight"][20:25])


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


def test_a_matched_lambda_brings_the_active_latents_to_k():
    made, generator = trainer("relu-l1-matched", rate=1e-2, steps=800), torch.Generator().manual_seed(6)
    for step in range(800):
        if step == 700:
            made.report()
        made.step(planted(256, generator))
    assert made.report()["l0"] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("architecture", BY_HAND[:-1])  # in so few steps a matched lambda does not settle
def test_bfloat16_explains_as_much_variance_as_dense_float32(architecture):
    mine = trainer(architecture, "bfloat16", rate=1e-2)
    reference = trainer(architecture, "float32", automatic=True, rate=1e-2)
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
    """The optimiser after some steps, and the trainers of all architectures."""
    torch.manual_seed(5)
    adam, copied = Optimised(), torch.zeros(9, 21, dtype=torch.bfloat16)
    for _ in range(3):
        adam.step(torch.randn(9, 21).to(kind), unit_norm=True, copied=copied)
    found = [adam.weight, adam.mean, adam.square, copied.float()]
    for architecture in BY_HAND:
        made = trainer(architecture, str(kind).removeprefix("torch."))
        generator = torch.Generator().manual_seed(6)
        for _ in range(4):
            mark_dead(made, slice(20, 30))
            made.step(planted(96, generator))
        found += [value.clone() for value in made.state()[0].values()]
    return [np.asarray(result) for result in found]


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads: set NUMBA_NUM_THREADS")
@both_types
def test_results_are_the_same_bit_by_bit_for_one_and_two_threads(kind, monkeypatch):
    set_threads, results = numba.set_num_threads, []
    monkeypatch.setattr(numba, "set_num_threads", lambda _: None)  # a trainer would take PyTorch's number
    for count in (1, 2):
        set_threads(count)
        results.append(everything(kind))
    assert len(results[0]) == len(results[1]) > 75
    for one, two in zip(*results):
        assert one.dtype == two.dtype and one.tobytes() == two.tobytes()
