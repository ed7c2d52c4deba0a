import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from tasks.list_files import decode_json, encode_csv, encode_json, encode_parquet, list_files
from tasks.shopping_list import ListedProduct, ShoppingList

TEA = ListedProduct(sku="tea", name="Green tea", count=2, confidence=0.6, price=1.5)
COLA = ListedProduct(sku="cola", name="cola", count=1, confidence=0.7, price=2.0)
LISTS = [
    ShoppingList(photo="a.jpg", products=(COLA, TEA), confidence=0.8, state="accepted"),
    ShoppingList(photo="b, c.jpg", products=(), confidence=1.0, state="needs-review", reason="nothing found"),
]


def test_encode_csv__one_line_a_product_and_one_for_an_empty_photo():
    rows = list(csv.DictReader(io.StringIO(encode_csv(LISTS).decode())))
    assert [(row["photo"], row["sku"], row["count"], row["amount"], row["total"]) for row in rows] == [
        ("a.jpg", "cola", "1", "2.0", "5.0"),
        ("a.jpg", "tea", "2", "3.0", "5.0"),
        ("b, c.jpg", "", "0", "", ""),
    ]
    assert (rows[1]["confidence"], rows[2]["state"], rows[2]["reason"]) == ("0.6000", "needs-review", "nothing found")


def test_encode_parquet__says_the_same_with_types():
    table = pq.read_table(io.BytesIO(encode_parquet(LISTS)))
    assert str(table.schema.field("count").type) == "int32"
    assert table.to_pylist()[1] == {
        "photo": "a.jpg",
        "sku": "tea",
        "name": "Green tea",
        "count": 2,
        "confidence": pytest.approx(0.6),
        "list_confidence": pytest.approx(0.8),
        "state": "accepted",
        "reason": "",
        "price": 1.5,
        "amount": 3.0,
        "total": 5.0,
    }
    assert table.to_pylist()[2]["sku"] is None


def test_encode_json__products_and_totals():
    first, second = json.loads(encode_json(LISTS))
    assert (first["photo"], first["items"], first["state"], first["total"]) == ("a.jpg", 3, "accepted", 5.0)
    assert first["products"][1] == {
        "sku": "tea",
        "name": "Green tea",
        "count": 2,
        "confidence": 0.6,
        "price": 1.5,
        "amount": 3.0,
    }
    assert (second["products"], second["total"]) == ([], None)


def test_decode_json__gives_back_what_was_written():
    assert decode_json(encode_json(LISTS)) == LISTS


@pytest.mark.parametrize("data", [b"{", b"3", b'[{"photo": "a"}]', b'{"photo": "a"}'])
def test_decode_json__another_file(data):
    with pytest.raises(ValueError, match="expected a shopping_lists.json"):
        decode_json(data)


def test_list_files__no_photo_at_all():
    files = list_files([])
    assert sorted(files) == ["shopping_lists.csv", "shopping_lists.json", "shopping_lists.parquet"]
    assert pq.read_table(io.BytesIO(files["shopping_lists.parquet"])).num_rows == 0
