"""The corrected audit: planted partners and planted confounds, arms that keep what they should, and no effects."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis.statistics import audit
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.structure import CANONICAL_PAIRS, pair_table

STRUCTURE = "..((((((....))))))..(((((....)))))..."


def drawn(structure: str, rng) -> str:
    """A sequence whose pairs are G with C, mostly, or A with U, and whose loops are mostly A and U."""
    letters, partner = rng.choice(list("ACGU"), len(structure), p=[0.4, 0.1, 0.1, 0.4]), pair_table(structure)
    for i in np.nonzero(partner > np.arange(len(partner)))[0]:
        letters[i], letters[partner[i]] = rng.choice(["GC", "CG", "AU"], p=[0.4, 0.4, 0.2])
    return "".join(letters)


@pytest.fixture(scope="module")
def rnas():
    rng, rows = np.random.default_rng(1), []
    for number in range(12):
        lead = "." * int(rng.integers(0, 12))
        for _ in range(3):
            structure = lead + STRUCTURE
            facts = {"id": f"{number}", "family": f"F{number}", "secondary_structure": structure}
            rows.append(facts | {"sequence": drawn(structure, rng)})
    return pd.DataFrame(rows)


class Planted:
    """Effects [3, P, L] that `effect(sequence, i, j)` says, in block `block` alone or in all; else all the same."""

    def __init__(self, effect, block=2):
        self.effect, self.blocks = effect, slice(block - 1, block) if block else slice(None)

    def effects(self, sequence, positions):
        found = np.full((3, len(positions), len(sequence)), 0.01)
        found[self.blocks] = [[self.effect(sequence, i, j) for j in range(len(sequence))] for i in positions]
        return found


def ladder_of(effect, rnas, **options):
    rows = audit._one_model(Planted(effect, **options), rnas, seed=0).assign(model="planted")
    return rows, rows[rows.arm == audit.NATURAL].set_index(["rung", "family"])


def test_planted_partners_are_found_in_their_block_and_not_on_rotated_structures(rnas):
    pairs = {row.sequence: pair_table(row.secondary_structure) for row in rnas.itertuples()}

    def effect(sequence, i, j):
        known = pairs.get(sequence)
        return 0.5 if known is not None and known[i] == j else 0.0

    rows, found = ladder_of(effect, rnas)
    assert (found.loc["precision"].value == 1).all() and (found.loc["partner"].value == 0.5).all()
    assert (found.loc["precision"].layer == 2).all() and (found.loc["partner"].layer == 2).all()
    assert (found.loc["partner"].p_value < 0.05).all() and (found.loc["precision"].chance < 0.2).all()
    redrawn = rows[(rows.arm == "pairs redrawn") & (rows.rung == "precision")]
    assert (redrawn.value == 0).all()  # what is known of these very sequences is memory


def test_a_rule_of_complementarity_survives_both_arms(rnas):
    def effect(sequence, i, j):
        inside = 0 < i < len(sequence) - 1 and 0 < j < len(sequence) - 1
        steps = (-1, 0, 1) if inside else ()
        return sum(sequence[i + step] + sequence[j - step] in CANONICAL_PAIRS for step in steps) ** 3

    rows, found = ladder_of(effect, rnas)
    means = rows[rows.rung == "precision"].groupby("arm").value.mean()
    assert means.min() > 0.6 and found.loc["precision"].chance.mean() < 0.4


def test_an_effect_of_the_base_alone_is_none_of_stems_though_stems_are_rich_in_it(rnas):
    rows, found = ladder_of(lambda sequence, i, j: {"G": 0.9, "C": 0.6}.get(sequence[i], 0.1), rnas)
    np.testing.assert_allclose(found.loc["base"].value, 0, atol=1e-9)
    np.testing.assert_allclose(found.loc["neighbours"].value, 0, atol=1e-9)
    assert (found.loc["partner"].value == 0).all()


def test_an_effect_of_the_base_before_passes_the_first_rung_alone(rnas):
    before = {"G": 0.9, "C": 0.9}
    effect = lambda sequence, i, j: before.get(sequence[i - 1], 0.1) if i else 0.1  # noqa: E731
    _, found = ladder_of(effect, rnas)
    assert (found.loc["base"].value > 0.1).all()
    np.testing.assert_allclose(found.loc["neighbours"].value, 0, atol=1e-9)


def test_noise_lies_above_its_rotations_in_about_one_family_of_twenty(rnas):
    rng, above = np.random.default_rng(3), []
    for _ in range(5):
        noise = rng.random((99, 99))
        _, found = ladder_of(lambda sequence, i, j, noise=noise: noise[i, j], rnas, block=None)
        above += (found.value > found.null_p95).groupby("rung").mean().tolist()
    assert 0.01 < np.mean(above) < 0.12


def test_the_layer_is_chosen_on_the_other_families(rnas):
    class Own(Planted):
        def effects(self, sequence, positions):
            found = np.zeros((3, len(positions), len(sequence)))
            first = sequence in set(rnas[rnas.family == "F0"].sequence)
            pairs = pair_table(rnas[rnas.sequence == sequence].secondary_structure.iloc[0]) if len(
                rnas[rnas.sequence == sequence]) else np.full(len(sequence), -1)  # fmt: skip
            for row, i in enumerate(positions):
                found[0 if first else 2, row, pairs[i]] = 1.0 * (pairs[i] >= 0)
            return found

    rows = audit._one_model(Own(None), rnas, seed=0)
    partner = rows[(rows.rung == "partner") & (rows.arm == audit.NATURAL)].set_index("family")
    assert (partner.layer == 3).all()
    assert partner.value["F0"] == 0 and (partner.value.drop("F0") == 1).all()


def test_effects_are_cosine_distances_of_the_states_of_each_mutant(tiny_model):
    model, sequence = LanguageModel.load(str(tiny_model)), "GACUUGACCA"
    found = audit.Mutator(model).effects(sequence, np.array([0, 4]))
    complement = dict(zip("ACGU", "UGCA"))
    for row, i in enumerate((0, 4)):
        mutant = sequence[:i] + complement[sequence[i]] + sequence[i + 1 :]
        (states,) = model.hidden_states([sequence, mutant], [1, 2, 3])
        own, other = (states.values_TLD[states.sequence_T == of].double() for of in (0, 1))
        cosine = (own * other).sum(-1) / own.norm(dim=-1) / other.norm(dim=-1)
        np.testing.assert_allclose(found[:, row], 1 - cosine.T, atol=1e-6)
    assert found[:, [0, 1], [0, 4]].min() > 1e-4


def test_a_change_below_a_millionth_of_a_states_norm_is_none(tiny_model):
    model = LanguageModel.load(str(tiny_model))
    model.model.embeddings.word_embeddings.weight.data[:] = model.model.embeddings.word_embeddings.weight[6:7]
    small = model.model.embeddings.word_embeddings.weight[model.base_ids[3]].norm() * 1e-8
    model.model.embeddings.word_embeddings.weight.data[model.base_ids[3], 0] += small
    assert not audit.Mutator(model).effects("GACUUGACCA", np.arange(10)).any()


def test_pairs_inside_helices_have_watson_crick_pairs_on_both_sides():
    sequence, structure = (
        "GGGGCAAAAGCUCC",
        "(((((....)))))",
    )  # the second pair from outside is G-C, the third G-U
    assert audit.watson_crick(sequence, structure).tolist() == [[0, 13], [1, 12], [3, 10], [4, 9]]
    assert audit.inner_pairs(sequence, structure).tolist() == []
    assert audit.inner_pairs("GGGACAAAAGUCCC", structure).tolist() == [[1, 12], [2, 11], [3, 10]]


def test_partner_lead_is_over_the_larger_neighbour():
    effects = np.array([[[0.1, 0.5, 0.9, 0.3]]])
    assert audit.partner_lead(effects, np.array([0, 0]), np.array([1, 2])).tolist() == [[-0.4, 0.4]]


def test_arms_keep_composition_and_complementarity():
    rng = np.random.default_rng(5)
    for change in audit.ARMS.values():
        sequence = drawn(STRUCTURE, rng)
        new, structure = change(sequence, STRUCTURE, rng)
        partner = pair_table(structure)
        assert sorted(new) == sorted(sequence) and new != sequence
        assert all(new[i] + new[j] in CANONICAL_PAIRS for i, j in enumerate(partner) if j >= 0)
        inner = [len(audit.inner_pairs(*rna)) for rna in ((sequence, STRUCTURE), (new, structure))]
        assert inner[0] == inner[1] > 0
    assert audit.mirrored("GGAC", "([.)", rng)[1] == "(.])"
    assert all(
        audit.redrawn(sequence, STRUCTURE, rng)[0][place] == sequence[place] for place in (0, 1, 9, 18)
    )


def test_rotations_are_other_structures_and_go_as_far_in_all_of_a_family():
    rotations = range(audit.ROTATIONS + 1)
    for length in (20, 37, 111):
        offsets = [audit._offset(length, rotation) for rotation in rotations]
        assert offsets[0] == 0 and min(offsets[1:]) == 1 and max(offsets) == length - 1
    for rotation in rotations:
        shares = [audit._offset(length, rotation) / length for length in (400, 40)]
        assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_audited_rnas_are_of_few_families_and_have_pairs_inside_helices(rnas):
    broken = rnas.assign(
        sequence=rnas.sequence.where(rnas.family != "F3", rnas.sequence.str.replace("G", "N"))
    )
    chosen = audit.audit_rnas(broken, families=20, sequences=2, longest=45, seed=0)
    assert chosen.groupby("family").size().max() == 2 and "F3" not in set(chosen.family)
    assert chosen.sequence.str.len().max() <= 45
    assert len(set(audit.audit_rnas(rnas, 4, 3, 99, 0).family)) == 4
    alone = audit.audit_rnas(rnas.drop(columns="family").assign(id=range(len(rnas))), 5, 3, 99, 0)
    assert alone.groupby("family").size().tolist() == [1] * 5
    assert audit.audit_rnas(rnas, 4, 3, 10, 0).empty and audit.ladder({}, rnas.head(1), 0).empty


def test_families_together_are_means_with_intervals_over_families():
    facts = {"model": "m", "rung": "precision", "arm": audit.NATURAL, "sequences": 2, "layer": [3, 3, 2, 3]}
    rows = pd.DataFrame(facts | {"family": list("ABCD"), "value": [0.2, 0.4, 0.6, 0.8], "p_value": 0.5})
    rows = rows.assign(chance=[0.1, 0.2, 0.3, 0.4], null_p95=[0.3, 0.3, 0.3, 0.9])
    (row,) = audit.rung_table(rows, 0).itertuples()
    assert row.value == pytest.approx(0.5) and row.chance == pytest.approx(0.25)
    assert (row.above, row.families, row.layers) == (2, 4, "2, 3")
    assert 0.2 <= row.low < 0.4 < 0.6 < row.high <= 0.8
