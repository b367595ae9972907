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
import torch
from scipy import sparse
from tqdm import tqdm

from sae_rna import concepts, evaluation, features, training
from sae_rna.activations import ActivationStream
from sae_rna.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.fidelity import ExplainedVariance
from sae_rna.language_model import LanguageModel
from sae_rna.parameters import Parameters, resolve
from sae_rna.runs import RunFolder, file_hash
from sae_rna.sequences import add_elements, assign_splits, balanced_sample, is_hub_name, read_records, sample_hub, select_length
from sae_rna.structure import ELEMENTS, pair_table

log = logging.getLogger(__name__)
EVALUATION_SPLITS = ("selection", "heldout", "natural")


class Encoded(NamedTuple):
    """Records as the shown architecture's features see them."""

    records: pd.DataFrame
    """S rows, with a `split`."""
    tokens: pd.DataFrame
    """T rows (record, position, base, element), in record order."""
    folder: Path
    """Where the features of each layer lie."""

    def features(self, layer: int) -> sparse.csr_matrix:
        """Feature activations [T, F] of one layer."""
        return features.load_csr(self.folder / f"layer-{layer:02d}.safetensors")

    def rows(self, split: str) -> np.ndarray:
        """Which tokens belong to records of `split`, boolean [T]."""
        return (self.records.split == split).to_numpy()[self.tokens.record.to_numpy()]


class Study:
    """See the module. Raises ValueError from the parameters' and the data's own checks before anything expensive runs."""

    def __init__(self, parameters: Parameters):
        self.parameters = parameters
        self.run = RunFolder(Path(parameters.run) if Path(parameters.run).is_absolute() else Path(resolve(".")) / parameters.run)

    @cached_property
    def model(self) -> LanguageModel:
        p = self.parameters
        return LanguageModel.load(resolve(p.model), p.model_revision, p.device)

    @cached_property
    def layers(self) -> list[int]:
        """Blocks of the language model that are studied."""
        chosen = self.parameters.layers
        return list(range(1, self.model.layers + 1)) if chosen == "all" else self.model.check_layers(chosen)

    @cached_property
    def structure_records(self) -> pd.DataFrame:
        """RNAs of known structure in the evaluation splits, at most `per_split` of each."""
        p = self.parameters
        records = self._read("structures")
        if "secondary_structure" not in records:
            raise ValueError(
                f"{p.structures} has no secondary structures: the parameter 'structures' needs a file with a column secondary_structure"
            )
        records = records[records.split.isin(EVALUATION_SPLITS)]
        return add_elements(balanced_sample(records, "split", p.per_split, p.seed)).reset_index(drop=True)

    @cached_property
    def type_records(self) -> pd.DataFrame:
        """RNAs of known type, balanced: of each type `per_type` to train on, and in each evaluation split its share of `per_split`."""
        p = self.parameters
        records = self._read("types")
        if "type" not in records:
            raise ValueError(f"{p.types} has no RNA types: the parameter 'types' needs a file with a column type")
        chosen = records[records.split.isin(("train", *EVALUATION_SPLITS))]
        parts = [
            balanced_sample(part, "type", p.per_type if split == "train" else max(1, p.per_split // part.type.nunique()), p.seed)
            for split, part in chosen.groupby("split")
        ]
        return pd.concat(parts, ignore_index=True)

    @property
    def _longest(self) -> int:
        return min(self.parameters.longest, self.model.longest)

    def _read(self, name: str) -> pd.DataFrame:
        return assign_splits(select_length(read_records(self.data_file(name)), self._longest), self.parameters.seed)

    def data_file(self, name: str) -> str:
        """The file with the records of the parameter `name`, structures or types.

        Of a hub data set that is the sample which this run drew. It stays in the run folder with ``sample.json``, which says from
        which commit, and may be given as the parameter of another run.
        """
        p, source = self.parameters, resolve(getattr(self.parameters, name))
        revision = getattr(p, f"{name}_revision")
        if not is_hub_name(source):
            if revision is not None:
                raise ValueError(f"{source} is no hub data set, so its revision '{revision}' means nothing: leave '{name}_revision' out")
            return source
        if name == "types":
            choice = {"by": "type", "per_train": p.per_type}
        else:
            choice = {"needs": ["secondary_structure"], "per_train": p.per_split}
        choice |= {"per_split": p.per_split, "longest": self._longest, "seed": p.seed, "revision": revision}

        def make(folder: Path):
            sample = sample_hub(source, **choice)
            sample.to_parquet(folder / "records.parquet", index=False)
            (folder / "sample.json").write_text(json.dumps(sample.attrs, indent=1) + "\n")

        return str(self.run.step(f"sample-{name}", {"source": source} | choice, make) / "records.parquet")

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
            facts |= {"sample": str(file.relative_to(self.run.folder))} | json.loads((file.parent / "sample.json").read_text())
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
        sets = {
            split: add_elements(part.sample(min(len(part), per_set), random_state=p.seed))
            for split, part in records.groupby("split")
            if split != "train"
        }
        key = self._key() | {"data": file_hash(self.data_file("structures")), "per_set": per_set}

        def make(folder: Path):
            predictors = {}
            try:
                predictors["language model"] = LanguageModel.load_masked(resolve(p.model), self.model.revision, p.device)
                predictors["same architecture, random weights"] = LanguageModel.load_masked(
                    resolve(p.model), self.model.revision, p.device, p.seed
                )
            except ValueError as error:
                log.warning("no masked-base accuracy for %s: %s", p.model, error)
            training = records[records.split == "train"]
            training = training.sample(min(len(training), 4000), random_state=p.seed)
            evaluation.masked_table(predictors, sets, training, p.seed).to_parquet(folder / "masked.parquet", index=False)

        return pd.read_parquet(self.run.step("masked-bases", key, make) / "masked.parquet")

    def probe_table(self, per_split: int = 250) -> pd.DataFrame:
        """Linear probes for stems, fitted on the selection split and scored on the held-out one; random weights and windows beside."""
        p = self.parameters
        key = self._key("per_split") | {"data": file_hash(self.data_file("structures")), "probed": per_split}

        def make(folder: Path):
            models = {
                "language model": self.model,
                "same architecture, random weights": LanguageModel.load(resolve(p.model), self.model.revision, p.device, p.seed),
            }
            records = self.structure_records
            parts = (records[records.split == split] for split in ("selection", "heldout"))
            fit, test = (part.sample(min(len(part), per_split), random_state=p.seed) for part in parts)
            evaluation.probe_table(models, fit, test, self.layers).to_parquet(folder / "probes.parquet", index=False)

        return pd.read_parquet(self.run.step("probes", key, make) / "probes.parquet")

    # -- autoencoders ------------------------------------------------------------------------------------------------

    @cached_property
    def _autoencoder_key(self) -> dict:
        p = self.parameters
        key = self._key("expansion", "sae_learning_rate", "batch", "epochs", "per_type", "buffer_mib", "precision")
        return key | {"types": file_hash(self.data_file("types")), "sparsities": p.sparsities}

    @cached_property
    def _autoencoder_folder(self) -> Path:
        return self.run.step("autoencoders", self._autoencoder_key, self._train, resumable=True)

    def _train(self, folder: Path):
        p = self.parameters
        sequences = self.type_records[self.type_records.split == "train"].sequence.tolist()
        stream = ActivationStream(self.model, sequences, self.layers, batch=p.batch, buffer_mib=p.buffer_mib, seed=p.seed)
        facts = {"types": p.types, "sequences": len(sequences), "tokens": stream.tokens, "epochs": p.epochs, "seed": p.seed}
        configs = [
            AutoencoderConfig(
                architecture=architecture,
                members=tuple(Member(layer, sparsity, p.seed) for layer in self.layers),
                width=self.model.width,
                latents=p.expansion * self.model.width,
                model=p.model,
                revision=self.model.revision,
                fingerprint=self.model.fingerprint,
                training=facts,
            )
            for architecture, sparsity in p.sparsities.items()
        ]
        stacks, _ = training.train(
            stream, configs, epochs=p.epochs, learning_rate=p.sae_learning_rate, precision=p.precision, folder=folder
        )
        for stack in stacks:
            stack.save(folder / stack.config.architecture)
        (folder / training.CHECKPOINT).unlink()

    def autoencoders(self, architecture: str | None = None) -> SparseAutoencoders:
        """The trained stack of `architecture` (default: the one shown in the figures)."""
        stack = SparseAutoencoders.from_pretrained(
            self._autoencoder_folder / (architecture or self.parameters.architecture), device=self.model.device
        )
        stack.check_model(self.model.fingerprint, self.parameters.model)
        return stack.requires_grad_(False)

    def training_table(self) -> pd.DataFrame:
        """fig-training: metrics per step, layer and architecture."""
        return pd.read_parquet(self._autoencoder_folder / "training.parquet")

    # -- features ----------------------------------------------------------------------------------------------------

    def structures(self) -> Encoded:
        """The evaluation RNAs of known structure, encoded."""
        return self._encoded("structures", self.structure_records)

    def types(self) -> Encoded:
        """The evaluation RNAs of known type, encoded."""
        records = self.type_records[self.type_records.split.isin(EVALUATION_SPLITS)].reset_index(drop=True)
        return self._encoded("types", records)

    def _encoded(self, name: str, records: pd.DataFrame) -> Encoded:
        key = self._autoencoder_key | self._key("architecture", "per_split") | {"data": file_hash(self.data_file(name))}
        folder = self.run.step(f"features-{name}", key, lambda folder: self._encode(folder, records))
        return Encoded(records, pd.read_parquet(folder / "tokens.parquet"), folder)

    def _encode(self, folder: Path, records: pd.DataFrame):
        """Encode `records` with every layer's autoencoder of every architecture.

        Writes tokens.parquet, the sparse features of the shown architecture, and summary.parquet, one row per feature of each layer and
        architecture.
        """
        shown = self.parameters.architecture
        stacks = {name: self.autoencoders(name) for name in self.parameters.architectures}
        members = {(name, layer): stack.only(layer) for name, stack in stacks.items() for layer in self.layers}
        summaries = {key: features.FeatureSummary(member.config.latents) for key, member in members.items()}
        variances = {key: ExplainedVariance() for key in members}
        codes_S, type_names = features.type_codes(records.type) if "type" in records else (np.zeros(len(records), int), ["all"])
        by_type = {key: np.zeros((len(type_names), member.config.latents)) for key, member in members.items()}
        sequence, position = [], []
        pieces: dict[int, list[sparse.csr_matrix]] = {layer: [] for layer in self.layers}
        sequences = records.sequence.tolist()
        batches = self.model.batches(sequences, batch_tokens=8192)
        with torch.inference_mode():
            for states in self.model.hidden_states(sequences, self.layers, tqdm(batches, "encoding", mininterval=1)):
                sequence.append(states.sequence_T)
                type_S = codes_S[pd.unique(states.sequence_T)]
                position.append(states.position_T)
                for (name, layer), member in members.items():
                    x_1TD = member.standardise(states.values_TLD[:, [self.layers.index(layer)]]).transpose(0, 1)
                    activations = member.encode(x_1TD)
                    variances[name, layer].update(x_1TD, member.decode(activations))
                    chunk = activations[0].cpu().numpy()
                    chunk = sparse.csr_matrix(chunk) if member.config.kind.penalty == "auxk" else chunk
                    pooled_SF = summaries[name, layer].update(chunk, states.sequence_T)
                    pooled_SF = pooled_SF.toarray() if sparse.issparse(pooled_SF) else pooled_SF
                    np.add.at(by_type[name, layer], type_S, pooled_SF)
                    if name == shown:
                        pieces[layer].append(sparse.csr_matrix(chunk))
        record, place = np.concatenate(sequence), np.concatenate(position)
        order = np.lexsort((place, record))
        tokens = pd.DataFrame({"record": record[order].astype(np.int32), "position": place[order].astype(np.int32)})
        letters = {"base": "sequence"} | ({"element": "element"} if "element" in records else {})
        for column, source in letters.items():
            joined = np.array(list("".join(records[source])))
            start = np.concatenate([[0], records[source].str.len().cumsum()[:-1]])
            tokens[column] = pd.Categorical(joined[start[tokens.record] + tokens.position])
        tokens.to_parquet(folder / "tokens.parquet", index=False)
        for layer, parts in pieces.items():
            features.save_csr(sparse.vstack(parts, format="csr")[order], folder / f"layer-{layer:02d}.safetensors")
        tables = []
        for (name, layer), summary in summaries.items():
            mean = by_type[name, layer] / np.bincount(codes_S, minlength=len(type_names))[:, None]
            selectivity = features.tau(mean) if len(type_names) > 1 else np.nan
            facts = {
                "layer": layer,
                "architecture": name,
                "explained_variance": float(variances[name, layer].value()[0]),
                "tau": selectivity,
            }
            tables.append(summary.table().assign(**facts))
        pd.concat(tables, ignore_index=True).to_parquet(folder / "summary.parquet", index=False)

    # -- tables ------------------------------------------------------------------------------------------------------

    def feature_summary(self) -> pd.DataFrame:
        """feature_summary of all architectures and layers, over the evaluation RNAs of known type, with `retained`."""
        summary = pd.read_parquet(self.types().folder / "summary.parquet")
        return summary.assign(retained=features.retained(summary, self.parameters.min_sequences))

    def retained(self, layer: int) -> np.ndarray:
        """Which features of the shown architecture pass the paper's filter, boolean [F]."""
        summary = self.feature_summary()
        return summary[(summary.layer == layer) & (summary.architecture == self.parameters.architecture)].retained.to_numpy()

    def layer_table(self) -> pd.DataFrame:
        """The table `layers`: how sparse, how alive, how faithful and how type-selective each layer's autoencoder is."""
        encoded, rows = self.types(), []
        for (layer, architecture), table in self.feature_summary().groupby(["layer", "architecture"]):
            alive = table[table.density > 0].density
            deciles = {f"density_p{q}": alive.quantile(q / 100) if len(alive) else np.nan for q in range(10, 100, 10)}
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

    def type_activation(self, layer: int) -> pd.DataFrame:
        """The table `type_activation` of one layer: the union of every type's `top_k` strongest retained features (Figure 5)."""
        by_type = self._activation_by_type(self.types(), layer)
        return features.type_activation(by_type, self.parameters.top_k, self.retained(layer)).assign(layer=layer)

    def element_scores(self, scored_on: str = "heldout") -> pd.DataFrame:
        """The table `element_scores` of all layers: chosen on the selection split, scored on `scored_on`."""
        p = self.parameters
        key = self._autoencoder_key | self._key("architecture", "per_split", "min_sequences", "shuffles")
        key |= {"data": file_hash(self.data_file("structures")), "scored_on": scored_on}

        def make(folder: Path):
            encoded, tables = self.structures(), []
            for layer in tqdm(self.layers, f"elements, {scored_on}", mininterval=1):
                sets = self._split_features(encoded, layer, "selection"), self._split_features(encoded, layer, scored_on)
                table = concepts.element_scores(*sets, self.retained(layer), shuffles=p.shuffles, seed=p.seed)
                tables.append(table.assign(layer=layer))
            pd.concat(tables, ignore_index=True).to_parquet(folder / "scores.parquet", index=False)

        return pd.read_parquet(self.run.step("element-scores", key, make) / "scores.parquet")

    def _split_features(self, encoded: Encoded, layer: int, split: str) -> tuple[sparse.csr_matrix, pd.DataFrame]:
        rows = encoded.rows(split)
        if not rows.any():
            raise ValueError(f"{self.parameters.structures} has no records in the split '{split}'")
        return encoded.features(layer)[rows], encoded.tokens[rows]

    def type_scores(self) -> pd.DataFrame:
        """The table `type_scores` of all layers."""
        p, tables = self.parameters, []
        key = self._autoencoder_key | self._key("architecture", "per_split", "min_sequences", "shuffles")

        def make(folder: Path):
            encoded = self.types()
            for layer in tqdm(self.layers, "types", mininterval=1):
                selection, heldout = (self._pooled(encoded, layer, split) for split in ("selection", "heldout"))
                families = (selection[2], heldout[2]) if "family" in encoded.records else None
                table = concepts.type_scores(selection[:2], heldout[:2], self.retained(layer), families, shuffles=p.shuffles, seed=p.seed)
                tables.append(table.assign(layer=layer))
            pd.concat(tables, ignore_index=True).to_parquet(folder / "scores.parquet", index=False)

        return pd.read_parquet(self.run.step("type-scores", key, make) / "scores.parquet")

    def _pooled(self, encoded: Encoded, layer: int, split: str) -> tuple:
        rows, records = encoded.rows(split), encoded.records[encoded.records.split == split]
        pooled = features.pool_sequences(encoded.features(layer)[rows], encoded.tokens.record.to_numpy()[rows])
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
            selection, heldout = (self._split_features(encoded, layer, split) for split in ("selection", "heldout"))
            chosen_on = concepts.auroc(selection[0], concepts.annotate_elements(selection[1]))[:, concept]
            feature = int(np.where(self.retained(layer), chosen_on, 0).argmax())
            scored_on = concepts.auroc(heldout[0][:, [feature]], concepts.annotate_elements(heldout[1]))[0, concept]
            rows.append({"layer": layer, "feature": feature, "auroc": scored_on})
        return pd.DataFrame(rows)

    def best_feature(self, element: str) -> pd.Series:
        """The row of `element_scores` with the best F1 on the *selection* split for `element`: layer, feature and its scores."""
        scores = self.element_scores()
        scores = scores[scores.element == element]
        if scores.empty:
            raise ValueError(f"no record of {self.parameters.structures} has the element {element} in both splits")
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
            activation[encoded.tokens.position[mine]] = np.minimum(column[mine] / scale, 1) if scale > 0 else 0
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

    def example_records(self, best: pd.Series, count: int, split: str = "heldout", longest: int = 110) -> list[str]:
        """Ids of held-out RNAs that show the feature at its typical best: of the RNAs up to `longest` nt that have the element, one from
        each of `count` families, ranked by how strongly the feature fires at its strongest nucleotide. Not chosen by agreement."""
        encoded = self.structures()
        records = encoded.records
        pooled = features.pool_sequences(encoded.features(int(best.layer))[:, [int(best.feature)]], encoded.tokens.record.to_numpy())
        strength = pd.Series(pooled.toarray().ravel(), index=records.index)
        fit = records[(records.split == split) & (records.sequence.str.len() <= longest) & records.element.str.contains(best.element)]
        fit = fit.assign(strength=strength[fit.index]).sort_values(["strength", "id"], ascending=[False, True])
        if "family" in fit:
            fit = fit.drop_duplicates("family")
        return fit.id.head(count).tolist()
