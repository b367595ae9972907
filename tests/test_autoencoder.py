"""Both architectures against plain reimplementations; invariants; saving and loading."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from sae_rna.activations import Standardiser
from sae_rna.autoencoder import AUXK_COEFFICIENT, AutoencoderConfig, SparseAutoencoders

CONFIG = AutoencoderConfig("topk", layers=(1, 4), width=12, latents=40, k=5, fingerprint="abc", model="some/model")


def stack(**changes):
    config = replace(CONFIG, **changes)
    shape = len(config.layers), config.width
    return SparseAutoencoders(config, Standardiser(torch.randn(shape), torch.rand(shape) + 0.5), seed=3)


def forward(sae, x, dead=None):
    preactivations = sae.preactivations(x)
    f = sae.activate(preactivations)
    reconstruction = sae.decode(f)
    dead = torch.zeros(len(x), sae.config.latents, dtype=torch.bool) if dead is None else dead
    return f, reconstruction, sae.losses(x, preactivations, f, reconstruction, dead)


@pytest.mark.parametrize("architecture", ["relu-l1", "relu-l1-mean"])
def test_the_papers_autoencoder_equals_its_formula_in_values_and_gradients(architecture):
    sae, x = stack(architecture=architecture, l1=0.01), torch.randn(2, 30, 12)
    with torch.no_grad():
        sae.encoder_bias.normal_()
        sae.decoder_bias.normal_()
    _, _, losses = forward(sae, x)
    (losses.reconstruction + losses.sparsity).sum().backward()
    for m in range(2):
        w_e, b, w_d, c = (
            p[m].detach().clone().requires_grad_() for p in (sae.encoder_weight, sae.encoder_bias, sae.decoder_weight, sae.decoder_bias)
        )
        f = torch.relu(x[m] @ w_e + b)
        squared = (x[m] - (f @ w_d + c)).pow(2)
        loss = (squared.sum(1) if architecture == "relu-l1" else squared.mean(1)).mean() + 0.01 * f.sum(1).mean()
        loss.backward()
        assert loss.item() == pytest.approx((losses.reconstruction + losses.sparsity)[m].item(), rel=1e-5)
        for mine, plain in ((sae.encoder_weight, w_e), (sae.encoder_bias, b), (sae.decoder_weight, w_d), (sae.decoder_bias, c)):
            torch.testing.assert_close(mine.grad[m], plain.grad, atol=1e-5, rtol=1e-4)


def test_topk_equals_a_plain_loop_in_values_and_gradients_with_dead_latents():
    sae, x = stack(), torch.randn(2, 20, 12)
    dead = torch.zeros(2, 40, dtype=torch.bool)
    dead[0, 5:25] = True
    _, _, losses = forward(sae, x, dead)
    (losses.reconstruction + losses.sparsity).sum().backward()
    for m in range(2):
        w_e, b, w_d, c = (
            p[m].detach().clone().requires_grad_() for p in (sae.encoder_weight, sae.encoder_bias, sae.decoder_weight, sae.decoder_bias)
        )
        total = 0
        for token in x[m]:
            pre = ((token - c) @ w_e + b)[0]
            kept = pre.argsort(descending=True)[:5]
            residual = token - (sum(pre[i].clamp_min(0) * w_d[i] for i in kept) + c[0])
            total = total + residual.pow(2).sum()
            if dead[m].any():
                revived = [i for i in pre.masked_fill(~dead[m], -torch.inf).argsort(descending=True)[:6] if pre[i] > 0 and dead[m, i]]
                guess = sum((pre[i] * w_d[i] for i in revived), torch.zeros(12))
                total = total + AUXK_COEFFICIENT * (residual.detach() - guess).pow(2).sum()
        (total / len(x[m])).backward()
        assert (total / len(x[m])).item() == pytest.approx((losses.reconstruction + losses.sparsity)[m].item(), rel=1e-4)
        for mine, plain in ((sae.encoder_weight, w_e), (sae.decoder_weight, w_d), (sae.decoder_bias, c), (sae.encoder_bias, b)):
            torch.testing.assert_close(mine.grad[m], plain.grad, atol=1e-4, rtol=1e-3)


def test_topk_never_has_more_than_k_active_latents_and_all_are_non_negative():
    f, _, _ = forward(stack(), torch.randn(2, 200, 12))
    assert ((f > 0).sum(-1) <= 5).all() and (f >= 0).all()


def test_decoder_rows_are_unit_norm_at_the_start_and_after_constraining():
    sae = stack()
    torch.testing.assert_close(sae.decoder_weight.norm(dim=-1), torch.ones(2, 40))
    with torch.no_grad():
        sae.decoder_weight.mul_(3)
    sae.constrain()
    torch.testing.assert_close(sae.decoder_weight.norm(dim=-1), torch.ones(2, 40))


def test_auxk_uses_only_dead_latents():
    sae, x = stack(), torch.randn(2, 20, 12)
    dead = torch.zeros(2, 40, dtype=torch.bool)
    dead[1, :7] = True
    _, _, losses = forward(sae, x, dead)
    losses.sparsity.sum().backward()
    moved = sae.decoder_weight.grad.abs().sum(-1) > 0
    assert moved.any() and not (moved & ~dead).any()


def test_a_member_is_the_same_alone_and_in_a_stack():
    both, alone = stack(), SparseAutoencoders(replace(CONFIG, layers=(4,)), Standardiser(torch.zeros(1, 12), torch.ones(1, 12)), seed=3)
    assert torch.equal(both.encoder_weight[1:], alone.encoder_weight)
    x = torch.randn(2, 9, 12)
    torch.testing.assert_close(both.only(4).encode(x[1:]), both.encode(x)[1:])


def test_saved_and_loaded_stacks_are_equal_with_statistics_and_facts(tmp_path):
    sae = stack()
    sae.save(tmp_path)
    loaded = SparseAutoencoders.from_pretrained(tmp_path)
    assert loaded.config == sae.config
    for name, value in sae.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "layer-01.safetensors", "layer-04.safetensors"]


def test_a_truncated_checkpoint_is_refused_with_a_sentence(tmp_path):
    stack().save(tmp_path)
    file = tmp_path / "layer-04.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read.*train them again"):
        SparseAutoencoders.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_width_is_refused(tmp_path):
    stack().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"width": 16}))
    with pytest.raises(ValueError, match="cannot be read"):
        SparseAutoencoders.from_pretrained(tmp_path)


def test_another_models_activations_and_unknown_layers_are_refused():
    sae = stack()
    sae.check_model("abc", "some/model")
    with pytest.raises(ValueError, match="trained on some/model .*not on other/model"):
        sae.check_model("xyz", "other/model")
    with pytest.raises(ValueError, match="no autoencoder for layer 2.*1, 4"):
        sae.only(2)


@pytest.mark.parametrize(("changes", "message"), [({"architecture": "relu"}, "not known"), ({"k": 41}, "impossible")])
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_kaiming_and_xavier_initialisation_of_the_papers_autoencoder():
    sae = stack(architecture="relu-l1", latents=4000, width=64)
    assert sae.encoder_weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.02)
    assert sae.decoder_weight.std().item() == pytest.approx((2 / 4064) ** 0.5, rel=0.02)
    assert F.relu(sae.encoder_bias).sum() == 0
