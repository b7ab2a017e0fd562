"""Hypothesis strategies that spoil a valid file: in its structure, and byte by byte."""

import copy
import gzip
import io
import json
import math
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import torch
from harness import to_toml
from hypothesis import strategies as st

NASTY: list[Any] = [
    None, True, False, -1, 0, 1, 2, 2**31, 2**63, 10**30, 16**6000, 0.5, 1e308, -0.0, math.nan, math.inf, "", "\0", " ",
    "../../../etc/passwd", "/dev/zero", "/etc", "..", "a/b", "a" * 5000, "\x1b[2J", "\u202eabc", "\r\n", "no such name",
    "linf:1e999999999", "linf:1/0", "l2:nan", "linf:", "1e-999999999", "file:evil.py:Evil", "file:", "file:\0:x",
    "card:../../x.json", "card:\0", "hf:a/../b", "zoo:../x", "torchattacks:os", "torchattacks:PGD", "small.toml",
    "\0.toml", "x" * 300 + ".toml", [], {}, [[]], [None], {"": 1}, {"use": "pgd"}, [1e308] * 3, ["linf:0.1"] * 3,
]  # fmt: skip
RAW = [
    b"", b"\0", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 10_000, b"a = " + b"[" * 5_000, b"a = {" * 2_000,
    b"a." * 50_000 + b"a = 1",
    b"seed = " + b"9" * 6_000, b"<html>", b"PK\x03\x04", b"\x80\x04.", b"PAR1PAR1", b"PAR1" + b"\0" * 64 + b"PAR1",
    b"\xff" * 8 + b"{}", (2**40).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}",
    b"0" * 64 + b"  ../../../etc/passwd\n", b"0" * 64 + b"  /etc/passwd\n", b"0" * 64 + b"  a\0b\n",
]  # fmt: skip


def _paths(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from _paths(value, (*at, key))


def _renamed(tree: Any, old: str, new: str) -> Any:
    """Give something another name, wherever it stands."""
    if isinstance(tree, dict):
        return {new if key == old else key: _renamed(part, old, new) for key, part in tree.items()}
    if isinstance(tree, list):
        return [_renamed(part, old, new) for part in tree]
    return new if tree == old else tree


@st.composite
def trees(draw: st.DrawFn, valid: Any) -> Any:
    """A tree with up to three places changed, dropped, doubled, renamed or added to."""
    tree = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        paths = list(_paths(tree))
        if not paths:
            break
        *way, key = draw(st.sampled_from(paths))
        spot = tree
        for part in way:
            spot = spot[part]
        kind = draw(st.sampled_from(["set", "set", "set", "drop", "double", "add", "rename"]))
        value = copy.deepcopy(draw(st.sampled_from(NASTY)))
        if kind == "rename" and isinstance(spot[key], str):
            tree = _renamed(tree, spot[key], draw(st.sampled_from(["x", "", "a" * 3000, "=1\0\x1b[2J"])))
        elif kind == "set":
            spot[key] = value
        elif kind == "drop":
            del spot[key]
        elif isinstance(spot, list):
            spot.append(copy.deepcopy(spot[key]) if kind == "double" else value)
        else:
            spot[draw(st.sampled_from(["more", "", "\0", "use", "skip", "norms"]))] = value
    return tree


def spoiled(valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a valid file with some of them cut, flipped, doubled or replaced; or none of it at all."""
    edit = st.tuples(
        st.sampled_from(["cut", "flip", "double", "put", "drop"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=8),
    )

    def apply(edits: list[tuple[str, float, bytes]]) -> bytes:
        content = valid
        for kind, where, part in edits:
            at = int(where * len(content))
            if kind == "cut":
                content = content[:at]
            elif kind == "double":
                content = content[:at] + content[at // 2 :]
            elif kind == "drop":
                content = content[:at] + content[at + len(part) :]
            elif kind == "put":
                content = content[:at] + part + content[at + len(part) :]
            else:
                mask = bytes(a ^ b for a, b in zip(content[at:], part, strict=False))
                content = content[:at] + mask + content[at + len(mask) :]
        return content

    return st.one_of(st.lists(edit, min_size=1, max_size=4).map(apply), st.sampled_from(RAW), st.binary(max_size=64))


def _json(tree: Any) -> bytes:
    limit = sys.get_int_max_str_digits()
    # Here only: what reads the file keeps the limit.
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(tree).encode(errors="surrogatepass")
    finally:
        sys.set_int_max_str_digits(limit)


def _parse_json(content: bytes) -> Any:
    return json.loads(content)


@st.composite
def _tensors(draw: st.DrawFn, valid: bytes) -> bytes:
    """A safetensors file whose header was changed, its length made to fit or not."""
    length = int.from_bytes(valid[:8], "little")
    header, data = json.loads(valid[8 : 8 + length]), valid[8 + length :]
    text = _json(draw(trees(header)))
    stated = len(text) if draw(st.booleans()) else draw(st.integers(0, 2**64 - 1))
    return stated.to_bytes(8, "little") + text + data


@st.composite
def _tables(draw: st.DrawFn, valid: bytes) -> bytes:
    """A Parquet file whose columns or cells were changed."""
    rows = pl.read_parquet(io.BytesIO(valid))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(rows.columns))
        kind = draw(st.sampled_from(["cell", "cell", "cast", "drop", "rename", "repeat", "none", "huge"]))
        if kind == "cell" and len(rows):
            values = rows[name].to_list()
            dtype = rows.schema[name]
            nasty = [None, -1, 0, 2**62, -(2**62)] if dtype.is_integer() else [None, -1.0, 1e308, math.nan, math.inf]
            nasty = [None, True, False] if dtype == pl.Boolean else nasty
            nasty = [None, "", "\0", "\x1b[2J", "a" * 999, "linf:0.1"] if dtype == pl.String else nasty
            values[draw(st.integers(0, len(values) - 1))] = draw(st.sampled_from(nasty))
            rows = rows.with_columns(pl.Series(name, values, dtype))
        elif kind == "cast":
            to = draw(st.sampled_from([pl.Int8, pl.Float64, pl.String, pl.Boolean, pl.Null]))
            rows = rows.with_columns(rows[name].cast(to, strict=False).alias(name))
        elif kind == "drop":
            rows = rows.drop(name)
        elif kind == "rename":
            rows = rows.rename({name: f"{name}{draw(st.integers(0, 9))}" * draw(st.sampled_from([1, 99]))})
        elif kind == "repeat":
            rows = pl.concat([rows, rows.head(draw(st.integers(0, 3)))])
        elif kind == "none":
            rows = rows.clear()
        elif kind == "huge":
            rows = pl.concat([rows.head(1)] * 50_000)
        if not rows.columns:
            break
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()


@st.composite
def _zips(draw: st.DrawFn, valid: bytes, part: Callable[[bytes], st.SearchStrategy[bytes]]) -> bytes:
    """A zip file with one of its members changed, dropped, doubled or packed."""
    held = zipfile.ZipFile(io.BytesIO(valid))
    names = held.namelist()
    chosen, kind = draw(st.sampled_from(names)), draw(st.sampled_from(["change", "change", "change", "drop", "double"]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as made:
        for name in names:
            if name != chosen or kind == "double":
                made.writestr(name, held.read(name))
        if kind == "change":
            made.writestr(chosen, draw(part(held.read(chosen))))
        elif kind == "double":
            made.writestr(f"{chosen}.npy", held.read(chosen))
    return out.getvalue()


def _npy(valid: bytes) -> st.SearchStrategy[bytes]:
    """An array whose header was changed, with as much behind it as it says, or not."""
    number = st.sampled_from([-1, 0, 1, 3, 6, 10**6, 2**31, 2**62, 10**30])
    kinds = st.sampled_from(
        ["<f4", ">f8", "<f2", "|b1", "<i8", "|u1", "<u2", "|O", "<c16", "<U9", "|V3", "<M8[s]", "x"]
    )

    def make(kind: str, shape: list[int], order: bool, data: bytes) -> bytes:
        text = repr({"descr": kind, "fortran_order": order, "shape": tuple(shape)}).encode()
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data

    data = st.sampled_from([b"", bytes(9), bytes(216), bytes(2**20), valid[-216:]])
    made = st.builds(make, kinds, st.lists(number, max_size=5), st.booleans(), data)
    return st.one_of(made, made, spoiled(valid))


@st.composite
def _checkpoints(draw: st.DrawFn, valid: bytes) -> bytes:
    """A checkpoint with other tensors, and other things beside them or in their place."""
    held: dict[Any, Any] = dict(torch.load(io.BytesIO(valid), weights_only=True))
    ones = torch.ones(3, 9)
    odd: list[Any] = [
        *(ones.to(kind) for kind in (torch.int64, torch.bool, torch.complex64, torch.float8_e5m2)),
        ones.to_sparse(), ones.to("meta"), torch.ones(1).expand(10**6, 10**6), ones * math.nan, ones.double() * 1e300,
        torch.ones(9, 3).T, torch.zeros(0), torch.zeros(()), torch.nn.Parameter(ones), None, "x", 10**30, {},
    ]  # fmt: skip
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from([*held, "more", "", "module.1.weight", 3, "state_dict"]))
        held[key] = draw(st.sampled_from(odd))
    if draw(st.booleans()):
        held = {draw(st.sampled_from(["state_dict", "model", "x", ""])): held}
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(held, out, _use_new_zipfile_serialization=draw(st.booleans()))
    return out.getvalue()


def hostile(target: str, valid: bytes, stated: Any) -> st.SearchStrategy[bytes]:
    """Return the strategy for a kind of file: `stated` is the content of the TOML ones."""
    raw = spoiled(valid)
    if target in ("card", "record"):
        return st.one_of(trees(_parse_json(valid)).map(_json), trees(_parse_json(valid)).map(_json), raw)
    if target in ("recipe", "battery", "training"):
        return st.one_of(trees(stated).map(to_toml), trees(stated).map(to_toml), raw)
    if target == "npz":
        return st.one_of(_zips(valid, _npy), _zips(valid, _npy), raw)
    if target == "checkpoint":
        return st.one_of(_checkpoints(valid), _checkpoints(valid), _zips(valid, spoiled), raw)
    if target == "idx":
        inner = st.one_of(spoiled(gzip.decompress(valid)), st.sampled_from([bytes(2**27)]))
        return st.one_of(inner.map(lambda content: gzip.compress(content, 1, mtime=0)), raw)
    if target in ("weights", "images", "arrays", "tensors"):
        return st.one_of(_tensors(valid), raw)
    if target in ("verdicts", "unit"):
        return st.one_of(_tables(valid), _tables(valid), raw)
    return raw
