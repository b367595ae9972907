"""States that are changed: what the language model then predicts, on a tiny model with random weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from given import Given
from scipy import sparse
from stacks import of_model

from sae_rna.analysis import use
from sae_rna.analysis.fidelity import masked_log_probabilities
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.structure import add_elements, pair_table

LAYER, LATENTS = 2, 40
STRUCTURES = {"((((((....))))))..": 6, ".(((((.....)))))": 5, "..((((((...))))))....": 6}


@pytest.fixture(scope="module")
def model(tiny_model):
    return LanguageModel.load(str(tiny_model), masked=True, device="cpu")


@pytest.fixture(scope="module")
def sae(model):
    return of_model(model, LAYER, LATENTS)


@pytest.fixture(scope="module")
def records():
    rng, rows = np.random.default_rng(0), []
    for number, structure in enumerate([*STRUCTURES] * 4):
        letters = rng.choice(list("ACGU"), len(structure))
        for at, partner in enumerate(pair_table(structure)):
            if partner > at:
                letters[[at, partner]] = list(rng.choice(["GC", "CG", "AU", "UA"]))
        rows.append({"id": f"r{number}", "sequence": "".join(letters), "secondary_structure": structure})
    table = pd.DataFrame(rows).assign(split="selection")
    return add_elements(table.assign(family=[f"f{number // 2}" for number in range(len(table))]))


@pytest.fixture(scope="module")
def cases(records):
    return use.draw_cases(records, 9, 0)


def test_cases_mask_a_partner_and_an_unpaired_base_and_mutants_break_and_repair_another_pair(records, cases):
    known = records.set_index("sequence").secondary_structure
    assert [len(of) for of in cases.values()] == [9, 9, 9]
    for natural, single, double in zip(*cases.values()):
        partner, (masked, loose) = pair_table(known[natural.sequence]), natural.masked_N
        assert partner[masked] in natural.helix_R and partner[masked] < masked and partner[loose] == -1
        own, broken, repaired = (np.array(list(case.sequence)) for case in (natural, single, double))
        three = single.spared
        five = partner[three]
        assert {five, three} <= set(natural.helix_R) and masked not in (five, three)
        assert np.flatnonzero(own != broken).tolist() == [five] and broken[five] == broken[three]
        assert (repaired[five], repaired[three]) == (own[three], own[five])
        assert np.flatnonzero(own != repaired).tolist() == sorted([five, three])


def test_log_odds_are_those_of_the_true_base(model, sae, cases):
    found = use.log_odds(model, cases["natural"], sae)
    for case, odds_N in zip(cases["natural"], found):
        tokens = model.tokenize([case.sequence])
        start = int(tokens["input_ids"].shape[1] > len(case.sequence))
        tokens["input_ids"][0, torch.as_tensor(case.masked_N + start)] = model.tokenizer.mask_token_id
        bases = model.tokenizer.convert_tokens_to_ids(list("ACGU"))
        with torch.inference_mode():
            share = model.model(**tokens).logits[0][case.masked_N + start][:, bases].softmax(-1).numpy()
        p_N = share[[0, 1], ["ACGU".index(case.sequence[at]) for at in case.masked_N]]
        np.testing.assert_allclose(odds_N, np.log(p_N / (1 - p_N)), atol=1e-4)


@pytest.mark.parametrize("feature", [0, 17])
def test_a_change_of_zero_reproduces_the_predictions(model, sae, cases, feature):
    plain, seen = use.log_odds(model, cases["natural"], sae), use._features(model, cases["natural"], sae)
    same = use.set_feature(
        sae, feature, lambda case_T, position_T: [seen[c][p, feature] for c, p in zip(case_T, position_T)]
    )
    np.testing.assert_allclose(use.log_odds(model, cases["natural"], sae, same), plain, atol=1e-5)
    nowhere = use.set_feature(sae, feature, 9.0, lambda case_T, _: np.zeros(len(case_T), bool))
    np.testing.assert_array_equal(use.log_odds(model, cases["natural"], sae, nowhere), plain)


def test_a_feature_is_set_and_what_the_autoencoder_does_not_explain_stays(sae):
    h_TD = torch.randn(30, sae.config.width)
    x_TD = sae.standardise(h_TD)
    features_TF = sae.encode(x_TD[None])[0]
    error_TD = x_TD - sae.decode(features_TF[None])[0]
    changed_TF = features_TF.clone()
    changed_TF[10:20, 5] = 3.0
    edit = use.set_feature(sae, 5, 3.0, lambda _, position_T: (position_T >= 10) & (position_T < 20))
    moved = use.edited(sae, edit, np.zeros(30, int), np.arange(30))(h_TD)
    expected = (sae.decode(changed_TF[None])[0] + error_TD) * sae.standardise.std + sae.standardise.mean
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-5)


def test_every_case_keeps_its_own_values_whatever_the_order_of_the_batch(model, sae, cases):
    together, seen = cases["natural"], use._features(model, cases["natural"], sae)
    for number, case in enumerate(together):
        alone = use._features(model, [case], sae)[0]
        np.testing.assert_allclose(seen[number], alone, atol=1e-4)
    here = use.within(together)
    edit = use.set_feature(sae, 3, 5.0, here)
    both = use.log_odds(model, together, sae, edit)
    for number, case in enumerate(together):
        inside = use.set_feature(sae, 3, 5.0, use.within([case]))
        np.testing.assert_allclose(use.log_odds(model, [case], sae, inside)[0], both[number], atol=1e-4)


def features_table(pairing):
    facts = {"layer": LAYER, "feature": range(LATENTS), "p": np.linspace(0.01, 1, LATENTS)}
    return pd.DataFrame(facts).assign(pairing=[number in pairing for number in range(LATENTS)])


def test_controls_are_the_features_most_alike_in_density_and_norm(records, sae):
    rng = np.random.default_rng(1)
    tokens = sum(map(len, records.sequence))
    density = np.repeat([0.1, 0.4, 0.95], [10, 10, 20])
    active = sparse.csr_matrix((rng.random((tokens, LATENTS)) < density).astype(float))
    rnas = Given(
        {LAYER: active},
        records,
        pd.DataFrame({"record": np.repeat(range(len(records)), records.sequence.str.len())}),
    )
    found = use.matched(rnas, sae, features_table({2, 12}), [2, 12])
    assert found.shape == (2, LATENTS - 2) and not {2, 12} & set(found.ravel())
    assert set(found[0][:9]) == set(range(10)) - {2} and set(found[1][:9]) == set(range(10, 20)) - {12}


def test_the_layer_with_most_pairing_features_is_chosen_and_the_surest_of_them_first():
    table = pd.concat([features_table({1}), features_table({30, 4}).assign(layer=5)])
    assert use.chosen(table) == (5, [4, 30])
    assert use.chosen(features_table(set())) == (LAYER, [0])


def test_steering_by_nothing_changes_nothing_and_else_it_is_the_feature_set_everywhere(model, sae):
    sequence = "GGGAAACCCAGU"
    table = use.steer(model, sae, sequence, 7, 4.0)
    assert len(table) == 4 * len(sequence) and "".join(table.base[::4]) == sequence
    sums = table.groupby("position")[["own", "steered"]].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    row_D = sae.decoder_weight[0, 7] * sae.standardise.std[0]

    def replace(h_TD):
        own_T = sae.encode(sae.standardise(h_TD)[None])[0, :, 7]
        return h_TD + (4 - own_T)[:, None] * row_D

    for at in (0, 5, 11):
        expected = np.exp(masked_log_probabilities(model, [sequence], [np.array([at])], LAYER, replace))[0]
        np.testing.assert_allclose(table.steered[4 * at : 4 * at + 4], expected, atol=1e-5)
    assert use.steered_numbers(table)["positions"] == len(sequence)
    assert use.steered_numbers(table.assign(steered=table.own))["changed"] == 0


@pytest.mark.parametrize(
    ("sequence", "feature", "words"),
    [("ACGNU", 3, "record 'x': 'N' at position 4"), ("ACGU", 40, "no feature 40: choose 0 to 39")],
)
def test_what_cannot_be_steered_is_refused(model, sae, sequence, feature, words):
    with pytest.raises(ValueError, match=words):
        use.steer_records(model, sae, pd.DataFrame({"id": ["x"], "sequence": [sequence]}), feature, 1.0)
