"""Tables of contacts, as the figures of base pairs take them."""

import numpy as np
import pandas as pd

SETTINGS = ["seen families", "unseen families"]


def contacts_table(rnas: int = 3) -> pd.DataFrame:
    predictors = ["categorical Jacobian", "nucleotide dependencies", "Jacobian, random weights", "chance"]
    levels = {
        "set": SETTINGS,
        "length": ["20 to 60 nt", "61 to 90 nt"],
        "predictor": predictors,
        "n": range(rnas),
    }
    table = pd.MultiIndex.from_product(levels.values(), names=levels).to_frame(index=False)
    precision = 0.8 - 0.2 * table.predictor.map(predictors.index) + 0.05 * table.n
    return table.assign(id=table.n.astype(str), precision=precision)


def maps_table() -> pd.DataFrame:
    i, j = np.triu_indices(20, 1)
    table = pd.DataFrame({"i": i + 1, "j": j + 1, "bases": "GC", "nucleotides": 20, "paired": i + j == 19})
    table = table.assign(jacobian=(j - i) / 19, dependency=(i + j) / 37 - 0.1)
    return pd.concat([table.assign(set=of, rna=of) for of in SETTINGS], ignore_index=True)
