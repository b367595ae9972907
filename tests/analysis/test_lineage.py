"""Lineage: planted chains that go on, split, merge, end and begin; links that the base alone makes."""

import numpy as np
import pandas as pd
from given import Given
from scipy import sparse

from sae_rna.analysis import lineage
from sae_rna.analysis.lineage import MODEL, RANDOM, SHUFFLED

BASES, PER_BASE = "ACGU", 500
TOKENS = len(BASES) * PER_BASE


def patterns(count: int, seed: int) -> np.ndarray:
    """Activations [T, count] that go with nothing."""
    rng = np.random.default_rng(seed)
    return rng.random((TOKENS, count)) * (rng.random((TOKENS, count)) < 0.3)


def activations(by_layer: dict[int, np.ndarray]) -> Given:
    records = pd.DataFrame({"id": ["a", "b"], "split": ["selection", "heldout"]})
    half = np.repeat([0, 1], TOKENS // 2)
    tokens = pd.DataFrame({"record": half, "base": list(BASES) * PER_BASE}).astype({"base": "category"})
    return Given({layer: sparse.csr_matrix(of) for layer, of in by_layer.items()}, records, tokens)


def planted() -> Given:
    """Layer 1: 0 goes on to layers 2 and 3, 1 splits, 2 and 3 merge, 4 ends. Layer 2: 4 begins. 5: is a G."""
    a, b, c, d, e, f = patterns(6, 0).T
    g = np.array([base == "G" for base in list(BASES) * PER_BASE], float)
    near = 0.3 * patterns(2, 1)
    first = [a, b, c, c + near[:, 0], e, g]
    second = [3 * a, b + near[:, 1], b, c, d, g]
    third = [f, a]
    return activations({1: np.stack(first, 1), 2: np.stack(second, 1), 3: np.stack(third, 1)})


def silent() -> Given:
    return activations({layer: patterns(3, 7 + layer) for layer in (1, 2, 3)})


def events() -> tuple[pd.DataFrame, pd.DataFrame]:
    links = lineage.link(planted(), silent())
    return links, lineage.events(links, lineage.nodes(planted(), silent()))


def test_planted_features_go_on_split_merge_end_and_begin():
    _, known = events()
    own = known[known.source == MODEL].set_index(["layer", "feature"])
    assert own.event[1].tolist() == ["goes on", "splits", "merges", "merges", "ends", "goes on"]
    assert own.event[2].tolist() == ["goes on", "ends", "ends", "ends", "ends", "ends"]
    assert own.event[3].isna().all() and own.begins[1].isna().all()
    assert np.flatnonzero(own.begins[2].astype(bool)).tolist() == [4]
    assert np.flatnonzero(own.begins[3].astype(bool)).tolist() == [0]


def test_what_the_base_links_stays_when_nucleotides_are_shuffled_and_nothing_else():
    links, _ = events()
    shuffled = links[links.source == SHUFFLED]
    assert shuffled[["layer", "feature", "next_feature"]].to_numpy().tolist() == [[1, 5, 5]]
    assert not (links.source == RANDOM).any()
    own = links[(links.source == MODEL) & (links.feature == 0) & (links.layer == 1)]
    np.testing.assert_allclose(own.correlation, 1)  # three times as strong is the same feature


def test_the_counts_of_a_step_add_up_to_the_features_of_its_layers():
    steps = lineage.by_layer(events()[1])
    assert (steps[list(lineage.EVENTS)].sum(axis=1) == steps.features).all()
    own = steps[steps.source == MODEL].set_index("step")
    assert own.loc["L1 to L2", ["features", "in the next layer", "begin there"]].tolist() == [6, 6, 1]
    assert own.loc["L2 to L3", ["goes on", "ends", "begin there"]].tolist() == [1, 5, 1]
    assert steps[steps.source == RANDOM]["goes on"].sum() == 0


def test_a_chain_holds_the_features_that_are_each_others_strongest_link():
    links, known = events()
    chains = lineage.chains(links, known).set_index(["layer", "feature"])
    number = chains.chain.to_dict()
    assert number[1, 0] == number[2, 0] == number[3, 1]
    assert number[1, 1] == number[2, 2] != number[2, 1]  # of the two that it splits into, the nearer one
    assert number[1, 2] == number[2, 3] != number[1, 3]
    assert len(set(number.values())) == 9
    assert (chains.before[2, 1], chains.after[1, 3]) == (1, 3)  # where it came from, and what it merges into
    facts = lineage.numbers(lineage.by_layer(known), chains.reset_index())
    assert (facts["through"], facts["splits"], facts["merges"], facts["begin"]) == (1, 1, 2, 2)


def test_the_figure_shows_named_chains_first_and_where_they_come_from(monkeypatch):
    links, known = events()
    monkeypatch.setattr(lineage, "addresses", lambda _, table: table.layer.astype(str))
    scores = pd.DataFrame({"layer": 1, "feature": [0, 2], "concept": ["stem", "end"], "auroc": [0.5, 0.8]})
    scores = scores.assign(selection_auroc=0.9, chance=0.6, group="element")
    letters = known[known.source == MODEL][["layer", "feature"]].assign(base="A", base_share=0.75)
    letters.loc[letters.feature == 2, "base_share"] = 0.5
    table = lineage.strongest(lineage.chains(links, known), scores, letters, {})
    names = table.drop_duplicates("place").name.tolist()
    assert (
        names[:2] == ["end", "A (75%)"] and len(names) == 4
    )  # only one is above chance; chains of one are left
    assert table[table.place == 1].layer.tolist() == [1, 2, 3]
    assert table.from_place.dropna().eq(table.place).sum() == 5 and table.into_place.isna().all()


def test_chains_that_go_through_all_layers_are_counted_by_what_they_are_called_after():
    table = pd.DataFrame({"place": [0, 0, 1, 1, 2], "layer": [1, 2, 1, 2, 1],
                          "name": ["A (75%)", "A (75%)", "stem", "stem", "U (90%)"]})  # fmt: skip
    assert lineage.called_after_bases(table) == 1
    assert lineage.called_after_bases(table.head(0).astype({"name": float})) == 0
