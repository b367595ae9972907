"""Made-up annotated activations that the tests of statistics share."""

from itertools import groupby

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.stats import rankdata

from sae_rna.analysis.statistics.annotations import Annotations
from sae_rna.analysis.statistics.scoring import THRESHOLDS, Sample, Scores
from sae_rna.records.structure import ELEMENTS, element_string

LETTERS = list(ELEMENTS)
quick = settings(max_examples=50)


def score(activations_NF, scale_F, annotations, thresholds=THRESHOLDS) -> Scores:
    return Sample(activations_NF, annotations, scale_F, thresholds).scores()


def token_table(element_strings, sequences=None):
    """Token table of records given by their element letters, and by their bases if these play a part."""
    lengths = [len(letters) for letters in element_strings]
    bases = {} if sequences is None else {"base": list("".join(sequences))}
    return pd.DataFrame(
        {
            "record": np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            "position": np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
            "element": pd.Categorical(list("".join(element_strings)), categories=LETTERS),
        }
        | bases
    )


def harmonic(a, b):
    return 2 * a * b / (a + b) if a + b else 0.0


def letters_of(labels):
    """Letters of annotations that give every row one element."""
    assert np.diff(labels.instance_NC.indptr).tolist() == [1] * len(labels.record_N)
    return "".join(LETTERS[c] for c in labels.instance_NC.indices)


def instances_of(tokens):
    """Element instances as lists of row numbers with their letter, by a plain loop."""
    rows = list(enumerate(zip(tokens["record"], tokens["element"])))
    return [(key[1], [row for row, _ in run]) for key, run in groupby(rows, key=lambda item: item[1])]


def reference_score(values, scale, tokens, feature, letter, threshold):
    """precision, token recall, element recall by plain loops."""
    fires = [scale[feature] > 0 and value / scale[feature] > threshold for value in values[:, feature]]
    is_letter = [element == letter for element in tokens["element"]]
    hits = sum(a and b for a, b in zip(fires, is_letter))
    instances = [rows for name, rows in instances_of(tokens) if name == letter]
    found = sum(any(fires[row] for row in rows) for rows in instances)
    share = lambda part, whole: part / whole if whole else 0.0  # noqa: E731
    return share(hits, sum(fires)), share(hits, sum(is_letter)), share(found, len(instances))


def reference_base_auroc(values_NF, members_NC, base_N=None):
    """Base-stratified AUROC [F, C] from dense ranks; 0.5 where there are no pairs."""
    values_NF, members_NC = np.asarray(values_NF), np.asarray(members_NC, bool)
    base_N = np.zeros(len(values_NF)) if base_N is None else np.asarray(base_N)
    wins_FC, pairs_C = np.zeros((values_NF.shape[1], members_NC.shape[1])), np.zeros(members_NC.shape[1])
    for base in np.unique(base_N):
        ranks_NF, members = rankdata(values_NF[base_N == base], axis=0), members_NC[base_N == base]
        count_C = members.sum(axis=0)
        wins_FC += ranks_NF.T @ members - count_C * (count_C + 1) / 2
        pairs_C += count_C * (len(members) - count_C)
    return np.divide(wins_FC, pairs_C, out=np.full(wins_FC.shape, 0.5), where=pairs_C > 0)


def reference_choice(values_NF, scale_F, labels, allowed_F=None):
    """Feature of the highest base-stratified AUROC of every concept, and the place of its best threshold."""
    values_NF, features, levels = np.asarray(values_NF), [], []
    auroc_FC = reference_base_auroc(values_NF, labels.members.toarray(), labels.base_N)
    f1_FCH = score(sparse.csr_matrix(values_NF), scale_F, labels).f1
    for c, auroc_F in enumerate(auroc_FC.T):
        best = max(
            range(len(auroc_F)),
            key=lambda f: -1 if allowed_F is not None and not allowed_F[f] else auroc_F[f],
        )
        features.append(best)
        levels.append(max(range(f1_FCH.shape[2]), key=lambda h: f1_FCH[best, c, h]))
    return np.array(features), np.array(levels)


@st.composite
def overlapping(draw):
    """Activations with ties and zeros, and overlapping concepts of records that may be a single row."""
    rows, latents, count = draw(st.integers(1, 25)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    values = draw(arrays(np.float32, (rows, latents), elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 4.0])))
    masks = draw(arrays(bool, (rows, count)))
    borders = draw(arrays(bool, rows))
    borders[0] = False
    return values, masks, np.cumsum(borders)


@st.composite
def overlapping_bases(draw):
    """`overlapping`, and the base of every row."""
    case = draw(overlapping())
    return *case, draw(arrays("S1", len(case[0]), elements=st.sampled_from([b"A", b"C", b"G", b"U"])))


def rows_of(labels, concept):
    """Numbers of the rows that have a concept."""
    return np.flatnonzero(labels.members.toarray()[:, labels.concepts.index(concept)]).tolist()


def planted(rng, sequences, latents=24, noise=0.02):
    """Hairpins with a feature (3) that marks stems, one (7) that marks hairpin loops, and random others."""
    structures = []
    for _ in range(sequences):
        stem, loop, left, right = rng.integers([4, 4, 3, 3], [9, 8, 10, 10])
        structures.append("." * left + "(" * stem + "." * loop + ")" * stem + "." * right)
    tokens = token_table([element_string(structure) for structure in structures])
    activations = rng.exponential(size=(len(tokens), latents)) * (rng.random((len(tokens), latents)) < 0.1)
    for feature, letter in ((3, "S"), (7, "H")):
        fires = (tokens["element"] == letter).to_numpy() ^ (rng.random(len(tokens)) < noise)
        activations[:, feature] = fires * rng.uniform(0.6, 1.0, len(tokens))
    return sparse.csr_matrix(activations.astype(np.float32)), tokens


def noise(rng, sequences, latents=30):
    """Element runs and features of assorted densities that know nothing of each other."""
    strings = [
        "".join(np.repeat(rng.choice(list("SHE"), 16), rng.integers(2, 7, 16))) for _ in range(sequences)
    ]
    tokens = token_table(strings)
    density = rng.uniform(0.01, 0.4, latents)
    activations = rng.exponential(size=(len(tokens), latents)) * (
        rng.random((len(tokens), latents)) < density
    )
    return sparse.csr_matrix(activations), tokens


def runs(masks_NC, record_N, base_N=None):
    """Annotations of concepts given as columns."""
    names = [f"concept {number}" for number in range(masks_NC.shape[1])]
    return Annotations.of(names, ["made up"] * len(names), masks_NC, record_N, base_N)


def random_concepts(rng, records, length=50, count=20, share=(0.02, 0.4)):
    """Overlapping concepts of assorted shares, in runs of assorted lengths."""
    record_N = np.repeat(np.arange(records), length)
    masks = []
    for _ in range(count):
        run = int(rng.integers(1, 9))
        rate = rng.uniform(*share) / run
        masks.append(np.convolve(rng.random(len(record_N)) < rate, np.ones(run), "same") > 0)
    return runs(np.column_stack(masks), record_N, rng.choice(list("ACGU"), len(record_N)))


def random_features(rng, rows, latents=30, density=(0.01, 0.3)):
    values = rng.exponential(size=(rows, latents)) * (
        rng.random((rows, latents)) < rng.uniform(*density, latents)
    )
    return values.astype(np.float32)


def planted_concepts(rng, records):
    """Noise, but feature 4 marks 95 % of concept 2 and few other rows, feature 9 half of concept 6."""
    labels = random_concepts(rng, records)
    values = random_features(rng, len(labels.record_N))
    members = labels.members.toarray()
    values[:, 4] = np.where(members[:, 2], rng.random(len(values)) < 0.95, rng.random(len(values)) < 0.003)
    values[:, 9] = np.where(members[:, 6], rng.random(len(values)) < 0.5, rng.random(len(values)) < 0.02)
    return sparse.csr_matrix(values), labels


def family_noise(rng, families, per_family=8, length=40, latents=30):
    """Features and concepts that a family's copies of one RNA share, and that know nothing of each other."""
    label = random_concepts(rng, families, length, 12).members.toarray().reshape(families, length, -1)
    values = random_features(rng, families * length, latents).reshape(families, length, -1)
    copies = [
        np.repeat(x, per_family, axis=0).reshape(families * per_family * length, -1) for x in (values, label)
    ]
    record_N = np.repeat(np.arange(families * per_family), length)
    return (sparse.csr_matrix(copies[0]), runs(copies[1], record_N)), np.repeat(
        np.arange(families), per_family
    )


def typed(rng, sequences, marked, latents=20):
    """Pooled activations of sequences of three types; feature `marked[type]` fires in that type only."""
    types = rng.permutation(np.resize(["tRNA", "rRNA", "snoRNA"], sequences))
    pooled = rng.exponential(size=(sequences, latents)) * (rng.random((sequences, latents)) < 0.4)
    for name, feature in marked.items():
        pooled[:, feature] = (types == name) * rng.uniform(0.2, 1.0, sequences)
    return sparse.csr_matrix(pooled), types


TYPES = ("miRNA", "sRNA", "tRNA")


def rnas(rng, families=60, per_family=3, longer=0.0, richer=0.0):
    """Families of three types; log length and GC follow the type by `longer` and `richer` deviations."""
    kind = np.arange(families) % 3
    length = np.exp(4 + 0.3 * (rng.normal(size=families) + longer * (kind - 1)))
    gc = np.clip(0.5 + 0.08 * (rng.normal(size=families) + richer * (kind - 1)), 0.05, 0.95)
    rows = []
    for family in range(families):
        for _ in range(per_family):
            bases = rng.choice(
                list("ACGU"),
                int(length[family]),
                p=np.array([1 - gc[family], gc[family], gc[family], 1 - gc[family]]) / 2,
            )
            rows.append((TYPES[kind[family]], f"family {family}", "".join(bases)))
    return pd.DataFrame(rows, columns=["type", "family", "sequence"])


def noise_of_families(rng, records, latents=40):
    """Activations alike within a family, without regard to anything else."""
    number, names = pd.factorize(records.family)
    return rng.exponential(size=(len(names), latents))[number] * rng.uniform(
        0.8, 1.2, (len(records), latents)
    )
