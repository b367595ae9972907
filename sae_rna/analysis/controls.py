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

from sae_rna.analysis.data import in_settings
from sae_rna.analysis.statistics import choosing
from sae_rna.analysis.statistics.annotations import Annotations, annotate
from sae_rna.analysis.statistics.intervals import lead_interval
from sae_rna.analysis.statistics.nulls import discoveries
from sae_rna.analysis.structure_features import BOOTSTRAPS, evaluated
from sae_rna.extraction.stream import Standardiser, hidden_states
from sae_rna.records import composition
from sae_rna.records.splits import settings
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.features import to_csc, to_csr

MOST_RNAS, TRAINING_RNAS = 2000, 300
"""RNAs scored of each split (hidden states lie in memory), and RNAs to fit components on."""
WINDOW, KMER = 5, 5  # on each side of a window, in a k-mer: 4 ** 5 are as many as the default has latents
ICA_TOKENS, ICA_ITERATIONS = 20_000, 200  # at most: more cost time and change little
ENCODED_TOKENS = 4096  # tokens that an autoencoder encodes at a time

Encoder = Callable[[np.ndarray], np.ndarray | sparse.csr_matrix]  # states [T, D] to activations [T, F]


def _standardiser(training_TD: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    fitted = Standardiser.fit(torch.from_numpy(training_TD))
    return lambda values_TD: fitted(torch.from_numpy(values_TD)).numpy()


def _both_signs(values_TD: np.ndarray) -> np.ndarray:
    """relu(x) and relu(-x), side by side."""
    tokens, width = values_TD.shape
    both = np.empty((tokens, 2 * width), values_TD.dtype)
    np.maximum(values_TD, 0, out=both[:, :width])
    np.maximum(-values_TD, 0, out=both[:, width:])
    return both


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
    """The first `MOST_RNAS` RNAs of every split of the settings, their tokens (`rows`, boolean [T]) and
    concepts."""

    def __init__(self, rnas: Activations, seed: int = 0):
        self.seed, self.records, self.rows = seed, {}, {}
        self.annotations: dict[str, Annotations] = {}
        self.settings = settings(rnas.records)
        for split in sum(self.settings.values(), ()):
            numbers = rnas.tokens.record[rnas.rows(split)].unique()[:MOST_RNAS]
            self.records[split] = rnas.records.iloc[numbers].reset_index(drop=True)
            self.rows[split] = np.isin(rnas.tokens.record, numbers)
            self.annotations[split] = annotate(rnas.tokens[self.rows[split]], rnas.records)

    def score(self, activations: dict[str, np.ndarray | sparse.spmatrix], retained_F=None, shuffles: int = 0):
        """`choosing.score_concepts` of activations by split, with `setting` and intervals over families."""
        tables = []
        for setting, splits in self.settings.items():
            known, unseen = ((to_csc(activations[split]), self.annotations[split]) for split in splits)
            families = [self.records[split].get("family") for split in splits]
            options = {"shuffles": shuffles, "seed": self.seed, "bootstraps": BOOTSTRAPS}
            table = choosing.score_concepts(known, unseen, retained_F, families, **options)
            tables.append(table.assign(setting=setting))
        return pd.concat(tables, ignore_index=True)


def frozen_name(stack: SparseAutoencoders) -> str:
    """What figures call an autoencoder of which a part was frozen."""
    part = stack.config.frozen
    return "softly frozen decoder" if part == "softly" else f"frozen {part}"


def score_concepts(
    rnas, random, model, autoencoders, frozen, training, shuffles=20, seed: int = 0
) -> pd.DataFrame:
    """The best feature of every concept, layer, source and setting: `choosing.score_concepts` of all.

    rnas, random : RNAs of known structure, encoded by the autoencoders under test, and the same RNAs by those
        trained on a language model of random weights; these two sources alone are scored on a null, too
    model, autoencoders : the language model, and the autoencoders under test with their `groups` of layers
    frozen : those trained in the same way with a part left as it was drawn
    training : records on which neurons and components are fitted

    Further sources: frozen and untrained SAEs on the model's own states, its neurons, principal and
    independent components, the embedding layer's neurons, and, of no layer, one-hot windows and k-mers.
    `discovery` is at a false discovery rate of 5 % over the concepts of a setting, source and layer.
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
    for source, layer, encode, states in _controls(model, autoencoders, frozen, fitted, texts, seed):
        add(source, layer, {split: encode(states_TD) for split, states_TD in states.items()})
    windows = {split: composition.windows(of, WINDOW) for split, of in texts.items()}
    add(f"one-hot window of {2 * WINDOW + 1}", None, windows)
    add(f"{KMER}-mers", None, {split: composition.kmers(of, KMER) for split, of in texts.items()})
    table = pd.concat(tables, ignore_index=True).astype({"layer": "Int64"}).assign(discovery=False)
    for _, rows in table[table.p_pooled.notna()].groupby(["setting", "source", "layer"]):
        table.loc[rows.index, "discovery"] = discoveries(rows)
    return table


def _controls(model, autoencoders, frozen, fitted: list[str], texts: dict, seed: int) -> Iterator[tuple]:
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
            for of in frozen:
                yield frozen_name(of[layer]), layer, latents(of[layer]), here
            yield "neurons", layer, neurons(training_TD), here
            for method in ("pca", "ica"):
                yield method.upper(), layer, components(training_TD, method, seed), here


def best_of(concepts: pd.DataFrame) -> pd.DataFrame:
    """Of each setting, source and concept the layer that was best on the families that it was chosen on."""
    keys = ["setting", "source", "group", "concept"]
    rows = concepts.groupby(keys, sort=False).selection_base_auroc.idxmax()
    return concepts.loc[rows].reset_index(drop=True)


def leads(best: pd.DataFrame) -> pd.DataFrame:
    """The rows of `best_of` of the first source, which is under test, each beside its best control.

    control, control_score and lead, in base-stratified AUROC, are added, and lead_low and lead_high, its 95 %
    interval over families; missing where a concept has no control. The best control is chosen on the very
    scores, which favours it.
    """
    keys, tested = ["setting", "group", "concept"], best.source == best.source.iloc[0]
    rivals, score = best[~tested], ["source", "base_auroc", "base_auroc_resampled"]
    rivals = rivals.loc[rivals.groupby(keys).base_auroc.idxmax()][[*keys, *score]]
    names = dict(zip(score, ("control", "control_score", "control_resampled")))
    both = best[tested].merge(rivals.rename(columns=names), on=keys, how="left")
    both["lead"] = both.base_auroc - both.control_score
    others = [np.empty(0) if np.ndim(other) == 0 else other for other in both.control_resampled]
    both[["lead_low", "lead_high"]] = list(map(lead_interval, both.base_auroc_resampled, others))
    return both.drop(columns=["base_auroc_resampled", "control_resampled"])


def is_found(scores: pd.DataFrame) -> pd.Series:
    """Which concepts of `score_concepts` are found: a discovery whose interval lies above chance."""
    return scores.discovery & (scores.base_auroc_low > scores.null_p95)


def shown(best: pd.DataFrame) -> pd.DataFrame:
    """The figures' table: `best_of` with the columns of `leads` for the source under test."""
    keys, added = ["setting", "source", "group", "concept"], ["control", "lead", "lead_low", "lead_high"]
    led = leads(best)[[*keys, *added]]
    return best.drop(columns="base_auroc_resampled").merge(led, on=keys, how="left", validate="one_to_one")


def control_table(led: pd.DataFrame) -> pd.DataFrame:
    """tab-controls, from `leads`: every concept's best feature beside chance and its best control."""
    interval = [
        f"{low:+.3f} to {high:+.3f}".replace("-", "−") if low == low else "–"
        for low, high in zip(led.lead_low, led.lead_high)
    ]
    columns = {"setting": "RNAs", "concept": "concept", "layer": "layer", "feature": "feature"}
    columns |= {"base_auroc": "AUROC within bases", "null_p95": "chance", "found": "found"}
    columns |= {"control": "best control", "lead": "lead", "interval": "95 % interval"}
    table = led.assign(found=is_found(led), interval=interval, lead=led.lead.astype(float).round(3))
    return table[[*columns]].rename(columns=columns)


def numbers(best: pd.DataFrame, records: pd.DataFrame) -> dict:
    """Numbers of the page's captions and conclusion, from `best_of` and the RNAs' records.

    concepts : of either setting; leads, found : in words, by setting
    """
    led, scored = leads(best), [splits[1] for splits in settings(records).values()]
    heldout = records[records.split.isin(scored)]
    families = heldout.family.nunique() if "family" in heldout else len(heldout)
    clear = led.assign(ahead=led.lead_low > 0, behind=led.lead_high < 0, found=is_found(led))
    leading, found = {}, {}
    for setting, of in clear.groupby("setting", sort=False):
        ahead, behind, known = of.ahead.sum(), of.behind.sum(), len(of)
        split = f"clearly positive for {ahead}, clearly negative for {behind} and neither for"
        leading[setting] = f"{split} {known - ahead - behind} of {known} concepts"
        found[setting] = f"{of.found.sum()} of {known}"
    facts = {"concepts": led.concept.nunique(), "controls": best.source.nunique() - 1}
    facts |= {"families": families, "leads": in_settings(leading), "found": in_settings(found)}
    facts |= {"clearly": int(clear.ahead.sum()), "behind": int(clear.behind.sum()), "scored": len(led)}
    return evaluated(records) | facts | {"bootstraps": BOOTSTRAPS}
