"""A study: parameters, data, language model and autoencoders of one run, and every table that its figures draw.

Each expensive step is done once and kept in the run folder; the notebooks only ask for tables.
"""

import json
import logging
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from sae_rna.analysis import language_model as evaluation
from sae_rna.analysis.statistics import scoring as concepts
from sae_rna.cache import RunFolder, file_hash
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import Parameters, Variant, layer_groups, resolve
from sae_rna.records.readers import (
    add_elements,
    assign_splits,
    balanced_sample,
    fold,
    is_hub_name,
    read_records,
    sample_hub,
    select_length,
)
from sae_rna.records.structure import ELEMENTS, pair_table
from sae_rna.sae import encoding as pipeline
from sae_rna.sae import features
from sae_rna.sae.autoencoder import SparseAutoencoders

log = logging.getLogger(__name__)
EVALUATION_SPLITS = ("selection", "heldout", "natural")


class Encoded(NamedTuple):
    """Records as the features of one kind of autoencoders see them."""

    records: pd.DataFrame
    """S rows, with a `split`."""
    tokens: pd.DataFrame
    """`pipeline.token_table` of the records, T rows."""
    folders: dict[int, Path]
    """Where the features of each layer lie."""

    def features(self, layer: int) -> sparse.csr_matrix:
        """Feature activations [T, F] of one layer."""
        return features.load_csr(self.folders[layer] / pipeline.features_file(layer))

    def rows(self, split: str) -> np.ndarray:
        """Which tokens belong to records of `split`, boolean [T]."""
        return (self.records.split == split).to_numpy()[self.tokens.record.to_numpy()]


def _joined(folders: list[list[Path]], file: str) -> pd.DataFrame:
    """A table in folders by group of layers and variant, the variants one after the other."""
    return pd.concat(
        [pd.read_parquet(folder / file) for of_variant in zip(*folders) for folder in of_variant],
        ignore_index=True,
    )


class Study:
    """See the module. Raises ValueError from the parameters' and the data's own checks before anything expensive runs."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.run = RunFolder(
            Path(parameters.run)
            if Path(parameters.run).is_absolute()
            else Path(resolve(".")) / parameters.run
        )

    @cached_property
    def model(self) -> LanguageModel:
        p = self.parameters
        return LanguageModel.load(resolve(p.model), p.model_revision, p.device)

    @cached_property
    def random_model(self) -> LanguageModel:
        """The same architecture with random weights: the control for what the language model has learnt."""
        p = self.parameters
        return LanguageModel.load(resolve(p.model), self.model.revision, p.device, p.seed)

    def _model_of(self, variants: list[Variant]) -> LanguageModel:
        (control,) = {variant.control for variant in variants}
        return self.random_model if control else self.model

    @cached_property
    def layers(self) -> list[int]:
        """Blocks of the language model that are studied."""
        chosen = self.parameters.layers
        return list(range(1, self.model.blocks + 1)) if chosen == "all" else self.model.check_layers(chosen)

    @property
    def groups(self) -> list[list[int]]:
        """The layers in groups, each of which is trained and encoded by one job."""
        return list(self._groups.values())

    @property
    def _groups(self) -> dict[str, list[int]]:
        return layer_groups(self.parameters, self.model.blocks)

    def _group_name(self, layers: list[int]) -> str:
        return next(name for name, group in self._groups.items() if group == layers)

    @cached_property
    def structure_records(self) -> pd.DataFrame:
        """RNAs with a secondary structure in the evaluation splits, at most `per_split` of each."""
        p = self.parameters
        records = self._read("structures")
        records = records[records.split.isin(EVALUATION_SPLITS)]
        return self._with_elements(balanced_sample(records, "split", p.per_split, p.seed)).reset_index(
            drop=True
        )

    def _with_elements(self, records: pd.DataFrame) -> pd.DataFrame:
        p = self.parameters
        if "secondary_structure" not in records and not p.fold:
            raise ValueError(
                f"{p.structures} has no secondary structures: the parameter 'structures' needs a file with a column secondary_structure, "
                "or set fold to true to have them predicted"
            )
        return add_elements(fold(records))

    @property
    def structure_source(self) -> str:
        """Where the structures come from, for captions: "known" or, for example, "predicted (ViennaRNA 2.7.0, MFE)"."""
        records = self.structure_records
        return (
            ", ".join(sorted(records.structure_source.fillna("known").unique()))
            if "structure_source" in records
            else "known"
        )

    @cached_property
    def type_records(self) -> pd.DataFrame:
        """RNAs of known type, balanced: of each type `per_type` to train on, and in each evaluation split its share of `per_split`."""
        p = self.parameters
        records = self._read("types")
        if "type" not in records:
            raise ValueError(
                f"{p.types} has no RNA types: the parameter 'types' needs a file with a column type"
            )
        chosen = records[records.split.isin(("train", *EVALUATION_SPLITS))]
        parts = [
            balanced_sample(
                part,
                "type",
                p.per_type if split == "train" else max(1, p.per_split // part.type.nunique()),
                p.seed,
            )
            for split, part in chosen.groupby("split")
        ]
        return pd.concat(parts, ignore_index=True)

    @property
    def _longest(self) -> int:
        return min(self.parameters.longest, self.model.longest)

    def _read(self, name: str) -> pd.DataFrame:
        return assign_splits(
            select_length(read_records(self.data_file(name)), self._longest), self.parameters.seed
        )

    def data_file(self, name: str) -> str:
        """The file with the records of the parameter `name`, structures or types.

        Of a hub data set that is the sample which this run drew. It stays in the run folder with ``sample.json``, which says from
        which commit, and may be given as the parameter of another run.
        """
        p, source = self.parameters, resolve(getattr(self.parameters, name))
        revision = getattr(p, f"{name}_revision")
        if not is_hub_name(source):
            if revision is not None:
                raise ValueError(
                    f"{source} is no hub data set, so its revision '{revision}' means nothing: leave '{name}_revision' out"
                )
            return source
        if name == "types":
            choice = {"by": "type", "per_train": p.per_type}
        else:
            choice = {"needs": [] if p.fold else ["secondary_structure"], "per_train": p.per_split}
        choice |= {"per_split": p.per_split, "longest": self._longest, "seed": p.seed, "revision": revision}

        def make(folder: Path):
            sample = sample_hub(source, **choice)
            sample.to_parquet(folder / "records.parquet", index=False)
            (folder / "sample.json").write_text(json.dumps(sample.attrs, indent=1) + "\n")

        return str(
            self.run.step(f"sample-{name}", "records.readers", {"source": source} | choice, make)
            / "records.parquet"
        )

    def group(self, name: str) -> list[int]:
        """A group of layers by its name. Raises ValueError naming what there is."""
        if name not in self._groups:
            raise ValueError(
                f"this profile has no group of layers '{name}': choose {' or '.join(self._groups)}"
            )
        return self._groups[name]

    def train_all(self, model: str, layers: list[int]) -> list[Path]:
        """Everything that the study trains on hidden states of `model` (of `parameters.MODELS`) in one group of layers."""
        return self.train(self.parameters.variants[model], layers)

    def encode_all(self, model: str, layers: list[int]) -> list[Path]:
        """Everything that the study encodes with it, likewise."""
        encoded = self.parameters.encoded[model].items()
        return [folder for data, variants in encoded for folder in self.encode(data, variants, layers)]

    def record_run(self):
        """Write ``run.json``."""
        p = self.parameters
        self.run.record(
            p,
            model={"source": p.model, "revision": self.model.revision, "fingerprint": self.model.fingerprint},
            data={name: self._data_facts(name) for name in ("structures", "types")},
        )

    def _data_facts(self, name: str) -> dict:
        file = Path(self.data_file(name))
        facts = {"source": getattr(self.parameters, name), "hash": file_hash(str(file))}
        if is_hub_name(resolve(facts["source"])):
            facts |= {"sample": str(file.relative_to(self.run.folder))} | json.loads(
                (file.parent / "sample.json").read_text()
            )
        return facts

    def _key(self, *names: str) -> dict:
        """What a step depends on: model, data and the named parameters."""
        p = self.parameters
        key = {name: getattr(p, name) for name in (*names, "longest", "seed")}
        return key | {"model": self.model.fingerprint, "layers": self.layers}

    # -- language model ----------------------------------------------------------------------------------------------

    def masked_table(self, per_set: int = 300) -> pd.DataFrame:
        """Masked-base accuracy of the language model beside its baselines, on every split of the structure records it was not trained on.

        A checkpoint without a masked-language-model head has no rows of its own, and the baselines stand alone.
        """
        p = self.parameters
        records = self._read("structures")
        key = self._key("fold") | {"data": file_hash(self.data_file("structures")), "per_set": per_set}

        def make(folder: Path):
            sets = {
                split: self._with_elements(part.sample(min(len(part), per_set), random_state=p.seed))
                for split, part in records.groupby("split")
                if split != "train"
            }
            predictors, kinds = {}, {"language model": None, "same architecture, random weights": p.seed}
            try:
                for kind, seed in kinds.items():
                    predictors[kind] = LanguageModel.load(
                        resolve(p.model), self.model.revision, p.device, seed, masked=True
                    )
            except ValueError as error:
                log.warning("no masked-base accuracy for %s: %s", p.model, error)
            training = records[records.split == "train"]
            training = training.sample(min(len(training), 4000), random_state=p.seed)
            evaluation.masked_table(predictors, sets, training, p.seed).to_parquet(
                folder / "masked.parquet", index=False
            )

        return pd.read_parquet(
            self.run.step("masked-bases", "analysis.language_model", key, make) / "masked.parquet"
        )

    def probe_table(self, per_split: int = 250) -> pd.DataFrame:
        """Linear probes for stems, fitted on the selection split and scored on the held-out one; random weights and windows beside."""
        p = self.parameters
        key = self._key("per_split", "fold") | {
            "data": file_hash(self.data_file("structures")),
            "probed": per_split,
        }

        def make(folder: Path):
            models = {"language model": self.model, "same architecture, random weights": self.random_model}
            records = self.structure_records
            parts = (records[records.split == split] for split in ("selection", "heldout"))
            fit, test = (part.sample(min(len(part), per_split), random_state=p.seed) for part in parts)
            evaluation.probe_table(models, fit, test, self.layers).to_parquet(
                folder / "probes.parquet", index=False
            )

        return pd.read_parquet(
            self.run.step("probes", "analysis.language_model", key, make) / "probes.parquet"
        )

    # -- autoencoders ------------------------------------------------------------------------------------------------

    def train(self, variants: list[Variant], layers: list[int]) -> list[Path]:
        """The folders of autoencoders of one group of layers, by variant.

        Those that are not there are trained together, in one pass of the language model, which is the same for all variants.
        """
        p, model, named = (
            self.parameters,
            self._model_of(variants),
            self._named("autoencoders", variants, layers),
        )
        shared = self._key("sae_learning_rate", "batch", "epochs", "per_type", "buffer_tokens", "precision")
        shared |= {"model": model.fingerprint, "layers": layers, "types": file_hash(self.data_file("types"))}
        keys = {
            name: shared | {"variant": variant.name, "sparsity": p.sparsity(variant.architecture)}
            for name, variant in named.items()
        }

        def make(missing: dict[str, Path]):
            sequences = self.type_records[self.type_records.split == "train"].sequence.tolist()
            pipeline.train_group(
                {named[name]: folder for name, folder in missing.items()}, model, sequences, layers, p
            )

        return list(self.run.steps(keys, "sae.encoding", make, resumable=True).values())

    def _named(self, step: str, variants: list[Variant], layers: list[int]) -> dict[str, Variant]:
        """The variants by the names of their steps."""
        return {f"{step}-{variant.name}-{self._group_name(layers)}": variant for variant in variants}

    def autoencoders(self, variant: Variant, layers: list[int]) -> SparseAutoencoders:
        """The trained stack of one group of layers."""
        (folder,), model = self.train([variant], layers), self._model_of([variant])
        stack = SparseAutoencoders.from_pretrained(folder, device=model.device)
        stack.check_model(model.fingerprint, self.parameters.model)
        return stack.requires_grad_(False)

    def autoencoder(self, layer: int, variant: Variant | None = None) -> SparseAutoencoders:
        """The autoencoder of one layer (default: the one shown in the figures)."""
        (group,) = (group for group in self.groups if layer in group)
        return self.autoencoders(variant or self.parameters.main[0], group).only(layer)

    def training_table(self) -> pd.DataFrame:
        """fig-training: metrics per step, layer and architecture."""
        return _joined([self.train(self.parameters.main, group) for group in self.groups], "training.parquet")

    # -- features ----------------------------------------------------------------------------------------------------

    def structures(self, variant: Variant | None = None) -> Encoded:
        """The evaluation RNAs of known structure, encoded (default: by the autoencoders shown in the figures)."""
        return self._encoded("structures", variant or self.parameters.main[0])

    def types(self, variant: Variant | None = None) -> Encoded:
        """The evaluation RNAs of known type, encoded (default: by the autoencoders shown in the figures)."""
        return self._encoded("types", variant or self.parameters.main[0])

    def evaluation_records(self, data: str) -> pd.DataFrame:
        """RNAs of the evaluation splits: `data` is structures or types."""
        if data == "structures":
            return self.structure_records
        return self.type_records[self.type_records.split.isin(EVALUATION_SPLITS)].reset_index(drop=True)

    def _encoded(self, data: str, variant: Variant) -> Encoded:
        records = self.evaluation_records(data)
        folders = {layer: self.encode(data, [variant], group)[0] for group in self.groups for layer in group}
        return Encoded(records, pipeline.token_table(records), folders)

    def encode(self, data: str, variants: list[Variant], layers: list[int]) -> list[Path]:
        """The folders with what one group of layers makes of the evaluation RNAs, by variant, see `pipeline.encode_group`.

        What is not there is encoded, by all variants in one pass of the language model, which is the same for them. Of the
        architectures that the shown one is compared with, the summary alone is kept.
        """
        model, named = self._model_of(variants), self._named(f"features-{data}", variants, layers)
        shared = self._key("per_split", "fold") | {"data": file_hash(self.data_file(data))}
        keys = {
            name: shared | {"autoencoders": folder.name}
            for name, folder in zip(named, self.train(variants, layers))
        }

        def make(missing: dict[str, Path]):
            stacks = {folder: self.autoencoders(named[name], layers) for name, folder in missing.items()}
            kept = [
                folder
                for name, folder in missing.items()
                if named[name].architecture == self.parameters.architecture
            ]
            pipeline.encode_group(
                stacks, model, self.evaluation_records(data), kept, summarise=data == "types"
            )

        return list(self.run.steps(keys, "sae.encoding", make).values())

    # -- tables ------------------------------------------------------------------------------------------------------

    def feature_summary(self) -> pd.DataFrame:
        """feature_summary of all architectures and layers, over the evaluation RNAs of known type, with `retained`."""
        summary = _joined(
            [self.encode("types", self.parameters.main, group) for group in self.groups], "summary.parquet"
        )
        return summary.assign(retained=features.retained(summary, self.parameters.min_sequences))

    def _features_key(self, data: str) -> dict:
        """What scores of the shown features depend on. The types' encoding decides which features are retained."""
        shown = self.parameters.main[:1]
        used = {
            name: [folder.name for group in self.groups for folder in self.encode(name, shown, group)]
            for name in sorted({data, "types"})
        }
        return {name: getattr(self.parameters, name) for name in ("min_sequences", "shuffles", "seed")} | {
            "features": used
        }

    def retained(self, layer: int) -> np.ndarray:
        """Which features of the shown architecture pass the paper's filter, boolean [F]."""
        summary = self.feature_summary()
        return summary[
            (summary.layer == layer) & (summary.architecture == self.parameters.architecture)
        ].retained.to_numpy()

    def layer_table(self) -> pd.DataFrame:
        """The table `layers`: how sparse, how alive, how faithful and how type-selective each layer's autoencoder is."""
        encoded, rows = self.types(), []
        for (layer, architecture), table in self.feature_summary().groupby(["layer", "architecture"]):
            alive = table[table.density > 0].density
            deciles = {
                f"density_p{q}": alive.quantile(q / 100) if len(alive) else np.nan for q in range(10, 100, 10)
            }
            rows.append(
                {
                    "layer": layer,
                    "architecture": architecture,
                    "latents": len(table),
                    "retained": int(table.retained.sum()),
                    "dead_share": (table.density == 0).mean(),
                    "l0": table.density.sum(),
                    "explained_variance": table.explained_variance.iloc[0],
                    "type_selectivity": table[table.retained].tau.mean(),
                    "tokens": len(encoded.tokens),
                    "sequences": len(encoded.records),
                }
                | deciles
            )
        return pd.DataFrame(rows)

    def _activation_by_type(self, encoded: Encoded, layer: int) -> pd.DataFrame:
        pooled = features.pool_sequences(encoded.features(layer), encoded.tokens.record.to_numpy())
        return features.pool_types(pooled, encoded.records.type, features.column_max(pooled))

    def type_activation(self, layer: int, chosen_F: np.ndarray | None = None) -> pd.DataFrame:
        """The table `type_activation` of one layer: the union of every type's `top_k` strongest retained or chosen features (Figure 5)."""
        by_type = self._activation_by_type(self.types(), layer)
        chosen_F = self.retained(layer) if chosen_F is None else chosen_F
        return features.type_activation(by_type, self.parameters.top_k, chosen_F).assign(layer=layer)

    def element_scores(self, scored_on: str = "heldout") -> pd.DataFrame:
        """The table `element_scores` of all layers: chosen on the selection split, scored on `scored_on`."""
        p = self.parameters
        key = self._features_key("structures") | {"scored_on": scored_on}

        def make(folder: Path):
            encoded, tables = self.structures(), []
            for layer in tqdm(self.layers, f"elements, {scored_on}", mininterval=1):
                sets = (
                    self._split_features(encoded, layer, "selection"),
                    self._split_features(encoded, layer, scored_on),
                )
                table = concepts.element_scores(*sets, self.retained(layer), shuffles=p.shuffles, seed=p.seed)
                tables.append(table.assign(layer=layer))
            pd.concat(tables, ignore_index=True).to_parquet(folder / "scores.parquet", index=False)

        return pd.read_parquet(
            self.run.step("element-scores", "analysis.statistics.scoring", key, make) / "scores.parquet"
        )

    def _split_features(
        self, encoded: Encoded, layer: int, split: str
    ) -> tuple[sparse.csr_matrix, pd.DataFrame]:
        rows = encoded.rows(split)
        if not rows.any():
            raise ValueError(f"{self.parameters.structures} has no records in the split '{split}'")
        return encoded.features(layer)[rows], encoded.tokens[rows]

    def type_scores(self) -> pd.DataFrame:
        """The table `type_scores` of all layers."""
        p, tables = self.parameters, []
        key = self._features_key("types")

        def make(folder: Path):
            encoded = self.types()
            for layer in tqdm(self.layers, "types", mininterval=1):
                selection, heldout = (
                    self._pooled(encoded, layer, split) for split in ("selection", "heldout")
                )
                families = (selection[2], heldout[2]) if "family" in encoded.records else None
                table = concepts.type_scores(
                    selection[:2],
                    heldout[:2],
                    self.retained(layer),
                    families,
                    shuffles=p.shuffles,
                    seed=p.seed,
                )
                tables.append(table.assign(layer=layer))
            pd.concat(tables, ignore_index=True).to_parquet(folder / "scores.parquet", index=False)

        return pd.read_parquet(
            self.run.step("type-scores", "analysis.statistics.scoring", key, make) / "scores.parquet"
        )

    def _pooled(self, encoded: Encoded, layer: int, split: str) -> tuple:
        rows, records = encoded.rows(split), encoded.records[encoded.records.split == split]
        pooled = features.pool_sequences(
            encoded.features(layer)[rows], encoded.tokens.record.to_numpy()[rows]
        )
        return pooled, records.type.to_numpy(), records.family.to_numpy() if "family" in records else None

    def top_features(self, layer: int, count: int = 3) -> pd.DataFrame:
        """tab-top-features: the best features of every element and type at `layer`, with held-out scores."""
        structures, types = self.structures(), self.types()
        elements = tuple(self._split_features(structures, layer, split) for split in ("selection", "heldout"))
        typed = tuple(self._pooled(types, layer, split)[:2] for split in ("selection", "heldout"))
        return concepts.top_features(elements, typed, count, self.retained(layer)).assign(layer=layer)

    def single_feature_auroc(self, element: str = "S") -> pd.DataFrame:
        """Per layer, the retained feature whose activation alone ranks nucleotides of `element` best on the selection split.

        Columns layer, feature and auroc, the last on the held-out split.
        """
        encoded, rows = self.structures(), []
        concept = list(ELEMENTS).index(element)
        for layer in self.layers:
            selection, heldout = (
                self._split_features(encoded, layer, split) for split in ("selection", "heldout")
            )
            chosen_on = concepts.auroc(selection[0], concepts.annotate_elements(selection[1]))[:, concept]
            feature = int(np.where(self.retained(layer), chosen_on, 0).argmax())
            scored_on = concepts.auroc(heldout[0][:, [feature]], concepts.annotate_elements(heldout[1]))[
                0, concept
            ]
            rows.append({"layer": layer, "feature": feature, "auroc": scored_on})
        return pd.DataFrame(rows)

    def best_feature(self, element: str) -> pd.Series:
        """The row of `element_scores` with the best F1 on the *selection* split for `element`: layer, feature and its scores."""
        scores = self.element_scores()
        scores = scores[scores.element == element]
        if scores.empty:
            raise ValueError(
                f"no record of {self.parameters.structures} has the element {element} in both splits"
            )
        return scores.loc[scores.selection_f1.idxmax()]

    def tracks(self, best: pd.Series, record_ids: list[str]) -> pd.DataFrame:
        """The table `tracks`: one feature's activation, nucleotide by nucleotide, on RNAs of known structure.

        Activations are scaled by the feature's maximum on the selection split and end at 1. Nucleotides the model has no state for (letters
        other than A, C, G, U) have activation 0.
        """
        encoded, layer, feature = self.structures(), int(best.layer), int(best.feature)
        column = encoded.features(layer)[:, feature].toarray().ravel()
        scale = column[encoded.rows("selection")].max()
        tables = []
        for identifier in record_ids:
            row = int(np.flatnonzero(encoded.records.id == identifier)[0])
            record = encoded.records.iloc[row]
            mine = (encoded.tokens.record == row).to_numpy()
            activation = np.zeros(len(record.sequence))
            activation[encoded.tokens.position[mine]] = (
                np.minimum(column[mine] / scale, 1) if scale > 0 else 0
            )
            tables.append(
                pd.DataFrame(
                    {
                        "record": identifier,
                        "position": np.arange(len(record.sequence)) + 1,
                        "base": list(record.sequence),
                        "bracket": list(record.secondary_structure),
                        "element": list(record.element),
                        "activation": activation,
                        "partner": pair_table(record.secondary_structure) + 1,
                        "feature": feature,
                        "layer": layer,
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def example_records(
        self, best: pd.Series, count: int, split: str = "heldout", longest: int = 110
    ) -> list[str]:
        """Ids of held-out RNAs that show the feature at its typical best: of the RNAs up to `longest` nt that have the element, one from
        each of `count` families, ranked by how strongly the feature fires at its strongest nucleotide. Not chosen by agreement."""
        encoded = self.structures()
        records = encoded.records
        pooled = features.pool_sequences(
            encoded.features(int(best.layer))[:, [int(best.feature)]], encoded.tokens.record.to_numpy()
        )
        strength = pd.Series(pooled.toarray().ravel(), index=records.index)
        fit = records[
            (records.split == split)
            & (records.sequence.str.len() <= longest)
            & records.element.str.contains(best.element)
        ]
        fit = fit.assign(strength=strength[fit.index]).sort_values(
            ["strength", "id"], ascending=[False, True]
        )
        if "family" in fit:
            fit = fit.drop_duplicates("family")
        return fit.id.head(count).tolist()
