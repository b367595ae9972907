"""The table of masked bases predicted from replaced hidden states."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from synthetic import BASES, HAIRPINS, draw_batch

from sae_rna.analysis import fidelity
from sae_rna.analysis.fidelity import masked_log_probabilities, principal_components
from sae_rna.analysis.language_model import choose_masked
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser
from sae_rna.parameters import ROOT
from sae_rna.records.composition import encode_bases
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders


@pytest.fixture(scope="module")
def nano():
    """The shipped model, which predicts masked bases of clean hairpins far better than chance."""
    return LanguageModel.load(str(ROOT / "data" / "rinalmo-nano"), masked=True)


def hairpins(count, seed):
    bases, _ = draw_batch(HAIRPINS, count, np.random.default_rng(seed))
    return ["".join(BASES[base] for base in row if base >= 0) for row in bases]


TRAINING, HELDOUT = hairpins(40, 1), hairpins(30, 2)
LAYERS = [2, 6]


def fitted(model, layers):
    parts = [states.values_TLD for states in model.hidden_states(TRAINING, layers)]
    return Standardiser.fit(torch.cat(parts))


def stack(model, architecture="topk", sparsity=5, latents=None, layers=LAYERS):
    """Untrained autoencoders; those of topk reconstruct a little, since their encoder starts as the decoder's
    transpose."""
    members = tuple(Member(layer, sparsity) for layer in layers)
    config = AutoencoderConfig(architecture, members, width=model.width, latents=latents or 2 * model.width)
    return SparseAutoencoders(config, fitted(model, layers)).requires_grad_(False)


def mirror(model, sign=1.0):
    """An autoencoder that gives back every state, times `sign`: x = relu(x) - relu(-x)."""
    autoencoder, eye = stack(model, "relu-l1", 0.0), torch.eye(model.width)
    autoencoder.encoder_weight.copy_(torch.cat([eye, -eye], 1).expand_as(autoencoder.encoder_weight))
    autoencoder.decoder_weight.copy_(sign * torch.cat([eye, -eye]).expand_as(autoencoder.decoder_weight))
    return autoencoder


@pytest.fixture(scope="module")
def table(nano):
    stacks = {"mirror": mirror(nano), "negated": mirror(nano, -1.0), "topk": stack(nano)}
    return measure(nano, stacks, TRAINING, HELDOUT, LAYERS, seed=3)


def measure(model, stacks, training, heldout, layers, seed):
    by_layer = {name: {n: stack.only(n) for n in stack.config.layers} for name, stack in stacks.items()}
    return fidelity.measure(model, by_layer, training, heldout, layers, seed)


def rows(table, variant, architecture=""):
    return table[(table.variant == variant) & (table.architecture == architecture)]


def test_every_layer_has_the_model_its_ablation_and_three_rows_per_autoencoder(table):
    assert not table.duplicated(["layer", "variant", "architecture"]).any()
    assert table.groupby("layer").size().to_dict() == {2: 11, 6: 11}
    assert (table.reason == "").all() and (table.ce_lm < table.ce_ablate).all()
    assert table.ce_lm.nunique() == 1 and table.positions.nunique() == 1
    assert table.positions[0] == sum(map(len, choose_masked(HELDOUT, 3)))


def test_the_model_itself_recovers_one_and_its_ablation_zero(table):
    own, ablated = rows(table, "language model"), rows(table, "mean ablation")
    assert (own[["loss_recovered", "low", "high", "explained_variance"]] == 1).all(axis=None) and (
        own.kl == 0
    ).all()
    assert own.l0.isna().all()
    assert (ablated[["loss_recovered", "low", "high", "l0"]] == 0).all(axis=None)
    assert ablated.explained_variance.abs().max() < 1e-6 and (ablated.kl > 0.05).all()


def test_an_autoencoder_that_gives_back_its_input_recovers_all(table):
    mirrored = rows(table, "autoencoder", "mirror")
    np.testing.assert_allclose(
        mirrored[["loss_recovered", "low", "high", "explained_variance"]], 1, atol=1e-4
    )
    np.testing.assert_allclose(mirrored.kl, 0, atol=1e-6)
    np.testing.assert_allclose(mirrored.l0, 128, atol=0.1)  # each dimension is positive or negative


def test_harm_is_not_clipped(table):
    negated = rows(table, "autoencoder", "negated")
    assert (negated.loss_recovered < -0.2).any() and (negated.explained_variance < -1).all()


def test_the_row_of_the_model_stands_for_components_without_a_choice(table):
    whole = table[table.variant.str.startswith("PCA") & (table.architecture == "mirror")]
    assert (
        (whole[["loss_recovered", "explained_variance"]] == 1).all(axis=None)
        and (whole.kl == 0).all()
        and (whole.l0 == 128).all()
    )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("variant", ["autoencoder", "PCA, first components", "PCA, largest components"])
def test_a_row_is_what_plain_loops_make_of_it(nano, table, layer, variant):
    autoencoder = stack(nano).only(layer)
    mean, std = autoencoder.standardise.mean[0], autoencoder.standardise.std[0]
    states = torch.cat([states.values_TLD[:, 0] for states in nano.hidden_states(TRAINING, [layer])])
    components = PCA(svd_solver="full").fit(((states - mean) / std).double().numpy()).components_
    masked, seen = choose_masked(HELDOUT, 3), []

    def replace(values_TD):
        x_TD = ((values_TD - mean) / std).numpy()
        if variant == "autoencoder":
            guess_TD = autoencoder(torch.from_numpy(x_TD)[None]).reconstruction[0].numpy()
        elif variant == "PCA, first components":
            guess_TD = x_TD @ components[:5].T @ components[:5]
        else:
            guess_TD = np.zeros_like(x_TD)
            for token, x in enumerate(x_TD):
                scores = components @ x
                for number in sorted(range(len(scores)), key=lambda number: -abs(scores[number]))[:5]:
                    guess_TD[token] += scores[number] * components[number]
        seen.append((x_TD, guess_TD))
        return torch.from_numpy(guess_TD).float() * std + mean

    own = masked_log_probabilities(nano, HELDOUT, masked)
    ablated = masked_log_probabilities(
        nano, HELDOUT, masked, layer, lambda values_TD: mean.expand_as(values_TD)
    )
    mine = masked_log_probabilities(nano, HELDOUT, masked, layer, replace)
    truth = np.concatenate([codes[hidden] for codes, hidden in zip(encode_bases(HELDOUT), masked)])
    losses = {name: np.array([-row[base] for row, base in zip(logs, truth)]) for name, logs in
              {"own": own, "ablated": ablated, "mine": mine}.items()}  # fmt: skip
    (row,) = rows(table[table.layer == layer], variant, "topk").to_dict("records")
    assert row["l0"] == pytest.approx(5, abs=0.01)
    x, guess = (np.concatenate(part) for part in zip(*seen))
    assert row["explained_variance"] == pytest.approx(
        1 - np.var(x - guess, axis=0).sum() / np.var(x, axis=0).sum(), abs=1e-4
    )
    assert row["cross_entropy"] == pytest.approx(losses["mine"].mean(), abs=1e-4)
    assert row["kl"] == pytest.approx(np.mean([np.exp(p) @ (p - q) for p, q in zip(own, mine)]), abs=1e-4)
    ce = {name: loss.mean() for name, loss in losses.items()}
    assert row["loss_recovered"] == pytest.approx(
        (ce["ablated"] - ce["mine"]) / (ce["ablated"] - ce["own"]), abs=2e-3
    )

    starts, rng, resampled = np.cumsum([0, *map(len, masked)]), np.random.default_rng(99), []
    for _ in range(1000):
        chosen = rng.integers(0, len(masked), len(masked))
        ce = {
            name: np.concatenate([loss[starts[i] : starts[i + 1]] for i in chosen]).mean()
            for name, loss in losses.items()
        }
        resampled.append((ce["ablated"] - ce["mine"]) / (ce["ablated"] - ce["own"]))
    np.testing.assert_allclose(
        [row["low"], row["high"]], np.quantile(resampled, [0.025, 0.975]), atol=0.3 * np.std(resampled)
    )
    kl = np.array([np.exp(p) @ (p - q) for p, q in zip(own, mine)])
    drawn = rng.integers(0, len(masked), (1000, len(masked)))
    means = [np.concatenate([kl[starts[i] : starts[i + 1]] for i in chosen]).mean() for chosen in drawn]
    interval = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose([row["kl_low"], row["kl_high"]], interval, atol=0.3 * np.std(means))


def test_all_components_together_lose_nothing(nano):
    masked, standardise = choose_masked(HELDOUT, 0), fitted(nano, LAYERS)
    own = masked_log_probabilities(nano, HELDOUT, masked)
    for number, (layer, basis) in enumerate(
        zip(LAYERS, principal_components(nano, TRAINING, LAYERS, standardise))
    ):
        torch.testing.assert_close(basis.T @ basis, torch.eye(nano.width), atol=1e-5, rtol=0)
        mean, std = standardise.mean[number], standardise.std[number]
        for components in (fidelity.first_components, fidelity.largest_components):
            whole = components(basis, nano.width)
            replace = lambda h, f=whole, m=mean, s=std: f((h - m) / s)[0] * s + m  # noqa: E731
            full = masked_log_probabilities(nano, HELDOUT, masked, layer, replace)
            np.testing.assert_allclose(full, own, atol=1e-3)


def test_every_variant_hides_the_same_bases(nano, monkeypatch):
    seen, original = [], fidelity.model_log_probabilities
    monkeypatch.setattr(
        fidelity, "model_log_probabilities", lambda *args: seen.append(args[1:]) or original(*args)
    )
    measure(nano, {"topk": stack(nano, layers=[2])}, TRAINING, HELDOUT, [2], seed=5)
    assert len(seen) == 5  # model, ablation, autoencoder and its two PCAs
    for sequences, masked in seen:
        assert sequences == HELDOUT
        np.testing.assert_array_equal(np.concatenate(masked), np.concatenate(choose_masked(HELDOUT, 5)))


def test_a_model_worse_than_its_ablation_has_no_loss_recovered_and_says_why(nano):
    wrong = LanguageModel.load(str(ROOT / "data" / "rinalmo-nano"), masked=True)
    head = wrong.model.lm_head.decoder
    head.weight.copy_(-head.weight)  # the likeliest base becomes the least likely
    table = measure(wrong, {"topk": stack(nano, layers=[6])}, TRAINING, HELDOUT, [6], seed=0)
    assert (table.ce_lm > table.ce_ablate).all() and table.reason.str.contains(
        "no better than its mean ablation"
    ).all()
    assert table[["loss_recovered", "low", "high"]].isna().all(axis=None) and table[
        ["cross_entropy", "kl"]
    ].notna().all(axis=None)


def test_where_the_margin_is_not_sure_the_interval_is_missing_and_says_why():
    truth, sequence = (
        np.zeros(2, dtype=int),
        np.arange(2),
    )  # the model is better on one sequence and worse on the other
    own, ablated = np.log([[0.7, 0.1, 0.1, 0.1], [0.2, 0.4, 0.2, 0.2]]), np.log(np.full((2, 4), 0.25))
    variants = [
        fidelity._Variant(name, "", np.nan, np.nan, logs)
        for name, logs in (("model", own), ("ablation", ablated))
    ]
    scores = fidelity._scores(variants, truth, sequence, np.array([[1, 1], [2, 0], [0, 2]]))
    assert scores.loss_recovered.tolist() == [1, 0] and scores[["low", "high"]].isna().all(axis=None)
    assert scores.kl[1] == pytest.approx(
        (0.7 * np.log(2.8) + 0.3 * np.log(0.4) + 0.4 * np.log(1.6) + 0.6 * np.log(0.8)) / 2
    )
    assert scores.cross_entropy.tolist() == pytest.approx([-np.log(0.7 * 0.2) / 2, np.log(4)])
    assert scores.reason.str.contains("interval").all()
    assert (fidelity._scores(variants, truth, sequence, np.array([[1, 1], [2, 0]])).reason == "").all()


def test_the_table_depends_on_its_seed_alone_and_leaves_the_stack_as_it_was(nano):
    def run():
        autoencoder = stack(nano, "batchtopk", 5, layers=[2]).train()
        autoencoder.threshold.fill_(1.5)
        table = measure(nano, {"batchtopk": autoencoder}, TRAINING, HELDOUT[:8], [2], seed=1)
        assert autoencoder.training and autoencoder.threshold.item() == 1.5
        return table

    assert run().equals(run())


def test_what_cannot_be_compared_is_refused(nano):
    stacks = {"topk": stack(nano)}
    with pytest.raises(ValueError, match="no base of the 2 sequences is masked"):
        measure(nano, stacks, TRAINING, ["NN", "N"], LAYERS, 0)
    with pytest.raises(KeyError, match="3"):
        measure(nano, stacks, TRAINING, HELDOUT, [2, 3], 0)
    with pytest.raises(ValueError, match="8 nucleotides are too few for 128 principal components"):
        measure(nano, stacks, ["ACGU", "ACGU"], HELDOUT, LAYERS, 0)


def test_the_figure_shows_components_of_the_shown_architecture_and_counts_where_it_keeps_more(nano):
    scores = pd.DataFrame(
        [
            (layer, variant, architecture, variance, kl)
            for layer, own in ((1, 0.9), (2, 0.7))
            for variant, architecture, variance, kl in (
                ("language model", "", 1.0, 0.0),
                ("autoencoder", "topk", own, 1 - own),
                ("PCA, largest components", "topk", 0.8, 0.2),
                ("autoencoder", "relu-l1", 0.5, 0.5),
                ("PCA, largest components", "relu-l1", 0.4, 0.6),
            )
        ],
        columns=["layer", "variant", "architecture", "explained_variance", "kl"],
    ).assign(
        sequences=3,
        positions=9,
        ce_lm=1.2,
        loss_recovered=[np.nan if v == 0.9 else 0.5 for v in 2 * [1, 0.9, 0, 0, 0]],
        reason="",
    )
    table = fidelity.shown(scores, "topk")
    assert table.variant.tolist() == 2 * ["language model", "topk", "PCA, largest components", "relu-l1"]
    numbers = fidelity.numbers(table, "topk")
    assert (numbers["more_variance"], numbers["less_kl"], numbers["layers"]) == (1, 1, 2)
    assert numbers["missing"].startswith("It is missing in 2 layers")
    known = fidelity.numbers(table.assign(loss_recovered=0.5), "topk")
    assert known["missing"] == ""  # what is 0 is not said


def shown_table(layers):
    rows = [
        {"layer": layer, "variant": variant, "kl": layer / 100, "loss_recovered": layer / 10}
        for layer in layers
        for variant in ("language model", "mean ablation", "topk", "PCA, largest components")
    ]
    return pd.DataFrame(rows).assign(explained_variance=0.9, l0=16.0)


def test_the_table_has_a_column_a_layer_and_leaves_out_what_definitions_say():
    table = fidelity.fidelity_table(shown_table([1, 2]))
    assert table.columns.tolist() == ["measure", "states replaced by", "L1", "L2"]
    assert table.measure.tolist() == [
        name for name, rows in zip(fidelity.MEASURES.values(), (3, 2, 2, 2)) for _ in range(rows)
    ]
    assert table["states replaced by"].tolist()[:3] == ["mean ablation", "topk", "PCA, largest components"]
    assert table.loc[1, ["L1", "L2"]].tolist() == [0.01, 0.02]  # KL of topk
    assert table.loc[3, ["L1", "L2"]].tolist() == [0.1, 0.2]  # and its loss recovered


def test_of_many_layers_the_table_has_the_first_the_middle_and_the_last():
    table = fidelity.fidelity_table(shown_table(range(1, 34)))
    assert table.columns.tolist()[2:] == ["L1", "L17", "L33"]


def test_masked_bases_are_of_scored_rnas_of_all_settings(monkeypatch):
    splits = ["train", "selection", "heldout", "seen-selection", "seen-heldout", "natural"]
    records = pd.DataFrame({"split": splits, "sequence": splits})
    assert sorted(fidelity.sampled(records, 0)) == ["heldout", "seen-heldout"]
    assert fidelity.sampled(records[~records.split.str.startswith("seen")], 0) == ["heldout"]
    monkeypatch.setattr(fidelity, "RNAS", 1)
    assert len(fidelity.sampled(records, 0)) == 1
