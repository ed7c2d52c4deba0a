"""Shopping lists as files: CSV, JSON and Parquet, one line a photo and SKU. Pure: makes bytes, writes nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.shopping_list import ListedProduct, ShoppingList

LIST_SCHEMA = pa.schema(
    [
        pa.field("photo", pa.string(), nullable=False),
        pa.field("sku", pa.string()),
        pa.field("name", pa.string()),
        pa.field("count", pa.int32(), nullable=False),
        pa.field("confidence", pa.float32()),
        pa.field("list_confidence", pa.float32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("price", pa.float64()),
        pa.field("amount", pa.float64()),
        pa.field("total", pa.float64()),
    ]
)


def list_files(lists: Sequence[ShoppingList]) -> dict[str, bytes]:
    """The three files by their names."""
    encoders = {"csv": encode_csv, "json": encode_json, "parquet": encode_parquet}
    return {f"shopping_lists.{suffix}": encode(lists) for suffix, encode in encoders.items()}


def _lines(lists: Sequence[ShoppingList]) -> Iterator[dict[str, Any]]:
    """One line a photo and SKU, keys as in LIST_SCHEMA; a photo with nothing on it has one line with count 0."""
    for one in lists:
        shared = {
            "photo": one.photo,
            "list_confidence": one.confidence,
            "state": one.state,
            "reason": one.reason,
            "total": one.total,
        }
        for product in one.products:
            yield {**shared, **asdict(product), "amount": product.amount}
        if not one.products:
            yield {**shared, "sku": None, "name": None, "count": 0, "confidence": None, "price": None, "amount": None}


def encode_csv(lists: Sequence[ShoppingList]) -> bytes:
    """The lines under a header with LIST_SCHEMA's names; what does not exist is empty."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, LIST_SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    for line in _lines(lists):
        shares = {name: line[name] for name in ("confidence", "list_confidence")}
        writer.writerow({**line, **{name: "" if one is None else f"{one:.4f}" for name, one in shares.items()}})
    return buffer.getvalue().encode()


def encode_parquet(lists: Sequence[ShoppingList]) -> bytes:
    """The lines as a Parquet file with LIST_SCHEMA."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(_lines(lists)), schema=LIST_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def encode_json(lists: Sequence[ShoppingList]) -> bytes:
    """An indented JSON array of {photo, items, confidence, state, reason, total, products: [{sku, name, count, …}]}."""
    return orjson.dumps([_json_object(one) for one in lists], option=orjson.OPT_INDENT_2)


def _json_object(one: ShoppingList) -> dict[str, Any]:
    products = [{**asdict(product), "amount": product.amount} for product in one.products]
    return {**asdict(one), "items": one.items, "total": one.total, "products": products}


def decode_json(data: bytes) -> list[ShoppingList]:
    """The lists that `encode_json` wrote.

    Raises:
        ValueError: the bytes are not such a file.
    """
    try:
        return [_from_json(one) for one in orjson.loads(data)]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"shopping lists: expected a shopping_lists.json, got another file ({error})") from error


def _from_json(one: dict[str, Any]) -> ShoppingList:
    names = ("sku", "name", "count", "confidence", "price")
    products = tuple(ListedProduct(**{name: product[name] for name in names}) for product in one["products"])
    shared = {name: one[name] for name in ("photo", "confidence", "state", "reason")}
    return ShoppingList(products=products, **shared)
