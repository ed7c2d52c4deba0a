import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tasks.fitted_graph import behind


def value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.fixture
def model():
    """y = (2 x) + 3 where that is positive, else the doubled x out of the surroundings of the branch."""
    then = helper.make_graph([helper.make_node("Identity", ["sum"], ["a"])], "then", [], [value("a", [1])])
    other = helper.make_graph([helper.make_node("Identity", ["doubled"], ["b"])], "else", [], [value("b", [1])])
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "three"], ["sum"]),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    constants = {"two": 2.0, "three": 3.0, "zero": 0.0}
    initializers = [helper.make_tensor(name, TensorProto.FLOAT, [1], [number]) for name, number in constants.items()]
    graph = helper.make_graph(nodes, "made", [value("x", [1])], [value("y", [1])], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize(("doubled", "expected"), [(4.0, 7.0), (-4.0, -4.0)])
def test_behind__computes_the_same_from_the_middle(model, doubled, expected):
    inner = behind(model, inputs={"doubled": (TensorProto.FLOAT, (1,))})
    onnx.checker.check_model(inner)
    assert {one.name for one in inner.graph.initializer} == {"three", "zero"}
    session = onnxruntime.InferenceSession(inner.SerializeToString(), providers=["CPUExecutionProvider"])
    assert session.run(None, {"doubled": np.float32([doubled])})[0] == [expected]


@pytest.mark.parametrize(("name", "message"), [("sum", "need {'x'}"), ("nowhere", "got none named nowhere")])
def test_behind__refuses_what_cannot_be(model, name, message):
    with pytest.raises(ValueError, match=message):
        behind(model, inputs={name: (TensorProto.FLOAT, (1,))})
