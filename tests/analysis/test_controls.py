"""Controls: known answers, rows that lie as the language model's, and one code that scores them all."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from sae_rna.analysis import controls
from sae_rna.analysis.controls import best_of, components, latents, leads, neurons, untrained
from sae_rna.analysis.statistics.annotations import annotate
from sae_rna.analysis.statistics.choosing import score_concepts
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser, hidden_states
from sae_rna.records.composition import kmers, windows
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders

WIDTH, LATENTS = 6, 24


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
    encoded = neurons(values)(values)
    assert encoded.shape == (200, 2 * WIDTH)
    assert (encoded >= 0).all() and not (encoded[:, :WIDTH] * encoded[:, WIDTH:]).any()
    np.testing.assert_allclose(difference(encoded), standardised(values), atol=1e-5)


def test_neurons_keep_the_statistics_of_the_tokens_they_were_fitted_on():
    other = states(seed=1)
    expected = (other - states().mean(0)) / states().std(0)
    np.testing.assert_allclose(difference(neurons(states())(other)), expected, atol=1e-4)


def test_a_dimension_that_never_changes_does_not_fire():
    values = states()
    values[:, 2] = 7
    assert not neurons(values)(values)[:, [2, WIDTH + 2]].any()


def test_principal_components_are_the_singular_vectors():
    values = states()
    encoded = components(values, "pca")(values)
    left, size, _ = np.linalg.svd(standardised(values), full_matrices=False)
    scores, expected = difference(encoded), left * size
    np.testing.assert_allclose(scores * np.sign((scores * expected).sum(0)), expected, atol=1e-3)
    assert encoded.shape[1] == 2 * WIDTH and (encoded >= 0).all()


def test_all_principal_components_together_lose_nothing():
    values = states()
    scores = difference(components(values, "pca")(values))
    np.testing.assert_allclose(scores @ scores.T, standardised(values) @ standardised(values).T, atol=1e-3)


def test_independent_components_unmix_planted_sources():
    rng = np.random.default_rng(0)
    sources = np.column_stack([rng.laplace(size=5000), rng.uniform(-1, 1, 5000), rng.exponential(size=5000)])
    values = (sources @ rng.normal(size=(3, 3)) + 2).astype(np.float32)
    agreement = {}
    for method in ("ica", "pca"):
        scores = difference(components(values, method)(values))
        agreement[method] = np.abs(np.corrcoef(scores.T, sources.T)[:3, 3:])
    assert (agreement["ica"].max(0) > 0.99).all() and (agreement["ica"].max(1) > 0.99).all()
    assert agreement["pca"].max(0).min() < 0.95  # the sources are not to be had without independence
    encoded = components(values, "ica")(values)
    assert encoded.shape[1] == 6 and (encoded >= 0).all()


def test_components_that_do_not_converge_end_in_silence(monkeypatch):
    monkeypatch.setattr(controls, "ICA_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stopped = components(states(), "ica")(states())
    monkeypatch.undo()
    assert (
        stopped.shape == (200, 2 * WIDTH)
        and np.abs(stopped - components(states(), "ica")(states())).max() > 0.1
    )


def test_independent_components_are_the_same_again():
    values = states()
    first, second = (components(values, "ica", seed=3)(values) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("architecture", ["topk", "relu-l1", "jumprelu"])
def test_latents_are_those_of_the_autoencoder_whatever_the_chunks(architecture, monkeypatch):
    stack, values = stack_of(architecture), states()
    expected = (
        stack.encode(stack.standardise(torch.from_numpy(values)[:, None]).transpose(0, 1))[0].detach().numpy()
    )
    monkeypatch.setattr(controls, "ENCODED_TOKENS", 7)
    encoded = latents(stack)(values)
    assert sparse.isspmatrix_csr(encoded) and encoded.shape == (200, LATENTS) and encoded.nnz
    np.testing.assert_allclose(encoded.toarray(), expected, atol=1e-5)


def test_untrained_is_where_training_began():
    trained = stack_of("topk", members=2, seed=4)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    begun = untrained(trained)
    fresh = SparseAutoencoders(trained.config, trained.standardise)
    assert torch.equal(begun.encoder_weight, fresh.encoder_weight)
    assert not torch.equal(begun.encoder_weight, trained.encoder_weight)
    assert torch.equal(begun.standardise.mean, trained.standardise.mean)
    assert torch.equal(begun.standardise.std, trained.standardise.std)
    assert begun.config.layers == trained.config.layers and begun.config.training == {} and not begun.training
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_untrained_has_the_same_k(architecture):
    encoded = latents(untrained(stack_of(architecture, sparsity=3)))(states())
    assert encoded.getnnz(axis=1).max() == 3 and encoded.shape[1] == LATENTS


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


# -- scores of a small study --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def concepts(study):
    p = study.parameters
    rnas, random = study.activations("structures"), study.activations("structures", p.random)
    frozen = [study.autoencoders(of) for of in p.frozen]
    given = study.model, study.autoencoders(), frozen, study.training
    return study.kept(controls.score_concepts, rnas, random, *given, shuffles=p.shuffles, seed=p.seed)


def check(study, table, source, layer, matrix, **options):
    """Rows of `table` are the scores of activations [T, F] of all RNAs of known structure."""
    rnas = study.activations("structures")
    rows = [rnas.rows(split) for split in ("selection", "heldout")]
    sets = [(sparse.csr_matrix(matrix[mine]), annotate(rnas.tokens[mine], rnas.records)) for mine in rows]
    expected = score_concepts(*sets, shuffles=0, **options)
    mine = table[(table.source == source) & (table.layer.isna() if layer is None else table.layer == layer)]
    columns = ["concept", "feature", "threshold", "base_auroc", "selection_base_auroc", "f1", "auroc"]
    pd.testing.assert_frame_equal(mine[columns].reset_index(drop=True), expected[columns], rtol=1e-4)


def test_every_source_is_scored_by_the_same_code_on_the_same_nucleotides(study, concepts):
    rnas, random = (study.activations("structures", v) for v in (None, study.parameters.random))
    check(study, concepts, rnas.name, 2, rnas.features(2), retained_F=rnas.retained(2))
    check(study, concepts, random.name, 3, random.features(3))
    sequences = rnas.records.sequence.tolist()
    check(study, concepts, "5-mers", None, kmers(sequences, 5))
    check(study, concepts, "one-hot window of 11", None, windows(sequences, 5))
    fitted = study.training.sample(min(len(study.training), 300), random_state=0).sequence.tolist()
    states, training = (hidden_states(study.model, of, [0, 3]) for of in (sequences, fitted))
    for place, source, layer in ((0, "embedding layer", 0), (1, "neurons", 3)):
        encode = neurons(training[:, place])
        check(study, concepts, source, layer, encode(states[:, place]))
    begun = latents(untrained(study.autoencoders()[3]))
    check(study, concepts, "untrained SAE", 3, begun(states[:, 1]))
    softly = latents(study.autoencoders(study.parameters.frozen[-1])[3])
    check(study, concepts, "softly frozen decoder", 3, softly(states[:, 1]))


def test_there_is_a_row_for_every_source_layer_and_concept(concepts):
    by_layer = concepts.groupby("source").layer.agg(lambda layers: sorted(layers.dropna().unique()))
    assert by_layer["embedding layer"] == [0] and by_layer["5-mers"] == by_layer["one-hot window of 11"] == []
    frozen = ("frozen encoder", "frozen decoder", "softly frozen decoder")
    for source in (
        "SAE (relu-l1-matched)",
        "SAE, random model",
        "untrained SAE",
        "neurons",
        "PCA",
        "ICA",
        *frozen,
    ):
        assert by_layer[source] == [1, 2, 3]
    assert len(by_layer) == 12 and not concepts.duplicated(["source", "layer", "group", "concept"]).any()
    assert concepts.null_p95.notna().equals(
        concepts.source.isin(["SAE (relu-l1-matched)", "SAE, random model"])
    )
    assert not concepts.discovery[concepts.null_p95.isna()].any()


def test_of_many_rnas_the_first_of_each_split_are_scored(study, monkeypatch):
    monkeypatch.setattr(controls, "MOST_RNAS", 3)
    rnas = study.activations("structures")
    sets = controls.AnnotatedSets(rnas)
    for split in ("selection", "heldout"):
        first = np.flatnonzero(rnas.records.split == split)[:3]
        assert sets.records[split].id.tolist() == rnas.records.id[first].tolist()
        assert rnas.tokens.record[sets.rows[split]].unique().tolist() == first.tolist()
        assert len(sets.annotations[split].record_N) == sets.rows[split].sum()


def scored(source, layer, concept="stem", **changes):
    found = {"source": source, "layer": layer, "group": "element", "concept": concept, "feature": 1}
    found |= {"base_auroc": 0.5, "base_auroc_low": 0.45, "selection_base_auroc": 0.5, "null_p95": 0.48}
    found |= {"setting": "unseen families", "discovery": False}
    return found | {"base_auroc_resampled": np.array([0.4, 0.5, 0.6])} | changes


def better(**changes):
    """Changes of a row of `scored`, with less to write."""
    names = {"chosen": "selection_base_auroc", "score": "base_auroc", "low": "base_auroc_low"}
    names |= {"drawn": "base_auroc_resampled"}
    return {names.get(name, name): np.array(v) if name == "drawn" else v for name, v in changes.items()}


TABLE = pd.DataFrame(
    [
        scored("SAE", 1, **better(chosen=0.6, score=0.55, low=0.5, discovery=True, drawn=[0.5, 0.5, 0.6])),
        scored("SAE", 2, **better(chosen=0.5, score=0.9)),
        scored("SAE", 1, "bulge"),
        scored("PCA", 1, **better(score=0.4)),
        scored("PCA", 2, **better(chosen=0.7, score=0.7, drawn=[0.6, 0.8, 0.7])),
        scored("ICA", 1, **better(chosen=0.9, score=0.6)),
    ]
)


def test_the_layer_of_each_source_is_chosen_on_the_selection_families():
    best = best_of(TABLE)
    found = best[["source", "concept", "layer"]].to_numpy().tolist()
    assert found == [["SAE", "stem", 1], ["SAE", "bulge", 1], ["PCA", "stem", 2], ["ICA", "stem", 1]]


def test_leads_are_over_the_best_control_of_each_concept_and_have_intervals():
    led = leads(best_of(TABLE)).set_index("concept")
    assert (led.control["stem"], led.control_score["stem"]) == ("PCA", 0.7)
    assert led.lead["stem"] == pytest.approx(-0.15)
    assert led.lead_low["stem"] == pytest.approx(np.percentile([-0.1, -0.3, -0.1], 2.5))
    assert led.lead_high["stem"] == pytest.approx(-0.1)
    assert led.loc["bulge", ["control", "lead", "lead_low", "lead_high"]].isna().all()
    alone = leads(best_of(TABLE[TABLE.source == "SAE"]))
    assert len(alone) == 2 and alone[["control", "lead", "lead_low", "lead_high"]].isna().all(axis=None)


def test_settings_are_chosen_and_led_apart():
    seen = TABLE.assign(setting="seen families")
    seen["base_auroc"] = seen.base_auroc.where(seen.source != "ICA", 0.8)  # the best control there
    led = leads(best_of(pd.concat([seen, TABLE], ignore_index=True)))
    stems = led[led.concept == "stem"].set_index("setting")
    assert stems.control.to_dict() == {"seen families": "ICA", "unseen families": "PCA"}
    assert stems.lead.to_dict() == pytest.approx({"seen families": -0.25, "unseen families": -0.15})


def test_leads_of_a_study_are_over_the_highest_of_its_controls(concepts):
    best = best_of(concepts)
    led = leads(best)
    assert (
        led.source.eq("SAE (relu-l1-matched)").all()
        and len(led) == (best.source == "SAE (relu-l1-matched)").sum()
    )
    rivals = best[best.source != "SAE (relu-l1-matched)"].groupby("concept").base_auroc.max()
    assert led.set_index("concept").control_score.equals(rivals[led.concept])
    assert (led.lead_low <= led.lead_high).all()


def test_the_table_shows_chance_and_numbers_count_clear_leads_and_what_is_found():
    best = best_of(TABLE)
    table = controls.control_table(leads(best)).set_index("concept")
    assert table.chance.tolist() == [0.48, 0.48] and table["AUROC within bases"].tolist() == [0.55, 0.5]
    assert table.loc["stem", ["best control", "lead", "95 % interval"]].tolist() == [
        "PCA", -0.15, "−0.290 to −0.100"]  # fmt: skip
    assert table.loc["bulge", "95 % interval"] == "–" and table.found.tolist() == [True, False]
    splits = ["heldout", "heldout", "selection"]
    records = pd.DataFrame({"split": splits, "sequence": "ACGU", "family": ["a", "a", "b"]})
    numbers = controls.numbers(best, records)
    told = "clearly positive for 0, clearly negative for 1 and neither for 1 of 2 concepts in unseen families"
    assert numbers["leads"] == told and numbers["found"] == "1 of 2 in unseen families"
    counted = {name: numbers[name] for name in ("concepts", "controls", "clearly", "behind", "scored")}
    assert counted == {"concepts": 2, "controls": 2, "clearly": 0, "behind": 1, "scored": 2}
    assert (numbers["rnas"], numbers["families"], numbers["tokens"]) == (2, 1, 8)
    assert controls.numbers(best, records.drop(columns="family"))["families"] == 2


def test_the_figures_table_has_the_leads_of_the_source_under_test_alone():
    best = best_of(TABLE)
    shown, led = controls.shown(best), leads(best)
    assert len(shown) == len(best) and "base_auroc_resampled" not in shown
    own = shown.source == "SAE"
    assert shown.lead[own].tolist() == pytest.approx(led.lead.tolist(), nan_ok=True)
    assert shown.loc[~own, ["control", "lead", "lead_low", "lead_high"]].isna().all(axis=None)
