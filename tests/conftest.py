"""What several tests share."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["TQDM_DISABLE"] = "1"  # before anything imports tqdm
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the package sets it, before anything imports torch
# Tests send signals, which a shell's background jobs and nohup hand down as ignored.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")


def pytest_collection_modifyitems(items):
    """The book is looked at last; see `smoke_build`."""
    items.sort(key=lambda item: item.path.name == "test_book.py")


@pytest.fixture(scope="session", autouse=True)
def smoke_build(request, tmp_path_factory):
    """The smoke book's project and the process that builds it, while the other tests run: both take minutes."""
    books = [item.module for item in request.session.items if item.path.name == "test_book.py"]
    if not books or "SAE_RNA_BOOK" in os.environ:
        yield None
        return
    project = tmp_path_factory.mktemp("smoke")
    build = books[0].begin(project)
    yield project, build
    build.terminate()  # if the tests end before it
    build.wait()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets that are no part of the repository: SAE_RNA_SHARED_DATA, else ../shared/data
    beside the checkout."""
    folder = Path(
        os.environ.get("SAE_RNA_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    )
    if not folder.is_dir():
        pytest.skip(f"needs external real data: there is no folder {folder}; set SAE_RNA_SHARED_DATA to one")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a RiNALMo with random weights: 3 blocks of width 32, 62 nt at most."""
    import torch
    from multimolecule import RiNALMoConfig, RiNALMoForMaskedLM, RnaTokenizer

    folder = tmp_path_factory.mktemp("tiny-rinalmo")
    torch.manual_seed(0)
    config = RiNALMoConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    RiNALMoForMaskedLM(config).save_pretrained(folder)
    RnaTokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records_file(tmp_path_factory) -> Path:
    """160 synthetic RNAs of two made-up types: short hairpins and longer structures with several elements."""
    import numpy as np
    import pandas as pd
    from synthetic import BASES, STAGES, draw_batch

    from sae_rna.records.structure import dot_bracket

    rng, rows = np.random.default_rng(0), []
    for kind, grammar in (("hairpin", STAGES[0]), ("branched", STAGES[2])):
        for number, (bases, table) in enumerate(zip(*draw_batch(grammar, 80, rng))):
            length = int((bases >= 0).sum())
            if length <= 60:
                sequence = "".join(BASES[base] for base in bases[:length])
                facts = {"type": kind, "family": f"{kind}-{number // 4}"}
                rows.append(
                    {
                        "id": f"{kind}-{number}",
                        "sequence": sequence,
                        "secondary_structure": dot_bracket(table[:length]),
                    }
                    | facts
                )
    path = tmp_path_factory.mktemp("records") / "records.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.fixture(scope="session")
def study(records_file, tiny_model, tmp_path_factory):
    """A study of the tiny model and these RNAs. What a test computes stays in its run folder for the next."""
    from sae_rna.parameters import Parameters
    from sae_rna.study import Study

    files = {"model": str(tiny_model), "structures": str(records_file), "types": str(records_file)}
    sizes = {
        "expansion": 3,
        "narrow": 2,
        "replicates": 1,
        "k": 4,
        "batch": 64,
        "epochs": 2,
        "shuffles": 3,
        "min_sequences": 2,
    }
    return Study(Parameters(**files, **sizes, device="cpu", run=str(tmp_path_factory.mktemp("run"))))
