"""The two expensive steps of a study, for one group of layers: training autoencoders, and encoding RNAs with them."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from tqdm import tqdm

from sae_rna import features, training
from sae_rna.activations import ActivationStream
from sae_rna.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.fidelity import ExplainedVariance
from sae_rna.language_model import NUCLEOTIDES, LanguageModel
from sae_rna.parameters import Parameters, Variant

ENCODING_TOKENS = 8192
"""With padding, in one forward pass: fewer than in training, since the features of all layers are held as well."""


def train_group(folder: Path, model: LanguageModel, sequences: list[str], variant: Variant, layers: list[int], p: Parameters):
    """Train `variant` on the hidden states of `layers` and write it to `folder`, with ``training.parquet``.

    Stopped, it leaves a checkpoint in `folder` and goes on from there the next time. A layer's result does not depend on the others.
    """
    stream = ActivationStream(model, sequences, layers, batch=p.batch, buffer_tokens=p.buffer_tokens, seed=p.seed)
    facts = {"types": p.types, "sequences": len(sequences), "tokens": stream.tokens, "epochs": p.epochs, "seed": p.seed}
    config = AutoencoderConfig(
        architecture=variant.architecture,
        members=tuple(Member(layer, p.sparsity(variant.architecture), variant.seed) for layer in layers),
        width=model.width,
        latents=variant.expansion * model.width,
        model=p.model,
        revision=model.revision,
        fingerprint=model.fingerprint,
        training=facts,
    )
    (stack,), _ = training.train(stream, [config], epochs=p.epochs, learning_rate=p.sae_learning_rate, precision=p.precision, folder=folder)
    stack.save(folder)
    (folder / training.CHECKPOINT).unlink()


def token_table(records: pd.DataFrame) -> pd.DataFrame:
    """The nucleotides that a language model has states for: record (row number), position (from 0), base, element; in record order."""
    length_S = records.sequence.str.len().to_numpy()
    record_T = np.repeat(np.arange(len(records), dtype=np.int32), length_S)
    position_T = np.arange(len(record_T), dtype=np.int32) - np.repeat(np.cumsum(length_S) - length_S, length_S).astype(np.int32)
    tokens = pd.DataFrame({"record": record_T, "position": position_T, "base": list("".join(records.sequence))})
    if "element" in records:
        tokens["element"] = pd.Categorical(list("".join(records.element)))
    return tokens[tokens.base.isin(list(NUCLEOTIDES))].astype({"base": "category"}).reset_index(drop=True)


def features_file(layer: int) -> str:
    return f"layer-{layer:02d}.safetensors"


class _Summary:
    """What is known of one layer's autoencoder and features without keeping their activations."""

    def __init__(self, latents: int, type_S):
        self.codes_S, self.types = features.type_codes(type_S)
        self.by_type = np.zeros((len(self.types), latents))
        self.features, self.variance = features.FeatureSummary(latents), ExplainedVariance()

    def update(self, x_1TD: torch.Tensor, reconstruction_1TD: torch.Tensor, activations_TF, sequence_T: np.ndarray):
        self.variance.update(x_1TD, reconstruction_1TD)
        pooled_SF = self.features.update(activations_TF, sequence_T)
        np.add.at(self.by_type, self.codes_S[pd.unique(sequence_T)], pooled_SF.toarray() if sparse.issparse(pooled_SF) else pooled_SF)

    def table(self) -> pd.DataFrame:
        mean = self.by_type / np.bincount(self.codes_S, minlength=len(self.types))[:, None]
        tau = features.tau(mean) if len(self.types) > 1 else np.nan
        return self.features.table().assign(explained_variance=float(self.variance.value()[0]), tau=tau)


@torch.inference_mode()
def encode_group(
    folder: Path, model: LanguageModel, records: pd.DataFrame, stack: SparseAutoencoders, keep: bool = True, summarise: bool = True
):
    """Encode `records` with every layer of `stack`.

    With `keep` the sparse features [T, F] of each layer are written, their rows as in `token_table`; with `summarise`, for RNAs of known
    type, ``summary.parquet``: a row per feature and layer.
    """
    members = {layer: stack.only(layer) for layer in stack.config.layers}
    summaries = {layer: _Summary(stack.config.latents, records.type) for layer in members} if summarise else {}
    sequence, position = [], []
    pieces: dict[int, list[sparse.csr_matrix]] = {layer: [] for layer in members}
    sequences = records.sequence.tolist()
    batches = model.batches(sequences, batch_tokens=ENCODING_TOKENS)
    for states in model.hidden_states(sequences, list(members), tqdm(batches, "encoding", mininterval=1)):
        sequence.append(states.sequence_T)
        position.append(states.position_T)
        for place, (layer, member) in enumerate(members.items()):
            x_1TD = member.standardise(states.values_TLD[:, [place]]).transpose(0, 1)
            activations_1TF = member.encode(x_1TD)
            chunk = activations_1TF[0].cpu().numpy()
            chunk = sparse.csr_matrix(chunk) if keep or member.config.kind.penalty == "auxk" else chunk
            if summarise:
                summaries[layer].update(x_1TD, member.decode(activations_1TF), chunk, states.sequence_T)
            if keep:
                pieces[layer].append(chunk)
    order = np.lexsort((np.concatenate(position), np.concatenate(sequence)))
    for layer in members if keep else ():
        features.save_csr(sparse.vstack(pieces.pop(layer), format="csr")[order], folder / features_file(layer))
    if summarise:
        tables = [summary.table().assign(layer=layer, architecture=stack.config.architecture) for layer, summary in summaries.items()]
        pd.concat(tables, ignore_index=True).to_parquet(folder / "summary.parquet", index=False)
