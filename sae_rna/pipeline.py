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


@torch.inference_mode()
def encode_group(folder: Path, model: LanguageModel, records: pd.DataFrame, stack: SparseAutoencoders, keep: bool):
    """Encode `records` with every layer of `stack`.

    Writes ``summary.parquet``, a row per feature and layer, and with `keep` the sparse features [T, F] of each layer, their rows as in
    `token_table`.
    """
    members = {layer: stack.only(layer) for layer in stack.config.layers}
    layers, latents = list(members), stack.config.latents
    summaries = {layer: features.FeatureSummary(latents) for layer in layers}
    variances = {layer: ExplainedVariance() for layer in layers}
    codes_S, type_names = features.type_codes(records.type) if "type" in records else (np.zeros(len(records), int), ["all"])
    by_type = {layer: np.zeros((len(type_names), latents)) for layer in layers}
    sequence, position = [], []
    pieces: dict[int, list[sparse.csr_matrix]] = {layer: [] for layer in layers}
    sequences = records.sequence.tolist()
    batches = model.batches(sequences, batch_tokens=ENCODING_TOKENS)
    for states in model.hidden_states(sequences, layers, tqdm(batches, "encoding", mininterval=1)):
        sequence.append(states.sequence_T)
        position.append(states.position_T)
        type_S = codes_S[pd.unique(states.sequence_T)]
        for place, (layer, member) in enumerate(members.items()):
            x_1TD = member.standardise(states.values_TLD[:, [place]]).transpose(0, 1)
            activations = member.encode(x_1TD)
            variances[layer].update(x_1TD, member.decode(activations))
            chunk = activations[0].cpu().numpy()
            chunk = sparse.csr_matrix(chunk) if member.config.kind.penalty == "auxk" else chunk
            pooled_SF = summaries[layer].update(chunk, states.sequence_T)
            np.add.at(by_type[layer], type_S, pooled_SF.toarray() if sparse.issparse(pooled_SF) else pooled_SF)
            if keep:
                pieces[layer].append(sparse.csr_matrix(chunk))
    order = np.lexsort((np.concatenate(position), np.concatenate(sequence)))
    tables = []
    for layer, summary in summaries.items():
        if keep:
            features.save_csr(sparse.vstack(pieces.pop(layer), format="csr")[order], folder / features_file(layer))
        mean = by_type[layer] / np.bincount(codes_S, minlength=len(type_names))[:, None]
        facts = {
            "layer": layer,
            "architecture": stack.config.architecture,
            "explained_variance": float(variances[layer].value()[0]),
            "tau": features.tau(mean) if len(type_names) > 1 else np.nan,
        }
        tables.append(summary.table().assign(**facts))
    pd.concat(tables, ignore_index=True).to_parquet(folder / "summary.parquet", index=False)
