"""The evidence of a study: features beside their controls, and the verdicts on the paper's claims.

Each function computes one table of a study and keeps it in the run folder. What is compared, and how, stands in the rooms that are
called (`controls`, `confounds`, `selectivity`, `stability`, `fidelity`, `claims`).
"""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from tqdm import tqdm

from sae_rna.analysis import claims, confounds, controls, fidelity
from sae_rna.analysis import recurrence as stability
from sae_rna.analysis.language_model import hidden_states
from sae_rna.analysis.statistics import choosing, intervals, nulls, permutation, scoring, selectivity
from sae_rna.analysis.statistics.annotations import Annotations, annotate
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import resolve
from sae_rna.records import composition
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae import features
from sae_rna.study import Encoded, Study

MOST_RNAS = 2000
"""Of each split in what needs hidden states as they are, which take 4 bytes x nucleotides x width for each layer of a group."""
TRAINING_RNAS = 300
"""On which components are fitted."""
FIDELITY_RNAS = 60
RECURRENCE_RNAS = 400
"""On which activations are correlated."""
BOOTSTRAPS = 500
WINDOW, KMER = 5, 5
"""Nucleotides on each side of a window, and in a k-mer: 4 ** 5 are as many as the default dictionary has latents."""
RANDOM_MODEL = "SAE, random model"
UNTRAINED = "untrained SAE"


def _keep(study: Study, name: str, key: dict, make) -> pd.DataFrame:
    """The table of a step, made by ``make()`` if it is not there."""

    def write(folder: Path):
        make().to_parquet(folder / "table.parquet", index=False)

    return pd.read_parquet(study.run.step(name, "analysis.evidence", key, write) / "table.parquet")


def _key(study: Study, data: str, random: bool = False) -> dict:
    """The shown features, with `random` those of the random model as well, and what else decides scores."""
    p = study.parameters
    variants = (p.main[0], p.random) if random else (p.main[0],)
    used = [
        folder.name
        for name in {data, "types"}
        for variant in variants
        for group in study.groups
        for folder in study.encode(name, [variant], group)
    ]
    return {
        "features": sorted(used),
        "seed": p.seed,
        "shuffles": p.shuffles,
        "min_sequences": p.min_sequences,
        "most": MOST_RNAS,
    }


def _families(records: pd.DataFrame) -> list | None:
    return records.family.tolist() if "family" in records else None


# -- concepts and controls -----------------------------------------------------------------------------------------------


class _Sets:
    """The selection and the held-out RNAs, their nucleotides and annotations, with at most `MOST_RNAS` of each split."""

    def __init__(self, study: Study):
        encoded, self.seed = study.structures(), study.parameters.seed
        records = encoded.records
        chosen = {
            split: np.flatnonzero(records.split == split)[:MOST_RNAS] for split in ("selection", "heldout")
        }
        self.records = {split: records.iloc[rows].reset_index(drop=True) for split, rows in chosen.items()}
        self.rows = {split: np.isin(encoded.tokens.record, rows) for split, rows in chosen.items()}
        self.annotations: dict[str, Annotations] = {}
        for split, rows in self.rows.items():
            if not rows.any():
                raise ValueError(f"{study.parameters.structures} has no records in the split '{split}'")
            self.annotations[split] = annotate(encoded.tokens[rows], records)

    def score(
        self, activations: dict[str, sparse.spmatrix], retained_F=None, shuffles: int = 0
    ) -> pd.DataFrame:
        selection, heldout = ((activations[split], self.annotations[split]) for split in self.annotations)
        families = tuple(_families(records) for records in self.records.values())
        return choosing.score_concepts(
            selection,
            heldout,
            retained_F,
            shuffles=shuffles,
            seed=self.seed,
            families=families,
            bootstraps=BOOTSTRAPS,
        )

    def score_encoded(self, encoded: Encoded, layer: int, **options) -> pd.DataFrame:
        matrix = encoded.features(layer)
        return self.score({split: matrix[rows] for split, rows in self.rows.items()}, **options)


def concept_table(study: Study) -> pd.DataFrame:
    """Best feature of every concept, in every layer and for every source: the SAE, the controls; see `choosing.score_concepts`.

    Columns source, layer (missing where there is none) and discovery are added. Controls: the SAE trained on a model of random weights, an
    untrained SAE on the model's own states, its neurons, principal and independent components, the embedding layer's neurons, one-hot
    windows and k-mers. Both trained SAEs are scored on shuffled annotations, too (`null_p95`): a concept is a discovery at a false
    discovery rate of 5 % over the concepts of its layer.
    """
    p = study.parameters

    def make():
        sets, tables = _Sets(study), []
        sequences = {split: records.sequence.tolist() for split, records in sets.records.items()}

        def add(source: str, layer: int | None, table: pd.DataFrame):
            tables.append(table.assign(source=source, layer=layer))

        shown, random = study.structures(), study.structures(p.random)
        for layer in tqdm(study.layers, "concepts", mininterval=1):
            for source, encoded, retained_F in (
                (f"SAE ({p.architecture})", shown, study.retained(layer)),
                (RANDOM_MODEL, random, None),
            ):
                add(
                    source,
                    layer,
                    sets.score_encoded(encoded, layer, retained_F=retained_F, shuffles=p.shuffles),
                )
        fitted = _training_sample(study, TRAINING_RNAS)
        for layers in [[0, *study.groups[0]], *study.groups[1:]]:
            states = {split: hidden_states(study.model, texts, layers) for split, texts in sequences.items()}
            training_TLD = hidden_states(study.model, fitted, layers)
            for place, layer in enumerate(layers):
                dictionaries = _dictionaries(study, layer, training_TLD[:, place])
                for source, dictionary in tqdm(
                    dictionaries.items(), f"controls, layer {layer}", mininterval=1, leave=False
                ):
                    encode = lambda split: features.to_csr(dictionary.encode(states[split][:, place]))  # noqa: B023, E731
                    add(source, layer, sets.score({split: encode(split) for split in states}))
        windows = {split: composition.windows(texts, WINDOW) for split, texts in sequences.items()}
        add(f"one-hot window of {2 * WINDOW + 1}", None, sets.score(windows))
        add(
            f"{KMER}-mers",
            None,
            sets.score({split: composition.kmers(texts, KMER) for split, texts in sequences.items()}),
        )
        return _with_discoveries(pd.concat(tables, ignore_index=True)).astype({"layer": "Int64"})

    return _keep(study, "concepts", _key(study, "structures", random=True), make)


def _training_sample(study: Study, count: int) -> list[str]:
    training = study.type_records[study.type_records.split == "train"]
    return training.sample(min(len(training), count), random_state=study.parameters.seed).sequence.tolist()


def _dictionaries(study: Study, layer: int, training_TD: np.ndarray) -> dict[str, controls.Dictionary]:
    if layer == 0:
        return {"embedding layer": controls.Neurons.fit(training_TD)}
    seed = study.parameters.seed
    return {
        UNTRAINED: controls.Latents(controls.untrained(study.autoencoder(layer))),
        "neurons": controls.Neurons.fit(training_TD),
        "PCA": controls.Components.fit(training_TD, "pca", seed=seed),
        "ICA": controls.Components.fit(training_TD, "ica", seed=seed),
    }


def best_of(table: pd.DataFrame) -> pd.DataFrame:
    """Of each source and concept the layer whose feature was best on the selection families."""
    return table.loc[
        table.groupby(["source", "group", "concept"], sort=False).selection_f1.idxmax()
    ].reset_index(drop=True)


def leads(best: pd.DataFrame) -> pd.DataFrame:
    """Of `best_of` the rows of the source under test, the first one, each beside the control of the highest held-out F1.

    Columns control, control_f1 and lead are added, and lead_low and lead_high, its 95 % interval over the families that both are scored
    on; missing where a concept has no control. The best of many controls is chosen on the very scores, which favours the controls.
    """
    keys, own = ["group", "concept"], best[best.source == best.source.iloc[0]]
    rivals = best[best.source != best.source.iloc[0]]
    rivals = rivals.loc[rivals.groupby(keys).f1.idxmax()][[*keys, "source", "f1", "f1_resampled"]]
    rivals = rivals.rename(
        columns={"source": "control", "f1": "control_f1", "f1_resampled": "control_resampled"}
    )
    both = own.merge(rivals, on=keys, how="left")
    both["lead"] = both.f1 - both.control_f1
    pairs = zip(both.f1_resampled, both.control_resampled.where(both.control.notna(), None))
    both[["lead_low", "lead_high"]] = [
        intervals.lead_interval(own_B, () if other_B is None else other_B) for own_B, other_B in pairs
    ]
    return both.drop(columns=["f1_resampled", "control_resampled"])


def _with_discoveries(table: pd.DataFrame) -> pd.DataFrame:
    known = table.p_pooled.notna()
    found = pd.Series(False, index=table.index)
    for _, rows in table[known].groupby(["source", "layer"], sort=False):
        found[rows.index] = nulls.discoveries(rows)
    return table.assign(discovery=found)


# -- confounds -----------------------------------------------------------------------------------------------------------


def _explained(study: Study, chosen: pd.DataFrame, by_group: bool = False) -> pd.DataFrame:
    """`confounds.explain` of chosen features of any layers, with `layer`; rows as in `chosen`, which has a sorted index."""
    encoded, tables = study.structures(), []
    for layer, rows in tqdm(chosen.groupby("layer"), "confounds", mininterval=1):
        found = confounds.explain(
            encoded.features(layer), encoded.tokens, encoded.records, rows, study.parameters.seed, by_group
        )
        tables.append(found.assign(layer=layer).set_axis(rows.index))
    return pd.concat(tables).sort_index()


def confound_table(study: Study) -> pd.DataFrame:
    """`confounds.explain` of every layer's best feature for each element, with layer and letter of the element."""
    return _keep(
        study, "confounds", _key(study, "structures"), lambda: _explained(study, study.element_scores())
    )


def best_elements(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each element in `Study.element_scores` the row of the feature that was best on the selection families; order of `ELEMENTS`."""
    best = scores.loc[scores.groupby("element").selection_f1.idxmax()]
    return (
        best.set_index("element")
        .reindex([letter for letter in ELEMENTS if letter in set(best.element)])
        .reset_index()
    )


def confound_groups(study: Study) -> pd.DataFrame:
    """`confounds.explain` of `best_elements` by group of covariates, with layer."""
    best = best_elements(study.element_scores())
    return _keep(
        study, "confound-groups", _key(study, "structures"), lambda: _explained(study, best, by_group=True)
    )


def mark_explained(study: Study, scores: pd.DataFrame) -> pd.DataFrame:
    """`Study.element_scores` with the columns explained, r2 and confound_f1 of `confound_table`."""
    found = confound_table(study)[["layer", "element", "feature", "explained", "r2", "confound_f1"]]
    return scores.merge(found, on=["layer", "element", "feature"], how="left", validate="one_to_one")


def mark_elements(study: Study, chosen: pd.DataFrame, name: str) -> pd.DataFrame:
    """`chosen` (label: a letter; layer, feature, threshold) with `explained`; `name` is the step's."""

    def make():
        found = _explained(
            study, chosen.rename(columns={"label": "element"})[["layer", "element", "feature", "threshold"]]
        )
        return found.explained.rename_axis("row").reset_index()

    key = _key(study, "structures") | {"chosen": chosen[["layer", "label", "feature"]].to_dict("records")}
    return chosen.assign(explained=_keep(study, f"confounds-{name}", key, make).set_index("row").explained)


def mark_types(study: Study, chosen: pd.DataFrame, name: str) -> pd.DataFrame:
    """`chosen` (type, layer, feature) with `explained`; `name` is the step's."""

    def make():
        encoded, tables = study.types(), []
        for layer, rows in chosen.groupby("layer"):
            pooled = features.pool_sequences(encoded.features(layer), encoded.tokens.record.to_numpy())
            found = confounds.explain_types(
                pooled, encoded.records, rows[["type", "feature"]], by_group=False
            )
            tables.append(pd.DataFrame({"row": rows.index, "explained": found.explained.to_numpy()}))
        return pd.concat(tables, ignore_index=True)

    key = _key(study, "types") | {"chosen": chosen[["layer", "type", "feature"]].to_dict("records")}
    return chosen.assign(explained=_keep(study, f"confounds-{name}", key, make).set_index("row").explained)


def shown_types_explained(study: Study, layer: int) -> set[int]:
    """Features of Figure 5 at `layer` that length and composition explain for a type they prefer."""
    chosen = permutation.surviving(_tested_types(study, layer))[0][["type", "feature"]].assign(layer=layer)
    marked = mark_types(study, chosen, "surviving-types") if len(chosen) else chosen.assign(explained=False)
    return set(marked.feature[marked.explained.astype(bool)])


# -- RNA types -----------------------------------------------------------------------------------------------------------


def _pooled(encoded: Encoded, layer: int, split: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    rows = encoded.rows(split)
    pooled = features.pool_sequences(encoded.features(layer)[rows], encoded.tokens.record.to_numpy()[rows])
    return pooled, encoded.records[encoded.records.split == split]


def type_table(study: Study) -> pd.DataFrame:
    """`permutation.type_selectivity` of all layers, for the SAE and for the SAE on a random model (`source`).

    Empty where types cannot be tested: no families, or too few of them.
    """
    p = study.parameters

    def make():
        tables = []
        for source, variant in ((f"SAE ({p.architecture})", p.main[0]), (RANDOM_MODEL, p.random)):
            encoded = study.types(variant)
            for layer in tqdm(study.layers, f"types, {source}", mininterval=1):
                sets = (_pooled(encoded, layer, split) for split in ("selection", "heldout"))
                retained_F = study.retained(layer) if variant == p.main[0] else None
                try:
                    table = permutation.type_selectivity(*sets, retained_F, seed=p.seed)
                except ValueError as error:
                    warnings.warn(f"types of RNA were not tested: {error}", stacklevel=2)
                    table = pd.DataFrame(columns=permutation.SELECTIVITY_COLUMNS)
                tables.append(table.assign(source=source, layer=layer))
        return pd.concat(tables, ignore_index=True)

    if "family" not in study.type_records:
        return pd.DataFrame(columns=[*permutation.SELECTIVITY_COLUMNS, "source", "layer"])
    return _keep(study, "type-selectivity", _key(study, "types", random=True), make)


def _tested_types(study: Study, layer: int) -> pd.DataFrame:
    table = type_table(study)
    return table[(table.layer == layer) & (table.source != RANDOM_MODEL)]


def shown_types(study: Study, layer: int) -> tuple[pd.DataFrame, int]:
    """Figure 5's table of one layer for features that survive `permutation.surviving` alone, and the number of tested ones that do not."""
    surviving, rest = permutation.surviving(_tested_types(study, layer))
    mask_F = np.zeros(len(study.retained(layer)), bool)
    mask_F[surviving.feature.unique().astype(int)] = True
    if not mask_F.any():
        return pd.DataFrame(columns=["feature", "type", "activation", "rank", "layer"]), rest
    return study.type_activation(layer, mask_F), rest


def type_probe(study: Study, layers: list[int]) -> pd.DataFrame:
    """`selectivity.type_probe` of features and mean hidden states of `layers`, of k-mers, and of length and GC content."""
    p = study.parameters

    def make():
        encoded = study.types()
        splits = [encoded.records[encoded.records.split == split] for split in ("selection", "heldout")]
        texts = [records.sequence.tolist() for records in splits]
        representations = {
            "length and GC content": tuple(composition.length_and_gc(part) for part in texts),
            "3-mer frequencies": tuple(composition.kmer_frequencies(part, 3) for part in texts),
        }
        states = [_mean_states(study, part, layers) for part in texts]
        for place, layer in enumerate(layers):
            representations[f"mean hidden state, layer {layer}"] = tuple(part[:, place] for part in states)
            pooled = tuple(_pooled(encoded, layer, split)[0] for split in ("selection", "heldout"))
            representations[f"SAE features, layer {layer}"] = pooled
        families = tuple(_families(records) or [None] * len(records) for records in splits)
        return selectivity.type_probe(
            representations, *(records.type for records in splits), families, p.seed
        )

    return _keep(study, "type-probe", _key(study, "types") | {"layers": layers}, make)


def _mean_states(study: Study, sequences: list[str], layers: list[int]) -> np.ndarray:
    """Mean hidden state of every sequence, [S, L, D]."""
    mean_SLD = np.zeros((len(sequences), len(layers), study.model.width), np.float32)
    for states in study.model.hidden_states(sequences, layers):
        for row in np.unique(states.sequence_T):
            mean_SLD[row] = (
                states.values_TLD[torch.from_numpy(states.sequence_T == row)].mean(0).cpu().numpy()
            )
    return mean_SLD


# -- stability -----------------------------------------------------------------------------------------------------------


def recurrence_table(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whether features come again from other seeds and at the other size: `stability.summary` and `stability.concepts_of_recurring`.

    The first has a row per layer and other dictionary, with `comparison` (another seed, the other size, a random
    dictionary); the second two rows per layer. Activations are those of `RECURRENCE_RNAS` of the selection, concepts those of
    `concept_table`.
    """
    p = study.parameters
    if not p.replicates:
        raise ValueError(
            "features can come again only where there are other seeds: set replicates to 1 or more"
        )
    trained = [folder.name for group in study.groups for folder in study.train(p.repeated, group)]
    key = _key(study, "structures", random=True) | {"trained": trained}

    def make(folder: Path):
        sets, pairs, shares = _Sets(study), [], []
        encoded, scores = study.structures(), concept_table(study)
        own = scores[scores.source == scores.source.iloc[0]]
        selection = sets.records["selection"].sequence
        sequences = selection.sample(min(len(selection), RECURRENCE_RNAS), random_state=p.seed).tolist()
        for group in study.groups:
            states_TLD = hidden_states(study.model, sequences, group)
            for place, layer in enumerate(tqdm(group, "recurrence", mininterval=1)):
                dictionaries = [
                    _dictionary(study.autoencoder(layer, variant), states_TLD[:, place])
                    for variant in p.repeated
                ]
                shown, *others, narrow = dictionaries
                small, large = sorted(
                    (narrow, shown), key=lambda one: len(one.decoder)
                )  # only so many can have a counterpart
                chance = stability.Dictionary(
                    -1, stability.random_dictionary(shown.decoder, np.random.default_rng(p.seed))
                )
                found = stability.recurrence(shown, others, p.seed)
                compared = {
                    "another seed": found,
                    "the other size": stability.recurrence(small, [large], p.seed),
                    "a random dictionary": stability.recurrence(
                        shown._replace(activations=None), [chance], p.seed
                    ),
                }
                for comparison, table in compared.items():
                    pairs.append(stability.summary(table).assign(layer=layer, comparison=comparison))
                f1_F, above_F = _best_f1(sets, encoded, layer, own[own.layer == layer])
                shares.append(
                    stability.concepts_of_recurring(stability.recurring(found), f1_F, above_F).assign(
                        layer=layer
                    )
                )
        pd.concat(pairs, ignore_index=True).to_parquet(folder / "pairs.parquet", index=False)
        pd.concat(shares, ignore_index=True).to_parquet(folder / "concepts.parquet", index=False)

    folder = study.run.step("recurrence", "analysis.evidence", key, make)
    return pd.read_parquet(folder / "pairs.parquet"), pd.read_parquet(folder / "concepts.parquet")


def _dictionary(stack, states_TD: np.ndarray) -> stability.Dictionary:
    (member,) = stack.config.members
    decoder_FD = stack.decoder_weight[0].detach().float().cpu().numpy()
    return stability.Dictionary(member.seed, decoder_FD, controls.Latents(stack).encode(states_TD))


def _best_f1(
    sets: _Sets, encoded: Encoded, layer: int, chosen: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Best held-out F1 of every feature over all concepts, and whether it is above any concept's chance; both [F].

    Chance is the concept's null or an always-on feature, whichever is higher.
    """
    matrix = encoded.features(layer)
    scale_F = features.column_max(matrix[sets.rows["selection"]])
    labels = sets.annotations["heldout"]
    f1_FC = scoring.score(matrix[sets.rows["heldout"]], scale_F, labels).f1.max(-1)
    chance = chosen.set_index(["group", "concept"])[["null_p95", "base_f1"]].max(axis=1)
    chance_C = (
        chance.reindex(pd.MultiIndex.from_arrays([labels.groups, labels.concepts])).fillna(np.inf).to_numpy()
    )
    return f1_FC.max(1), (f1_FC > chance_C).any(1)


# -- fidelity ------------------------------------------------------------------------------------------------------------


def fidelity_table(study: Study) -> pd.DataFrame:
    """`fidelity.fidelity_table` on held-out RNAs of known type. Raises ValueError for a checkpoint without a masked-language-model head."""
    p = study.parameters
    trained = [folder.name for group in study.groups for folder in study.train(p.main, group)]
    records = study.evaluation_records("types")
    heldout = records[records.split == "heldout"]
    heldout = heldout.sample(min(len(heldout), FIDELITY_RNAS), random_state=p.seed)

    def make():
        model = LanguageModel.load(resolve(p.model), study.model.revision, p.device, masked=True)
        sequences, training = heldout.sequence.tolist(), _training_sample(study, TRAINING_RNAS)
        tables = []
        for group in study.groups:
            stacks = {variant.architecture: study.autoencoders(variant, group) for variant in p.main}
            tables.append(fidelity.fidelity_table(model, stacks, training, sequences, group, p.seed))
        return pd.concat(tables, ignore_index=True)

    return _keep(
        study,
        "fidelity",
        {"trained": trained, "rnas": FIDELITY_RNAS, "per_split": p.per_split, "seed": p.seed},
        make,
    )


# -- claims --------------------------------------------------------------------------------------------------------------


def findings(study: Study) -> list[claims.Finding]:
    """The paper's claims with what this study finds."""
    p = study.parameters
    shown, best = f"SAE ({p.architecture})", best_of(concept_table(study))
    led = leads(best)
    breadth, breadth_random = (_breadth(study, variant) for variant in (p.main[0], p.random))
    found = [
        claims.trend(
            "layers pass from diffuse to sparse", "share of the RNAs in which a live feature fires", breadth,
            RANDOM_MODEL, breadth_random, -1,
        )
    ]  # fmt: skip
    if "relu-l1" in p.architectures and p.architecture != "relu-l1":
        density = study.layer_table().query("architecture == 'relu-l1'").set_index("layer").l0
        nothing = pd.Series(dtype=float)
        found.append(
            claims.trend(
                "layers pass from diffuse to sparse (the paper's autoencoder)",
                "active latents a nucleotide",
                density,
                "none",
                nothing,
                -1,
            )
        )
    explained = confound_table(study).set_index(["layer", "element"]).explained
    for letter, name in (("S", "stem"), ("H", "hairpin loop")):
        for _, own in led[(led.group == "element") & (led.concept == name)].iterrows():
            own = own.to_dict() | {"explained": bool(explained.get((own.layer, letter), False))}
            found.append(claims.element_feature(f"a {name} feature exists", pd.Series(own, dtype=object)))
    types = type_table(study)
    if len(types):
        selective, selective_random = (
            _selective_share(types[types.source == source], study.layers) for source in (shown, RANDOM_MODEL)
        )
        found.append(
            claims.trend(
                "later layers are more type-selective", "share of tested features that prefer a type, beyond length and GC content",
                selective, RANDOM_MODEL, selective_random, 1,
            )
        )  # fmt: skip
        tested, kept, kept_random = (
            types.type.nunique(),
            *(
                permutation.surviving(types[types.source == source])[0].type.nunique()
                for source in (shown, RANDOM_MODEL)
            ),
        )
        found.append(
            claims.concepts_found(
                "features align with RNA types",
                "types with a feature that survives",
                kept,
                tested,
                RANDOM_MODEL,
                kept_random,
            )
        )
    elements = best[best.group == "element"]
    above = elements[elements.discovery & (elements.f1_low > elements.base_f1)]
    counts = [int((above.source == source).sum()) for source in (shown, RANDOM_MODEL)]
    measured, tested = (
        "elements that are discoveries, and above an always-on feature",
        int((elements.source == shown).sum()),
    )
    found.append(
        claims.concepts_found(
            "features align with structural elements", measured, counts[0], tested, RANDOM_MODEL, counts[1]
        )
    )
    return found


def _breadth(study: Study, variant) -> pd.Series:
    """By layer, mean over live features of the share of the evaluation RNAs of known type in which they fire."""
    folders = [folder for group in study.groups for folder in study.encode("types", [variant], group)]
    summary = pd.concat([pd.read_parquet(folder / "summary.parquet") for folder in folders])
    live = summary[summary.density > 0]
    return live.groupby("layer").sequences.mean() / len(study.evaluation_records("types"))


def _selective_share(types: pd.DataFrame, layers: list[int]) -> pd.Series:
    shares = {}
    for layer in layers:
        rows = types[types.layer == layer]
        shares[layer] = (
            permutation.surviving(rows)[0].feature.nunique() / rows.feature.nunique() if len(rows) else np.nan
        )
    return pd.Series(shares, dtype=float)
