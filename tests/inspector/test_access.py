from urllib.parse import urlencode

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from inspector.access import COOKIE, Access, Visitor, checked_token, is_loopback
from inspector.app import create_app
from inspector.pages.visits import own_path
from tests.inspector.conftest import HERE, TOKEN, form_token_of, sign_in

OPEN_TO_ALL = {"/health", "/sign-in", "/static/{name}"}


@pytest.fixture(scope="module")
def elsewhere(folder):
    """An inspector that listens beyond this machine."""
    return create_app(runs_folder=folder / "runs", store_url=str(folder / "store"), token=TOKEN, host="0.0.0.0")


def routes_of(app):
    return [route for route in app.routes if isinstance(route, APIRoute)]


def test_routes__all_are_guarded_by_the_same_dependency(app):
    guards = {tuple(one.call for one in route.dependant.dependencies) for route in routes_of(app)}
    assert len(guards) == 1 and [guard.__name__ for guard in guards.pop()] == ["guard"]
    assert len(routes_of(app)) == len(app.routes), "nothing is mounted beside the routes"


def address(route):
    return route.path.replace("{run}", "first").replace("{stage}", "compose").replace("{name}", "tokens.css")


def test_routes__beyond_this_machine_every_one_needs_the_token(elsewhere):
    client = TestClient(elsewhere, base_url="http://shop.example", raise_server_exceptions=False)
    seen = set()
    for route in routes_of(elsewhere):
        for method in route.methods:
            answer = client.request(method, address(route), follow_redirects=False)
            seen.add(route.path)
            if route.path in OPEN_TO_ALL and method == "GET":
                assert answer.status_code == 200
            else:
                assert answer.status_code in (401, 403), (method, route.path)
                assert "unlabelled-target" not in answer.text
    assert seen > OPEN_TO_ALL


def test_routes__a_bearer_may_read_but_not_post(elsewhere):
    client = TestClient(elsewhere, base_url="http://shop.example", headers={"Authorization": f"Bearer {TOKEN}"})
    assert client.get("/runs/first").status_code == 200
    assert client.post("/review/decide").status_code == 403
    wrong = TestClient(elsewhere, base_url="http://shop.example", headers={"Authorization": "Bearer wrong"})
    assert wrong.get("/runs/first").status_code == 401


def test_routes__gets_only_read_and_posts_are_few(app):
    posts = {route.path for route in routes_of(app) if "POST" in route.methods}
    assert posts == {"/sign-in", "/sign-out", "/review/decide", "/rerun", "/promote", "/rollback"}
    assert {method for route in routes_of(app) for method in route.methods} == {"GET", "POST"}


def test_sign_in__the_token_opens_and_a_wrong_one_does_not(elsewhere):
    client = TestClient(elsewhere, base_url="http://shop.example")
    assert sign_in(client, token="wrong-token-wrong").status_code == 401
    assert client.get("/").status_code == 401
    answer = sign_in(client)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert "Ada" in client.get("/").text
    form_token = form_token_of(client.get("/").text)
    client.post("/sign-out", data={"form_token": form_token})
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("path", ["/review/decide", "/rerun", "/promote", "/rollback", "/sign-out", "/sign-in"])
@pytest.mark.parametrize("given", [{}, {"form_token": ""}, {"form_token": "0" * 64}])
def test_posts__without_their_form_token_do_nothing(member, folder, path, given):
    answer = member.post(path, data={**given, "run": "first", "rung": "source"})
    assert answer.status_code == 403 and "Not sent" in answer.text


def test_posts__of_another_visitor_are_refused(app, member):
    other = TestClient(app, base_url=HERE)
    sign_in(other)
    stolen = form_token_of(other.get("/").text)
    assert member.post("/sign-out", data={"form_token": stolen}).status_code == 403


def test_posts__actions_need_the_token_on_this_machine_too(client):
    form_token = form_token_of(client.get("/sign-in").text)
    answer = client.post("/promote", data={"form_token": form_token, "run": "first", "rung": "source"})
    assert answer.status_code == 401


def test_guard__another_host_name_is_turned_away_on_loopback(app):
    answer = TestClient(app, base_url="http://evil.example:8420").get("/")
    assert answer.status_code == 421 and "first" not in answer.text


def test_posts__a_form_may_not_be_endless(client):
    assert client.post("/sign-in", content=b"a" * 100_000).status_code == 413
    assert client.post("/sign-in", content=b"\xff\xfe").status_code in (400, 403)


def cookie_visitor(access, value):
    class Request:
        cookies = {COOKIE: value}

    return access._visitor(Request())


class Jar:
    def set_cookie(self, name, value, **options):
        self.value = value


def test_cookie__ends_after_half_a_day_and_can_not_be_forged():
    now = [0.0]
    access = Access(token=TOKEN, open_reading=False, clock=lambda: now[0])
    jar = Jar()
    access.admit(jar, name="Ada", secure=True)
    assert cookie_visitor(access, jar.value).signed_in
    other = Access(token=TOKEN + "!", open_reading=False)
    assert not cookie_visitor(other, jar.value).signed_in
    body, _, signature = jar.value.partition(".")
    assert not cookie_visitor(access, f"{body}x.{signature}").signed_in
    now[0] = 13 * 3600
    assert not cookie_visitor(access, jar.value).signed_in


@given(st.text(max_size=60))
def test_cookie__of_any_text_is_a_strangers(text):
    visitor = cookie_visitor(Access(token=TOKEN, open_reading=False), text)
    assert isinstance(visitor, Visitor) and not visitor.signed_in


@pytest.mark.parametrize("back", ["//evil", "/\\evil", "https://evil", "/a\nb", ""])
def test_own_path__stays_here(back):
    assert own_path(back) == "/" and own_path("/runs/a?x=1") == "/runs/a?x=1"


def test_sign_in__goes_back_to_where_it_was_asked_for(client):
    page = client.get("/sign-in?" + urlencode({"next": "/runs/first"})).text
    data = {"form_token": form_token_of(page), "token": TOKEN, "next": "/runs/first"}
    assert client.post("/sign-in", data=data, follow_redirects=False).headers["location"] == "/runs/first"


@pytest.mark.parametrize(("host", "own"), [("127.0.0.1", True), ("localhost", True), ("0.0.0.0", False), ("::1", True)])
def test_is_loopback(host, own):
    assert is_loopback(host) == own


def test_checked_token__elsewhere_there_must_be_one_and_it_must_be_long():
    with pytest.raises(ValueError, match="host: expected --token-file"):
        checked_token(None, host="0.0.0.0")
    with pytest.raises(ValueError, match="expected at least 16 characters, got 5"):
        checked_token("short", host="127.0.0.1")
    assert len(checked_token(None, host="127.0.0.1")) >= 16
    assert checked_token(TOKEN, host="0.0.0.0") == TOKEN
