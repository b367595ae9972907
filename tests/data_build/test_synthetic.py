"""The generator of synthetic RNAs: every pair it claims is a pair."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import (
    BASES,
    PADDING,
    STAGES,
    Grammar,
    draw_batch,
    draw_structure,
    draw_with_targets,
    stack_pair_tables,
)

from sae_rna.records.structure import CANONICAL_PAIRS, element_string, pair_table


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from(STAGES))
def test_every_claimed_pair_is_canonical_or_wobble_and_lengths_obey_the_grammar(seed, grammar):
    bases, table = draw_batch(grammar, 12, np.random.default_rng(seed))
    for row, partner in zip(bases, table):
        length = (partner != PADDING).sum()
        assert grammar.length[0] <= length <= grammar.length[1]
        assert (row[:length] >= 0).all() and (row[length:] == -1).all()
        sequence = "".join(BASES[base] for base in row[:length])
        for i, j in enumerate(partner[:length]):
            if j >= 0:
                assert partner[j] == i
                assert abs(i - j) > 3
                assert sequence[i] + sequence[j] in CANONICAL_PAIRS


@given(st.lists(st.text("().", max_size=40), min_size=1, max_size=5))
def test_stacked_pair_tables_are_those_of_each_structure(texts):
    """Any text becomes balanced when brackets without a partner are taken as unpaired."""
    structures = [balanced(text) or "." for text in texts]
    for structure, row in zip(structures, stack_pair_tables(structures)):
        assert row[: len(structure)].tolist() == pair_table(structure).tolist()
        assert (row[len(structure) :] == PADDING).all()


def balanced(text: str) -> str:
    letters, opened = ["."] * len(text), []
    for place, letter in enumerate(text):
        if letter == "(":
            opened.append(place)
        elif letter == ")" and opened:
            letters[opened.pop()], letters[place] = "(", ")"
    return "".join(letters)


def test_the_same_seed_draws_the_same_rnas():
    one, two = (draw_batch(Grammar(), 5, np.random.default_rng(3)) for _ in range(2))
    assert (one[0] == two[0]).all() and (one[1] == two[1]).all()


def test_the_wobble_share_is_what_the_grammar_says():
    bases, table = draw_batch(replace(Grammar(), wobble=0.2), 800, np.random.default_rng(0))
    rows, opening = np.nonzero(table > np.arange(table.shape[1]))
    pairs = [BASES[bases[row, i]] + BASES[bases[row, table[row, i]]] for row, i in zip(rows, opening)]
    assert np.mean([pair in ("GU", "UG") for pair in pairs]) == pytest.approx(0.2, abs=0.02)


def test_tetraloops_are_gnra_or_uncg_when_all_are_asked_for():
    grammar = replace(Grammar(), hairpin=(4, 4), tetraloops=1.0)
    bases, table = draw_batch(grammar, 50, np.random.default_rng(1))
    for row, partner in zip(bases, table):
        loop = next(
            "".join(BASES[b] for b in row[i + 1 : i + 5]) for i, j in enumerate(partner) if j - i == 5
        )
        assert (loop[0] == "G" and loop[2] in "AG" and loop[3] == "A") or (
            loop[0] == "U" and loop[2:] == "CG"
        )


def test_later_stages_hold_the_elements_that_earlier_ones_lack():
    rng = np.random.default_rng(0)
    seen = [
        set("".join(element_string(draw_structure(grammar, rng)) for _ in range(150))) for grammar in STAGES
    ]
    assert seen[0] <= set("SHE") and {"I", "B"} <= seen[2] and {"M", "X"} <= seen[3]


def test_impossible_grammars_are_refused():
    with pytest.raises(ValueError, match="3 nucleotides or more"):
        Grammar(hairpin=(2, 5))


def test_exact_targets_are_the_frequencies_of_the_generator():
    """Monte Carlo: of all places to which the generator gave a base the probability p, a share p holds that
    base."""
    rng = np.random.default_rng(5)
    table = np.repeat(stack_pair_tables(["..((((....))))..((((.....))))."]), 30_000, axis=0)
    bases, probability = draw_with_targets(table, rng, wobble=0.2, tetraloops=0.5)
    assert probability.sum(-1) == pytest.approx(1)
    drawn = np.eye(4)[bases]
    assert drawn.mean(0) == pytest.approx(probability.mean(0), abs=0.015)
    for place in (
        0,
        3,
        6,
        12,
        20,
    ):  # an end, 5' in a stem, GNRA or UNCG or neither, 3' in a stem, a loop of five
        partner = table[0, place]
        for letter in range(4):  # given the partner's base, above all
            there = bases[:, partner] == letter if partner >= 0 else np.ones(len(bases), bool)
            given, truth = probability[there, place], drawn[there, place]
            assert truth.mean(0) == pytest.approx(given.mean(0), abs=0.015)
            for low in np.arange(0, 1, 0.1):
                chosen = (given >= low) & (given < low + 0.1)
                if chosen.sum() > 5000:
                    assert truth[chosen].mean() == pytest.approx(given[chosen].mean(), abs=0.025)
        if partner >= 0:  # C pairs with G alone, G with C and U
            assert (probability[bases[:, partner] == 1, place] == [0, 0, 1, 0]).all()
            assert (probability[bases[:, partner] == 2, place][:, [0, 2]] == 0).all()
