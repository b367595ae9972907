"""What features answer to, and what they do: mutated pairs, and states that are changed.

A feature that is strong in stems may follow their composition. Whether it follows the *pairing* shows when
both bases of a pair are replaced by all 16 combinations and the feature is read elsewhere in the helix, at
bases that are never touched (`pairing_test`). Shapes: P pairs, C = 16 cells, K contrasts, G families, F
features, T tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from sae_rna.analysis.controls import latents
from sae_rna.analysis.statistics import pairing, scoring
from sae_rna.analysis.statistics.annotations import annotate_elements
from sae_rna.analysis.statistics.nulls import q_values
from sae_rna.analysis.statistics.permutation import FALSE_DISCOVERIES, family_names
from sae_rna.analysis.structure_features import rna_name
from sae_rna.analysis.type_features import first_middle_last
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.composition import NUCLEOTIDES
from sae_rna.records.structure import CANONICAL_PAIRS, split_pseudoknots
from sae_rna.sae.activations import Activations
from sae_rna.sae.features import dense

SHIFTS = (-2, -1, 1, 2)  # nucleotides by which wrong partners lie beside the true ones
FEWEST_PAIRS = 4  # of a helix, so that some are left to read
MOST_LAYERS = 8  # that are all tested; of more the first, middle and last
PAIRS_AT_ONCE = 32  # mutants of so many are read together
LONGEST_SHOWN, MOST_SHOWN = 80, 400  # nucleotides of the RNA in the matrix; features in the figure


class Pair(NamedTuple):
    """A canonical pair within a helix, with what is mutated and what is read."""

    sequence: str
    record: str  # id of its RNA
    family: str
    five: int  # positions from 0 of its 5' nucleotide,
    three: tuple[int, int]  # and of its partner and a wrong one beside it
    read_R: np.ndarray  # positions in the same helix, of pairs of which nothing is mutated

    @property
    def bases(self) -> str:
        """Such as "GC"."""
        return self.sequence[self.five] + self.sequence[self.three[0]]

    def mutants(self, wrong: bool) -> list[str]:
        """The RNA with all 16 `pairing.PAIRS` at the 5' nucleotide and its partner, or the wrong one."""
        letters, mutants = list(self.sequence), []
        for first, second in pairing.PAIRS:
            letters[self.five], letters[self.three[wrong]] = first, second
            mutants.append("".join(letters))
        return mutants


def helices(structure: str) -> list[np.ndarray]:
    """Runs of stacked nested pairs, each [pairs, 2] from the outermost inwards."""
    partner = split_pseudoknots(structure)[0]
    five = np.flatnonzero(partner > np.arange(len(partner)))
    ends = np.flatnonzero((np.diff(five) != 1) | (np.diff(partner[five]) != -1)) + 1
    return [np.column_stack([run, partner[run]]) for run in np.split(five, ends) if len(run)]


def draw_pairs(records: pd.DataFrame, count: int, seed: int) -> list[Pair]:
    """At most `count` canonical pairs of helices of `FEWEST_PAIRS` or more, families taking turns.

    Of a family the RNAs, their helices and the pairs come in random order, one pair of an RNA at most. RNAs
    with other letters than ACGU are left out. Raises ValueError if there is no pair.
    """
    families = family_names(records.get("family", pd.Series(index=records.index)))
    order, pairs = np.random.default_rng(seed).permutation(np.unique(families)), list[Pair]()
    waiting = [_drawn(records[families == name], name, seed + turn) for turn, name in enumerate(order)]
    while waiting and len(pairs) < count:
        drawn = [next(of, None) for of in waiting]
        waiting = [of for of, pair in zip(waiting, drawn) if pair]
        pairs += [pair for pair in drawn if pair]
    if not pairs:
        raise ValueError(f"no helix has {FEWEST_PAIRS} pairs or more: there is nothing to mutate")
    return pairs[:count]


def _drawn(records: pd.DataFrame, family: str, seed: int) -> Iterator[Pair]:
    """A pair of each RNA of a family that has one which will do."""
    rng = np.random.default_rng(seed)
    for row in rng.permutation(len(records)):
        record = records.iloc[row]
        sequence, structure = record.sequence, record.secondary_structure
        if set(sequence) - set(NUCLEOTIDES):
            continue
        long = [helix_N2 for helix_N2 in helices(structure) if len(helix_N2) >= FEWEST_PAIRS]
        places = [(helix_N2, *map(int, pair)) for helix_N2 in long for pair in helix_N2]
        for place in rng.permutation(len(places)):
            helix_N2, five, three = places[place]
            wrong = three + int(rng.choice(SHIFTS))
            if five < wrong < len(sequence) and sequence[five] + sequence[three] in CANONICAL_PAIRS:
                touched = np.isin(helix_N2, [five, three, wrong]).any(1)
                partners, read_R = (three, wrong), helix_N2[~touched].ravel()
                yield Pair(sequence, str(record.id), family, five, partners, read_R)
                break


def read_mutants(
    model: LanguageModel, encoders: Mapping, pairs: Sequence[Pair], wrong: bool
) -> Iterator[tuple[slice, int, np.ndarray]]:
    """Every feature at the positions that are read, a mean over them, while a pair takes its 16 combinations.

    encoders : `controls.latents` by layer
    wrong : whether the wrong partner is mutated in the place of the true one

    Yields, for `PAIRS_AT_ONCE` pairs at a time, which these are, the layer and values [P, C, F].
    """
    layers, cells = list(encoders), len(pairing.PAIRS)
    for start in tqdm(range(0, len(pairs), PAIRS_AT_ONCE), "mutants", mininterval=1):
        part = pairs[start : start + PAIRS_AT_ONCE]
        sequences = [mutant for pair in part for mutant in pair.mutants(wrong)]
        longest = max(map(len, sequences))
        wanted = np.concatenate(
            [
                (row * cells + np.arange(cells))[:, None] * longest + pair.read_R
                for row, pair in enumerate(part)
            ],
            axis=None,
        )
        states, rows = [], []
        for batch in model.hidden_states(sequences, layers):
            read_T = np.isin(batch.sequence_T * longest + batch.position_T, wanted)
            states.append(batch.values_TLD[read_T].cpu().numpy())
            rows.append(batch.sequence_T[read_T])
        states_TLD, row_T = np.concatenate(states), np.concatenate(rows)
        share_T = 1 / np.bincount(row_T)[row_T]
        mean = sparse.csr_matrix((share_T, (row_T, np.arange(len(row_T)))), (len(sequences), len(row_T)))
        for place, layer in enumerate(layers):
            values = mean @ sparse.csr_matrix(encoders[layer](states_TLD[:, place]))
            yield slice(start, start + len(part)), layer, values.toarray().reshape(len(part), cells, -1)


def tested_layers(layers: list[int]) -> list[int]:
    """All studied layers, or of many the first, the middle and the last."""
    return layers if len(layers) <= MOST_LAYERS else first_middle_last(layers)


def pairing_test(
    model: LanguageModel, autoencoders: Mapping, rnas: Activations, count: int, seed: int = 0
) -> pd.DataFrame:
    """What pairing does to every retained feature of the `tested_layers`, on held-out families.

    autoencoders : by layer; rnas : the RNAs of known structure as they encode them
    count : of pairs, each run in all 16 combinations with its partner, and again with a wrong one, 1 or 2
        nucleotides beside it

    A row per layer and feature: gamma (see `statistics.pairing`), low, high (95 %, families resampled);
    bijections (gamma under the best of the 23 other bijections), shifted (with wrong partners); broken,
    rescued (what breaking the pair costs, and what the second mutation brings back); p (that gamma exceeds 0
    and each of these controls, `pairing.p_values`), q (Benjamini & Hochberg over the features of a layer),
    pairing (q of at most 5 %); auroc (base-stratified, for stems, of all held-out RNAs); pairs, families. All
    in front of p are shares of the feature's maximum. Raises ValueError where no helix has enough pairs.
    """
    heldout = rnas.records[rnas.records.split == "heldout"]
    pairs, layers = draw_pairs(heldout, count, seed), tested_layers(rnas.layers)
    family_P = np.unique([pair.family for pair in pairs], return_inverse=True)[1]
    encoders = {layer: latents(autoencoders[layer]) for layer in layers}
    own, wrong = (_contrasts(model, encoders, pairs, family_P, of) for of in (False, True))
    tables = [_tested(own[layer], wrong[layer], rnas, layer, seed) for layer in layers]
    return pd.concat(tables, ignore_index=True).assign(pairs=len(pairs), families=family_P.max() + 1)


def _contrasts(model, encoders: Mapping, pairs: list[Pair], family_P: np.ndarray, wrong: bool) -> dict:
    """Means over the pairs of each family, [G, K, F] by layer: of gamma under all bijections, of break and
    rescue; with wrong partners of gamma alone."""
    shared_KC, parts = pairing.contrasts(), {layer: list[np.ndarray]() for layer in encoders}
    for rows, layer, value_PCF in read_mutants(model, encoders, pairs, wrong):
        own = [pairing.break_and_rescue(pair.bases) for pair in pairs[rows]]
        weights = [shared_KC[:1] if wrong else np.concatenate([shared_KC, weights_2C]) for weights_2C in own]
        parts[layer].append(np.matmul(weights, value_PCF))
    mean_GP = (np.arange(family_P.max() + 1)[:, None] == family_P) / np.bincount(family_P)[:, None]
    return {layer: np.einsum("gp,pkf->gkf", mean_GP, np.concatenate(of)) for layer, of in parts.items()}


def _tested(own_GKF, wrong_G1F, rnas: Activations, layer: int, seed: int) -> pd.DataFrame:
    """The rows of one layer, from the contrasts of true partners and from gamma of wrong ones."""
    maximum_F = rnas.summary[rnas.summary.layer == layer].maximum.to_numpy()
    kept_F = np.flatnonzero(rnas.retained(layer))
    own_GKF, wrong_G1F = (values[..., kept_F] / maximum_F[kept_F] for values in (own_GKF, wrong_G1F))
    gamma_GKF = np.concatenate([own_GKF[:, :-2], wrong_G1F], 1)
    mean_KF, p_F = gamma_GKF.mean(0), pairing.p_values(gamma_GKF)
    low, high = pairing.intervals(gamma_GKF[:, 0], np.random.default_rng(seed))
    columns = {"layer": layer, "feature": kept_F, "gamma": mean_KF[0], "low": low, "high": high}
    columns |= {"bijections": mean_KF[1:-1].max(0), "shifted": mean_KF[-1]}
    columns |= dict(zip(("broken", "rescued"), own_GKF[:, -2:].mean(0)))
    columns |= {"p": p_F, "q": q_values(p_F), "auroc": _stem_auroc(rnas, layer)[kept_F]}
    table = pd.DataFrame(columns)
    return table.assign(pairing=table.q <= FALSE_DISCOVERIES)


def _stem_auroc(rnas: Activations, layer: int) -> np.ndarray:
    """Base-stratified AUROC of every feature for stems on held-out RNAs, [F]."""
    features_TF, tokens = rnas.of_split(layer, "heldout")
    labels = annotate_elements(tokens)
    sample = scoring.Sample(features_TF, labels, np.ones(features_TF.shape[1]))
    return sample.base_auroc()[:, labels.concepts.index("S")]


def strongest(table: pd.DataFrame) -> pd.Series:
    """The row of `pairing_test` that answers to pairing most surely, be it a pairing feature or not."""
    return table.sort_values(["pairing", "p", "gamma"], ascending=[False, True, False]).iloc[0]


def mutation_map(model: LanguageModel, autoencoders: Mapping, rnas: Activations, best: pd.Series):
    """Every substitution in one RNA, and what it does to a feature elsewhere in it: the table of its figure.

    best : layer and feature. The RNA is the held-out one, of at most `LONGEST_SHOWN` nt (or the shortest) and
        with a long helix, in which the feature is active most.

    Columns rna, position (from 1), base, bracket, substitute, change: of the feature's activations at all
    other nucleotides, summed, in shares of its maximum.
    """
    layer, feature = int(best.layer), int(best.feature)
    column_T = rnas.features(layer)[:, [feature]].toarray().ravel()
    total_S = pd.Series(column_T).groupby(rnas.tokens.record.to_numpy()).sum()
    lengths = rnas.records.sequence.str.len()
    fit = (rnas.records.split == "heldout") & rnas.records.sequence.map(lambda s: set(s) <= set(NUCLEOTIDES))
    fit &= rnas.records.secondary_structure.map(
        lambda s: max(map(len, helices(s)), default=0) >= FEWEST_PAIRS
    )
    fit &= lengths <= max(LONGEST_SHOWN, lengths[fit].min())
    record = rnas.records.loc[total_S[fit[fit].index].idxmax()]
    sequence, size = record.sequence, len(record.sequence)
    mutants = [sequence[:at] + base + sequence[at + 1 :] for at in range(size) for base in NUCLEOTIDES]
    states_TLD = hidden_states(model, mutants, [layer])
    value_T = dense(latents(autoencoders[layer])(states_TLD[:, 0]))[:, feature]
    value_MT = value_T.reshape(len(mutants), size)
    place_M = np.repeat(np.arange(size), len(NUCLEOTIDES))
    elsewhere_M = value_MT.sum(1) - value_MT[np.arange(len(mutants)), place_M]
    own = [place * len(NUCLEOTIDES) + NUCLEOTIDES.index(base) for place, base in enumerate(sequence)]
    change_M = elsewhere_M - elsewhere_M[own][place_M]
    maximum = rnas.summary.set_index(["layer", "feature"]).maximum[layer, feature]
    columns = {"rna": rna_name(record), "position": place_M + 1, "base": [sequence[at] for at in place_M]}
    columns |= {"bracket": [record.secondary_structure[at] for at in place_M]}
    columns |= {"substitute": list(NUCLEOTIDES) * size, "change": change_M / maximum}
    return pd.DataFrame(columns).drop(index=own).reset_index(drop=True)


def shown(own: pd.DataFrame, random: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """fig-pairing's table: `pairing_test` of the language model and of random weights, with `kind`.

    All pairing features, and of the others of either model at most `MOST_SHOWN` at random.
    """
    kinds = [own[~own.pairing].assign(kind="other features"), random.assign(kind="random weights")]
    some = [rows.sample(min(len(rows), MOST_SHOWN), random_state=seed) for rows in kinds]
    return pd.concat([*some, own[own.pairing].assign(kind="pairing features")], ignore_index=True)


def by_layer(own: pd.DataFrame, random: pd.DataFrame) -> pd.DataFrame:
    """tab-pairing: how many features answer to pairing in each layer, and the median AUROC of these."""
    groups, controls = own.groupby("layer"), random.groupby("layer")
    agreement = {layer: _agreement(rows) for layer, rows in groups}
    columns = {"features": groups.size(), "gamma above 0": own.low.gt(0).groupby(own.layer).sum()}
    columns |= {"pairing features": groups.pairing.sum(), "AUROC": groups.auroc.median()}
    columns["AUROC of pairing features"] = own[own.pairing].groupby("layer").auroc.median()
    columns |= {"rank correlation": pd.Series(agreement), "random: features": controls.size()}
    columns["random: gamma above 0"] = random.low.gt(0).groupby(random.layer).sum()
    return pd.DataFrame(columns | {"random: pairing features": controls.pairing.sum()}).reset_index(
        names="layer"
    )


def _agreement(rows: pd.DataFrame) -> float:
    """Rank correlation of gamma and the AUROC for stems."""
    return rows.gamma.corr(rows.auroc, method="spearman")


def pairing_numbers(own: pd.DataFrame, random: pd.DataFrame) -> dict:
    """Numbers of captions: how many features were tested and found, and how gamma and AUROC agree."""
    found, counts = own[own.pairing], own.groupby("layer").pairing.sum()
    layers = ", ".join(f"{count} in L{layer}" for layer, count in counts.items() if count)
    facts = {"tested": len(own), "found": len(found), "layers": layers or "none in any layer"}
    facts |= {"random_found": int(random.pairing.sum()), "random_tested": len(random)}
    facts |= {"pairs": int(own.pairs[0]), "families": int(own.families[0])}
    readers = own.groupby("layer").auroc.rank(ascending=False) <= counts[own.layer].to_numpy()
    facts |= {"both": int((readers & own.pairing).sum())}
    facts |= {"above": int((own.low > 0).sum()), "random_above": int((random.low > 0).sum())}
    agreement = [_agreement(rows) for _, rows in own.groupby("layer")]
    facts["agreement"] = f"{np.nanmin(agreement):.2f} to {np.nanmax(agreement):.2f}".replace("-", "−")
    return facts | {"median_auroc": f"{found.auroc.median():.2f}" if len(found) else "unknown"}
