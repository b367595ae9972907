"""Time and memory of scoring every feature for every concept at every threshold, on random activations and
structures.

    python benchmarks/concept_scoring.py --tokens 1000000 --features 10000 --active 32

prints one line of JSON. `count` is precision, recalls and F1 at 5 thresholds, `rank` AUROC and average
precision, both for all features and concepts, `cpu` the processors' time for the two; `annotate` makes the
concepts. Peak memory is the whole process's, the activations (`activations_mib`) included; kernels are
compiled before the clock starts.
"""

import argparse
import json
import os
import resource
import time

import numpy as np
import pandas as pd
from scipy import sparse


def random_records(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """RNAs of one to four hairpins, about 100 nt each."""
    structures = []
    for _ in range(count):
        hairpins = []
        for stem, loop, gap in rng.integers([3, 3, 1], [10, 10, 12], (rng.integers(1, 5), 3)):
            hairpins.append("(" * stem + "." * loop + ")" * stem + "." * gap)
        structures.append("." * rng.integers(1, 12) + "".join(hairpins))
    sequences = ["".join(rng.choice(list("ACGU"), len(structure))) for structure in structures]
    return pd.DataFrame({"sequence": sequences, "secondary_structure": structures})


def token_table(records: pd.DataFrame) -> pd.DataFrame:
    from sae_rna.records.structure import element_string

    lengths = records["sequence"].str.len()
    element = pd.Categorical(list("".join(map(element_string, records["secondary_structure"]))))
    position = np.concatenate([np.arange(length) for length in lengths])
    return pd.DataFrame(
        {"record": np.repeat(records.index, lengths), "position": position, "element": element}
    )


def random_activations(
    tokens: int, features: int, active: int, rng: np.random.Generator
) -> sparse.csr_matrix:
    """`active` different features a token, one in each of as many equal parts of the dictionary."""
    width = features // active
    indices = (
        rng.integers(0, width, (tokens, active), np.int32) + np.arange(0, width * active, width, np.int32)
    ).ravel()
    values = rng.random(tokens * active, np.float32) + np.float32(1e-3)
    return sparse.csr_matrix(
        (values, indices, np.arange(0, tokens * active + 1, active)), shape=(tokens, features)
    )


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--tokens", type=int, default=1_000_000)
    options.add_argument("--features", type=int, default=10_000)
    options.add_argument("--active", type=int, default=32)
    options.add_argument(
        "--concepts",
        type=int,
        default=30,
        help="the concepts of structure, the first ones repeated up to this number",
    )
    options.add_argument("--threads", type=int, default=2)
    wanted = options.parse_args()
    os.environ["NUMBA_NUM_THREADS"] = str(wanted.threads)
    from sae_rna.analysis.statistics.annotations import Annotations, annotate
    from sae_rna.analysis.statistics.scoring import Sample, rank_scores
    from sae_rna.sae.features import column_max

    def prepared(tokens: int, features: int):
        rng = np.random.default_rng(0)
        pattern = random_records(1000, rng)
        table = token_table(pattern)
        copies = -(-tokens // len(table))
        records = pd.concat([pattern] * copies, ignore_index=True)
        table = pd.concat(
            [table.assign(record=table.record + number * len(pattern)) for number in range(copies)]
        )[:tokens]
        start = time.perf_counter()
        labels = annotate(table, records)
        seconds["annotate"] = time.perf_counter() - start
        order = np.resize(np.arange(len(labels.concepts)), wanted.concepts)
        names, groups = (np.take(values, order) for values in (labels.concepts, labels.groups))
        labels = Annotations.of(names, groups, labels.members[:, order], labels.record_N)
        return random_activations(tokens, features, wanted.active, rng), labels

    seconds = {}
    for tokens, features in (
        (10_000, 4 * wanted.active),
        (wanted.tokens, wanted.features),
    ):  # the first compiles
        activations, labels = prepared(tokens, features)
        scale = column_max(activations)
        start, cpu = time.perf_counter(), time.process_time()
        Sample(activations, labels, scale).scores().f1.max()
        seconds["count"], start = time.perf_counter() - start, time.perf_counter()
        rank_scores(activations, labels)
        seconds["rank"] = time.perf_counter() - start
        seconds["cpu"] = time.process_time() - cpu
    held = sum(array.nbytes for array in (activations.data, activations.indices, activations.indptr))
    shape = {
        "tokens": wanted.tokens,
        "features": wanted.features,
        "concepts": wanted.concepts,
        "nonzeros": activations.nnz,
    }
    labelled = {
        "concepts_a_token": round(labels.instance_NC.nnz / wanted.tokens, 2),
        "threads": wanted.threads,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = {"activations_mib": held >> 20, "peak_mib": peak >> 10}
    print(
        json.dumps(
            shape | labelled | {f"{name}_s": round(value, 2) for name, value in seconds.items()} | memory
        )
    )


if __name__ == "__main__":
    main()
