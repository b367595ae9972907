"""The best feature of every concept: chosen on selection families, scored on held-out ones, beside chance.

Feature and threshold are chosen on the selection set alone; the null repeats choice and scoring on shuffled
annotations. Shapes: N rows (tokens or sequences), S sequences, F features, C concepts, J choices, R shuffles.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.analysis.statistics.annotations import Annotations, annotate_elements, annotate_types
from sae_rna.analysis.statistics.intervals import family_intervals
from sae_rna.analysis.statistics.nulls import against_null, family_numbers, shuffled
from sae_rna.analysis.statistics.scoring import THRESHOLDS, Choice, Sample
from sae_rna.sae.features import column_max

CONCEPT_COLUMNS = (
    "concept group feature threshold base_auroc base_auroc_low base_auroc_high f1 f1_low f1_high precision "
    "element_recall token_recall token_f1 enrichment auroc average_precision selection_base_auroc "
    "selection_f1 base_rate base_f1 null_p95 p_value p_pooled tokens elements base_auroc_resampled"
).split()
ELEMENT_COLUMNS = (
    "element feature threshold base_auroc base_auroc_low base_auroc_high f1 precision element_recall "
    "token_recall token_f1 auroc selection_base_auroc selection_f1 base_rate base_f1 null_p95 tokens elements"
).split()
TYPE_SCORE_COLUMNS = "type feature auroc selection_auroc f1 base_rate null_p95 sequences".split()
TOP_COLUMNS = (
    "kind label rank feature threshold selection_base_auroc base_auroc f1 precision enrichment base_rate"
).split()


def score_concepts(
    selection, heldout, retained_F=None, families=None, shuffles=20, seed=0, bootstraps=0, min_instances=10
) -> pd.DataFrame:
    """The best feature of every concept: chosen by base-stratified AUROC on `selection`, scored on `heldout`.

    Both sets are (activations [N, F], annotations with the same concepts), and `families` those of both sets'
    records in order of appearance; None is an unknown one. A concept with fewer than `min_instances`
    instances in either set has no row. Columns: concept, group, feature, and the threshold of the feature's
    best F1 on the selection set;

    base_auroc, f1, precision, element_recall, token_recall, token_f1, enrichment, auroc, average_precision :
        on the held-out set, as in `Sample.base_auroc`, `Scores` and `rank_scores`; the choice was made by
        `selection_base_auroc`
    base_auroc_low, base_auroc_high, f1_low, f1_high, base_auroc_resampled [B] : `intervals.family_intervals`
        over `bootstraps` resamples of the held-out families, the same for all tables of these families and
        this seed
    base_rate, base_f1, tokens, elements : share of held-out rows with the concept, F1 of a feature that
        always fires, rows and instances
    null_p95, p_value, p_pooled : `nulls.against_null` of the held-out base-stratified AUROC that the same
        choice among all features reaches on `shuffles` annotations of both sets that were `nulls.shuffled`

    Raises ValueError where no feature is retained.
    """
    options = shuffles, seed, bootstraps, min_instances
    return _best((selection, heldout), retained_F, families, *options)[CONCEPT_COLUMNS]


def score_elements(
    selection, heldout, retained_F=None, families=None, shuffles=20, seed=0, bootstraps=0
) -> pd.DataFrame:
    """`score_concepts` of the elements that both sets, (activations [N, F], token table), have."""
    table = _best(_with_elements((selection, heldout)), retained_F, families, shuffles, seed, bootstraps)
    return table.rename(columns={"concept": "element"})[ELEMENT_COLUMNS]


def score_types(
    selection: tuple, heldout: tuple, retained_F=None, families=None, shuffles: int = 100, seed: int = 0
) -> pd.DataFrame:
    """The best feature of every RNA type: chosen by AUROC against all others, scored on `heldout`.

    Both sets are (`pool_sequences` [S, F], types [S]). `f1` has the threshold that is best on the selection
    set. `null_p95` is that of the held-out AUROC on `shuffles` permutations of the types in both sets, among
    `families` where they are given: their sequences share more than a type. `sequences` counts the type's
    held-out sequences. A type that one of the sets lacks has no row.
    """
    table = _best(_with_types((selection, heldout)), retained_F, families, shuffles, seed)
    names = {"concept": "type", "tokens": "sequences", "selection_base_auroc": "selection_auroc"}
    return table.rename(columns=names)[TYPE_SCORE_COLUMNS]  # sequences have no base: it is the AUROC


def top_features(elements: Sequence, types: Sequence, count: int = 3, retained_F=None) -> pd.DataFrame:
    """The `count` best features of every element and type by (base-stratified) AUROC on the selection set.

    `elements` and `types` are (selection, heldout) as in `score_elements` and `score_types`. One row per
    label and rank, kind "element" or "type"; scores are the held-out set's where not said otherwise.
    """
    by_element = _best(_with_elements(elements), retained_F, count=count).assign(kind="element")
    by_type = _best(_with_types(types), retained_F, count=count).assign(kind="type")
    table = pd.concat([by_element, by_type], ignore_index=True)
    return table.rename(columns={"concept": "label"})[TOP_COLUMNS]


def _with_elements(sets: Sequence) -> list[tuple[sparse.spmatrix, Annotations]]:
    """Both sets with annotations in the place of the token tables."""
    return [(values_TF, annotate_elements(tokens)) for values_TF, tokens in sets]


def _with_types(sets: Sequence) -> list[tuple[sparse.spmatrix, Annotations]]:
    """Both sets with annotations in the place of the types."""
    types = sorted(set().union(*(type_S for _, type_S in sets)))
    if len(types) < 2:
        raise ValueError(f"scores of types need 2 RNA types or more, there is {len(types)}")
    return [(pooled_SF, annotate_types(type_S, types)) for pooled_SF, type_S in sets]


def _best(sets, retained_F, families=None, shuffles=0, seed=0, bootstraps=0, fewest=1, count=1):
    """The `count` best features of every concept by base-stratified AUROC; the columns of all tables."""
    (known_NF, labels), (unseen_NF, other) = sets
    scale_F = column_max(known_NF)
    selected, unseen = Sample(known_NF, labels, scale_F), Sample(unseen_NF, other, scale_F)
    numbers = [family_numbers(of, names) for of, names in zip((labels, other), families or (None, None))]
    choice = _choose(selected, labels, retained_F, count)
    null_RC = _null(selected, unseen, retained_F, numbers, shuffles, np.random.default_rng(seed))
    enough_C = np.minimum(labels.elements_C, other.elements_C) >= max(fewest, 1)
    choice = Choice(*(values_J[enough_C[choice.concept_J]] for values_J in choice))
    concept_J, on_selection, table = choice.concept_J, selected.evaluate(choice), unseen.evaluate(choice)
    for column, names_C in (("concept", labels.concepts), ("group", labels.groups)):
        table[column] = np.take(np.array(names_C, object), concept_J)
    return table.assign(
        feature=choice.feature_J,
        rank=pd.Series(concept_J).groupby(concept_J).cumcount() + 1,
        threshold=np.take(THRESHOLDS, choice.level_J),
        **on_selection[["f1", "base_auroc"]].add_prefix("selection_"),
        **against_null(table.base_auroc.to_numpy(), null_RC[:, concept_J]),
        **family_intervals(unseen, choice, numbers[1], bootstraps, np.random.default_rng((seed, 1))),
    )


def _choose(sample: Sample, labels: Annotations, retained_F, count: int = 1) -> Choice:
    """The `count` best features of every concept, each at the threshold of its best F1."""
    best_CN = _best_features(sample, labels, retained_F, count)
    feature_J, concept_J = best_CN.ravel(), np.repeat(np.arange(len(best_CN)), best_CN.shape[1])
    f1_JH = sample.scores(feature_J, labels).f1[np.arange(len(feature_J)), concept_J]
    return Choice(concept_J, feature_J, f1_JH.argmax(axis=-1))


def _best_features(sample: Sample, labels: Annotations, retained_F, count: int = 1) -> np.ndarray:
    """The `count` retained features of highest base-stratified AUROC for every concept, [C, count]. Among
    equals the lower number is first."""
    auroc_FC = sample.base_auroc(annotations=labels)
    candidates = np.arange(len(auroc_FC)) if retained_F is None else np.flatnonzero(retained_F)
    if not len(candidates):
        raise ValueError("no feature is retained: lower min_sequences, or train the autoencoder longer")
    return candidates[np.argsort(-auroc_FC[candidates], axis=0, kind="stable")[:count].T]


def _null(selected: Sample, unseen: Sample, retained_F, families, shuffles: int, rng) -> np.ndarray:
    """Base-stratified AUROC where choice and scoring meet shuffled annotations of both sets, [R, C]."""
    null_RC = np.empty((shuffles, len(selected.annotations.concepts)))
    for row_C in null_RC:
        pairs = zip((selected, unseen), families)
        known, other = (shuffled(sample.annotations, rng, family_S) for sample, family_S in pairs)
        row_C[:] = unseen.base_auroc(_best_features(selected, known, retained_F)[:, 0], other).diagonal()
    return null_RC
