"""Does a feature follow an RNA's structure or its letters? What of its firing survives where one is changed.

After Ma et al. 2026 (arXiv:2601.05679), who paste what excites a feature into other contexts. Shapes: T
nucleotides of all RNAs, N features, S RNAs, L nucleotides of one, G families, B resamples.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from sae_rna.analysis.statistics.annotations import Annotations, annotate
from sae_rna.records.composition import shuffle_dinucleotides
from sae_rna.records.structure import dot_bracket, pair_table, split_pseudoknots
from sae_rna.sae.encoding import token_table

KMERS, SHUFFLED = "k-mers pasted", "RNA shuffled"
MIRRORED, MOVED = "RNA mirrored", "hairpin moved"
FALLS, STAYS = (
    (KMERS, SHUFFLED),
    (MIRRORED, MOVED),
)  # where a feature of the structure must fall silent, or not
TESTS = (*FALLS, *STAYS)
OUTSIDE = ("external loop", "end")  # an RNA without any pair has these, too
STRONGEST, REACH = 20, 3  # nucleotides whose surroundings are pasted, and how far these reach on each side
FAR, FEWEST = 10, 10  # nucleotides by which a hairpin is moved, and RNAs that a test needs, at least
BOOTSTRAPS = 500  # resamples of the families for intervals
SURVIVAL = ["group", "concept", "layer", "feature", "test", "share", "low", "high", "rnas"]

Fire = Callable[[list[str], list[tuple[int, int]]], np.ndarray]
"""Activations [T, N] of features (layer, number) on sequences, a row for every nucleotide."""


def survival(fire: Fire, named: pd.DataFrame, rnas: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The share of each feature's firing that survives each test, with a 95 % interval over families.

    named : features with the group and name of the concept that they are named after
    rnas : of the letters ACGU alone

    The letters stay and the structure goes: the surroundings of the `STRONGEST` nucleotides are pasted into
    the same RNA with its dinucleotides shuffled; and all nucleotides of such an RNA. The structure stays: the
    concept's nucleotides where the RNA is read from 3' to 5', and those of a hairpin that was moved within
    the RNA, with its bulges and internal loops. Firing is the mean activation. A share is missing where fewer
    than `FEWEST` RNAs or no activation tell.
    """
    rng, features = np.random.default_rng(seed), [*zip(named.layer.astype(int), named.feature.astype(int))]
    sequences, mirror, tokens = rnas.sequence.tolist(), _mirrored(rnas), token_table(rnas)
    shuffled = [shuffle_dinucleotides(sequence, rng) for sequence in sequences]
    moved, origin_T, inside_T = _moved(rnas, rng)
    before_TN = fire(sequences, features)
    after = {SHUFFLED: fire(shuffled, features), MIRRORED: fire(mirror.sequence.tolist(), features)}
    after[MOVED] = np.empty_like(before_TN)
    after[MOVED][origin_T] = fire(moved, features)
    record_T, all_T = tokens.record.to_numpy(), np.ones(len(tokens), bool)
    pasted = _pasted(fire, features, before_TN, record_T, sequences, shuffled)
    known, reflected = annotate(tokens, rnas), annotate(token_table(mirror), mirror)
    family_S, rows = pd.factorize(rnas.get("family", rnas.id).fillna(rnas.id))[0], []
    for n, name in enumerate(zip(named.group, named.concept)):
        own_T, other_T = (_has(of, *name) for of in (known, reflected))
        where = {SHUFFLED: (all_T, all_T), MIRRORED: (own_T, other_T), MOVED: (own_T & inside_T,) * 2}
        mine = pasted[pasted.feature == n]
        sums = {KMERS: [_by_rna(mine[when], mine.record, len(rnas)) for when in ("before", "after")]}
        for test, places in where.items():
            both = zip((before_TN, after[test]), places)
            sums[test] = [_by_rna(values[of_T, n], record_T[of_T], len(rnas)) for values, of_T in both]
        for test in TESTS:
            before, then = sums[test] if test in STAYS or name[1] not in OUTSIDE else [np.zeros((2, 1))] * 2
            rows.append([*name, *features[n], test, *_share(before, then, family_S, seed)])
    return pd.DataFrame(rows, columns=SURVIVAL)


def _has(annotations: Annotations, group: str, concept: str) -> np.ndarray:
    """Which rows have a concept, boolean [T]."""
    column = [*zip(annotations.groups, annotations.concepts)].index((group, concept))
    return annotations.members[:, [column]].toarray().ravel()


def _by_rna(values, record, rnas: int) -> np.ndarray:
    """Sum of values and their number in every RNA, [2, S]."""
    return np.stack([np.bincount(record, weights, rnas) for weights in (values, np.ones(len(values)))])


def _share(before_2S, after_2S, family_S, seed: int) -> tuple[float, float, float, int]:
    """Mean after over mean before, its interval over resampled families, and the RNAs that tell."""
    rnas = int(min((before_2S[1] > 0).sum(), (after_2S[1] > 0).sum()))
    if rnas < FEWEST or not before_2S[0].any():
        return np.nan, np.nan, np.nan, rnas
    families = family_S.max() + 1
    sums_4G = np.stack([np.bincount(family_S, of_S) for of_S in (*after_2S, *before_2S)])
    rng, chances = np.random.default_rng(seed), np.full(families, 1 / families)
    weights_BG = np.vstack([np.ones(families), rng.multinomial(families, chances, BOOTSTRAPS)])
    after, tokens, before, others = sums_4G @ weights_BG.T
    with np.errstate(divide="ignore", invalid="ignore"):
        share_B = (after / tokens) / (before / others)
    drawn = share_B[1:][np.isfinite(share_B[1:])]
    low, high = np.percentile(drawn, (2.5, 97.5)) if len(drawn) and families > 1 else (np.nan, np.nan)
    return share_B[0], low, high, rnas


def _pasted(fire: Fire, features, before_TN, record_T, sequences, shuffled) -> pd.DataFrame:
    """Activation `before` and `after` of each feature (its place in `features`) where it is strongest, one
    nucleotide of an RNA (`record`), whose surroundings alone are left as they were."""
    start_S = np.searchsorted(record_T, np.arange(len(sequences)))
    strongest_KN = np.argsort(-np.maximum.reduceat(before_TN, start_S), axis=0, kind="stable")[:STRONGEST]
    rows, texts = [], []
    for feature, record in ((n, record) for n, of in enumerate(strongest_KN.T) for record in of):
        own, start = sequences[record], start_S[record]
        place = int(before_TN[start : start + len(own), feature].argmax())
        first, last = max(place - REACH, 0), place + REACH + 1
        rows.append([feature, record, place, before_TN[start + place, feature]])
        texts.append(shuffled[record][:first] + own[first:last] + shuffled[record][last:])
    table = pd.DataFrame(rows, columns=["feature", "record", "place", "before"])
    places_R = np.cumsum([0, *map(len, texts)])[:-1] + table.place
    return table.assign(after=fire(texts, features)[places_R, table.feature])


def _mirrored(rnas: pd.DataFrame) -> pd.DataFrame:
    """The RNAs read from their 3' end."""
    structures = []
    for structure in rnas.secondary_structure:
        partner = pair_table(structure)
        structures.append(dot_bracket(np.where(partner < 0, -1, len(partner) - 1 - partner)[::-1]))
    back = {column: rnas[column].str[::-1] for column in ("sequence", "element")}
    return rnas.assign(secondary_structure=structures, **back)


def _moved(rnas: pd.DataFrame, rng: np.random.Generator) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The RNAs with a hairpin elsewhere; where each nucleotide of them was among those of all RNAs, [T]; and
    which of these, in their first order, were moved, boolean [T]."""
    texts, origins, moved, start = [], [], [], 0
    for sequence, structure in zip(rnas.sequence, rnas.secondary_structure):
        order, inside = move_hairpin(structure, rng)
        texts.append("".join(np.array(list(sequence))[order]))
        origins.append(start + order)
        moved.append(inside)
        start += len(sequence)
    return texts, np.concatenate(origins), np.concatenate(moved)


def move_hairpin(structure: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A new order of the nucleotides, [L], in which one unbranched hairpin stands elsewhere, and which
    nucleotides it has, boolean [L]; the order that was, and none, if none can be moved `FAR` or more.

    It is cut out as far as it does not branch, and put between two nucleotides that no helix joins.
    """
    nested, crossing = split_pseudoknots(structure)
    places = np.arange(len(nested))
    choices = []
    for first, last in _unbranched(nested):
        inside = (places >= first) & (places <= last)
        rest = places[~inside]
        stacked = (nested[rest[:-1]] == nested[rest[1:]] + 1) & (nested[rest[1:]] >= 0)
        gaps = np.append(np.append(True, ~stacked), True)[: len(rest) + 1]
        gaps &= np.abs(np.arange(len(rest) + 1) - first) >= FAR
        if (crossing[inside] < 0).all():
            choices += [(inside, rest, gap) for gap in np.flatnonzero(gaps)]
    if not choices:
        return places, np.zeros(len(places), bool)
    inside, rest, gap = choices[rng.integers(len(choices))]
    return np.concatenate([rest[:gap], places[inside], rest[gap:]]), inside


def _unbranched(nested: np.ndarray) -> list[tuple[int, int]]:
    """First and last nucleotide of every hairpin, up to where it branches."""
    paired = np.flatnonzero(nested >= 0)
    found = []
    for place in np.flatnonzero(nested[paired[:-1]] == paired[1:]):
        left, right = place, place + 1
        while left > 0 and right + 1 < len(paired) and nested[paired[left - 1]] == paired[right + 1]:
            left, right = left - 1, right + 1
        found.append((int(paired[left]), int(paired[right])))
    return found
