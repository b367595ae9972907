"""Page 02: how good the language model is, by masked bases beside baselines and by probes for stems."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from sae_rna.analysis.data import in_settings
from sae_rna.analysis.statistics.probing import base_auroc, probe
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.composition import encode_bases, one_hot_windows
from sae_rna.records.splits import SETTINGS, settings

TRAINED, RANDOM = "language model", "same architecture, random weights"
WINDOW, SINGLE = "one-hot window", "best single feature"
MASKED_SHARE = 0.15
_KINDS = "", ", natural", ", natural tRNA"  # of the RNAs in a set of masked bases
SIZES = "model", "kind", "layers", "width", "latents", "sparsity", "parameters", "nucleotides trained on"


def models(model: LanguageModel, trained: list) -> pd.DataFrame:
    """tab-models: the language model and its autoencoders, each as `Study.autoencoders` gives them."""
    kind, size = f"language model ({type(model.model).__name__})", model.parameter_count
    rows = [(model.source, kind, str(model.blocks), model.width, pd.NA, "–", size, "see the model card")]
    for autoencoders in trained:
        stacks = [autoencoders.of_group(group) for group in autoencoders.groups]
        config, size = stacks[0].config, sum(p.numel() for stack in stacks for p in stack.parameters())
        layers, weight, kind = (
            ", ".join(map(str, sum(autoencoders.groups, []))),
            config.members[0].sparsity,
            config.kind,
        )
        error = "averaged" if kind.mean_error else "summed"
        penalty = f"lambda = {weight:g} ({kind.penalty.upper()}), squared error {error}"
        sparsity = f"k = {weight:g}" if kind.counted else penalty
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
    """Of the training records at most 4,000, for the baselines; of every other `masked_set` at most 300.

    The latter have the column `set`, and the sets stand in the order in which they are shown.
    """
    training = _at_most(4000, records[records.split == "train"], seed)
    tested = records.assign(set=masked_set(records)).dropna(subset="set")
    groups = tested.groupby("set", observed=True)
    return training, pd.concat([_at_most(300, part, seed) for _, part in groups]).astype({"set": str})


def masked_set(records: pd.DataFrame) -> pd.Categorical:
    """The set in which the masked bases of each record count: one at most, none outside evaluation splits.

    A set is a setting (`splits.SETTINGS`, for what the model was trained on); natural RNAs are apart from
    those that were sampled from a family's alignment, and of them tRNAs, where the records say so.
    """
    setting = {split: name for name, splits in SETTINGS.items() for split in splits}
    setting |= {"natural": "unseen families"}
    natural, transfer = (
        records[column] == value if column in records else records.split == ""
        for column, value in (("origin", "natural"), ("type", "tRNA"))
    )
    natural |= records.split == "natural"
    kind = np.select([natural & transfer, natural], [_KINDS[2], _KINDS[1]], _KINDS[0])
    order = [name + kind for name in SETTINGS for kind in _KINDS]
    return pd.Categorical(records.split.map(setting) + pd.Series(kind, records.index), order)


def _at_most(count: int, records: pd.DataFrame, seed: int) -> pd.DataFrame:
    return records.sample(min(len(records), count), random_state=seed)


def masked_accuracy(predictors: dict, training, tested, seed: int) -> pd.DataFrame:
    """Accuracy and cross-entropy on masked bases of `tested`: a row per set and predictor.

    To the language models come the most common base and a Markov chain, fitted on `training`; a tenth of it
    chooses the chain's order. Columns are those of `masked_scores`, with sequences (their number).
    """
    validation = training.sample(frac=0.1, random_state=seed)
    fitted = training.drop(validation.index).sequence.tolist()
    markov = choose_order(fitted, validation.sequence.head(200).tolist(), seed)
    chains = {"most common base": MarkovBaseline(0, fitted)}
    chains[f"Markov chain of order {markov.order}, both sides"] = markov
    rows = []
    for of, records in tested.groupby("set", sort=False):
        sequences = records.sequence.tolist()
        masked = choose_masked(sequences, seed)
        logs = {name: model_log_probabilities(model, sequences, masked) for name, model in predictors.items()}
        guesses = {name: list(map(np.exp, log)) for name, log in logs.items()}
        guesses |= {name: chain.probabilities(sequences, masked) for name, chain in chains.items()}
        for name, guess in guesses.items():
            facts = {"set": of, "predictor": name, "sequences": len(records)}
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
    results: list[np.ndarray] = [np.empty((0, 4))] * len(sequences)
    for rows in model.batches(sequences, batch_tokens=4096):  # few sequences: larger ones are mostly padding
        tokens = model.tokenize([sequences[row] for row in rows])
        columns = [masked[row] + model.first for row in rows]
        for line, hidden in enumerate(columns):
            tokens["input_ids"][line, torch.as_tensor(hidden)] = model.tokenizer.mask_token_id
        logits = model.model(**tokens).logits[..., model.base_ids]
        log_probabilities = logits.float().log_softmax(-1).cpu().numpy()
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
    parts[0]["loss"] = accuracy.loss
    return pd.concat(parts, ignore_index=True)


def masked_numbers(accuracy: pd.DataFrame) -> dict:
    """For captions: masked `bases` in all; accuracy on paired ones of the `model` ("unknown" without its
    head) and the best `baseline` in each setting, in words; and in how many of the `compared` combinations of
    a set and all, paired or unpaired positions a baseline is `ahead` of the model."""
    scores = accuracy.set_index(["set", "predictor"])[["accuracy", "paired", "unpaired"]]
    own = scores.index.get_level_values("predictor") == TRAINED
    model, other = scores[own].groupby("set").max(), scores[~own].groupby("set").max()
    shown = [name for name in SETTINGS if name in other.index]
    words = lambda of: in_settings({name: f"{of.paired[name]:.1%}" for name in shown})  # noqa: E731
    facts = {"bases": int(accuracy.groupby("set").bases.first().sum()), "baseline": words(other)}
    facts |= {"model": words(model) if own.any() else "unknown", "compared": model.size}
    return facts | {"ahead": int((other.reindex_like(model) >= model).to_numpy().sum())}


def linear_probes(models: dict, structures, layers: list[int], seed: int, rnas: int = 250) -> pd.DataFrame:
    """Linear probes for "is in a stem", fitted on at most `rnas` selection RNAs and scored on held-out ones.

    Every layer of each model, and one-hot windows of the sequence: setting, source, layer, base_auroc (see
    `Sample.base_auroc`), auroc, tokens (scored).
    """
    tables = []
    for setting, splits in settings(structures).items():
        parts = [_at_most(rnas, structures[structures.split == split], seed) for split in splits]
        tables.append(_linear_probes(models, parts, layers).assign(setting=setting))
    return pd.concat(tables, ignore_index=True)


def _linear_probes(models: dict, parts: list[pd.DataFrame], layers: list[int]) -> pd.DataFrame:
    """`linear_probes`, fitted on the first part and scored on the second."""
    codes = [np.concatenate(encode_bases(part.sequence)) for part in parts]
    letters = [np.array(list("".join(part.element))) for part in parts]
    labels = [letter_T[code_T >= 0] == "S" for letter_T, code_T in zip(letters, codes)]
    base_T = codes[1][codes[1] >= 0]

    def row(source: str, layer: float, known_TP: np.ndarray, other_TP: np.ndarray) -> dict:
        guess_T = probe(known_TP, labels[0], other_TP)
        scores = {
            "base_auroc": base_auroc(guess_T, labels[1], base_T),
            "auroc": roc_auc_score(labels[1], guess_T),
        }
        return {"source": source, "layer": layer} | scores

    windows = [one_hot_windows(part.sequence) for part in parts]
    rows = [row(f"{WINDOW} of {windows[0].shape[1] // 4} nt", np.nan, *windows)]
    for source, model in models.items():
        states = [hidden_states(model, part.sequence.tolist(), layers) for part in parts]
        for place, layer in enumerate(layers):
            rows.append(row(source, layer, *(values_TLD[:, place] for values_TLD in states)))
    return pd.DataFrame(rows).assign(tokens=len(labels[1]))


def stem_readers(probes: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """fig-probe's table: `linear_probes`, and below them each layer's best single feature for stems with its
    interval, from `structure_features.score_elements`."""
    single = scores[scores.element == "S"].assign(source=SINGLE)
    table = pd.concat([probes, single], ignore_index=True)
    columns = "setting source layer feature base_auroc base_auroc_low base_auroc_high auroc"
    return table[columns.split()].astype({"layer": "Int64", "feature": "Int64"})


def best_readers(readers: pd.DataFrame) -> dict:
    """Highest base-stratified AUROC in `stem_readers`, in words for each setting: of the language model's
    probes (`best`), of those of `random` weights, and of the `window`."""
    starts = {"best": TRAINED, "random": RANDOM, "window": WINDOW}
    facts = {}
    for name, start in starts.items():
        of = readers[readers.source.str.startswith(start)].groupby("setting", sort=False).base_auroc.max()
        facts[name] = in_settings({setting: f"{score:.3f}" for setting, score in of.items()})
    return facts
