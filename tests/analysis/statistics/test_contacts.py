"""Contacts read out of a model: planted pairs, plain loops, and chance."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sae_rna.analysis.statistics.contacts import (
    SEPARATION,
    chance_precision,
    contact_precision,
    contact_scores,
    dependencies,
    jacobian_contacts,
    substituted_logits,
)
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import ROOT
from sae_rna.records.structure import pair_table

HAIRPIN, PAIRS = "GGCGACCGAAAGGUCGCC", "(((((((....)))))))"


class Planted:
    """A model of which each paired base expects the complement of its partner, and others nothing."""

    first, base_ids, device = 1, torch.arange(4) + 6, torch.device("cpu")

    def __init__(self, structure: str):
        self.partner = torch.from_numpy(pair_table(structure))

    def tokenize(self, sequences):
        ids = [[0, *(6 + "ACGU".index(base) for base in sequence), 1] for sequence in sequences]
        return {"input_ids": torch.tensor(ids)}

    def model(self, input_ids, attention_mask):
        bases = input_ids[:, 1:-1] - 6
        logits = torch.zeros(*input_ids.shape, 10)
        for position, partner in enumerate(self.partner.tolist()):
            if partner >= 0:
                logits[torch.arange(len(bases)), position + 1, 6 + 3 - bases[:, partner]] = 5.0
        return SimpleNamespace(logits=logits)


@pytest.fixture(scope="module")
def random_logits():
    return np.random.default_rng(0).normal(size=(7, 4, 7, 4)).astype(np.float32)


@pytest.mark.parametrize("structure", [PAIRS, "((((..((((...))))..))))", "(((..[[[.)))...]]]"])
def test_planted_pairs_are_found_all_of_them_by_either_score(structure):
    sequence = "".join(np.random.default_rng(1).choice(list("ACGU"), len(structure)))
    for contacts in contact_scores(Planted(structure), sequence).values():
        assert contact_precision(contacts, structure) == 1.0


def test_the_jacobian_is_centred_symmetric_and_less_the_average_product(random_logits):
    length, expected = 7, np.zeros((7, 7))
    for i in range(length):
        for j in range(length):
            block = np.zeros((4, 4))
            for a in range(4):
                for b in range(4):
                    for x, p, y, q in ((i, a, j, b), (j, b, i, a)):
                        whole = random_logits[x, :, y]
                        means = whole[:, q].mean(), whole[p].mean(), whole.mean()
                        block[a, b] += (random_logits[x, p, y, q] - means[0] - means[1] + means[2]) / 2
            expected[i, j] = np.sqrt((block**2).sum()) if i != j else 0.0
    rows, whole = expected.sum(1), expected.sum()
    corrected = [[expected[i, j] - rows[i] * rows[j] / whole for j in range(length)] for i in range(length)]
    np.testing.assert_allclose(jacobian_contacts(random_logits), corrected, atol=1e-5)


def test_a_dependency_is_the_largest_change_of_log_odds(random_logits):
    sequence, codes = "ACGUUGA", [0, 1, 2, 3, 3, 2, 0]
    for i in range(7):  # with its own base at i, every row is the sequence as it is
        random_logits[i, codes[i]] = random_logits[0, codes[0]]
    share = np.exp(random_logits) / np.exp(random_logits).sum(-1, keepdims=True)
    odds = np.log2(share / (1 - share))
    found = dependencies(random_logits, sequence)
    for i in range(7):
        for j in range(7):
            changes = [abs(odds[i, a, j, b] - odds[i, codes[i], j, b]) for a in range(4) for b in range(4)]
            assert found[i, j] == pytest.approx(max(changes) if i != j else 0.0, abs=1e-4)


def test_logits_are_the_models_own_for_every_mutant(tiny_model):
    model = LanguageModel.load(str(tiny_model), masked=True)
    sequence = "GACU"
    found = substituted_logits(model, sequence)
    ids = model.tokenizer.convert_tokens_to_ids(list("ACGU"))
    for i in range(4):
        for a, base in enumerate("ACGU"):
            tokens = model.tokenizer(sequence[:i] + base + sequence[i + 1 :], return_tensors="pt")
            with torch.inference_mode():
                logits = model.model(**tokens).logits[0, 1:-1, ids]
            np.testing.assert_allclose(found[i, a], logits, atol=1e-5)


def test_a_model_that_always_expects_the_same_has_no_contacts():
    same = np.broadcast_to(np.arange(4, dtype=np.float32), (9, 4, 9, 4)).copy()
    assert not jacobian_contacts(same).any() and not dependencies(same, "ACGUACGUA").any()


def test_an_unknown_letter_is_named_with_its_place(tiny_model):
    with pytest.raises(ValueError, match="'N' at position 3 .*leave this RNA out"):
        substituted_logits(LanguageModel.load(str(tiny_model), masked=True), "ACNGU")


def test_precision_counts_pairs_among_as_many_top_contacts():
    contacts = np.zeros((12, 12))
    contacts[0, 11] = contacts[1, 10] = 2.0
    contacts[2, 3] = contacts[3, 6] = 9.0  # neighbours are not asked
    assert contact_precision(contacts, "((((....))))") == pytest.approx(0.5, abs=0.26)
    contacts[2, 9] = contacts[3, 8] = 1.0
    assert contact_precision(contacts, "((((....))))") == 1.0
    contacts[0, 6] = 3.0
    assert contact_precision(contacts, "((((....))))") == 0.75


def test_contacts_at_random_have_the_precision_of_chance():
    rng, length = np.random.default_rng(0), len(PAIRS)
    assert chance_precision(PAIRS) == 7 / sum(range(length - SEPARATION + 1))
    found = [contact_precision(rng.normal(size=(length, length)), PAIRS) for _ in range(2000)]
    assert np.mean(found) == pytest.approx(chance_precision(PAIRS), abs=0.01)


def test_the_embedded_model_finds_a_hairpin():
    model = LanguageModel.load(str(ROOT / "data" / "rinalmo-nano"), masked=True)
    for contacts in contact_scores(model, HAIRPIN).values():
        np.testing.assert_allclose(contacts, contacts.T, atol=1e-4)
        assert contact_precision(contacts, PAIRS) > 0.5
