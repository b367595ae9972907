"""Synthetic RNAs that obey Watson-Crick and wobble pairing and nothing else.

A language model of a few million parameters learns families long before it learns that stems pair. Helices
drawn afresh for every batch teach pairing as a rule: no sequence is ever seen twice, so only the rule helps.
Secondary structures come from a small recursive grammar (a pseudoknot-free context-free grammar in the spirit
of Sakakibara et al. 1994); bases are then drawn pair by pair.
"""

import random
from dataclasses import dataclass, replace

import numpy as np

BASES = "ACGU"
#: Pairs a helix may contain, as (5' base, 3' base): Watson-Crick first, the GU wobble last.
PAIRS = ("GC", "CG", "AU", "UA", "GU", "UG")
UNPAIRED, PADDING = -1, -2

_FIVE_PRIME = np.array([BASES.index(pair[0]) for pair in PAIRS])
_THREE_PRIME = np.array([BASES.index(pair[1]) for pair in PAIRS])
#: Probabilities of the bases in the tetraloops GNRA and UNCG, [motif, place, base].
_TETRALOOPS = np.array(
    [
        [[base in letters for base in BASES] for letters in motif]
        for motif in (("G", "ACGU", "AG", "A"), ("U", "ACGU", "C", "G"))
    ],
    dtype=float,
)
_TETRALOOPS /= _TETRALOOPS.sum(-1, keepdims=True)


@dataclass(frozen=True)
class Grammar:
    """The distribution of secondary structures. All ranges are inclusive and in nucleotides or base pairs."""

    stem: tuple[int, int] = (5, 9)
    """Base pairs in an uninterrupted helix."""
    hairpin: tuple[int, int] = (4, 6)
    """Nucleotides in a hairpin loop, at least 3."""
    end: tuple[int, int] = (0, 6)
    """Unpaired nucleotides at each end."""
    domains: tuple[int, int] = (1, 1)
    """Helices side by side in the exterior loop."""
    linker: tuple[int, int] = (1, 5)
    """Unpaired nucleotides between domains."""
    interruption: float = 0.0
    """Probability that a helix goes on behind a bulge or an internal loop."""
    bulge: tuple[int, int] = (1, 2)
    """Nucleotides on the longer side of a bulge or internal loop."""
    branching: float = 0.0
    """Probability that a helix opens into a multiloop."""
    branches: tuple[int, int] = (2, 3)
    """Helices in a multiloop besides the closing one."""
    wobble: float = 0.03
    """Share of GU and UG among base pairs."""
    tetraloops: float = 0.0
    """Share of four-nucleotide hairpin loops that are GNRA or UNCG."""
    length: tuple[int, int] = (16, 46)
    """Length of the whole RNA; a structure outside is drawn again."""

    def __post_init__(self):
        if self.hairpin[0] < 3:
            raise ValueError(
                f"a hairpin loop needs 3 nucleotides or more, the grammar allows {self.hairpin[0]}"
            )
        if self.stem[0] < 1:
            raise ValueError(f"a helix needs 1 base pair or more, the grammar allows {self.stem[0]}")


HAIRPINS = Grammar()
#: From short perfect hairpins to branched RNAs. The simple ones are learnt first, and the others through them.
STAGES = (
    HAIRPINS,
    replace(HAIRPINS, stem=(4, 9), hairpin=(3, 9), end=(0, 12)),
    replace(HAIRPINS, stem=(3, 9), hairpin=(3, 9), end=(0, 12), interruption=0.3, bulge=(1, 2),
            tetraloops=0.3, length=(20, 70)),
    replace(HAIRPINS, stem=(3, 9), hairpin=(3, 9), end=(0, 10), domains=(1, 2), interruption=0.3,
            bulge=(1, 3), branching=0.1, wobble=0.06, tetraloops=0.3, length=(20, 102)),
    Grammar(stem=(3, 8), hairpin=(3, 10), end=(0, 15), domains=(1, 3), linker=(1, 10), interruption=0.4,
            bulge=(1, 4), branching=0.2, wobble=0.09, tetraloops=0.35, length=(20, 142)),
)  # fmt: skip


def draw_structure(grammar: Grammar, rng: np.random.Generator) -> str:
    """One dot-bracket string from `grammar`, of a length the grammar allows."""
    fast = random.Random(int(rng.integers(2**62)))  # NumPy takes thirty times as long for a single number
    between = lambda bounds: bounds[0] + int(fast.random() * (bounds[1] - bounds[0] + 1))  # noqa: E731

    def helix(depth: int) -> str:
        pairs = between(grammar.stem)
        return "(" * pairs + inside(depth + 1) + ")" * pairs

    def inside(depth: int) -> str:
        choice = fast.random() if depth < 8 else 1.0
        if choice < grammar.branching:
            loop = [("." * between((0, 3))) + helix(depth) for _ in range(between(grammar.branches))]
            return "".join(loop) + "." * between((0, 3))
        if choice < grammar.branching + grammar.interruption:
            sides = ["." * between(grammar.bulge), "." * between((0, grammar.bulge[1]))]
            fast.shuffle(sides)
            return sides[0] + helix(depth) + sides[1]
        return "." * between(grammar.hairpin)

    while True:
        domains = [helix(0) for _ in range(between(grammar.domains))]
        joined = domains[0] + "".join("." * between(grammar.linker) + domain for domain in domains[1:])
        structure = "." * between(grammar.end) + joined + "." * between(grammar.end)
        if grammar.length[0] <= len(structure) <= grammar.length[1]:
            return structure


def stack_pair_tables(structures: list[str], width: int | None = None) -> np.ndarray:
    """Pair tables of nested structures as one array [S, width], `PADDING` behind each end."""
    width = width or max(map(len, structures))
    text = np.array([list(structure.ljust(width).encode()) for structure in structures], np.uint8)
    table = np.where(text == ord(" "), PADDING, UNPAIRED)
    closing = text == ord(")")
    depth = np.cumsum((text == ord("(")) * 1 - closing, 1) + closing
    rows, places = np.nonzero((text == ord("(")) | closing)
    order = np.lexsort((places, depth[rows, places], rows))  # of one depth, each closes what opened before it
    rows, first, second = rows[order[::2]], places[order[::2]], places[order[1::2]]
    table[rows, first], table[rows, second] = second, first
    return table


def draw_with_targets(
    table_SW: np.ndarray, rng: np.random.Generator, wobble: float = 0.03, tetraloops: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Bases for every position of `table_SW` so that each pair of the table is canonical or GU, and their
    exact conditionals.

    GC content varies from RNA to RNA (uniform between 35 % and 75 % of the base pairs), unpaired composition
    varies around the purine-rich mean of natural loops. Returns indices into `BASES`, shape [S, W], -1 at
    padding, and the probability [S, W, 4] that the generator gave each base here, given the structure, the
    RNA's composition, its tetraloop motifs and the base of the pairing partner: as a target of a masked base
    it has the same expected gradient as the base, and less noise.
    """
    count, width = table_SW.shape
    strong = rng.uniform(0.35, 0.75, (count, 1)) * (1 - wobble)
    weak = (1 - wobble) - strong
    shares = np.hstack([strong / 2, strong / 2, weak / 2, weak / 2, np.full((count, 2), wobble / 2)])
    loop = rng.dirichlet(12 * np.array([0.36, 0.18, 0.22, 0.24]), count)
    bases = (rng.random((count, width, 1)) > np.cumsum(loop, 1)[:, None, :-1]).sum(-1)
    probability = np.repeat(loop[:, None], width, 1)
    rows, opening = np.nonzero(table_SW > np.arange(width))
    closing = table_SW[rows, opening]
    kind = (rng.random((len(rows), 1)) > np.cumsum(shares, 1)[rows, :-1]).sum(-1)
    bases[rows, opening], bases[rows, closing] = _FIVE_PRIME[kind], _THREE_PRIME[kind]
    joint = np.zeros((count, 4, 4))  # of the 5' and the 3' base
    joint[:, _FIVE_PRIME, _THREE_PRIME] = shares
    probability[rows, opening] = joint[rows, :, _THREE_PRIME[kind]]
    probability[rows, closing] = joint[rows, _FIVE_PRIME[kind], :]
    probability /= probability.sum(-1, keepdims=True)
    if tetraloops:
        chosen = (closing - opening == 5) & (rng.random(len(rows)) < tetraloops)
        places = opening[chosen, None] + np.arange(1, 5)
        motif = _TETRALOOPS[(rng.random(chosen.sum()) > 0.7).astype(int)]
        probability[rows[chosen, None], places] = motif
        bases[rows[chosen, None], places] = (
            rng.random((*places.shape, 1)) > np.cumsum(motif, -1)[..., :-1]
        ).sum(-1)
    bases[table_SW == PADDING] = -1
    return bases, probability


def draw_bases(
    table_SW: np.ndarray, rng: np.random.Generator, wobble: float = 0.03, tetraloops: float = 0.0
) -> np.ndarray:
    """The bases of `draw_with_targets` alone."""
    return draw_with_targets(table_SW, rng, wobble, tetraloops)[0]


def draw_batch(grammar: Grammar, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` synthetic RNAs: bases (indices into `BASES`, -1 padding) and pair tables, both [count, W]."""
    table = stack_pair_tables([draw_structure(grammar, rng) for _ in range(count)])
    return draw_bases(table, rng, grammar.wobble, grammar.tetraloops), table
