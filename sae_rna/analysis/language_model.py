"""How good a language model is: accuracy on masked bases beside baselines, and what a linear probe reads from it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.composition import NUCLEOTIDES, encode_bases, one_hot_windows

MASKED_SHARE = 0.15


def choose_masked(sequences: Sequence[str], seed: int) -> list[np.ndarray]:
    """Positions to hide in each sequence: 15 % of its A, C, G and U, the same for every predictor."""
    rng = np.random.default_rng(seed)
    return [
        np.nonzero((rng.random(len(codes)) < MASKED_SHARE) & (codes >= 0))[0]
        for codes in encode_bases(sequences)
    ]


@torch.inference_mode()
def model_log_probabilities(
    model: LanguageModel, sequences: Sequence[str], masked: list[np.ndarray]
) -> list[np.ndarray]:
    """ln P(A, C, G, U) at the masked positions of every sequence, each sequence masked at all of them at once. Shapes [masked, 4].

    `model` must have been loaded with its masked-language-model head.
    """
    base_ids = torch.tensor(model.tokenizer.convert_tokens_to_ids(list(NUCLEOTIDES)), device=model.device)
    results: list[np.ndarray] = [np.empty((0, 4))] * len(sequences)
    for rows in model.batches(
        sequences, batch_tokens=4096
    ):  # little padding: most of a few sequences' batch would be that
        tokens = model.tokenize([sequences[row] for row in rows])
        first = int(
            model.tokenizer.cls_token_id is not None
            and (tokens["input_ids"][:, 0] == model.tokenizer.cls_token_id).all()
        )
        for line, row in enumerate(rows):
            tokens["input_ids"][line, torch.as_tensor(masked[row] + first)] = model.tokenizer.mask_token_id
        log_probabilities = model.model(**tokens).logits[..., base_ids].float().log_softmax(-1).cpu().numpy()
        for line, row in enumerate(rows):
            results[row] = log_probabilities[line, masked[row] + first]
    return results


def model_probabilities(
    model: LanguageModel, sequences: Sequence[str], masked: list[np.ndarray]
) -> list[np.ndarray]:
    """P(A, C, G, U) at the masked positions; otherwise as `model_log_probabilities`."""
    return [np.exp(values) for values in model_log_probabilities(model, sequences, masked)]


class MarkovBaseline:
    """Order-k Markov chain; a hidden base is predicted from both its sides by the chain's exact conditional.

    P(x_i | rest) is proportional to the product of the k+1 transition probabilities that involve x_i. Counts are smoothed by one
    half. The baseline sees its true neighbours even where those are masked for the language model, which favours it.
    Order 0 always predicts the most common base.
    """

    def __init__(self, order: int, sequences: Sequence[str]):
        self.order = order
        counts = np.full((4**order, 4), 0.5)
        for codes in encode_bases(sequences):
            padded = np.concatenate([np.zeros(order, dtype=np.int64), np.maximum(codes, 0)])
            windows = np.lib.stride_tricks.sliding_window_view(padded, order + 1)
            np.add.at(counts, (windows[:, :-1] @ 4 ** np.arange(order)[::-1], windows[:, -1]), 1)
        self.log_probability = np.log(counts / counts.sum(1, keepdims=True))

    def probabilities(self, sequences: Sequence[str], masked: list[np.ndarray]) -> list[np.ndarray]:
        """As `model_probabilities`."""
        results = []
        powers = 4 ** np.arange(self.order)[::-1]
        for codes, positions in zip(encode_bases(sequences), masked):
            padded = np.concatenate([np.zeros(self.order, dtype=np.int64), np.maximum(codes, 0)])
            scores = np.zeros((len(positions), 4))
            for ahead in range(
                self.order + 1
            ):  # transitions into x_i itself and into the `order` bases behind it
                inside = positions + ahead < len(codes)
                windows = padded[(positions[inside] + ahead)[:, None] + np.arange(self.order + 1)]
                for base in range(4):
                    windows[:, self.order - ahead] = base
                    scores[inside, base] += self.log_probability[windows[:, :-1] @ powers, windows[:, -1]]
            shares = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
            results.append(shares / shares.sum(1, keepdims=True))
        return results


def choose_order(
    sequences: Sequence[str], validation: Sequence[str], seed: int, orders: Sequence[int] = range(1, 7)
) -> MarkovBaseline:
    """The Markov baseline whose order predicts masked bases of `validation` best; both sets from the training families."""
    masked = choose_masked(validation, seed)
    truth = np.concatenate([codes[hidden] for codes, hidden in zip(encode_bases(validation), masked)])
    baselines = [MarkovBaseline(order, sequences) for order in orders]
    return max(
        baselines,
        key=lambda baseline: (
            np.concatenate(baseline.probabilities(validation, masked)).argmax(1) == truth
        ).mean(),
    )


def masked_scores(
    records: pd.DataFrame, masked: list[np.ndarray], probabilities: list[np.ndarray]
) -> dict[str, float]:
    """Accuracy (all, paired, unpaired), cross-entropy in nats and number of masked bases of one predictor on `records`."""
    truth = np.concatenate([codes[hidden] for codes, hidden in zip(encode_bases(records.sequence), masked)])
    guess = np.concatenate(probabilities)
    right = guess.argmax(1) == truth
    scores = {
        "accuracy": right.mean(),
        "loss": -np.log(np.maximum(guess[np.arange(len(truth)), truth], 1e-12)).mean(),
        "bases": len(truth),
    }
    if "element" in records:
        paired = np.concatenate(
            [np.array(list(element))[hidden] == "S" for element, hidden in zip(records.element, masked)]
        )
        scores |= {
            "paired": right[paired].mean(),
            "unpaired": right[~paired].mean(),
            "paired_bases": int(paired.sum()),
        }
    return scores


def stem_probe(features: tuple[np.ndarray, np.ndarray], is_stem: tuple[np.ndarray, np.ndarray]) -> float:
    """AUROC, on the second set, of a logistic regression for "is in a stem" fitted on the first. Features [T, D], labels [T]."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    probe.fit(features[0], is_stem[0])
    return float(roc_auc_score(is_stem[1], probe.decision_function(features[1])))


def masked_table(
    predictors: dict[str, LanguageModel], sets: dict[str, pd.DataFrame], training: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Accuracy and loss on masked bases: one row per record set and predictor (language models, most common base, Markov chain).

    `training` are sequences of the training families; a tenth of them chooses the order of the Markov chain.
    """
    validation = training.sample(frac=0.1, random_state=seed)
    fitted = training.drop(validation.index).sequence.tolist()
    markov = choose_order(fitted, validation.sequence.head(200).tolist(), seed)
    baselines = {
        "most common base": MarkovBaseline(0, fitted),
        f"Markov chain of order {markov.order}, both sides": markov,
    }
    rows = []
    for name, records in sets.items():
        sequences = records.sequence.tolist()
        masked = choose_masked(sequences, seed)
        guesses = {
            predictor: model_probabilities(model, sequences, masked)
            for predictor, model in predictors.items()
        }
        guesses |= {baseline: chain.probabilities(sequences, masked) for baseline, chain in baselines.items()}
        rows += [
            {"set": name, "predictor": who, "sequences": len(records)} | masked_scores(records, masked, guess)
            for who, guess in guesses.items()
        ]
    return pd.DataFrame(rows)


def probe_table(
    models: dict[str, LanguageModel], fit: pd.DataFrame, test: pd.DataFrame, layers: Sequence[int]
) -> pd.DataFrame:
    """AUROC of linear probes for "is in a stem", fitted on `fit` and scored on `test`: every layer of every model, and one-hot windows."""
    labels = tuple(_stem_labels(records) for records in (fit, test))
    windows = tuple(one_hot_windows(records.sequence) for records in (fit, test))
    rows = [
        {
            "source": f"one-hot window of {windows[0].shape[1] // 4} nt",
            "layer": np.nan,
            "auroc": stem_probe(windows, labels),
        }
    ]
    for name, model in models.items():
        states = [hidden_states(model, records.sequence.tolist(), layers) for records in (fit, test)]
        rows += [{"source": name, "layer": layer, "auroc": stem_probe(tuple(values[:, number] for values in states), labels)}
                 for number, layer in enumerate(layers)]  # fmt: skip
    return pd.DataFrame(rows).assign(tokens=len(labels[1]))


def _stem_labels(records: pd.DataFrame) -> np.ndarray:
    known = np.concatenate([codes >= 0 for codes in encode_bases(records.sequence)])
    return (np.array(list("".join(records.element))) == "S")[known]
