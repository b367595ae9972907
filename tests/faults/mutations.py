"""Small valid files of every format, and what people, programs and disks do to them."""

import bz2
import gzip
import io
import zipfile
from functools import cache
from pathlib import Path

import pandas as pd
from hypothesis import strategies as st

RECORDS = [
    {"id": "one", "sequence": "GGCAAAAGCCA", "secondary_structure": "(((....)))."},
    {"id": "two", "sequence": "GGGAACCCAACCCUUGGG", "secondary_structure": "(((..[[[..)))..]]]"},
]
_PAIRS = (10, 9, 8, 0, 0, 0, 0, 3, 2, 1, 0)
_FACTS = pd.DataFrame(RECORDS).assign(type=["tRNA", "5S_rRNA"], family=["RF00005", "RF00001"], split="train")
ODD_WORDS = (
    *("", " ", "NA", "nan", "None", "-1", "0", "1e400", "99999999999999999999", "1000000000", "3.5", "inf"),
    *(
        "URNA",
        "tRNA",
        ">",
        "#",
        "//",
        "(((",
        ")))",
        "'",
        '"',
        '"a',
        "\\",
        "\t",
        ",",
        ";",
        "\0",
        "\ufeff",
        "é",
    ),
    *("🧬", "\u2028", "\x0b", "\x1c", "%s", "{0}", "../../etc", "A" * 70_000, "(" * 3000 + ")" * 3000),
    *("ENERGY = -1.2", "dG = -3", "#=GC SS_cons", "#=GR one SS", "id", "sequence", "split", "GGCATTAGCCA"),
)


@cache
def samples() -> dict[str, bytes]:
    """A file of every format by its suffix. All hold the RNA `one`, those of several records `two` as well."""
    one, two = RECORDS
    columns = zip(range(1, 12), one["sequence"], _PAIRS)
    rows = [(place, base, pair) for place, base, pair in columns]
    fasta = "".join(f">{row['id']} a title\n{row['sequence']}\n" for row in RECORDS)
    dbn = "".join(f">{row['id']}\n{row['sequence']}\n{row['secondary_structure']}\n" for row in RECORDS)
    ct = "11 ENERGY = -1.2 one\n" + "".join(f"{n} {b} {n - 1} {n + 1} {p} {n}\n" for n, b, p in rows)
    st_lines = ["#Name: one", "#Length: 11", "#PageNumber: 1", one["sequence"], one["secondary_structure"]]
    st_lines += ["SSSHHHHSSSE", "NNNNNNNNNNN", 'S1 1..3 "GGC" 8..10 "GCC"']
    aligned = (
        "# STOCKHOLM 1.0\n#=GF ID RF1\n\none GGCAAAAGCCA\ntwo GGC-AAAGCCA\n#=GC SS_cons (((....))).\n//\n"
    )
    parquet = io.BytesIO()
    _FACTS.to_parquet(parquet)
    texts = {".fa": fasta, ".dbn": dbn, ".ct": ct, ".st": "\n".join(st_lines) + "\n", ".sto": aligned}
    texts[".bpseq"] = "# a header\n" + "".join(f"{place} {base} {pair}\n" for place, base, pair in rows)
    texts |= {".csv": _FACTS.to_csv(index=False), ".tsv": _FACTS.to_csv(index=False, sep="\t")}
    return {suffix: text.encode() for suffix, text in texts.items()} | {".parquet": parquet.getvalue()}


TEXTS = (".fa", ".dbn", ".ct", ".st", ".sto", ".bpseq", ".csv", ".tsv")
COMMENTED = (".fa", ".dbn", ".ct", ".bpseq")  # formats in which a line that begins with # says nothing


def _of_bytes(draw, data: bytes) -> bytes:
    """One slip of a disk or of a transfer."""
    at = draw(st.integers(0, len(data)))
    size = draw(st.integers(0, 40))
    way = draw(st.sampled_from(["cut", "drop", "repeat", "insert", "replace", "zeros"]))
    new = draw(st.binary(max_size=20)) if way in ("insert", "replace") else b""
    parts = {"cut": data[:at], "drop": data[:at] + data[at + size :], "insert": data[:at] + new + data[at:]}
    parts |= {"repeat": data[: at + size] + data[at:], "replace": data[:at] + new + data[at + len(new) :]}
    return (parts | {"zeros": data[:at] + bytes(size) + data[at + size :]})[way]


def _of_lines(draw, data: bytes) -> bytes:
    """One slip of an editor or a script: whole lines."""
    lines = data.split(b"\n")
    at, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    way = draw(st.sampled_from(["drop", "repeat", "swap", "join", "split", "odd"]))
    line, word = lines[at], draw(st.sampled_from(ODD_WORDS)).encode()
    middle = len(line) // 2
    put = {"drop": [], "repeat": [line, line], "split": [line[:middle], line[middle:]], "odd": [word, line]}
    if way == "swap":
        lines[at], lines[other] = lines[other], line
    elif way == "join":
        lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    else:
        lines[at : at + 1] = put[way]
    return b"\n".join(lines)


def _of_fields(draw, data: bytes) -> bytes:
    """One field of one line becomes another, odd one; or it goes, or two change places."""
    lines = data.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    separator = draw(st.sampled_from([b",", b"\t", b" "]))
    fields = lines[at].split(separator)
    place, other = (draw(st.integers(0, len(fields) - 1)) for _ in range(2))
    way = draw(st.sampled_from(["odd", "odd", "drop", "swap", "more"]))
    word = draw(st.sampled_from(ODD_WORDS)).encode()
    if way == "swap":
        fields[place], fields[other] = fields[other], fields[place]
    else:
        fields[place : place + 1] = {"odd": [word], "drop": [], "more": [fields[place], word]}[way]
    return b"\n".join([*lines[:at], separator.join(fields), *lines[at + 1 :]])


def _of_encoding(draw, data: bytes) -> bytes:
    """The whole file in another encoding, or packed."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("a", data)
    text = data.decode("utf-8", errors="replace")
    names = "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp500"
    ways = {name: lambda name=name: text.encode(name, errors="replace") for name in names}
    ways |= {"mark": lambda: b"\xef\xbb\xbf" + data, "twice": lambda: data.decode("latin-1").encode()}
    ways |= {"bz2": lambda: bz2.compress(data), "zip": zipped.getvalue}
    return ways[draw(st.sampled_from(sorted(ways)))]()


def _packed(draw, data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@st.composite
def mutated(draw) -> tuple[str, bytes]:
    """Name and content of a file with one to four mutations."""
    suffix = draw(st.sampled_from(sorted(samples())))
    data = samples()[suffix]
    for _ in range(draw(st.integers(1, 4))):
        way = draw(st.sampled_from([_of_bytes, _of_lines, _of_fields, _of_fields, _of_encoding, _packed]))
        data = way(draw, data)
    if draw(st.integers(0, 9)) == 0:  # under the name of another format
        suffix = draw(st.sampled_from(sorted(samples())))
    return f"rna{suffix}{draw(st.sampled_from(['', '', '', '.gz']))}", data


def _comments(draw, text: str) -> str:
    lines = text.split("\n")
    at = draw(st.integers(0, len(lines) - 1))
    return "\n".join([*lines[:at], "# drawn by a program, 5′-GGCA-3′", *lines[at:]])


#: What changes nothing of the records: a text becomes another one.
HARMLESS = {
    "line ends of Windows": lambda draw, text: text.replace("\n", "\r\n"),
    "line ends of old Macs": lambda draw, text: text.replace("\n", "\r"),
    "white space at the end of lines": lambda draw, text: text.replace("\n", " \t\n"),
    "empty lines at the end": lambda draw, text: text + "\n" * draw(st.integers(1, 4)),
    "no line end at the end": lambda draw, text: text.rstrip("\n"),
    "a comment": _comments,
}


@st.composite
def harmless(draw) -> tuple[str, str, bytes]:
    """Suffix of a format, name and content of a file that holds the very records of its sample."""
    suffix = draw(st.sampled_from(TEXTS))
    left_out = {"a comment"} if suffix not in COMMENTED else set()
    left_out |= {"white space at the end of lines"} if suffix in (".csv", ".tsv") else set()
    text, ways = samples()[suffix].decode(), sorted(HARMLESS.keys() - left_out)
    for way in draw(st.lists(st.sampled_from(ways), max_size=3, unique=True)):
        text = HARMLESS[way](draw, text.replace("\r\n", "\n").replace("\r", "\n"))
    data = text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    packed, named = draw(st.booleans()), draw(st.booleans())
    data = gzip.compress(data, mtime=0) if packed else data
    name = draw(st.sampled_from([suffix, suffix.upper()])) + (".gz" if packed and named else "")
    return suffix, f"rna{name}", data


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path
