from hypothesis import given
from hypothesis import strategies as st

from inspector.stage_graph import NODE_HEIGHT, NODE_WIDTH, stage_graph

CHAIN = {"ingest": [], "coarse": ["ingest"], "segment": ["ingest", "coarse"], "prune": ["ingest", "segment"]}


def test_stage_graph__leaves_out_what_a_longer_way_tells():
    graph = stage_graph(CHAIN)
    assert len(graph.paths) == 3
    assert [node.name for node in sorted(graph.nodes, key=lambda node: node.y)] == list(CHAIN)


def test_stage_graph__long_edges_of_a_source_share_a_lane():
    graph = stage_graph({"test": [], "a": [], "b": ["a"], "c": ["b"], "x": ["c", "test"], "y": ["c", "test"]})
    # test passes two layers in one lane and reaches x and y: 2 + 2 pieces; a-b, b-c, c-x, c-y.
    assert len(graph.paths) == 8


def test_stage_graph__of_nothing():
    assert stage_graph({}).nodes == []


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 12))
    return {
        f"s{index}": [f"s{source}" for source in draw(st.sets(st.integers(0, index - 1), max_size=3))] if index else []
        for index in range(count)
    }


@given(graphs())
def test_stage_graph__boxes_lie_inside_do_not_touch_and_come_after_their_sources(sources):
    graph = stage_graph(sources)
    places = {node.name: node for node in graph.nodes}
    assert set(places) == set(sources)
    for node in graph.nodes:
        assert node.x >= 0 and node.x + NODE_WIDTH <= graph.width + 1e-6
        assert node.y >= 0 and node.y + NODE_HEIGHT <= graph.height
        assert all(places[source].y + NODE_HEIGHT < node.y for source in sources[node.name])
    for one in graph.nodes:
        for other in graph.nodes:
            same_row = one.y == other.y and one.name != other.name
            assert not same_row or abs(one.x - other.x) >= NODE_WIDTH
