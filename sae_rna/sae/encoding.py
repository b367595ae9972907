"""The two expensive steps of a study, for a group of layers: training autoencoders and encoding RNAs.

The language model is the dearest part of both: all autoencoders that read the same states do so in one pass.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from tqdm import tqdm

from sae_rna.extraction.language_model import HiddenStates, LanguageModel
from sae_rna.extraction.stream import ActivationStream
from sae_rna.parameters import Parameters, Variant
from sae_rna.records.composition import NUCLEOTIDES
from sae_rna.sae import features
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.checkpoint import CHECKPOINT
from sae_rna.sae.explained_variance import ExplainedVariance
from sae_rna.sae.trainer import train


def train_group(
    folders: dict[Variant, Path], model: LanguageModel, sequences: list[str], layers: list[int], p: Parameters
):
    """Train every variant on the hidden states of `layers` and write each to its folder, with its table.

    Stopped, it leaves checkpoints in the folders and goes on from there the next time. The result of a
    variant and a layer does not depend on the others.
    """
    options = {"batch": p.batch, "buffer_tokens": p.buffer_tokens, "seed": p.seed}
    stream = ActivationStream(model, sequences, layers, **options)
    facts = {"types": p.types, "sequences": len(sequences), "tokens": stream.tokens}
    facts |= {"epochs": p.epochs, "seed": p.seed}
    origin: dict = {"model": p.model, "revision": model.revision, "fingerprint": model.fingerprint}
    configs = []
    for variant in folders:
        sparsity, latents = p.sparsity(variant.architecture), variant.expansion * model.width
        members = tuple(Member(layer, sparsity, variant.seed) for layer in layers)
        sizes = variant.architecture, members, model.width, latents
        configs.append(AutoencoderConfig(*sizes, **origin, training=facts, frozen=variant.frozen))
    places = list(folders.values())
    recipe: dict = {"epochs": p.epochs, "learning_rate": p.sae_learning_rate, "precision": p.precision}
    stacks, _ = train(stream, configs, folders=places, **recipe)
    for stack, folder in zip(stacks, places):
        stack.save(folder)
    for folder in places:  # not before all are written: what is stopped here goes on from its last step
        (folder / CHECKPOINT).unlink()


def token_table(records: pd.DataFrame) -> pd.DataFrame:
    """Nucleotides that have states, in order: record (row number), position (from 0), base, element."""
    length_S = records.sequence.str.len().to_numpy()
    record_T = np.repeat(np.arange(len(records), dtype=np.int32), length_S)
    start_T = np.repeat(np.cumsum(length_S) - length_S, length_S).astype(np.int32)
    position_T = np.arange(len(record_T), dtype=np.int32) - start_T
    bases = list("".join(records.sequence))
    tokens = pd.DataFrame({"record": record_T, "position": position_T, "base": bases})
    if "element" in records:
        tokens["element"] = pd.Categorical(list("".join(records.element)))
    return tokens[tokens.base.isin(list(NUCLEOTIDES))].astype({"base": "category"}).reset_index(drop=True)


def features_file(layer: int) -> str:
    """Where `encode_group` writes the features of a layer."""
    return f"layer-{layer:02d}.safetensors"


class _Encoder:
    """What one autoencoder makes of the RNAs: features, if `keep`, and a summary, if types are given."""

    def __init__(self, sae: SparseAutoencoders, type_S: pd.Series | None, keep: bool):
        self.sae, self.keep, self.pieces = sae, keep, list[sparse.csr_matrix]()
        self.summary, self.variance = features.FeatureSummary(sae.config.latents), ExplainedVariance()
        self.types = None if type_S is None else features.type_codes(type_S)
        self.by_type = np.zeros((len(self.types[1]) if self.types else 0, sae.config.latents))

    def update(self, states: HiddenStates, place: int):
        x_1TD = self.sae.standardise(states.values_TLD[:, [place]]).transpose(0, 1)
        activations_1TF = self.sae.encode(x_1TD)
        chunk = activations_1TF[0].cpu().numpy()
        if self.keep or self.sae.config.kind.penalty == "auxk":
            chunk = features.to_csr(chunk)
        if self.keep:
            self.pieces.append(chunk)
        if self.types:
            self.variance.update(x_1TD, self.sae.decode(activations_1TF))
            pooled_SF = features.dense(self.summary.update(chunk, states.sequence_T))
            np.add.at(self.by_type, self.types[0][pd.unique(states.sequence_T)], pooled_SF)

    def table(self, codes_S: np.ndarray, types: pd.Index) -> pd.DataFrame:
        """The summary, a row per feature."""
        mean = self.by_type / np.bincount(codes_S, minlength=len(types))[:, None]
        tau = features.tau(mean) if len(types) > 1 else np.nan
        facts = {"explained_variance": float(self.variance.value()[0]), "tau": tau}
        (layer,), architecture = self.sae.config.layers, self.sae.config.architecture
        return self.summary.table().assign(**facts, layer=layer, architecture=architecture)


@torch.inference_mode()
def encode_group(
    stacks: dict[Path, SparseAutoencoders],
    model: LanguageModel,
    records: pd.DataFrame,
    kept: Collection[Path],
    summarise: bool = True,
):
    """Encode `records` with every layer of each stack, all of the same layers, in one pass of the model.

    Each writes to its folder: in those of `kept` the sparse features [T, F] of each layer, their rows as in
    `token_table`; with `summarise`, for RNAs of known type, ``summary.parquet``: a row per feature and layer.
    """
    (layers,) = {stack.config.layers for stack in stacks.values()}
    type_S = records.type if summarise else None
    encoders = {at: [_Encoder(sae.only(n), type_S, at in kept) for n in layers] for at, sae in stacks.items()}
    sequences, sequence, position = records.sequence.tolist(), list[np.ndarray](), list[np.ndarray]()
    bar = tqdm(model.batches(sequences), "encoding", mininterval=1)
    for states in model.hidden_states(sequences, layers, bar):
        sequence.append(states.sequence_T)
        position.append(states.position_T)
        for by_layer in encoders.values():
            for place, encoder in enumerate(by_layer):
                encoder.update(states, place)
    order = np.lexsort((np.concatenate(position), np.concatenate(sequence)))
    for folder, by_layer in encoders.items():
        for layer, encoder in zip(layers, by_layer):
            if encoder.keep:
                matrix = sparse.vstack(encoder.pieces, format="csr")[order]
                features.save_csr(matrix, folder / features_file(layer))
                encoder.pieces.clear()
        tables = [encoder.table(*encoder.types) for encoder in by_layer if encoder.types]
        if tables:
            pd.concat(tables, ignore_index=True).to_parquet(folder / "summary.parquet", index=False)
