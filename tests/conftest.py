"""What several tests share."""

import os
from pathlib import Path

import pytest

os.environ["TQDM_DISABLE"] = "1"  # before anything imports tqdm


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets that are no part of the repository: SAE_RNA_SHARED_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("SAE_RNA_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
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
    config = RiNALMoConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, max_position_embeddings=64)
    RiNALMoForMaskedLM(config).save_pretrained(folder)
    RnaTokenizer().save_pretrained(folder)
    return folder
