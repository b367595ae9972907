"""Results that several pages ask for, each with what it takes in one place.

The page that comes first computes one, and all others find it in the run folder.
"""

import pandas as pd

from sae_rna.analysis import (
    atlas,
    causes,
    confounds,
    controls,
    ground_truth,
    recurrence,
    structure_features,
    type_features,
    use,
)
from sae_rna.study import Study


def scores(study: Study) -> pd.DataFrame:
    """`structure_features.score_elements`."""
    p, rnas = study.parameters, study.activations("structures")
    return study.kept(structure_features.score_elements, rnas, shuffles=p.shuffles, seed=p.seed)


def explained(study: Study) -> pd.DataFrame:
    """`confounds.explain_elements` of the features of `scores`."""
    rnas, seed = study.activations("structures"), study.parameters.seed
    return study.kept(confounds.explain_elements, rnas, scores(study), seed=seed)


def elements(study: Study) -> pd.DataFrame:
    """`scores`, marked where confounds explain the feature."""
    return confounds.mark(scores(study), explained(study))


def concepts(study: Study) -> pd.DataFrame:
    """`controls.score_concepts`, with all controls."""
    p, own = study.parameters, study.autoencoders()
    rnas, random = study.activations("structures"), study.activations("structures", p.random)
    read = rnas, random, study.model, own, [study.autoencoders(of) for of in p.frozen], study.training
    return study.kept(controls.score_concepts, *read, shuffles=p.shuffles, seed=p.seed)


def chances(study: Study) -> pd.DataFrame:
    """`concepts` without their resamples, which nothing but the leads over controls takes."""
    return concepts(study).drop(columns="base_auroc_resampled")


def falsified(study: Study) -> pd.DataFrame:
    """`ground_truth.falsify` of the best features of `concepts`, and of the random model's."""
    p, best = study.parameters, controls.shown(controls.best_of(concepts(study)))
    rnas, random = study.activations("structures"), study.activations("structures", p.random)
    control = study.random_model, study.autoencoders(p.random)
    readers = {rnas.name: (study.model, study.autoencoders()), random.name: control}
    return study.kept(ground_truth.falsify, readers, best, rnas.records, seed=p.seed)


def names(study: Study) -> pd.DataFrame:
    """`ground_truth.verdicts`: which features keep the name of a concept."""
    return ground_truth.verdicts(falsified(study))


def pairing(study: Study, random: bool = False) -> pd.DataFrame:
    """`causes.pairing_test` of the language model, or of the random one."""
    p, variant = study.parameters, study.parameters.random if random else None
    model = study.random_model if random else study.model
    read = model, study.autoencoders(variant), study.activations("structures", variant)
    return study.kept(causes.pairing_test, *read, count=p.pairs, seed=p.seed)


def effects(study: Study) -> pd.DataFrame:
    """`use.effects` of the features that answer to pairing."""
    read = study.masked_model(), study.autoencoders(), study.activations("structures")
    return study.kept(use.effects, *read, pairing(study), seed=study.parameters.seed)


def preferences(study: Study, random: bool = False) -> pd.DataFrame:
    """`type_features.prefer_types` of the language model, or of the random one."""
    p = study.parameters
    if random:
        rnas = study.activations("types", p.random)
        return study.kept(type_features.prefer_types, rnas, seed=p.seed, filtered=False)
    return study.kept(type_features.prefer_types, study.activations("types"), seed=p.seed)


def compared(study: Study) -> pd.DataFrame:
    """`recurrence.compare_dictionaries` on some RNAs of the selection families."""
    p, own = study.parameters, [study.autoencoders(variant) for variant in study.parameters.repeated]
    rnas = study.structures[study.structures.split == "selection"].sequence
    rnas = rnas.sample(min(len(rnas), recurrence.RNAS), random_state=p.seed).tolist()
    return study.kept(recurrence.compare_dictionaries, study.model, own, rnas, own[0].groups, seed=p.seed)


def agreements(study: Study, random: bool = False) -> pd.DataFrame:
    """`atlas.score_concepts`: every feature with every concept."""
    rnas = study.activations("structures", study.parameters.random if random else None)
    return study.kept(atlas.score_concepts, rnas, chances(study))


def feature_scores(study: Study) -> pd.DataFrame:
    """`recurrence.score_features`: how well every feature tells the concept that it tells best."""
    rnas, chance = study.activations("structures"), chances(study)
    return study.kept(recurrence.score_features, rnas, chance[chance.source == rnas.name])


def found(study: Study) -> atlas.Found:
    """All that other pages say of features."""
    parts = names, explained, pairing, effects, compared, preferences
    return atlas.Found(*(part(study) for part in parts))


def features(study: Study) -> pd.DataFrame:
    """`atlas.features`: a row for every retained feature."""
    rnas = study.activations("structures")
    letters = study.kept(atlas.letters, rnas)
    return atlas.features(rnas, study.autoencoders(), agreements(study), letters, found(study))
