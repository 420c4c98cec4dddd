"""Flattening: local functions inlined, constants hoisted, every tensor name made unique."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.operations import normal_domain
from emergraph.exporters.runtime.constant_nodes import constant_tensor, dense_of_sparse
from emergraph.exporters.runtime.flat_model import FlatModel, Training, flat_input
from emergraph.exporters.runtime.oldversions import FIRST_VERSION, modernised
from emergraph.exporters.runtime.ordering import in_data_order
from emergraph.exporters.runtime.quoting import plain, quoted
from emergraph.exporters.trainingmode import settle, trains

# Names while a model is flattened: lexical scopes, and names that are unique over all of them.


class UniqueNames:
    """Hands out names that were not handed out before."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def claim(self, name: str, prefix: str) -> str:
        """Return `name` if it is free, else one made of prefix and name that is."""
        candidate = name
        if candidate in self._used:
            candidate = f"{prefix}/{name}" if prefix else name
        count = 2
        stem = candidate
        while candidate in self._used:
            candidate = f"{stem}_{count}"
            count += 1
        self._used.add(candidate)
        return candidate


class Scope:
    """Maps the names that one graph or function body uses to flat names, with what is outside behind it."""

    def __init__(self, parent: "Scope | None" = None) -> None:
        self.parent = parent
        self.names: dict[str, str] = {"": ""}

    def bind(self, name: str, flat: str) -> None:
        """Let `name` mean the flat name `flat` in this scope and the scopes within."""
        if name in self.names:
            raise InvalidInputError(
                f"tensor {quoted(name)} is defined twice in one graph; expected every name to be defined once"
            )
        self.names[name] = flat

    def knows(self, name: str) -> bool:
        """Whether this very scope (not an outer one) binds the name."""
        return name in self.names

    def resolve(self, name: str, reader: str) -> str:
        """The flat name behind `name`; `reader` is what asks for it, for the error message."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        raise InvalidInputError(
            f"{quoted(reader)} reads tensor {quoted(name)}, which no operation, initializer or input defines"
        )

    def resolve_all(self, names: Iterable[str], reader: str) -> list[str]:
        """The flat names behind several names."""
        return [self.resolve(name, reader) for name in names]


# What a call of a local function means: its attributes, and the versions of operations it was made for.

Bindings = Mapping[str, onnx.AttributeProto]


def bound_attribute(attribute: onnx.AttributeProto, bindings: Bindings) -> onnx.AttributeProto | None:
    """The attribute itself, or what a reference to an attribute of the enclosing function means.

    None where the call leaves the referenced attribute out.
    """
    if not attribute.ref_attr_name:
        return attribute
    value = bindings.get(attribute.ref_attr_name)
    if value is None:
        return None
    bound = onnx.AttributeProto()
    bound.CopyFrom(value)
    bound.name = attribute.name
    return bound


def call_bindings(function: onnx.FunctionProto, call: onnx.NodeProto, outer: Bindings) -> Bindings:
    """What the attributes of a function mean in one call of it."""
    bindings = {attribute.name: attribute for attribute in function.attribute_proto}
    for attribute in call.attribute:
        bound = bound_attribute(attribute, outer)
        if bound is not None:
            bindings[attribute.name] = bound
    return bindings


def check_versions(function: onnx.FunctionProto, opsets: dict[str, int]) -> None:
    """Refuse a function made for another version of an operation than the one the model means.

    Domains that only the function imports are added to `opsets`.
    """
    for domain, version in opset_versions(function.opset_import).items():
        outer = opsets.setdefault(domain, version)
        if outer == version:
            continue
        for node in function.node:
            if normal_domain(node.domain) == domain and _differs(node.op_type, domain, version, outer):
                raise InvalidInputError(
                    f"local function {quoted(function.name)} uses {plain(node.op_type)} of opset {version}, "
                    f"the model opset {outer}, and the two differ; expected one version: convert the model "
                    "with onnx.version_converter"
                )


def opset_versions(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Version per domain."""
    return {normal_domain(entry.domain): int(entry.version) for entry in imports}


def _differs(op: str, domain: str, one: int, other: int) -> bool:
    """Whether two opset versions hold different versions of an operation; unknown ones do not differ."""
    if not onnx.defs.has(op, domain):
        return False
    try:
        first = onnx.defs.get_schema(op, one, domain)
        second = onnx.defs.get_schema(op, other, domain)
    except onnx.defs.SchemaError:
        return True
    return bool(first.since_version != second.since_version)


MAX_NESTING = 120
"""Subgraphs within subgraphs; protobuf itself refuses files beyond about 33 levels, functions add some."""

MAX_SETTINGS = 64
"""Elements of a constant that may say how an operation works: one per axis or part."""

TensorReader = Callable[[onnx.TensorProto], NDArray[np.generic]]
FunctionKey = tuple[str, str, str]


def flatten(
    model: onnx.ModelProto,
    *,
    read_tensor: TensorReader = onnx.numpy_helper.to_array,
    overridden: frozenset[str] = frozenset(),
) -> FlatModel:
    """Flatten a model into one list of operations with unique tensor names.

    Local functions are inlined (their bodies see only their own names), Constant nodes at any depth and the
    initializers of subgraphs become initializers of the top level, and sparse initializers become dense. A
    constant inside a function becomes one initializer however often the function is used. If, Loop and Scan
    stay; `branches.take_branches` replaces an If once its condition is known.

    The caller must have counted the expansions of local functions before: 30 functions that each call the
    next twice are a small file and 2^30 operations.

    Args:
        model: The model; big tensors may be light (data left out).
        read_tensor: Gives the values of a tensor; only called for sparse constants.
        overridden: Inputs with a default value (an initializer of the same name) that stay inputs.

    Returns:
        The flat model; tensor protos are those of `model`, not copies.

    Raises:
        InvalidInputError: A name is defined twice or not at all, operations form a cycle, functions call
            themselves, or a function was made for a version of an operation that differs from the model's.
    """
    return _Flattener(model, read_tensor).run(overridden)


@dataclass(frozen=True)
class _Body:
    """A sequence of nodes that is being emitted, with what its names and attribute references mean."""

    nodes: Iterator[onnx.NodeProto]
    scope: Scope
    path: str
    """Where the body is: names that are taken already get it as a prefix."""
    bindings: Bindings
    calls: tuple[FunctionKey, ...]
    """The functions that are being expanded around it."""
    prefix: str = ""
    """Names of the enclosing function calls: every node name in the body starts with it."""


class _Flattener:
    """The state of one flattening: names given out, initializers found."""

    def __init__(self, model: onnx.ModelProto, read_tensor: TensorReader) -> None:
        self._model = model
        self._read = read_tensor
        self._tensors = UniqueNames()
        self._node_names = UniqueNames()
        self._counts: dict[str, int] = {}
        self._functions: dict[FunctionKey, onnx.FunctionProto] = {
            (normal_domain(f.domain), f.name, f.overload): f for f in model.functions
        }
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._hoisted: dict[int, str] = {}
        self._opsets = opset_versions(model.opset_import)
        self._training: list[Training] = []

    def run(self, overridden: frozenset[str]) -> FlatModel:
        graph = self._model.graph
        scope = Scope()
        defaults = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
        inputs = tuple(
            flat_input(value)
            for value in graph.input
            if value.name not in defaults or value.name in overridden
        )
        for value in inputs:
            scope.bind(value.name, self._tensors.claim(value.name, ""))
        self._declare_initializers(graph, scope, "", skip=overridden)
        self._declare_outputs(graph.node, scope, "", {})
        nodes: list[onnx.NodeProto] = []
        self._emit(_Body(iter(graph.node), scope, "", {}, ()), nodes, 0)
        outputs = scope.resolve_all((value.name for value in graph.output), "the list of outputs")
        declared = {v.name: v.type for v in (*graph.value_info, *graph.output) if v.HasField("type")}
        ordered, opsets = in_data_order(nodes), self._opsets
        if opsets.get("", FIRST_VERSION) < FIRST_VERSION:
            opsets = {**opsets, "": FIRST_VERSION}
            ordered = tuple(self._modernised(ordered, opsets, declared))
        return FlatModel(
            nodes=ordered,
            initializers=self._initializers,
            inputs=inputs,
            outputs=tuple(outputs),
            opsets=opsets,
            ir_version=int(self._model.ir_version),
            declared=declared,
            training=tuple(self._training),
        )

    def _value(self, name: str) -> NDArray[np.generic] | None:
        """The values of a small constant by flat name."""
        proto = self._initializers.get(name)
        return None if proto is None or prod(proto.dims) > MAX_SETTINGS else self._read(proto)

    def _claim(self, near: str) -> str:
        return self._tensors.claim(near, "")

    def _modernised(
        self,
        nodes: Sequence[onnx.NodeProto],
        opsets: Mapping[str, int],
        declared: Mapping[str, onnx.TypeProto],
    ) -> list[onnx.NodeProto]:
        """The nodes as operations of a version that runs."""
        inputs = {v.name: v.type for v in self._model.graph.input if v.HasField("type")}
        held = {
            name: onnx.helper.make_tensor_type_proto(proto.data_type, list(proto.dims))
            for name, proto in self._initializers.items()
        }

        def constant(values: NDArray[np.generic], near: str) -> str:
            name = self._claim(near)
            self._initializers[name] = onnx.numpy_helper.from_array(values, name)
            return name

        return modernised(
            nodes,
            self._opsets[""],
            opsets,
            {**declared, **inputs, **held},
            value=self._value,
            constant=constant,
            claim=self._claim,
        )

    def _declare_initializers(
        self, graph: onnx.GraphProto, scope: Scope, path: str, skip: frozenset[str] = frozenset()
    ) -> None:
        for tensor in graph.initializer:
            if tensor.name not in skip:
                self._hoist(tensor, tensor.name, scope, path)
        for sparse in graph.sparse_initializer:
            if sparse.values.name not in skip:
                self._hoist(dense_of_sparse(sparse, self._read), sparse.values.name, scope, path)

    def _hoist(self, tensor: onnx.TensorProto, name: str, scope: Scope, path: str) -> None:
        """Make a tensor an initializer of the top level and bind its name; one met before keeps its name."""
        known = self._hoisted.get(id(tensor))
        if known is None:
            known = self._tensors.claim(name, path)
            self._hoisted[id(tensor)] = known
            self._initializers[known] = tensor
        scope.bind(name, known)

    def _declare_outputs(
        self,
        nodes: Sequence[onnx.NodeProto],
        scope: Scope,
        path: str,
        bindings: Bindings,
        bound: Iterable[str] = (),
    ) -> None:
        """Bind what the nodes of one body define, before any is emitted: files need not be sorted.

        `bound` lists names that are bound already and that one of the nodes will define.
        """
        pending = set(bound)
        for node in nodes:
            constant = constant_tensor(node, bindings, self._read) if is_constant(node) else None
            for name in node.output:
                if not name:
                    continue
                if name in pending:
                    pending.discard(name)
                elif constant is not None:
                    self._hoist(constant, name, scope, path)
                else:
                    scope.bind(name, self._tensors.claim(name, path))

    def _emit(self, body: _Body, out: list[onnx.NodeProto], depth: int) -> None:
        """Append the flat nodes of a body; function calls go by a stack, subgraphs by recursion."""
        if depth > MAX_NESTING:
            raise InvalidInputError(f"subgraphs are nested too deep: expected at most {MAX_NESTING} levels")
        stack = [body]
        while stack:
            current = stack[-1]
            node = next(current.nodes, None)
            if node is None:
                stack.pop()
            elif is_constant(node):
                self._emit_exported_constant(node, current, out)
            elif (key := (normal_domain(node.domain), node.op_type, node.overload)) in self._functions:
                stack.append(self._enter(node, key, current, out))
            else:
                out.append(self._flat_node(node, current, depth))

    def _emit_exported_constant(self, node: onnx.NodeProto, body: _Body, out: list[onnx.NodeProto]) -> None:
        """A Constant whose name was bound from outside (a function's output) is passed on by an Identity."""
        flat = body.scope.resolve(node.output[0], "Constant")
        if flat in self._initializers:
            return
        tensor = constant_tensor(node, body.bindings, self._read)
        source = self._tensors.claim(node.output[0], f"{body.path}/constant")
        self._initializers[source] = tensor
        out.append(self._identity(source, flat, body.path))

    def _enter(
        self, call: onnx.NodeProto, key: FunctionKey, caller: _Body, out: list[onnx.NodeProto]
    ) -> _Body:
        """Prepare the body of a function for one call of it."""
        function = self._functions[key]
        if key in caller.calls:
            raise InvalidInputError(
                f"local function {quoted(function.name)} calls itself; expected no recursion"
            )
        check_versions(function, self._opsets)
        path = self._node_name(call, caller)
        scope = Scope()
        actual = caller.scope.resolve_all(call.input, path)
        for position, formal in enumerate(function.input):
            scope.bind(formal, actual[position] if position < len(actual) else "")
        made = {name for node in function.node for name in node.output}
        for formal, name in zip(function.output, call.output, strict=False):
            if not name:
                continue
            target = caller.scope.resolve(name, path)
            if formal in made and not scope.knows(formal):
                scope.bind(formal, target)
            else:
                out.append(self._identity(scope.resolve(formal, path), target, path))
        bindings = call_bindings(function, call, caller.bindings)
        given = [name for name in function.output if name in made and scope.knows(name)]
        self._declare_outputs(function.node, scope, path, bindings, given)
        return _Body(iter(function.node), scope, path, bindings, (*caller.calls, key), f"{path}/")

    def _flat_node(self, node: onnx.NodeProto, body: _Body, depth: int) -> onnx.NodeProto:
        name = self._node_name(node, body)
        flat = onnx.NodeProto(op_type=node.op_type, domain=normal_domain(node.domain), name=name)
        flat.input.extend(body.scope.resolve_all(node.input, name))
        flat.output.extend(body.scope.resolve_all(node.output, name))
        flat.metadata_props.extend(node.metadata_props)
        for attribute in node.attribute:
            bound = bound_attribute(attribute, body.bindings)
            if bound is None:
                continue
            if bound.type == onnx.AttributeProto.GRAPH:
                graph = self._subgraph(bound.g, body, f"{name}/{bound.name}", depth + 1)
                flat.attribute.append(onnx.helper.make_attribute(bound.name, graph))
            elif bound.type == onnx.AttributeProto.GRAPHS:
                graphs = [
                    self._subgraph(g, body, f"{name}/{bound.name}_{k}", depth + 1)
                    for k, g in enumerate(bound.graphs)
                ]
                flat.attribute.append(onnx.helper.make_attribute(bound.name, graphs))
            else:
                flat.attribute.append(bound)
        version = self._opsets.get("", FIRST_VERSION)
        if trains(flat, version, self._value):
            self._training.append(settle(flat, version, self._claim))
        return flat

    def _subgraph(self, graph: onnx.GraphProto, outer: _Body, path: str, depth: int) -> onnx.GraphProto:
        """A subgraph with flat names: no constants of its own, and every output made by a node inside."""
        scope = Scope(outer.scope)
        flat = onnx.GraphProto(name=graph.name)
        for value in graph.input:
            scope.bind(value.name, self._tensors.claim(value.name, path))
            declared = flat.input.add()
            declared.CopyFrom(value)
            declared.name = scope.resolve(value.name, path)
        self._declare_initializers(graph, scope, path, skip=frozenset(value.name for value in graph.input))
        self._declare_outputs(graph.node, scope, path, outer.bindings)
        nodes: list[onnx.NodeProto] = []
        body = _Body(iter(graph.node), scope, path, outer.bindings, outer.calls, outer.prefix)
        self._emit(body, nodes, depth)
        made = {name for node in nodes for name in node.output if name}
        for value in graph.output:
            source = scope.resolve(value.name, path)
            if source not in made:
                target = self._tensors.claim(f"{value.name}/out", path)
                nodes.append(self._identity(source, target, path))
                source = target
            made.discard(source)
            declared = flat.output.add()
            declared.CopyFrom(value)
            declared.name = source
        flat.node.extend(in_data_order(nodes))
        return flat

    def _identity(self, source: str, target: str, path: str) -> onnx.NodeProto:
        name = self._node_names.claim(f"{path}/Identity", path)
        return onnx.helper.make_node("Identity", [source], [target], name=name)

    def _node_name(self, node: onnx.NodeProto, body: _Body) -> str:
        if node.name:
            return self._node_names.claim(f"{body.prefix}{node.name}", body.path)
        count = self._counts.get(node.op_type, 0)
        self._counts[node.op_type] = count + 1
        return self._node_names.claim(f"{body.prefix}{node.op_type}_{count}", body.path)


def is_constant(node: onnx.NodeProto) -> bool:
    """Whether a node is the standard Constant."""
    return node.op_type == "Constant" and normal_domain(node.domain) == ""
