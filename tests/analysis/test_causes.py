"""Mutated pairs and interventions, on a model whose truth is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from given import Given
from scipy import sparse

from sae_rna.analysis import causes
from sae_rna.extraction.language_model import HiddenStates
from sae_rna.extraction.stream import Standardiser
from sae_rna.records.structure import add_elements, pair_table
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.encoding import token_table

CANONICAL = {"GC", "CG", "AU", "UA", "GU", "UG"}
STEM, LOOP = 7, 5
LENGTH = 2 * STEM + LOOP
STRUCTURE = "(" * STEM + "." * LOOP + ")" * STEM
PLANTED = {"pairing nearby": 0, "pairing nearby, among other things": 1}
OTHERS = (
    "base", "bases around", "strong bases on both sides", "same base on both sides", "wobble on both sides",
    "pairing of a partner shifted by one", "pairing of its own pair", "noise", "AU or GC nearby under others",
)  # fmt: skip


class Toy:
    """A "model" of hairpins of one shape, whose states at a position are what is planted there.

    Whatever looks at pairs looks at those one and two further in and out: what stands at i pairs with -1 - i.
    """

    width = len(PLANTED) + len(OTHERS)

    def __init__(self, paired: bool = True):
        self.paired = paired

    def hidden_states(self, sequences, layers):
        rows = np.arange(len(sequences))
        states = np.stack([self.states(sequence) for sequence in sequences])
        values_TLD = torch.tensor(states.reshape(-1, 1, self.width), dtype=torch.float32)
        position_T = np.tile(np.arange(LENGTH), len(rows))
        yield HiddenStates(np.repeat(rows, LENGTH), position_T, values_TLD.expand(-1, len(layers), -1))

    def states(self, sequence: str) -> np.ndarray:
        rng = np.random.default_rng(sum(map(ord, sequence)) + int(self.paired))
        code = np.array(["ACGU".index(base) for base in sequence])
        strong = np.isin(code, (1, 2))

        def near(what) -> np.ndarray:
            """A sum of what holds of the pairs around each position, partners shifted as `what` wants."""
            counts = np.zeros(LENGTH)
            for at in range(LENGTH):
                for step in (-2, -1, 1, 2):
                    if 0 <= at + step < LENGTH:
                        counts[at] += what(at + step, LENGTH - 1 - at - step)
            return counts

        def pairs(i, j):
            return 0 <= j < LENGTH and sequence[i] + sequence[j] in CANONICAL

        pairing = near(pairs)
        swapped = str.maketrans("ACGU", "CAUG")
        shown = [
            1 + pairing if self.paired else 1 + near(lambda i, j: strong[i]),
            5 + pairing * self.paired + near(lambda i, j: strong[i]) + rng.normal(size=LENGTH) * 0.1,
            1 + code,
            near(lambda i, j: code[i]),
            near(lambda i, j: strong[i] and strong[j]),
            near(lambda i, j: code[i] == code[j]),
            near(lambda i, j: code[i] + code[j] == 5 and code[i] > 1),
            near(lambda i, j: pairs(i, j + 1)),
            np.array([pairs(at, LENGTH - 1 - at) for at in range(LENGTH)], float),
            rng.random(LENGTH),
            near(lambda i, j: sequence[i] + sequence[j].translate(swapped) in CANONICAL),
        ]
        return np.array(shown, float).T


def identity(width: int, layer: int = 1) -> SparseAutoencoders:
    """An autoencoder whose latents are the dimensions."""
    config = AutoencoderConfig("relu-l1", (Member(layer, 0.0),), width=width, latents=width)
    sae = SparseAutoencoders(config, Standardiser(torch.zeros(1, width), torch.ones(1, width)))
    with torch.no_grad():
        sae.encoder_weight.copy_(torch.eye(width)[None])
        sae.decoder_weight.copy_(torch.eye(width)[None])
    return sae.requires_grad_(False).eval()


def hairpins(count: int, seed: int = 0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        five = rng.choice(list("ACGU"), STEM)
        three = [dict(zip("ACGU", "UGCA"))[base] for base in five[::-1]]
        sequence = "".join([*five, *rng.choice(list("ACGU"), LOOP), *three])
        rows.append({"id": f"rna {number}", "family": f"family {number // 2}", "sequence": sequence})
    return add_elements(pd.DataFrame(rows).assign(secondary_structure=STRUCTURE, split="heldout"))


def encoded(records: pd.DataFrame, model: Toy) -> Given:
    states_TD = np.concatenate([model.states(sequence) for sequence in records.sequence])
    given = Given(sparse.csr_matrix(states_TD), records, token_table(records))
    facts = {"layer": 1, "feature": np.arange(model.width), "maximum": states_TD.max(0), "retained": True}
    given.summary = pd.DataFrame(facts)
    return given


@pytest.fixture(scope="module")
def records():
    return hairpins(60)


def run_test(model: Toy, records: pd.DataFrame) -> pd.DataFrame:
    return causes.pairing_test(model, {1: identity(model.width)}, encoded(records, model), count=60)


@pytest.fixture(scope="module")
def table(records):
    return run_test(Toy(), records)


def test_exactly_the_planted_features_are_pairing_features(table):
    found = table[table.pairing]
    assert found.feature.tolist() == [*PLANTED.values()]
    assert (found.low > 0).all() and (found.gamma > found[["bijections", "shifted"]].max(axis=1)).all()
    assert (found.broken > 0).all() and (found.rescued > 0).all()
    assert table.pairs[0] == 60 and table.families[0] == 30


def test_gamma_is_the_planted_effect_in_shares_of_the_features_maximum(records, table):
    """Of one pair's two nucleotides each of four neighbours' read positions sees one, in a mean over them."""
    model, pairs = Toy(), causes.draw_pairs(records, 60, 0)
    seen = []
    for pair in pairs:
        near = [min(abs(at - pair.five), abs(at - pair.three[0])) <= 2 for at in pair.read_R]
        seen.append(np.mean(near))
    families = pd.Series(seen).groupby([pair.family for pair in pairs]).mean()
    maximum = encoded(records, model).summary.maximum[0]
    assert table.gamma[0] == pytest.approx(families.mean() / maximum, rel=1e-4)


def test_without_pairing_nothing_is_found(records):
    assert not run_test(Toy(paired=False), records).pairing.any()


def test_families_take_turns_and_pairs_are_canonical_ones_of_long_helices(records):
    pairs = causes.draw_pairs(records, 45, 3)
    assert len(pairs) == 45 and len({pair.record for pair in pairs}) == 45
    counts = pd.Series([pair.family for pair in pairs]).value_counts()
    assert len(counts) == 30 and counts.max() == 2
    for pair in pairs:
        partner = pair_table(STRUCTURE)
        assert partner[pair.five] == pair.three[0] and pair.bases in CANONICAL
        assert abs(pair.three[1] - pair.three[0]) in (1, 2)
        touched = {pair.five, *pair.three}
        read = set(pair.read_R.tolist())
        assert read and not read & (touched | {int(partner[at]) for at in touched})
        assert all(partner[at] in read for at in read)


def test_mutants_differ_at_two_places_only_and_take_all_combinations(records):
    pair = causes.draw_pairs(records, 1, 0)[0]
    for wrong, three in enumerate(pair.three):
        mutants = pair.mutants(bool(wrong))
        assert len(set(mutants)) == 16
        for mutant in mutants:
            changed = {at for at in range(LENGTH) if mutant[at] != pair.sequence[at]}
            assert changed <= {pair.five, three}


def test_helices_are_runs_of_stacked_pairs():
    found = [helix.tolist() for helix in causes.helices("((.((...))))..(((...)))")]
    assert found == [[[0, 11], [1, 10]], [[3, 9], [4, 8]], [[14, 22], [15, 21], [16, 20]]]
    assert causes.helices("....") == []


def test_rnas_without_a_helix_are_refused():
    records = pd.DataFrame({"id": ["a"], "sequence": ["GGAAACC"], "secondary_structure": ["((...))"]})
    with pytest.raises(ValueError, match="no helix has 4 pairs or more"):
        causes.draw_pairs(records, 5, 0)


def test_the_matrix_holds_what_every_substitution_does_elsewhere(records, table):
    model, best = Toy(), causes.strongest(table)
    rnas = encoded(records, model)
    found = causes.mutation_map(model, {1: identity(model.width)}, rnas, best)
    (name,) = found.rna.unique()
    sequence = records.sequence[[f"({record})" in name.replace(f"{family} ", "")
                                 for record, family in zip(records.id, records.family)]].item()  # fmt: skip
    feature, maximum = int(best.feature), rnas.summary.maximum[int(best.feature)]
    assert len(found) == 3 * LENGTH and "".join(found.base[::3]) == sequence
    for row in found.itertuples():
        at = row.position - 1
        mutant = sequence[:at] + row.substitute + sequence[at + 1 :]
        other = np.arange(LENGTH) != at
        change = (model.states(mutant) - model.states(sequence))[other, feature].sum() / maximum
        assert row.change == pytest.approx(change, abs=1e-5)


def test_counts_by_layer_say_how_cause_and_annotation_agree():
    own = pd.DataFrame(
        {"layer": [1, 1, 1, 2, 2, 2], "feature": range(6), "pairing": [True, False, True] + [False] * 3}
    )
    own = own.assign(
        gamma=[3, 1, 2, 1, 2, 3], auroc=[0.6, 0.5, 0.4, 0.7, 0.8, 0.9], low=[1, -1, 1, 1, -1, -1]
    )
    own = own.assign(pairs=9, families=4)
    random = own.assign(pairing=False)
    rows = causes.by_layer(own, random).set_index("layer")
    assert rows["pairing features"].tolist() == [2, 0] and rows["gamma above 0"].tolist() == [2, 1]
    assert rows["AUROC of pairing features"][1] == 0.5 and np.isnan(rows["AUROC of pairing features"][2])
    assert rows["rank correlation"].tolist() == pytest.approx([0.5, 1])
    numbers = causes.pairing_numbers(own, random)
    assert (numbers["found"], numbers["both"], numbers["random_found"]) == (2, 1, 0)
    assert numbers["layers"] == "2 in L1" and numbers["agreement"] == "0.50 to 1.00"
