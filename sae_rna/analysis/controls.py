"""What a sparse autoencoder must beat: the same concepts, found without one and scored by the same code.

A control turns hidden states of one layer (not standardised) into non-negative activations. A direction that
may be negative counts as two features, one for each sign. Windows and k-mers are read from the sequences.
Shapes: T nucleotides, L layers, D width, F features, B resamples.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning
from tqdm import tqdm

from sae_rna.analysis.statistics import choosing
from sae_rna.analysis.statistics.annotations import Annotations, annotate
from sae_rna.analysis.statistics.intervals import lead_interval
from sae_rna.analysis.statistics.nulls import discoveries
from sae_rna.analysis.structure_features import SPLITS, evaluated
from sae_rna.extraction.stream import Standardiser, hidden_states
from sae_rna.records import composition
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.features import to_csr

MOST_RNAS, TRAINING_RNAS, BOOTSTRAPS = 2000, 300, 500
"""Scored of each split (hidden states lie in memory), to fit components on, and resamples of families."""
WINDOW, KMER = 5, 5  # on each side of a window, in a k-mer: 4 ** 5 are as many as the default has latents
ICA_TOKENS, ICA_ITERATIONS = 20_000, 200  # at most: more cost time and change little
ENCODED_TOKENS = 4096  # tokens that an autoencoder encodes at a time

Encoder = Callable[[np.ndarray], np.ndarray | sparse.csr_matrix]  # states [T, D] to activations [T, F]


def _standardiser(training_TD: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    fitted = Standardiser.fit(torch.from_numpy(training_TD))
    return lambda values_TD: fitted(torch.from_numpy(values_TD)).numpy()


def _both_signs(values_TD: np.ndarray) -> np.ndarray:
    """relu(x) and relu(-x), side by side."""
    both = np.concatenate([values_TD, -values_TD], axis=1)
    return np.maximum(both, 0, out=both)


def neurons(training_TD: np.ndarray) -> Encoder:
    """Dimensions, standardised by training tokens: feature d is relu(x_d), feature D + d is relu(-x_d)."""
    standardise = _standardiser(training_TD)
    return lambda values_TD: _both_signs(standardise(values_TD))


def components(training_TD: np.ndarray, method: str, seed: int = 0) -> Encoder:
    """Principal or independent components of the standardised dimensions, as many: both signs of each.

    `method` is "pca", scikit-learn's PCA, or "ica", its FastICA (Hyvarinen 1999, IEEE Transactions on Neural
    Networks 10:626), sources of unit variance, on `ICA_TOKENS` training tokens, converged or not.
    """
    standardise = _standardiser(training_TD)
    x_TD = standardise(training_TD)
    tokens, width = x_TD.shape
    model = PCA(width, random_state=seed)
    if method == "ica":
        model = FastICA(width, whiten_solver="eigh", max_iter=ICA_ITERATIONS, tol=1e-3, random_state=seed)
        x_TD = x_TD[np.random.default_rng(seed).permutation(tokens)[:ICA_TOKENS]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_TD)
    return lambda values_TD: _both_signs(model.transform(standardise(values_TD)))


def latents(stack: SparseAutoencoders) -> Encoder:
    """The latents of one autoencoder, trained or not."""
    stack = stack.eval()

    @torch.inference_mode()
    def encode(values_TD: np.ndarray) -> sparse.csr_matrix:
        parts = []
        for part_TD in torch.from_numpy(values_TD).split(ENCODED_TOKENS):
            x_1TD = stack.standardise(part_TD.to(stack.encoder_weight.device)[:, None]).transpose(0, 1)
            parts.append(to_csr(stack.encode(x_1TD)[0].cpu().numpy()))
        return sparse.vstack(parts, format="csr")

    return encode


def untrained(stack: SparseAutoencoders) -> SparseAutoencoders:
    """`stack` with the weights that training started from; configuration, k and standardisation stay.

    An untrained batchtopk or matryoshka has no threshold, which is learnt: it is the topk of the same k.
    """
    learnt = stack.config.kind.activation == "batchtopk"
    architecture = "topk" if learnt else stack.config.architecture
    config = replace(stack.config, architecture=architecture, training={})
    standardise = Standardiser(stack.standardise.mean, stack.standardise.std)
    return SparseAutoencoders(config, standardise).to(stack.encoder_weight.device).eval()


class AnnotatedSets:
    """The first `MOST_RNAS` selection and held-out RNAs, their tokens (`rows`, boolean [T]) and concepts."""

    def __init__(self, rnas: Activations, seed: int = 0):
        self.seed, self.records, self.rows = seed, {}, {}
        self.annotations: dict[str, Annotations] = {}
        for split in SPLITS:
            numbers = rnas.tokens.record[rnas.rows(split)].unique()[:MOST_RNAS]
            self.records[split] = rnas.records.iloc[numbers].reset_index(drop=True)
            self.rows[split] = np.isin(rnas.tokens.record, numbers)
            self.annotations[split] = annotate(rnas.tokens[self.rows[split]], rnas.records)

    def score(self, activations: dict[str, np.ndarray | sparse.spmatrix], retained_F=None, shuffles: int = 0):
        """`choosing.score_concepts` of activations by split, with intervals over the held-out families."""
        selection, heldout = ((to_csr(activations[split]), of) for split, of in self.annotations.items())
        known, unseen = (records.get("family") for records in self.records.values())
        options = (known, unseen), shuffles, self.seed, BOOTSTRAPS
        return choosing.score_concepts(selection, heldout, retained_F, *options)


def score_concepts(rnas, random, model, autoencoders, training, shuffles=20, seed: int = 0) -> pd.DataFrame:
    """The best feature of every concept, layer and source: `choosing.score_concepts`, with source and layer.

    rnas, random : RNAs of known structure, encoded by the autoencoders under test, and the same RNAs by those
        trained on a language model of random weights; these two sources alone are scored on a null, too
    model, autoencoders : the language model, and the autoencoders under test with their `groups` of layers
    training : records on which neurons and components are fitted

    Further sources: an untrained SAE on the model's own states, its neurons, principal and independent
    components, the embedding layer's neurons, and, of no layer, one-hot windows and k-mers. `discovery` is at
    a false discovery rate of 5 % over the concepts of a source and layer.
    """
    sets, tables = AnnotatedSets(rnas, seed), []

    def add(source: str, layer: int | None, activations: dict, **options):
        tables.append(sets.score(activations, **options).assign(source=source, layer=layer))

    for layer in tqdm(rnas.layers, "concepts", mininterval=1):
        for of, retained_F in ((rnas, rnas.retained(layer)), (random, None)):
            features = of.features(layer)
            by_split = {split: features[rows] for split, rows in sets.rows.items()}
            add(of.name, layer, by_split, retained_F=retained_F, shuffles=shuffles)
    fitted = training.sample(min(len(training), TRAINING_RNAS), random_state=seed).sequence.tolist()
    texts = {split: records.sequence.tolist() for split, records in sets.records.items()}
    for source, layer, encode, states in _controls(model, autoencoders, fitted, texts, seed):
        add(source, layer, {split: encode(states_TD) for split, states_TD in states.items()})
    windows = {split: composition.windows(of, WINDOW) for split, of in texts.items()}
    add(f"one-hot window of {2 * WINDOW + 1}", None, windows)
    add(f"{KMER}-mers", None, {split: composition.kmers(of, KMER) for split, of in texts.items()})
    table = pd.concat(tables, ignore_index=True).astype({"layer": "Int64"}).assign(discovery=False)
    for _, rows in table[table.p_pooled.notna()].groupby(["source", "layer"]):
        table.loc[rows.index, "discovery"] = discoveries(rows)
    return table


def _controls(model, autoencoders, fitted: list[str], texts: dict, seed: int) -> Iterator[tuple]:
    """Source, layer, encoder and hidden states [T, D] by split of all controls that read such states."""
    first, *others = autoencoders.groups
    for layers in [[0, *first], *others]:
        states = {split: hidden_states(model, of, layers) for split, of in texts.items()}
        training_TLD = hidden_states(model, fitted, layers)
        for place, layer in enumerate(layers):
            training_TD = training_TLD[:, place]
            here = {split: states_TLD[:, place] for split, states_TLD in states.items()}
            if layer == 0:
                yield "embedding layer", layer, neurons(training_TD), here
                continue
            yield "untrained SAE", layer, latents(untrained(autoencoders[layer])), here
            yield "neurons", layer, neurons(training_TD), here
            for method in ("pca", "ica"):
                yield method.upper(), layer, components(training_TD, method, seed), here


def best_of(concepts: pd.DataFrame) -> pd.DataFrame:
    """Of each source and concept of `score_concepts` the layer that was best on the selection families."""
    rows = concepts.groupby(["source", "group", "concept"], sort=False).selection_f1.idxmax()
    return concepts.loc[rows].reset_index(drop=True)


def leads(best: pd.DataFrame) -> pd.DataFrame:
    """The rows of `best_of` of the first source, which is under test, each beside its best control by F1.

    control, control_f1 and lead are added, and lead_low and lead_high, its 95 % interval over families;
    missing where a concept has no control. The best control is chosen on the very scores, which favours it.
    """
    keys, tested = ["group", "concept"], best.source == best.source.iloc[0]
    rivals = best[~tested]
    rivals = rivals.loc[rivals.groupby(keys).f1.idxmax()][[*keys, "source", "f1", "f1_resampled"]]
    names = {"source": "control", "f1": "control_f1", "f1_resampled": "control_resampled"}
    both = best[tested].merge(rivals.rename(columns=names), on=keys, how="left")
    both["lead"] = both.f1 - both.control_f1
    others = [np.empty(0) if np.ndim(other) == 0 else other for other in both.control_resampled]
    both[["lead_low", "lead_high"]] = list(map(lead_interval, both.f1_resampled, others))
    return both.drop(columns=["f1_resampled", "control_resampled"])


def control_table(led: pd.DataFrame) -> pd.DataFrame:
    """tab-controls, from `leads`: every concept's best feature beside chance and its best control."""
    table = led.assign(chance=led[["null_p95", "base_f1"]].max(axis=1))
    table = table.rename(columns={"lead_low": "from", "lead_high": "to", "discovery": "found"})
    columns = ["concept", "layer", "feature", "f1", "chance", "found", "control", "lead", "from", "to"]
    return table[columns].round({"lead": 3, "from": 3, "to": 3})


def numbers(best: pd.DataFrame, records: pd.DataFrame) -> dict:
    """Numbers of the page's captions and conclusion, from `best_of` and the RNAs' records."""
    led, heldout = leads(best), records[records.split == "heldout"]
    families = heldout.family.nunique() if "family" in heldout else len(heldout)
    facts = {"concepts": len(led), "controls": best.source.nunique() - 1, "families": families}
    facts |= {"ahead": int((led.lead > 0).sum()), "clearly": int((led.lead_low > 0).sum())}
    facts |= {"behind": int((led.lead_high < 0).sum()), "discoveries": int(led.discovery.sum())}
    return evaluated(records) | facts | {"bootstraps": BOOTSTRAPS}
