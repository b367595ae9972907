"""Page 02: how good the language model is, by masked bases beside baselines and by probes for stems."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_rna.analysis.statistics.annotations import annotate_elements
from sae_rna.analysis.statistics.scoring import rank_scores
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.composition import NUCLEOTIDES, encode_bases, one_hot_windows
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.activations import Activations

TRAINED, RANDOM = "language model", "same architecture, random weights"
MASKED_SHARE = 0.15
SIZES = "model", "kind", "layers", "width", "latents", "sparsity", "parameters", "nucleotides trained on"


def models(model: LanguageModel, trained: list) -> pd.DataFrame:
    """tab-models: the language model and its autoencoders, each as `Study.autoencoders` gives them."""
    kind, size = f"language model ({type(model.model).__name__})", model.parameter_count
    rows = [(model.source, kind, str(model.blocks), model.width, pd.NA, "–", size, "see the model card")]
    for autoencoders in trained:
        stacks = [autoencoders.of_group(group) for group in autoencoders.groups]
        config, size = stacks[0].config, sum(p.numel() for stack in stacks for p in stack.parameters())
        layers, weight, kind = ", ".join(map(str, autoencoders)), config.members[0].sparsity, config.kind
        error = "averaged" if kind.mean_error else "summed"
        penalty = f"lambda = {weight:g} ({kind.penalty.upper()}), squared error {error}"
        sparsity = f"k = {weight:g}" if kind.penalty == "auxk" else penalty
        seen = f"{config.training['tokens']:,} x {config.training['epochs']:g}"
        own = (config.architecture, "sparse autoencoders", layers, config.width, config.latents)
        rows.append((*own, sparsity, size, seen))
    return pd.DataFrame(rows, columns=SIZES).astype({"latents": "Int64"})


def masked_models(load: Callable[[bool], LanguageModel]) -> dict[str, LanguageModel]:
    """The language model and that of random weights by name; none, with a warning, if they have no heads."""
    try:
        return {TRAINED: load(False), RANDOM: load(True)}
    except ValueError as error:
        warnings.warn(f"no masked-base accuracy: {error}", stacklevel=2)
        return {}


def masked_samples(records: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of the training records at most 4,000, for the baselines; of every other split at most 300."""
    others = [part for split, part in records.groupby("split") if split != "train"]
    training = _at_most(4000, records[records.split == "train"], seed)
    return training, pd.concat([_at_most(300, part, seed) for part in others])


def _at_most(count: int, records: pd.DataFrame, seed: int) -> pd.DataFrame:
    return records.sample(min(len(records), count), random_state=seed)


def masked_accuracy(predictors: dict, training, tested, seed: int) -> pd.DataFrame:
    """Accuracy and cross-entropy on masked bases of `tested`: a row per set (split) and predictor.

    To the language models come the most common base and a Markov chain, fitted on `training`; a tenth of it
    chooses the chain's order. Columns are those of `masked_scores`, with sequences (their number).
    """
    validation = training.sample(frac=0.1, random_state=seed)
    fitted = training.drop(validation.index).sequence.tolist()
    markov = choose_order(fitted, validation.sequence.head(200).tolist(), seed)
    chains = {"most common base": MarkovBaseline(0, fitted)}
    chains[f"Markov chain of order {markov.order}, both sides"] = markov
    rows = []
    for split, records in tested.groupby("split"):
        sequences = records.sequence.tolist()
        masked = choose_masked(sequences, seed)
        logs = {name: model_log_probabilities(model, sequences, masked) for name, model in predictors.items()}
        guesses = {name: list(map(np.exp, log)) for name, log in logs.items()}
        guesses |= {name: chain.probabilities(sequences, masked) for name, chain in chains.items()}
        for name, guess in guesses.items():
            facts = {"set": split, "predictor": name, "sequences": len(records)}
            rows.append(facts | masked_scores(records, masked, guess))
    return pd.DataFrame(rows)


def choose_masked(sequences: Sequence[str], seed: int) -> list[np.ndarray]:
    """Positions to hide in each sequence: 15 % of its A, C, G and U, the same for every predictor."""
    rng = np.random.default_rng(seed)
    codes_S = encode_bases(sequences)
    return [np.nonzero((rng.random(len(codes)) < MASKED_SHARE) & (codes >= 0))[0] for codes in codes_S]


@torch.inference_mode()
def model_log_probabilities(model: LanguageModel, sequences, masked: list) -> list[np.ndarray]:
    """ln P(A, C, G, U) at each sequence's masked positions, [masked, 4], all of them hidden at once.

    `model` must have been loaded with its head for masked bases.
    """
    base_ids = torch.tensor(model.tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES)), device=model.device)
    start = int((model.tokenize(["A"])["input_ids"][0] == base_ids[0]).nonzero()[0])  # special tokens before
    results: list[np.ndarray] = [np.empty((0, 4))] * len(sequences)
    for rows in model.batches(sequences, batch_tokens=4096):  # few sequences: larger ones are mostly padding
        tokens = model.tokenize([sequences[row] for row in rows])
        columns = [masked[row] + start for row in rows]
        for line, hidden in enumerate(columns):
            tokens["input_ids"][line, torch.as_tensor(hidden)] = model.tokenizer.mask_token_id
        log_probabilities = model.model(**tokens).logits[..., base_ids].float().log_softmax(-1).cpu().numpy()
        for line, (row, hidden) in enumerate(zip(rows, columns)):
            results[row] = log_probabilities[line, hidden]
    return results


class MarkovBaseline:
    """Order-k Markov chain; a hidden base is predicted from both its sides by the chain's exact conditional.

    P(x_i | rest) is proportional to the product of the k+1 transition probabilities that involve x_i; counts
    are smoothed by one half. That it sees neighbours which the language model does not favours it.
    """

    def __init__(self, order: int, sequences: Sequence[str]):
        self.order, self._powers = order, 4 ** np.arange(order)[::-1]
        counts = np.full((4**order, 4), 0.5)
        for codes in encode_bases(sequences):
            windows = np.lib.stride_tricks.sliding_window_view(self._padded(codes), order + 1)
            np.add.at(counts, (windows[:, :-1] @ self._powers, windows[:, -1]), 1)
        self.log_probability = np.log(counts / counts.sum(1, keepdims=True))

    def _padded(self, codes: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros(self.order, dtype=np.int64), np.maximum(codes, 0)])

    def probabilities(self, sequences: Sequence[str], masked: list[np.ndarray]) -> list[np.ndarray]:
        """P(A, C, G, U) at the masked positions of every sequence, [masked, 4] each."""
        return list(map(self._conditional, encode_bases(sequences), masked))

    def _conditional(self, codes: np.ndarray, positions: np.ndarray) -> np.ndarray:
        padded, scores = self._padded(codes), np.zeros((len(positions), 4))
        for ahead in range(self.order + 1):  # transitions into x_i itself and into the bases behind it
            inside = positions + ahead < len(codes)
            windows = padded[(positions[inside] + ahead)[:, None] + np.arange(self.order + 1)]
            for base in range(4):
                windows[:, self.order - ahead] = base
                scores[inside, base] += self.log_probability[windows[:, :-1] @ self._powers, windows[:, -1]]
        shares = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
        return shares / shares.sum(1, keepdims=True)


def choose_order(sequences: Sequence[str], validation: Sequence[str], seed: int) -> MarkovBaseline:
    """The chain fitted on `sequences`, of the order from 1 to 6 that predicts `validation` best."""
    masked = choose_masked(validation, seed)
    truth = hidden_bases(validation, masked)
    chains = [MarkovBaseline(order, sequences) for order in range(1, 7)]
    guesses = [np.concatenate(chain.probabilities(validation, masked)) for chain in chains]
    return chains[np.argmax([(guess.argmax(1) == truth).mean() for guess in guesses])]


def hidden_bases(sequences: Sequence[str], masked: list[np.ndarray]) -> np.ndarray:
    """Indices into ACGU of the masked bases of all sequences one after the other, [M]."""
    return np.concatenate([codes[hidden] for codes, hidden in zip(encode_bases(sequences), masked)])


def masked_scores(records: pd.DataFrame, masked: list, probabilities: list[np.ndarray]) -> dict[str, float]:
    """Accuracy over all, paired and unpaired masked bases, their numbers, and loss (cross-entropy, nats)."""
    truth, guess = hidden_bases(records.sequence, masked), np.concatenate(probabilities)
    letters = [np.array(list(element))[hidden] for element, hidden in zip(records.element, masked)]
    right, paired = guess.argmax(1) == truth, np.concatenate(letters) == "S"
    loss = -np.log(np.maximum(guess[np.arange(len(truth)), truth], 1e-12)).mean()
    scores = {"accuracy": right.mean(), "loss": loss, "bases": len(truth), "paired": right[paired].mean()}
    return scores | {"unpaired": right[~paired].mean(), "paired_bases": int(paired.sum())}


def masked_by_position(accuracy: pd.DataFrame) -> pd.DataFrame:
    """`masked_accuracy` as fig-masked-accuracy takes it: a row per set, predictor and kind of position."""
    n, paired = accuracy.bases, accuracy.paired_bases
    kinds = [("all", "accuracy", n), ("paired", "paired", paired), ("unpaired", "unpaired", n - paired)]
    table = accuracy[["set", "predictor"]]
    parts = [table.assign(positions=kind, accuracy=accuracy[of], tokens=size) for kind, of, size in kinds]
    return pd.concat(parts, ignore_index=True)


def linear_probes(models: dict, structures, layers: list[int], seed: int, rnas: int = 250) -> pd.DataFrame:
    """Linear probes for "is in a stem", fitted on at most `rnas` selection RNAs and scored on held-out ones.

    Every layer of each model, and one-hot windows of the sequence: source, layer, auroc, tokens (held out).
    """
    splits = [structures[structures.split == split] for split in ("selection", "heldout")]
    parts = [_at_most(rnas, records, seed) for records in splits]
    known = [np.concatenate(encode_bases(part.sequence)) >= 0 for part in parts]
    labels = [np.array(list("".join(part.element)))[rows] == "S" for part, rows in zip(parts, known)]
    windows = [one_hot_windows(part.sequence) for part in parts]
    name = f"one-hot window of {windows[0].shape[1] // 4} nt"
    rows = [{"source": name, "layer": np.nan, "auroc": stem_probe(windows, labels)}]
    for source, model in models.items():
        states = [hidden_states(model, part.sequence.tolist(), layers) for part in parts]
        for place, layer in enumerate(layers):
            score = stem_probe([values_TLD[:, place] for values_TLD in states], labels)
            rows.append({"source": source, "layer": layer, "auroc": score})
    return pd.DataFrame(rows).assign(tokens=len(labels[1]))


def stem_probe(features: Sequence[np.ndarray], is_stem: Sequence[np.ndarray]) -> float:
    """AUROC, on the second set, of a logistic regression fitted on the first; features [T, D], labels [T]."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    probe.fit(features[0], is_stem[0])
    return float(roc_auc_score(is_stem[1], probe.decision_function(features[1])))


def single_features(rnas: Activations, element: str = "S") -> pd.DataFrame:
    """Each layer's retained feature that ranks `element` best in selection RNAs; auroc in held-out ones."""
    concept, rows = list(ELEMENTS).index(element), []
    for layer in rnas.layers:
        selection, known = rnas.of_split(layer, "selection")
        heldout, unseen = rnas.of_split(layer, "heldout")
        chosen_on = rank_scores(selection, annotate_elements(known))[0][:, concept]
        feature = int(np.where(rnas.retained(layer), chosen_on, 0).argmax())
        score = rank_scores(heldout[:, [feature]], annotate_elements(unseen))[0][0, concept]
        rows.append({"layer": layer, "feature": feature, "auroc": score})
    return pd.DataFrame(rows).assign(source=f"best single feature {rnas.name.removeprefix('SAE ')}")


def stem_readers(probes: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """tab-probe: `linear_probes` and below them `single_features`."""
    table = pd.concat([probes, features], ignore_index=True)
    return table[["source", "layer", "auroc"]].astype({"layer": "Int64"})


def best_readers(readers: pd.DataFrame) -> dict:
    """Highest AUROC in `stem_readers` of the language model (best), random, window and single (feature)."""
    of = readers.groupby("source").auroc.max()
    starts = {"best": TRAINED, "random": RANDOM, "window": "one-hot window", "single": "best single feature"}
    return {name: of[of.index.str.startswith(start)].max() for name, start in starts.items()}


def paired_accuracy(accuracy: pd.DataFrame) -> dict:
    """Accuracy on paired held-out bases of the model ("unknown" without its head) and the best baseline."""
    paired = accuracy[accuracy.set == "heldout"].set_index("predictor").paired
    model, baseline = paired.get(TRAINED), paired.drop(TRAINED, errors="ignore").max()
    return {"model": "unknown" if model is None else f"{model:.1%}", "baseline": f"{baseline:.1%}"}
