"""What an autoencoder keeps of the activations it was given, and of the language model's predictions.

A reconstruction that explains most of the variance may still lose what the model goes on to use, so it is put
in the place of the hidden states and the model predicts masked bases from it. Loss recovered (Bricken et al.
2023, "Towards Monosemanticity"; Gao et al. 2024, arXiv:2406.04093) is (CE_ablate - CE_variant) / (CE_ablate -
CE_lm), here with mean ablation and never clipped.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import log_softmax
from tqdm import tqdm

from sae_rna.analysis.language_model import choose_masked, hidden_bases, model_log_probabilities
from sae_rna.analysis.type_features import first_middle_last
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import Standardiser
from sae_rna.records.splits import settings
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.explained_variance import ExplainedVariance

RNAS, TRAINING_RNAS = 120, 300  # held out, whose masked bases are predicted; that components are fitted on
RESAMPLES = 1000  # of the sequences, for intervals

Replace = Callable[[torch.Tensor], torch.Tensor]  # hidden states of nucleotides in, others out, [T, D]
Reconstruct = Callable[[torch.Tensor], tuple[torch.Tensor, int]]
"""Standardised x [T, D] in; its reconstruction and the number of active coefficients of all tokens out."""


@contextmanager
def replaced_states(model: LanguageModel, layer: int, replace: Replace) -> Iterator[None]:
    """While it lasts, the model goes on from `replace(values_TD)` instead of its hidden states of `layer`.

    Layers are numbered as in `hidden_states`: 0 is the embedding layer, `i` the output of block `i`, the last
    one after the encoder's final layer norm, if any. `replace` is called once a batch with the states of all
    nucleotides, float32 and not standardised, masked positions included; special tokens, padding and
    ambiguity codes keep theirs. Raises ValueError if the model has no such layer.
    """
    model.check_layers([layer])
    nucleotides_BW = torch.empty(0)

    def find_nucleotides(_, args, kwargs):
        nonlocal nucleotides_BW
        ids = args[0] if args else kwargs["input_ids"]
        nucleotides_BW = model.nucleotide_mask(ids) | (ids == model.tokenizer.mask_token_id)

    def replaced(states_BWD: torch.Tensor) -> torch.Tensor:
        states_BWD = states_BWD.clone()
        states_BWD[nucleotides_BW] = replace(states_BWD[nucleotides_BW].float()).to(states_BWD.dtype)
        return states_BWD

    find = model.model.base_model.register_forward_pre_hook(find_nucleotides, with_kwargs=True)
    with find, model.hooked(layer, replaced):
        yield


def masked_log_probabilities(model, sequences, masked: list, layer=0, replace=None) -> np.ndarray:
    """`model_log_probabilities` of all sequences one after the other, shape [M, 4].

    With `replace` the model predicts from replaced states of `layer`, see `replaced_states`.
    """
    with replaced_states(model, layer, replace) if replace else nullcontext():
        return np.concatenate(model_log_probabilities(model, sequences, masked))


class Reconstruction:
    """A replacement of states (`standardise` has one row) that counts explained variance and coefficients."""

    def __init__(self, standardise: Standardiser, reconstruct: Reconstruct):
        self.standardise, self.reconstruct = standardise, reconstruct
        self.variance, self.active = ExplainedVariance(), 0

    def __call__(self, values_TD: torch.Tensor) -> torch.Tensor:
        x_TD = self.standardise(values_TD)
        guess_TD, active = self.reconstruct(x_TD)
        self.variance.update(x_TD[None], guess_TD[None])
        self.active += active
        return guess_TD * self.standardise.std + self.standardise.mean


def mean_ablation(x_TD: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The training mean for every token; a `Reconstruct`."""
    return torch.zeros_like(x_TD), 0


def through_autoencoder(member: SparseAutoencoders) -> Reconstruct:
    """What a stack of one makes of the states."""

    def reconstruct(x_TD):
        features_1TF = member.encode(x_TD[None])
        return member.decode(features_1TF)[0], int((features_1TF > 0).sum())

    return reconstruct


def first_components(basis_DD: torch.Tensor, k: int) -> Reconstruct:
    """The projection on the first k columns of an orthonormal basis, the same k for all tokens."""
    return lambda x_TD: (x_TD @ basis_DD[:, :k] @ basis_DD[:, :k].T, k * len(x_TD))


def largest_components(basis_DD: torch.Tensor, k: int) -> Reconstruct:
    """Each token's k largest coefficients in an orthonormal basis: a sparse code that is not learnt."""

    def reconstruct(x_TD):
        scores_TD = x_TD @ basis_DD
        chosen = scores_TD.abs().topk(k, dim=-1, sorted=False).indices
        kept_TD = torch.zeros_like(scores_TD).scatter(-1, chosen, scores_TD.gather(-1, chosen))
        return kept_TD @ basis_DD.T, k * len(x_TD)

    return reconstruct


MOST_COLUMNS = 8  # layers side by side in tab-fidelity
MEASURES = {"kl": "KL divergence, nats", "loss_recovered": "loss recovered"}
MEASURES |= {"explained_variance": "explained variance", "l0": "active coefficients (L0)"}
COMPONENTS = {"PCA, first components": first_components, "PCA, largest components": largest_components}


def principal_components(model, sequences, layers, standardise: Standardiser) -> torch.Tensor:
    """Orthonormal bases [L, D, D] of the standardised states, one component a column, the widest first.

    The components go through the mean that `standardise` (one row a layer) made zero. Raises ValueError for
    fewer nucleotides than dimensions.
    """
    products, tokens = 0, 0
    for states in model.hidden_states(sequences, layers):
        x_LTD = standardise(states.values_TLD).transpose(0, 1).double()
        products, tokens = products + x_LTD.mT @ x_LTD, tokens + len(states.values_TLD)
    if tokens < model.width:
        few = f"{tokens} nucleotides are too few for {model.width} principal components"
        raise ValueError(f"{few}: give more training sequences")
    return torch.linalg.eigh(products).eigenvectors.flip(-1).float()


class _Variant(NamedTuple):
    """What a row of the table is made of."""

    variant: str
    architecture: str
    l0: float
    explained_variance: float
    log_probabilities_M4: np.ndarray


def measure(
    model: LanguageModel, autoencoders: Mapping, training, heldout, layers, seed, components=tuple(COMPONENTS)
) -> pd.DataFrame:
    """How well the model predicts masked bases with one layer's states replaced: a row per layer and variant.

    model : with its head for masked bases
    autoencoders : by architecture and layer; ablation and components use the first one's mean and units
    training, heldout : sequences to fit components on, and those of which 15 % of the bases are masked
    seed : of the masked positions and the resampling
    components : which of `COMPONENTS` stand beside every autoencoder

    Columns: layer; variant ("language model", "mean ablation", "autoencoder", and each of `components` for k
    = the autoencoder's l0, rounded); architecture; l0 (active coefficients a token); explained_variance (of
    the masked inputs' standardised states); cross_entropy (nats a masked base); kl (KL(P_model || P_variant),
    nats), kl_low, kl_high (95 %, sequences resampled); loss_recovered, low, high; ce_lm,
    ce_ablate; positions, sequences; reason (why loss recovered or its interval is missing). Autoencoders and
    components were fitted on unmasked sequences: what the shift to masked ones costs is included. Raises
    ValueError without masked positions.
    """
    masked = choose_masked(heldout, seed)
    sequence_M = np.repeat(np.arange(len(masked)), [len(positions) for positions in masked])
    if not len(sequence_M):
        raise ValueError(f"no base of the {len(masked)} sequences is masked: give more or longer ones")
    truth_M = hidden_bases(heldout, masked)
    # Whole sequences are drawn, since masked bases of one sequence are not independent.
    even = np.full(len(masked), 1 / len(masked))
    draws_RS = np.random.default_rng(seed).multinomial(len(masked), even, RESAMPLES)
    first = next(iter(autoencoders.values()))
    units = {layer: first[layer].standardise for layer in layers}
    means, scales = zip(*[(unit.mean, unit.std) for unit in units.values()])
    together = Standardiser(torch.cat(means), torch.cat(scales))
    bases = dict(zip(units, principal_components(model, training, list(units), together)))
    own = _Variant("language model", "", np.nan, 1.0, masked_log_probabilities(model, heldout, masked))

    def predict(layer: int, variant: str, architecture: str, replace: Reconstruction) -> _Variant:
        logs_M4, variance = masked_log_probabilities(model, heldout, masked, layer, replace), replace.variance
        l0, explained_variance = replace.active / variance.count, variance.value().item()
        return _Variant(variant, architecture, l0, explained_variance, logs_M4)

    tables = []
    for layer, unit in tqdm(units.items(), "fidelity", mininterval=1):
        variants = [own, predict(layer, "mean ablation", "", Reconstruction(unit, mean_ablation))]
        for name, by_layer in autoencoders.items():
            sae = by_layer[layer].eval()
            replace = Reconstruction(sae.standardise, through_autoencoder(sae))
            variants.append(predict(layer, "autoencoder", name, replace))
            k = max(round(variants[-1].l0), 1)
            for pca in components:
                if k < model.width:
                    replace = Reconstruction(unit, COMPONENTS[pca](bases[layer], k))
                    variants.append(predict(layer, pca, name, replace))
                else:  # all D components are the state itself
                    variants.append(own._replace(variant=pca, architecture=name, l0=model.width))
        tables.append(_scores(variants, truth_M, sequence_M, draws_RS).assign(layer=layer))
    table = pd.concat(tables, ignore_index=True).assign(positions=len(sequence_M), sequences=len(masked))
    return table[["layer", *table.columns.drop(["layer", "reason"]), "reason"]]


def sampled(records: pd.DataFrame, seed: int) -> list[str]:
    """Sequences of `RNAS` records of the splits that features are scored on, of all settings alike."""
    scored = records[records.split.isin([split for _, split in settings(records).values()])]
    return scored.sample(min(len(scored), RNAS), random_state=seed).sequence.tolist()


def shown(scores: pd.DataFrame, architecture: str) -> pd.DataFrame:
    """The rows of `measure` in the figure: all autoencoders, and components of the L0 of `architecture`."""
    own = scores.variant == "autoencoder"
    table = scores[own | scores.architecture.isin(["", architecture])]
    table = table.assign(variant=table.architecture.where(own, table.variant))
    return table.drop(columns=["architecture", "reason"])


def fidelity_table(table: pd.DataFrame) -> pd.DataFrame:
    """tab-fidelity: `shown` with a column a layer (of many the first, middle and last), measure by measure.

    What follows from the definition is left out: all of the language model itself, and what is 0 of ablation.
    """
    layers = table.layer.unique().tolist()
    layers = layers if len(layers) <= MOST_COLUMNS else first_middle_last(layers)
    rows = table[table.layer.isin(layers) & (table.variant != "language model")]
    parts = []
    for column, measure in MEASURES.items():
        own = rows if column == "kl" else rows[rows.variant != "mean ablation"]
        wide = own.pivot(index="variant", columns="layer", values=column).reindex(own.variant.unique())
        parts.append(wide.rename(columns="L{}".format).reset_index().assign(measure=measure))
    wide = pd.concat(parts, ignore_index=True).rename(columns={"variant": "states replaced by"})
    return wide[["measure", *wide.columns.drop("measure")]].rename_axis(columns=None)


def numbers(table: pd.DataFrame, architecture: str) -> dict:
    """Numbers of captions from `shown`: also in how many layers `architecture` keeps more than components."""
    by_layer = table.set_index("layer")
    own, pca = (by_layer[by_layer.variant == name] for name in (architecture, "PCA, largest components"))
    more, any_row = int((own.explained_variance > pca.explained_variance).sum()), table.iloc[0]
    facts = {"shown": architecture, "rnas": int(any_row.sequences), "positions": int(any_row.positions)}
    if missing := int(own.loss_recovered.isna().sum()):
        remark = f"It is missing in {missing} layers, where the model predicts no better than its ablation."
    facts |= {"cross_entropy": any_row.ce_lm, "missing": remark if missing else ""}
    return facts | {"layers": len(own), "more_variance": more, "less_kl": int((own.kl < pca.kl).sum())}


def _scores(variants: list[_Variant], truth_M, sequence_M, draws_RS) -> pd.DataFrame:
    """Rows of one layer; first the model and its ablation. Draws say how often each sequence counts."""
    stacked_VM4 = np.stack([variant.log_probabilities_M4 for variant in variants])
    logs_VM4 = log_softmax(stacked_VM4.astype(np.float64), axis=-1)
    loss_VM = -logs_VM4[:, np.arange(len(truth_M)), truth_M]
    cross_entropy_V = loss_VM.mean(1)
    loss_VS = np.stack([np.bincount(sequence_M, loss_M, minlength=draws_RS.shape[1]) for loss_M in loss_VM])
    recovered_V, recovered_VR = _recovered(cross_entropy_V), _recovered(loss_VS @ draws_RS.T)
    low, high = np.quantile(recovered_VR, (0.025, 0.975), axis=1)
    reason = ""
    if np.isnan(recovered_V[0]):
        reason = "the language model predicts no better than its mean ablation at this layer"
    elif np.isnan(low[0]):
        reason = "no interval: in some resamples the language model predicts no better than its mean ablation"
    kl_VM = (np.exp(logs_VM4[0]) * (logs_VM4[0] - logs_VM4)).sum(-1)
    kl_VS = np.stack([np.bincount(sequence_M, kl_M, minlength=draws_RS.shape[1]) for kl_M in kl_VM])
    drawn_R = draws_RS @ np.bincount(sequence_M, minlength=draws_RS.shape[1])  # masked bases
    kl_low, kl_high = np.quantile(kl_VS @ draws_RS.T / np.maximum(drawn_R, 1), (0.025, 0.975), axis=1)
    scores = {"cross_entropy": cross_entropy_V, "kl": kl_VM.mean(1), "kl_low": kl_low, "kl_high": kl_high}
    scores |= {"loss_recovered": recovered_V}
    scores |= {"low": low, "high": high, "ce_lm": cross_entropy_V[0], "ce_ablate": cross_entropy_V[1]}
    table = pd.DataFrame([variant[:-1] for variant in variants], columns=_Variant._fields[:-1])
    return table.assign(**scores, reason=reason)


def _recovered(loss_V: np.ndarray) -> np.ndarray:
    """Loss recovered by each variant; NaN where the first, the model, does not beat the second, ablation."""
    margin = loss_V[1] - loss_V[0]
    return (loss_V[1] - loss_V) / np.where(margin > 0, margin, np.nan)
