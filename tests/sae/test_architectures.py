"""The six architectures against plain reimplementations of the papers' formulas; what always holds."""

import numpy as np
import pytest
import torch
from stacks import DEAD, D, F, anywhere, config, stack

from sae_rna.parameters import ARCHITECTURES
from sae_rna.sae.architectures import KINDS, auxk_penalty
from sae_rna.sae.autoencoder import Member


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(11)


def test_the_architectures_that_may_be_chosen_are_those_that_there_are():
    assert tuple(KINDS) == tuple(ARCHITECTURES)


# The papers' formulas. Each takes one member's plain matrices W_e [D, F], b [F], W_d [F, D], c [D].


def plain_relu_l1(x, w_e, b, w_d, c, sparsity, mean_error):
    """Kim & Nam 2025: ||x - x^||^2 + lambda ||f||_1, token by token."""
    error, penalty = 0, 0
    for token in x:
        f = torch.clamp(token @ w_e + b, min=0)
        squared = (token - (f @ w_d + c)) ** 2
        error = error + (squared.mean() if mean_error else squared.sum()) / len(x)
        penalty = penalty + sparsity * f.abs().sum() / len(x)
    return error, penalty


def plain_auxk(x, reconstructions, w_e, b, w_d, c, dead):
    """Gao et al. 2024, A.2: ||e - e^||^2 / 32, e^ from the D/2 strongest dead latents; e is a constant."""
    total = torch.zeros((), dtype=x.dtype)
    for token, reconstruction in zip(x, reconstructions):
        pre = (token - c) @ w_e + b
        ranked = sorted((j for j in range(len(pre)) if dead[j] and pre[j] > 0), key=lambda j: -pre[j].item())
        guess = sum((pre[j] * w_d[j] for j in ranked[: len(token) // 2]), torch.zeros_like(token))
        total = total + ((token - reconstruction).detach() - guess).pow(2).sum() / 32
    return total / len(x)


def plain_codes(x, w_e, b, c, k, whole_batch):
    """(token, latent) -> activation: k largest of each token, or (Bussmann et al. 2024) B k of the batch."""
    pre = (x - c) @ w_e + b
    everything = [
        [(pre[t, j].item(), t, j) for j in range(pre.shape[1]) if pre[t, j] > 0] for t in range(len(x))
    ]
    if whole_batch:
        chosen = sorted(sum(everything, []), reverse=True)[: k * len(x)]
    else:
        chosen = sum((sorted(part, reverse=True)[:k] for part in everything), [])
    return {(t, j): pre[t, j] for _, t, j in chosen}


def plain_topk(x, w_e, b, w_d, c, k, dead, whole_batch=False, sizes=(F,)):
    """TopK, BatchTopK and, with several sizes, Matryoshka (Bussmann et al. 2025: the sum of their errors)."""
    codes = plain_codes(x, w_e, b, c, k, whole_batch)
    error = 0
    for size in sizes:
        reconstructions = []
        for t in range(len(x)):
            reconstructions.append(
                c
                + sum((f * w_d[j] for (s, j), f in codes.items() if s == t and j < size), torch.zeros_like(c))
            )
        error = error + sum(((token - guess) ** 2).sum() for token, guess in zip(x, reconstructions)) / len(x)
    penalty = plain_auxk(x, reconstructions, w_e, b, w_d, c, dead) if dead.any() else torch.zeros(())
    return error, penalty


def check_member(sae, output, number, error, penalty, parameters):
    assert output.error[number].item() == pytest.approx(error.item(), rel=1e-10)
    assert output.penalty[number].item() == pytest.approx(penalty.item(), rel=1e-6, abs=1e-12)
    for name, plain in parameters.items():
        mine = getattr(sae, name).grad[number].reshape(plain.shape)
        assert mine.abs().max() > 0, name
        torch.testing.assert_close(
            mine, plain, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}"
        )


def leaves(sae, number):
    names = "encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"
    shapes = (D, F), (F,), (F, D), (D,)
    return {
        name: getattr(sae, name)[number].detach().clone().reshape(shape).requires_grad_()
        for name, shape in zip(names, shapes)
    }


def check_against(architecture, plain, dead=None, tokens=30):
    sae, x = anywhere(architecture), torch.randn(2, tokens, D, dtype=torch.float64)
    output = sae(x, dead)
    (output.error + output.penalty).sum().backward()
    for number, member in enumerate(sae.config.members):
        mine = leaves(sae, number)
        error, penalty = plain(x[number], *mine.values(), member.sparsity, number)
        (error + penalty).backward()
        check_member(sae, output, number, error, penalty, {name: leaf.grad for name, leaf in mine.items()})
    return output


@pytest.mark.parametrize(("architecture", "mean_error"), [("relu-l1", False), ("relu-l1-mean", True)])
def test_the_papers_autoencoder_equals_its_formula_in_values_and_gradients(architecture, mean_error):
    output = check_against(architecture, lambda x, *rest: plain_relu_l1(x, *rest[:-1], mean_error=mean_error))
    assert (output.penalty > 0).all()


def test_a_matched_lambda_weighs_the_penalty_and_follows_the_active_latents():
    sae, x = anywhere("relu-l1-matched"), torch.randn(2, 30, D, dtype=torch.float64)
    sae.weight.copy_(torch.tensor([0.5, 3.0]))
    output = sae(x)
    torch.testing.assert_close(
        output.penalty, torch.tensor([0.5, 3.0]) * output.features.sum(-1).mean(-1).float()
    )
    l0 = (output.features > 0).sum(-1).double().mean(-1)
    expected = torch.tensor([0.5, 3.0]) * (l0 / torch.tensor([5, 3])) ** 0.02
    torch.testing.assert_close(sae.weight, expected.double())
    before = sae.weight.clone()
    sae.eval()(x)
    assert torch.equal(sae.weight, before)  # only training moves it
    sae.observe_l0(0, 0.0)  # of nothing active it falls as of one latent
    assert sae.weight[0].item() == pytest.approx(before[0].item() * 0.2**0.02)


@pytest.mark.parametrize("dead", [torch.zeros_like(DEAD), DEAD], ids=["none", "some"])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("topk", {}),
        ("batchtopk", {"whole_batch": True}),
        ("matryoshka", {"whole_batch": True, "sizes": (2, 5, 10, 20, 40)}),
    ],
)
def test_topk_and_its_kin_equal_plain_loops_in_values_and_gradients(architecture, options, dead):
    output = check_against(
        architecture, lambda x, *rest: plain_topk(x, *rest[:-1], dead[rest[-1]], **options), dead, tokens=20
    )
    assert ((output.penalty > 0) == dead.any(1)).all()


def test_jumprelu_equals_the_papers_equations_11_and_12_in_values_and_gradients():
    sae, x = anywhere("jumprelu"), torch.randn(2, 1500, D, dtype=torch.float64)
    output = sae(x)
    (output.error + output.penalty).sum().backward()
    epsilon = 0.001 * D**0.5
    for number, member in enumerate(sae.config.members):
        w_e, b, w_d, c = (leaf.detach().numpy() for leaf in leaves(sae, number).values())
        tokens, theta = x[number].numpy(), np.exp(sae.log_threshold[number, 0].detach().numpy())
        z = tokens @ w_e + b
        fires = z > theta
        f = np.where(fires, z, 0)
        guess = f @ w_d + c
        error = ((tokens - guess) ** 2).mean(1).mean()
        penalty = member.sparsity * fires.sum(1).mean()
        d_guess = 2 * (guess - tokens) / D / len(tokens)
        d_f = d_guess @ w_d.T
        d_z = d_f * fires
        kernel = (np.abs((z - theta) / epsilon) < 0.5).astype(float)  # rectangle of width 1
        d_theta = (
            -(theta / epsilon) * kernel * d_f - member.sparsity / (len(tokens) * epsilon) * kernel
        ).sum(0)
        assert 20 < kernel.sum() < 0.01 * kernel.size
        gradients = {
            "encoder_weight": tokens.T @ d_z, "encoder_bias": d_z.sum(0), "decoder_weight": f.T @ d_guess,
            "decoder_bias": d_guess.sum(0), "log_threshold": theta * d_theta,
        }  # fmt: skip
        gradients = {name: torch.from_numpy(value) for name, value in gradients.items()}
        check_member(sae, output, number, torch.tensor(error), torch.tensor(penalty), gradients)
        np.testing.assert_allclose(output.features[number].detach().numpy(), f, rtol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_forward_gives_what_encode_and_decode_give(architecture):
    sae, x = anywhere(architecture), torch.randn(2, 25, D, dtype=torch.float64)
    output = sae(x)
    features = sae.encode(x)
    torch.testing.assert_close(output.features, features)
    torch.testing.assert_close(output.reconstruction, sae.decode(features))
    assert output.features.shape == (2, 25, F) and output.error.shape == output.penalty.shape == (2,)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("training", [True, False])
def test_features_are_never_negative(architecture, training):
    sae = anywhere(architecture).train(training)
    features = sae.encode(torch.randn(2, 200, D, dtype=torch.float64))
    assert (features >= 0).all() and (features > 0).any() and (features == 0).any()


def test_topk_never_has_more_than_k_active_latents_and_reaches_k():
    for k in (1, 5, F):
        sae = stack(members=(Member(0, k), Member(1, 3)))
        active = (sae(torch.randn(2, 300, D)).features > 0).sum(-1)
        assert active[0].max() <= k and active[1].max() == 3
        assert active[0].max() == k or k == F


def test_batchtopk_keeps_exactly_k_a_token_on_average_while_training():
    sae = stack("batchtopk").train()
    active = (sae(torch.randn(2, 200, D)).features > 0).sum(-1)
    assert active.sum(-1).tolist() == [5 * 200, 3 * 200]
    assert len(active[0].unique()) > 3  # some tokens have more, some fewer


def test_batchtopk_has_fewer_active_latents_only_where_fewer_are_positive():
    sae = stack("batchtopk", members=(Member(0, F),)).train()
    x = torch.randn(1, 50, D)
    assert torch.equal(sae(x).features, sae.preactivations(x).relu())


def test_batchtopks_threshold_is_the_running_mean_of_the_smallest_activation_kept():
    sae, expected = stack("batchtopk").train(), [0.0, 0.0]
    assert sae.threshold.tolist() == [[[0.0]], [[0.0]]]
    for step in range(4):
        x = torch.randn(2, 50, D)
        sae(x)
        for number, member in enumerate(sae.config.members):
            smallest = (
                sae.preactivations(x)[number]
                .flatten()
                .sort(descending=True)
                .values[50 * member.sparsity - 1]
                .item()
            )
            expected[number] = 0.95 * expected[number] + 0.05 * smallest if step else smallest
    assert sae.threshold.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_the_threshold_rests_outside_of_training_and_on_a_batch_without_activations():
    sae = stack("batchtopk").train()
    sae(torch.randn(2, 50, D))
    before = sae.threshold.clone()
    sae.eval()(torch.randn(2, 50, D))
    assert torch.equal(sae.threshold, before) and (before > 0).all()
    with torch.no_grad():
        sae.encoder_bias.fill_(-100)
    assert sae.train()(torch.randn(2, 50, D)).features.sum() == 0
    assert torch.equal(sae.threshold, before)
    sae.observe_threshold(1, 2.0)
    assert sae.threshold[0] == before[0]
    assert sae.threshold[1].item() == pytest.approx(0.95 * before[1].item() + 0.05 * 2)


def test_outside_of_training_batchtopk_uses_its_threshold_token_by_token():
    sae = stack("batchtopk", width=3, latents=3, members=(Member(0, 1), Member(1, 2))).eval()
    with torch.no_grad():
        sae.encoder_weight.copy_(torch.eye(3).expand(2, 3, 3))
        sae.threshold.copy_(torch.tensor([0.5, 1.5])[:, None, None])
    x = torch.tensor([[0.4, 0.5, 2.0], [-3.0, 0.6, 1.5]])
    features = sae.encode(x.expand(2, 2, 3))
    assert (
        features[0].tolist() == x.where(x >= 0.5, 0).tolist()
    )  # the threshold itself was kept, so it is kept
    assert features[1].tolist() == [[0, 0, 2.0], [0, 0, 1.5]]
    assert torch.equal(sae.encode(x[:1].expand(2, 1, 3)), features[:, :1])  # no token depends on another


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka"])
def test_on_the_first_batch_the_threshold_keeps_what_training_kept(architecture):
    sae, x = stack(architecture).train(), torch.randn(2, 60, D)
    trained = sae(x).features
    assert torch.equal(sae.eval()(x).features, trained)


@pytest.mark.parametrize(
    ("latents", "sizes"),
    [(40, (2, 5, 10, 20, 40)), (64, (4, 8, 16, 32, 64)), (16, (1, 2, 4, 8, 16)), (5, (1, 2, 5)), (1, (1,))],
)
def test_nested_dictionaries_halve_down_to_a_sixteenth(latents, sizes):
    assert config("matryoshka", latents=latents, members=(Member(0, 1),)).prefixes == sizes
    assert config("batchtopk", latents=latents, members=(Member(0, 1),)).prefixes == (latents,)


@pytest.mark.parametrize(("architecture", "error"), [("matryoshka", 15 + 14 + 12 + 8), ("batchtopk", 0)])
def test_matryoshkas_error_is_the_sum_over_nested_dictionaries(architecture, error):
    sae = stack(architecture, width=16, latents=16, members=(Member(0, 16),)).train()
    with torch.no_grad():
        sae.encoder_weight.copy_(torch.eye(16)[None])
        sae.decoder_weight.copy_(torch.eye(16)[None])
    output = sae(torch.ones(1, 3, 16))  # the first n latents explain n of 16 dimensions
    assert output.error.tolist() == [error] and torch.equal(output.reconstruction, torch.ones(1, 3, 16))


def test_auxk_teaches_dead_latents_alone():
    sae, x = stack(), torch.randn(2, 20, D)
    sae(x, DEAD).penalty.sum().backward()
    for gradient in (
        sae.decoder_weight.grad.abs().sum(-1),
        sae.encoder_weight.grad.abs().sum(1),
        sae.encoder_bias.grad[:, 0].abs(),
    ):
        moved = gradient > 0
        assert moved.any(1).all() and not (moved & ~DEAD).any()


def test_auxk_of_latents_that_explain_the_residual_is_zero_and_of_silent_ones_its_32nd():
    residual = torch.tensor([[3.0, 0.0, 4.0, 0.0]])
    assert auxk_penalty(residual, residual, torch.eye(4), torch.zeros(4), torch.eye(4)).item() == 0
    assert auxk_penalty(
        residual, residual, torch.eye(4), torch.full((4,), -9.0), torch.eye(4)
    ).item() == pytest.approx(25 / 32)
    assert auxk_penalty(
        residual, residual, torch.eye(4)[:1], torch.zeros(1), torch.eye(4)[:1]
    ).item() == pytest.approx(16 / 32)
