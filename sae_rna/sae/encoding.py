"""The two expensive steps for one group of layers: training autoencoders, and encoding RNAs with them.

The language model is the dearest part of both at scale: all autoencoders that read the same states do so in
one pass.
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
    """Train every variant on hidden states of `layers`, on one stream; each folder gets its autoencoders and
    table.

    Stopped, it leaves checkpoints in the folders and goes on from there the next time. The result of a
    variant and a layer does not depend on the others.
    """
    buffer = {"batch": p.batch, "buffer_tokens": p.buffer_tokens, "seed": p.seed}
    stream = ActivationStream(model, sequences, layers, **buffer)
    facts = {"types": p.types, "sequences": len(sequences), "tokens": stream.tokens}
    facts |= {"epochs": p.epochs, "seed": p.seed}
    configs = [
        AutoencoderConfig(
            architecture=variant.architecture,
            members=tuple(Member(layer, p.sparsity(variant.architecture), variant.seed) for layer in layers),
            width=model.width,
            latents=variant.expansion * model.width,
            model=p.model,
            revision=model.revision,
            fingerprint=model.fingerprint,
            training=facts,
        )
        for variant in folders
    ]
    stacks, _ = train(
        stream,
        configs,
        epochs=p.epochs,
        learning_rate=p.sae_learning_rate,
        precision=p.precision,
        folders=list(folders.values()),
    )
    for stack, folder in zip(stacks, folders.values()):
        stack.save(folder)
    for folder in folders.values():  # not before all are written, so that this, too, can be stopped
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


class _Summary:
    """What is known of one layer's autoencoder and features without keeping their activations."""

    def __init__(self, latents: int, type_S):
        self.codes_S, self.types = features.type_codes(type_S)
        self.by_type = np.zeros((len(self.types), latents))
        self.features, self.variance = features.FeatureSummary(latents), ExplainedVariance()

    def update(self, x_1TD, reconstruction_1TD, activations_TF, sequence_T: np.ndarray):
        self.variance.update(x_1TD, reconstruction_1TD)
        pooled_SF = self.features.update(activations_TF, sequence_T)
        pooled_SF = pooled_SF.toarray() if sparse.issparse(pooled_SF) else pooled_SF
        np.add.at(self.by_type, self.codes_S[pd.unique(sequence_T)], pooled_SF)

    def table(self) -> pd.DataFrame:
        mean = self.by_type / np.bincount(self.codes_S, minlength=len(self.types))[:, None]
        tau = features.tau(mean) if len(self.types) > 1 else np.nan
        return self.features.table().assign(explained_variance=float(self.variance.value()[0]), tau=tau)


class _Encoder:
    """What one autoencoder makes of the RNAs: features, if `keep`, and a summary, if types are given."""

    def __init__(self, sae: SparseAutoencoders, type_S, keep: bool):
        self.sae, self.keep, self.pieces = sae, keep, list[sparse.csr_matrix]()
        self.summary = None if type_S is None else _Summary(sae.config.latents, type_S)

    def update(self, states: HiddenStates, place: int):
        x_1TD = self.sae.standardise(states.values_TLD[:, [place]]).transpose(0, 1)
        activations_1TF = self.sae.encode(x_1TD)
        chunk = activations_1TF[0].cpu().numpy()
        if self.keep or self.sae.config.kind.penalty == "auxk":
            chunk = features.to_csr(chunk)
        if self.summary:
            self.summary.update(x_1TD, self.sae.decode(activations_1TF), chunk, states.sequence_T)
        if self.keep:
            self.pieces.append(chunk)


@torch.inference_mode()
def encode_group(
    stacks: dict[Path, SparseAutoencoders],
    model: LanguageModel,
    records: pd.DataFrame,
    kept: Collection[Path],
    summarise: bool = True,
):
    """Encode `records` with every layer of each stack in one pass of the language model.

    Each writes to its folder: in those of `kept` the sparse features [T, F] of each layer, their rows as in
    `token_table`; with `summarise`, for RNAs of known type, ``summary.parquet``: a row per feature and layer.
    """
    (layers,) = {stack.config.layers for stack in stacks.values()}
    type_S = records.type if summarise else None
    encoders = {
        folder: [_Encoder(stack.only(layer), type_S, folder in kept) for layer in layers]
        for folder, stack in stacks.items()
    }
    sequences, sequence, position = records.sequence.tolist(), [], []
    bar = tqdm(model.batches(sequences), "encoding", mininterval=1)
    for states in model.hidden_states(sequences, layers, bar):
        sequence.append(states.sequence_T)
        position.append(states.position_T)
        for by_layer in encoders.values():
            for place, encoder in enumerate(by_layer):
                encoder.update(states, place)
    order = np.lexsort((np.concatenate(position), np.concatenate(sequence)))
    for folder, by_layer in encoders.items():
        tables = []
        for layer, encoder in zip(layers, by_layer):
            if encoder.keep:
                matrix = sparse.vstack(encoder.pieces, format="csr")[order]
                features.save_csr(matrix, folder / features_file(layer))
                encoder.pieces.clear()
            if encoder.summary:
                architecture = stacks[folder].config.architecture
                tables.append(encoder.summary.table().assign(layer=layer, architecture=architecture))
        if tables:
            pd.concat(tables, ignore_index=True).to_parquet(folder / "summary.parquet", index=False)
