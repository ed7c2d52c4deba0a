from types import SimpleNamespace

from tests.order import longest_first


def item(path, *, long=False, run=False):
    fixtures = ["tmp_path", "micro_run"] if run else ["tmp_path"]
    return SimpleNamespace(path=path, fixturenames=fixtures, get_closest_marker={"long": long}.get)


def test_longest_first__one_makes_the_run_and_the_others_that_need_it_come_later():
    items = [
        *(item("short"), item("short run"), item("long"), item("long run", long=True), item("long", long=True)),
        *(item("short run", run=True), item("long run", run=True), item("short"), item("other run", run=True)),
    ]
    made = longest_first(items)
    order = ["long run", "long", "short run", "other run", "short"]
    assert list(dict.fromkeys(one.path for one in made)) == order
    assert made == sorted(items, key=lambda one: order.index(one.path))


def test_longest_first__without_any_of_them_all_stay_where_they_are():
    items = [item("b"), item("a"), item("b")]
    assert longest_first(items) == [items[0], items[2], items[1]]
