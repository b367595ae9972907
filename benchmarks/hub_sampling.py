"""Memory and speed of sampling a data set of the hub that is as large as one likes, from a stand-in of the
hub on this machine.

    python benchmarks/hub_sampling.py --rows 2000000

prints one line of JSON. Peak memory is what the process holds above its memory before the first row.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the stand-in for the hub

TYPES = "rRNA tRNA lncRNA miRNA snRNA snoRNA misc_RNA piRNA ribozyme SRP_RNA antisense_RNA tmRNA".split()
CHUNK = 200_000


def write(path: Path, rows: int, seed: int = 0) -> None:
    """Random RNAs of 20 to 1,200 nt, rare types being a hundred times rarer than the most common one."""
    rng = np.random.default_rng(seed)
    schema = pa.schema([(name, pa.string()) for name in ("urs", "sequence", "type", "description")])
    common = np.geomspace(1, 0.01, len(TYPES))
    with pq.ParquetWriter(path, schema, compression="brotli", compression_level=1) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            ends = np.concatenate([[0], rng.integers(20, 1200, count).cumsum()]).astype(np.int32)
            letters = np.frombuffer(b"ACGU", np.uint8)[rng.integers(0, 4, ends[-1], np.uint8)]
            sequences = pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(letters))
            names = pa.array([f"URS{number:010X}_9606" for number in range(start, start + count)])
            types = pa.array(rng.choice(TYPES, count, p=common / common.sum()))
            writer.write_table(pa.table([names, sequences, types, pa.array(["made up"] * count)], schema))


def serve(rows: int, connection) -> None:
    """A hub with one data set of so many rows, laid out like multimolecule/rnacentral: one file, large row
    groups."""
    from hub import Hub

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.parquet"
        write(path, rows)
        hub = Hub({"datasets/made/up": {"data.parquet": path.read_bytes()}})
    hub.start()
    connection.send((hub.port, len(hub.repositories["datasets/made/up"]["data.parquet"])))
    connection.recv()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=2_000_000)
    rows = options.parse_args().rows
    here, there = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=serve, args=(rows, there), daemon=True).start()
    port, size = here.recv()

    with tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": home,
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        }
        import datasets  # noqa: F401  (before memory is looked at)

        from sae_rna.records.hub import sample_hub

        warnings.simplefilter("ignore")
        before, start = (
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            time.process_time(),
        )
        sample = sample_hub("made/up", by="type", per_train=5000, per_split=6000, longest=1022, seed=0)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {
        "rows": rows,
        "file_mib": size >> 20,
        "kept": len(sample),
        "before_mib": before >> 20,
        "above_mib": (peak - before) >> 20,
    }
    print(
        json.dumps(figures | {"cpu_seconds": round(seconds, 1), "rows_a_cpu_second": round(rows / seconds)})
    )
    here.send("done")


if __name__ == "__main__":
    main()
