import asyncio
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import quote

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from inspector.app import create_app
from storage.catalogs import CatalogVersion, record_version
from storage.champions import ChampionRecord, record_decision
from storage.images import decode_rgb, decode_rgba
from storage.store import Store
from tests.inspector.conftest import HERE, TOKEN
from tests.inspector.made_run import HOSTILE

EARLIER = "first@20260101T000000Z"
PAGES = [
    "/",
    "/runs/first",
    f"/runs/{EARLIER}",
    "/runs/first/stages/ingest.catalog",
    "/runs/first/stages/segment?view=table",
    "/runs/first/stages/segment/item?item=mask/x",
    "/runs/first/stages/evaluate.source/item?item=table/mistakes",
    "/runs/first/stages/predict.source.test/item?item=test/t",
    f"/compare?a={EARLIER}&b=first",
    "/runs/first/catalog",
    "/runs/first/product?sku=tea",
    "/runs/first/confusions",
    "/runs/first/confusions/pair?true=tea&found=oats",
    "/review",
    "/review/decide?run=first&stage=segment&item=mask/x&verdict=bad",
    "/rerun?run=first",
    "/promote?run=first",
    "/champions",
    "/log",
    "/sign-in",
    "/nothing",
]
VOID = {"meta", "link", "img", "br", "input"}


class Closed(HTMLParser):
    """Insists that elements are closed in order, ids are unique and pictures have a text alternative."""

    def __init__(self, page):
        super().__init__()
        self.open, self.ids, self.scripts = [], set(), []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        assert "style" not in values and not any(name.startswith("on") for name in values), (tag, values)
        assert tag != "img" or "alt" in values
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag == "script":
            self.scripts.append(values.get("src", ""))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        assert not self.open or self.open[-1] != "script" or not data.strip()


@pytest.mark.parametrize("path", PAGES)
def test_pages__are_sound_small_and_bring_no_script_of_their_own(client, path):
    answer = client.get(path)
    assert answer.status_code == (404 if path == "/nothing" else 200)
    page = Closed(answer.text)
    assert [script.split("?")[0] for script in page.scripts] == ["/static/inspector.js"]
    assert len(answer.content) < 200_000
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
    assert HOSTILE not in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_pages__a_get_changes_no_file(client, folder, path):
    def state():
        kept = [path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts]
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in kept}

    before = state()
    client.get(path)
    assert state() == before


def test_runs__the_latest_first_and_a_broken_one_says_so(client):
    page = client.get("/").text
    assert page.index('href="/runs/first"') < page.index(f'href="/runs/{quote(EARLIER)}"')
    assert "unreadable" in page and "record can&#39;t be read" in page
    assert "0.625" in page and "0.500" in page
    broken = client.get("/runs/broken")
    assert broken.status_code == 200 and "can't be shown" in broken.text


def test_runs__none_yet(tmp_path):
    app = create_app(runs_folder=tmp_path / "nothing", store_url=str(tmp_path), cache=tmp_path / "cache")
    page = TestClient(app, base_url=HERE).get("/")
    assert page.status_code == 200 and "No run yet" in page.text


def test_run__what_changed_and_the_command_that_makes_it_again(client):
    page = client.get("/runs/first").text
    assert "tally run --dataset shop --preset micro" in page and "parameter knob: 2 before, 1 now" in page
    assert client.get("/runs/first/report").text == "<p>the report</p>"
    assert client.get(f"/runs/{EARLIER}/report").status_code == 404


def test_stage__filters_and_escaped_reasons(client):
    page = client.get("/runs/first/stages/ingest.catalog?view=table").text
    assert "catalog/x" in page and "catalog/y" in page
    sifted = client.get("/runs/first/stages/ingest.catalog", params={"status": "ok", "view": "table"}).text
    assert "catalog/x" in sifted and "catalog/y" not in sifted
    assert "No row passes" in client.get("/runs/first/stages/ingest.catalog", params={"sku": "rice"}).text


def test_stage__a_page_beyond_the_last_is_the_last(client):
    assert "synthetic/000000" in client.get("/runs/first/stages/compose?page=9&view=table").text


def test_stage__the_manifest_can_be_taken_away(client, folder):
    answer = client.get("/runs/first/stages/compose/manifest")
    assert answer.content == (folder / "store/artifacts/compose/compose/manifest.parquet").read_bytes()
    assert answer.headers["content-disposition"] == 'attachment; filename="first-compose.parquet"'


def picture(client, stage, item, kind):
    answer = client.get(f"/runs/first/stages/{stage}/picture", params={"item": item, "kind": kind})
    assert answer.status_code == 200, answer.text
    return answer.content


def test_picture__each_kind_has_its_form(client, folder):
    assert decode_rgb(picture(client, "compose", "synthetic/000000", "thumbnail")).shape == (48, 64, 3)
    assert (
        picture(client, "compose", "synthetic/000000", "photo")
        == (folder / "store/artifacts/compose/compose/synthetic_000000").read_bytes()
    )
    film = decode_rgba(picture(client, "segment", "mask/x", "mask"))
    assert film.shape == (48, 64, 4) and film[16, 20, 3] > 100 and film[40, 60, 3] == 0
    alpha = decode_rgb(picture(client, "prune", "pose/x", "alpha"))
    assert (alpha[16, 20] == 255).all() and (alpha[40, 60] == 0).all()
    heat = decode_rgba(picture(client, "predict.source.test", "test/t", "density"))
    assert heat.shape == (48, 64, 4) and len(np.unique(heat[..., 3])) > 10
    dropped = decode_rgb(picture(client, "prune", "pose/a", "thumbnail"))
    assert dropped.shape[0] == dropped.shape[1]


def test_picture__is_made_once(client, folder, monkeypatch):
    first = picture(client, "segment", "mask/x", "thumbnail")
    monkeypatch.setattr("inspector.pages.stages.make_picture", lambda *_, **__: pytest.fail("made again"))
    assert picture(client, "segment", "mask/x", "thumbnail") == first


def test_item__lineage_both_ways_and_recipe(client):
    page = client.get("/runs/first/stages/segment/item?item=mask/x").text
    for kin in ("catalog/x", "coarse/x", "pose/x", "synthetic/000000", "rendered/000000"):
        assert f'alt="{kin}' in page
    assert "train.source" in page and "--only segment" in page and "knob" in page


def test_item__previous_and_next_keep_the_filters(client):
    page = client.get("/runs/first/stages/segment/item?item=mask/a&sort=-quality").text
    assert re.search(r'rel="prev" href="[^"]*item=mask%2Fx&amp;sort=-quality"', page)
    assert 'rel="next"' not in page


def test_item__boxes_scores_and_what_was_rejected(client):
    page = client.get("/runs/first/stages/predict.source.test/item?item=test/t").text
    assert 'data-score="0.900"' in page and 'id="layer-truth"' in page and 'id="layer-density"' in page
    pseudo = client.get("/runs/first/stages/select.image_level/item?item=pseudo/b").text
    assert "rejected: nothing trusted" in pseudo and "no list to judge" in pseudo
    synthetic = client.get("/runs/first/stages/compose/item?item=synthetic/000000").text
    assert "75 %" in synthetic


def test_item__evidence_of_the_pool(client):
    crop = client.get("/runs/first/stages/prune/evidence", params={"item": "pose/x", "place": 0})
    assert decode_rgb(crop.content).shape == (256, 256, 3)
    assert client.get("/runs/first/stages/prune/evidence", params={"item": "pose/x", "place": 1}).status_code == 404


def test_crops__of_another_content_have_another_address(folder, tmp_path):
    client, _ = copied(folder, tmp_path)
    path = tmp_path / "runs/first/run.json"
    record = orjson.loads(path.read_bytes())

    def addresses():
        pages = ("confusions/pair?true=tea&found=oats", "product?sku=tea", "stages/prune/item?item=pose/x")
        texts = [client.get(f"/runs/first/{page}").text for page in pages]
        return [re.search(r'src="([^"]+/(?:mistake|evidence)[^"]+)"', text)[1].replace("&amp;", "&") for text in texts]

    before = addresses()
    # Browsers keep what is at such an address for a week without asking again.
    assert all("immutable" in client.get(one).headers["cache-control"] for one in before)
    again = [{**one, "content_digest": one["content_digest"][::-1]} for one in record["stages"]]
    path.write_bytes(orjson.dumps({**record, "stages": again}))
    assert not set(before) & set(addresses())


def test_compare__a_list_that_became_wrong_with_what_is_wrong_in_it(client):
    page = client.get(f"/compare?a={EARLIER}&b=first").text
    assert "became wrong (1)" in page and "oats for tea" in page and "missed tea" in page
    assert "evaluate.source" in page and "▼ 0.250" in page
    assert "No list" in client.get(f"/compare?a={EARLIER}&b=first&turn=better").text
    same = client.get("/compare?a=first&b=first").text
    assert "Two rounds of the same run" in same


def test_compare__without_a_choice_the_run_before(client):
    assert "became wrong (1)" in client.get("/compare?b=first").text


def test_compare__an_evaluation_that_was_swept_away_is_no_model_without_changes(folder, tmp_path):
    client, artifacts = copied(folder, tmp_path)
    shutil.rmtree(artifacts / "evaluate/evaluate-earlier")
    page = client.get(f"/compare?a={EARLIER}&b=first").text
    assert f"The evaluation of {EARLIER} · source is not in the store" in page
    assert "No product has other figures" not in page and "became wrong" not in page


def test_catalog__flags_products_with_too_few_views(client):
    page = client.get("/runs/first/catalog").text
    assert "2 products have fewer than 3 kept views" in page and "0.50" in page
    assert client.get("/runs/first/product?sku=rice").status_code == 404
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in client.get("/runs/first/product?sku=tea").text


def test_catalog__versions_that_were_recorded_or_that_runs_have_had(client, folder, tmp_path):
    assert "over the runs named first" in client.get("/runs/first/catalog").text
    copy, _ = copied(folder, tmp_path)
    store = Store.open(str(tmp_path / "store"))
    version = CatalogVersion(
        catalog="shop",
        number=1,
        action="added",
        skus=("rice",),
        products=3,
        photos=9,
        dataset="",
        source="new/",
        time="2026-01-01T00:00:00+00:00",
        manifest="",
        content_digest="",
    )
    record_version(store, version)
    path = tmp_path / "runs/first/run.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "catalog": "shop", "catalog_version": 1}))
    page = copy.get("/runs/first/catalog").text
    assert "Versions of catalog shop" in page and "rice" in page
    (tmp_path / "store/catalogs/shop/000001.json").write_text("[")
    assert "expected a JSON object" in copy.get("/runs/first/catalog").text


def test_confusions__lead_to_the_pictures_of_every_mistake(client):
    page = client.get("/runs/first/confusions").text
    assert "true=tea&amp;found=oats" in page
    pair = client.get("/runs/first/confusions/pair?true=tea&found=oats").text
    source = re.search(r'src="(/runs/first/mistake[^"]+)"', pair)[1].replace("&amp;", "&")
    assert decode_rgb(client.get(source).content).shape == (256, 256, 3)
    assert client.get("/runs/first/mistake?rung=source&number=99").status_code == 404


@pytest.mark.parametrize(
    ("stage", "item", "kind"),
    [
        ("compose", "../../secret.txt", "photo"),
        ("compose", "rendered/000000", "photo"),
        ("render", "generator", "own"),
        ("prune", "pose/a", "own"),
        ("compose", "synthetic/000000", "density"),
        ("compose", "synthetic/000000", "nothing"),
        ("nothing", "x", "photo"),
    ],
)
def test_picture__anything_else_is_404(client, stage, item, kind):
    answer = client.get(f"/runs/first/stages/{stage}/picture", params={"item": item, "kind": kind})
    assert answer.status_code == 404 and answer.content != b"secret"


CLIMBING = ["..", "%2e%2e", "%252e%252e", "..\\", "\\..", "\0", "/etc/passwd", "secret.txt", "~", ".", "/", "@"]
PIECES = st.lists(st.sampled_from([*CLIMBING, "runs", "store", "run.json", "20260101T000000Z"]), min_size=1)
PLACES = [
    "/runs/{}",
    "/runs/{}/report",
    "/runs/{}/stages/compose",
    "/runs/first/stages/{}",
    "/runs/first/stages/{}/manifest",
    "/runs/first/stages/compose/picture?kind=own&item={}",
    "/runs/first/stages/compose/picture?item=synthetic/000000&kind={}",
    "/runs/first/stages/compose/item?item={}",
    "/runs/first/product?sku={}",
    "/static/{}",
]


def raw_get(app, path, query=""):
    """The status and body of a request whose path reaches the program as it is: clients would tidy it up."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    scope |= {"headers": [(b"host", b"127.0.0.1")], "scheme": "http", "http_version": "1.1", "root_path": ""}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), pieces=PIECES, quoted=st.booleans())
def test_ids__no_path_is_made_of_a_request(app, place, pieces, quoted):
    text = "".join(pieces)
    path, _, query = place.partition("?")
    status, body = raw_get(app, path.format(text), query.format(quote(text, safe="") if quoted else quote(text)))
    assert status == 404, (path.format(text), query)
    assert b"root:" not in body and body != b"secret"


@pytest.mark.parametrize(
    "path", ["/runs/first/../first", "/runs/first/stages/compose/%2e%2e/x", "/static/../app.py", "//"]
)
def test_paths__that_are_no_pages(app, path):
    assert raw_get(app, path)[0] == 404


def copied(folder, tmp_path):
    shutil.copytree(folder / "runs", tmp_path / "runs")
    shutil.copytree(folder / "store", tmp_path / "store", ignore=shutil.ignore_patterns("cache"))
    app = create_app(runs_folder=tmp_path / "runs", store_url=str(tmp_path / "store"), token=TOKEN)
    return TestClient(app, base_url=HERE), tmp_path / "store" / "artifacts"


def test_links__that_leave_the_store_or_the_runs_lead_nowhere(folder, tmp_path):
    client, artifacts = copied(folder, tmp_path)
    file = artifacts / "compose/compose/synthetic_000000"
    outside = tmp_path / "outside.jpg"
    file.rename(outside)
    # The very bytes that the manifest names, but not in the store.
    file.symlink_to(outside)
    answer = client.get("/runs/first/stages/compose/picture?item=synthetic/000000&kind=photo")
    assert answer.status_code == 404 and "store" in answer.text
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "runs/first/run.json", tmp_path / "elsewhere/run.json")
    (tmp_path / "runs/linked").symlink_to(tmp_path / "elsewhere")
    assert client.get("/runs/linked").status_code == 404


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense PAR1", None])
def test_broken_manifests__give_pages_that_say_so(folder, tmp_path, content):
    client, artifacts = copied(folder, tmp_path)
    manifest = artifacts / "segment/segment/manifest.parquet"
    manifest.write_bytes(content) if content is not None else manifest.unlink()
    answer = client.get("/runs/first/stages/segment")
    assert answer.status_code == 404 and "segment can&#39;t be shown" in answer.text and "Traceback" not in answer.text
    for path in ("/runs/first", "/runs/first/catalog", "/runs/first/stages/prune/item?item=pose/x", "/compare?b=first"):
        assert client.get(path).status_code == 200


def test_broken_pictures__give_pages_that_say_so(folder, tmp_path):
    client, artifacts = copied(folder, tmp_path)
    (artifacts / "compose/compose/synthetic_000000").write_bytes(b"changed")
    (artifacts / "segment/segment/mask_x").unlink()
    for stage, item in (("compose", "synthetic/000000"), ("segment", "mask/x")):
        answer = client.get(f"/runs/first/stages/{stage}/picture", params={"item": item})
        assert answer.status_code == 404 and "run its stage again" in answer.text
        assert client.get(f"/runs/first/stages/{stage}/item", params={"item": item}).status_code == 200


def test_broken_decisions__are_told_on_the_review_page(folder, tmp_path):
    client, artifacts = copied(folder, tmp_path)
    (artifacts.parent / "reviews").mkdir(exist_ok=True)
    (artifacts.parent / "reviews/99999999.parquet").write_bytes(b"PAR1")
    assert "expected a Parquet table of review decisions" in client.get("/review").text
    assert client.get("/runs/first/stages/segment/item?item=mask/x").status_code == 200


def test_runs__stages_that_make_no_sense_are_left_out(folder, tmp_path):
    client, _ = copied(folder, tmp_path)
    path = tmp_path / "runs/first/run.json"
    record = orjson.loads(path.read_bytes())
    record["stages"] += [{"name": "x", "stage": "../../etc", "key": ".."}, "nonsense", {}]
    path.write_bytes(orjson.dumps(record))
    assert client.get("/runs/first").status_code == 200
    assert client.get("/runs/first/stages/x").status_code == 404


def test_unexpected__errors_are_a_page_too(app, monkeypatch):
    monkeypatch.setattr("inspector.pages.catalog.products_of", lambda *_, **__: 1 / 0)
    answer = TestClient(app, base_url=HERE, raise_server_exceptions=False).get("/runs/first/catalog")
    assert answer.status_code == 500 and "Something went wrong" in answer.text and "ZeroDivision" not in answer.text


def test_champions__lead_to_the_run_that_has_the_model(folder, tmp_path):
    client, _ = copied(folder, tmp_path)
    path = tmp_path / "runs/first/run.json"
    later = orjson.loads(path.read_bytes())
    models = {one["name"]: one["content_digest"] for one in later["stages"]}
    digests = (models["train.source"], "of nobody")
    for digest in digests:
        record_decision(
            Store.open(str(tmp_path / "store")),
            ChampionRecord(
                catalog="shop",
                action="promoted",
                time="2026-01-02T00:00:00+00:00",
                run="first",
                rung="source",
                checkpoint="file:///m",
                checkpoint_digest=digest,
            ),
        )

    def links():
        rows = re.findall(r"<td>promoted.*?</td><td>(.*?)</td>", client.get("/champions").text)
        return [re.search(r'href="/runs/([^"]+)"', row)[1] if "href" in row else "" for row in rows]

    assert links() == ["", "first"]
    changed = [
        {**one, "content_digest": "another"} if one["name"] == "train.source" else one for one in later["stages"]
    ]
    path.write_bytes(orjson.dumps({**later, "stages": changed}))
    assert links() == ["", quote(EARLIER)]


def test_run__says_what_was_decided_about_its_model(folder, tmp_path):
    client, _ = copied(folder, tmp_path)
    assert "Decision" not in client.get("/runs/first").text
    path = tmp_path / "runs/first/run.json"
    decision = {"number": 7, "action": "rejected", "reasons": ["no gain on val"], "champion": 3}
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "decision": decision}))
    page = client.get("/runs/first").text
    assert "Decision 7</a>: rejected, the champion is number 3 (no gain on val)" in page
