"""The part of an exported graph behind the fitting of the photo, as a graph of its own. onnx only, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx


def behind(model: onnx.ModelProto, *, inputs: Mapping[str, tuple[int, Sequence[int]]]) -> onnx.ModelProto:
    """A model that computes the same outputs from `inputs`: names of tensors in the graph, their types and shapes.

    Raises:
        ValueError: the graph has no such tensors, or its outputs need more than them.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    lacking = [name for name in inputs if name not in makers]
    if lacking:
        raise ValueError(f"graph: expected tensors named {list(inputs)}, got none named {lacking[0]}")
    needed = _needed([output.name for output in model.graph.output], makers=makers, given=inputs)
    if open_inputs := needed & {value.name for value in model.graph.input}:
        raise ValueError(f"graph: expected outputs that need only {list(inputs)}, got some that need {open_inputs}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.input[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(node for node in model.graph.node if needed.intersection(node.output))
    result.graph.initializer.extend(one for one in model.graph.initializer if one.name in needed)
    result.graph.input.extend(
        onnx.helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()
    )
    return result


def _needed(outputs: Sequence[str], *, makers: Mapping[str, onnx.NodeProto], given: Mapping[str, object]) -> set[str]:
    """The names of all tensors that the outputs need, without those that are given."""
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name in needed or name in given:
            continue
        needed.add(name)
        if name in makers:
            waiting.extend(_read_by(makers[name]))
    return needed


def _read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node reads, those in its branches and loops too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            yield from (output.name for output in graph.output)
            for inner in graph.node:
                yield from _read_by(inner)
