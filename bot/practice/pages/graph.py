"""Reads Mermaid's plain flowcharts and state diagrams, and lays them out in layers.

Not covered: subgraphs, composite states, notes, styling (ignored) and edges that must not cross.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from bot.drawing import clipped, number, picture, text, text_width
from bot.practice.pages.refusal import CannotDraw

MOST_NODES = 60
MOST_EDGES = 120
_SHAPES = (
    ("([", "])", "round"), ("[[", "]]", "box"), ("[(", ")]", "round"), ("((", "))", "circle"), ("{{", "}}", "diamond"),
    ("[/", "/]", "box"), ("[", "]", "box"), ("(", ")", "round"), ("{", "}", "diamond"), (">", "]", "box"),
)  # fmt: skip
_EDGE = re.compile(r"\s*<?(?:--+|==+|-\.+)-?[>xo]?\s*(?:\|(?P<label>[^|]*)\|)?\s*")
_WORDED = re.compile(r"\s*(?:--|==|-\.)\s+(?P<label>[^-=.|>]+?)\s+(?:--+>|==+>|\.+->|---+)\s*")
_IGNORED = ("classDef", "class ", "style ", "linkStyle", "click ", "accTitle", "accDescr", "direction ", "%%")


@dataclass(slots=True)
class Node:
    label: str
    shape: str = "box"
    # box, round, circle, diamond, start, end
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    def size(self) -> tuple[float, float]:
        if self.shape in ("start", "end"):
            return 18.0, 18.0
        lines = self.lines()
        width = max(text_width(line) for line in lines) + 28
        height = len(lines) * 16.0 + 18
        return (width + 34, height + 22) if self.shape == "diamond" else (max(width, 44.0), height)

    def lines(self) -> list[str]:
        return [clipped(line.strip(), 220) for line in re.split(r"<br\s*/?>|\\n|\n", self.label)][:4] or [""]


@dataclass(slots=True)
class Graph:
    direction: str = "TD"
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str, str, bool]] = field(default_factory=list)
    # from, to, label, dotted

    def node(self, name: str, label: str | None = None, shape: str | None = None) -> str:
        known = self.nodes.setdefault(name, Node(name))
        if label is not None:
            known.label = label
        if shape is not None:
            known.shape = shape
        if len(self.nodes) > MOST_NODES:
            raise CannotDraw(f"draws at most {MOST_NODES} boxes.")
        return name

    def edge(self, start: str, end: str, label: str, dotted: bool) -> None:
        self.edges.append((start, end, label.strip().strip('"'), dotted))
        if len(self.edges) > MOST_EDGES:
            raise CannotDraw(f"draws at most {MOST_EDGES} arrows.")


def parse_flowchart(lines: list[str]) -> Graph:
    """A graph from a flowchart's statements.

    Raises:
        CannotDraw: for a subgraph or a statement that is not understood.
    """
    statements = [part.strip() for line in lines for part in line.split(";")]
    words = statements[0].split()
    graph = Graph(direction=words[1].upper() if len(words) > 1 else "TD")
    for line in statements[1:]:
        if not line or line.startswith(_IGNORED):
            continue
        if line.startswith("subgraph") or line == "end":
            raise CannotDraw("does not draw subgraphs.")
        _read_chain(graph, line)
    return graph


def _read_chain(graph: Graph, line: str) -> None:
    left, rest = _read_group(graph, line)
    while rest.strip():
        match = _WORDED.match(rest) or _EDGE.match(rest)
        if match is None or not match[0].strip():
            raise CannotDraw(f"does not understand this line of the graph: {line[:60]}")
        right, rest = _read_group(graph, rest[match.end() :])
        for start in left:
            for end in right:
                graph.edge(start, end, match["label"] or "", "." in match[0].replace(match["label"] or "", ""))
        left = right


def _read_group(graph: Graph, words: str) -> tuple[list[str], str]:
    names: list[str] = []
    while True:
        name, words = _read_node(graph, words)
        names.append(name)
        if not words.lstrip().startswith("&"):
            return names, words
        words = words.lstrip()[1:]


def _read_node(graph: Graph, words: str) -> tuple[str, str]:
    words = words.lstrip()
    match = re.match(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*", words)
    if match is None:
        raise CannotDraw(f"does not understand this part of the graph: {words[:60]}")
    name, rest = match[0], words[match.end() :]
    rest = re.sub(r"^:::\w+", "", rest)
    for opening, closing, shape in _SHAPES:
        if rest.startswith(opening) and closing in rest:
            label, rest = _bracketed(rest[len(opening) :], closing)
            return graph.node(name, label, shape), re.sub(r"^:::\w+", "", rest)
    return graph.node(name), rest


def _bracketed(words: str, closing: str) -> tuple[str, str]:
    if words.startswith('"') and (end := words.find('"' + closing, 1)) > 0:
        return words[1:end], words[end + 1 + len(closing) :]
    label, _, rest = words.partition(closing)
    return label.strip().strip('"'), rest


def parse_states(lines: list[str]) -> Graph:
    """A graph from a state diagram's statements.

    Raises:
        CannotDraw: for a composite state, a note or a statement that is not understood.
    """
    graph = Graph()
    for line in lines[1:]:
        if line.startswith("direction "):
            graph.direction = line.split()[1].upper()
        elif line.startswith(_IGNORED):
            continue
        elif arrow := re.match(r"^(\[\*\]|\w+)\s*-->\s*(\[\*\]|\w+)\s*(?::\s*(.*))?$", line):
            graph.edge(_state(graph, arrow[1], "start"), _state(graph, arrow[2], "end"), arrow[3] or "", False)
        elif named := re.match(r'^state\s+"([^"]*)"\s+as\s+(\w+)$', line):
            graph.node(named[2], named[1], "round")
        elif choice := re.match(r"^state\s+(\w+)\s+<<(choice|fork|join)>>$", line):
            graph.node(choice[1], "", "diamond")
        elif described := re.match(r"^(\w+)\s*:\s*(.+)$", line):
            graph.node(described[1], described[2], "round")
        elif re.match(r"^\w+$", line):
            graph.node(line, None, "round")
        else:
            raise CannotDraw(f"does not understand this line of the state diagram: {line[:60]}")
    return graph


def _state(graph: Graph, name: str, end: str) -> str:
    if name == "[*]":
        return graph.node(f"[{end}]", "", end)
    shape = graph.nodes[name].shape if name in graph.nodes else "round"
    return graph.node(name, None, shape)


def _layer(graph: Graph) -> list[list[str]]:
    """Nodes by layer: the longest way from a start, with the edges that close a circle left out."""
    forward: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for start, end, _, _ in graph.edges:
        if start != end and not _reaches(forward, end, start):
            forward[start].append(end)
    before = dict.fromkeys(graph.nodes, 0)
    for ends in forward.values():
        for end in ends:
            before[end] += 1
    ready = [name for name in graph.nodes if before[name] == 0]
    for name in ready:  # grows while it is walked
        for end in forward[name]:
            graph.nodes[end].layer = max(graph.nodes[end].layer, graph.nodes[name].layer + 1)
            before[end] -= 1
            if before[end] == 0:
                ready.append(end)
    layers: list[list[str]] = [[] for _ in range(max(node.layer for node in graph.nodes.values()) + 1)]
    for name in graph.nodes:
        layers[graph.nodes[name].layer].append(name)
    return _ordered(layers, graph)


def _reaches(forward: dict[str, list[str]], start: str, goal: str) -> bool:
    waiting, seen = [start], {start}
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        fresh = [end for end in forward[name] if end not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return False


def _ordered(layers: list[list[str]], graph: Graph) -> list[list[str]]:
    """Each layer sorted by where its predecessors stand, which takes most crossings away."""
    for above, layer in itertools.pairwise(layers):
        place = {name: index for index, name in enumerate(above)}
        weights: dict[str, float] = {}
        for index, name in enumerate(layer):
            sources = [place[start] for start, end, _, _ in graph.edges if end == name and start in place]
            weights[name] = sum(sources) / len(sources) if sources else float(index)
        layer.sort(key=lambda name: weights[name])
    return layers


def drawn(graph: Graph) -> str:
    """The graph as SVG."""
    if not graph.nodes:
        raise CannotDraw("found no box in this graph.")
    layers = _layer(graph)
    across = graph.direction in ("LR", "RL")
    if graph.direction in ("RL", "BT"):
        layers.reverse()
    width, height = _place(graph, layers, across)
    parts = [_edge(graph, edge, across) for edge in graph.edges]
    # Ways back run around the outside, with their labels at the far side.
    back = [edge for edge in graph.edges if not _forward(graph, edge, across)]
    if back:
        label = max(text_width(edge[2]) for edge in back)
        width, height = (width, height + 16) if across else (width + label / 2, height)
    parts.extend(_shape(node) for node in graph.nodes.values())
    labels = ", ".join(f"{_name(graph, start)} to {_name(graph, end)}" for start, end, _, _ in graph.edges[:20])
    arrow = (
        '<defs><marker id="mm-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        ' orient="auto">'
        '<path class="mm-arrow" d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    return picture(width, height, "mm-graph", f"Graph: {labels or 'one box'}", arrow + "".join(parts))


def _name(graph: Graph, name: str) -> str:
    node = graph.nodes[name]
    return node.shape if node.shape in ("start", "end") else node.label or name


def _place(graph: Graph, layers: list[list[str]], across: bool) -> tuple[float, float]:
    labels = [edge[2] for edge in graph.edges if edge[2]]
    between, beside = (58.0 if labels else 42.0), 26.0
    if across and labels:
        between = max(between, max(text_width(label) for label in labels) + 34)
    spans: list[float] = []
    for layer in layers:
        sizes = [graph.nodes[name].size() for name in layer]
        spans.append(sum(size[1] if across else size[0] for size in sizes) + beside * (len(layer) - 1))
    widest, along = max(spans), 12.0
    for layer, span in zip(layers, spans, strict=True):
        depth = max(graph.nodes[name].size()[0 if across else 1] for name in layer)
        side = 40.0 + (widest - span) / 2
        for name in layer:
            node = graph.nodes[name]
            size = node.size()
            own = size[1] if across else size[0]
            node.x, node.y = (along + depth / 2, side + own / 2) if across else (side + own / 2, along + depth / 2)
            side += own + beside
        along += depth + between
    length, breadth = along - between + 12, widest + 80
    return (length, breadth) if across else (breadth, length)


def _forward(graph: Graph, edge: tuple[str, str, str, bool], across: bool) -> bool:
    start, end = graph.nodes[edge[0]], graph.nodes[edge[1]]
    step = end.x - start.x if across else end.y - start.y
    return step < -1 if graph.direction in ("RL", "BT") else step > 1


def _edge(graph: Graph, edge: tuple[str, str, str, bool], across: bool) -> str:
    label, dotted = edge[2], edge[3]
    curved = _forward_points if _forward(graph, edge, across) else _back_points
    start, first, second, end, at = curved(graph, edge, across)
    curve = f"M{_point(start)}C{_point(first)} {_point(second)} {_point(end)}"
    kind = "mm-edge mm-dotted" if dotted else "mm-edge"
    path = f'<path class="{kind}" d="{curve}" marker-end="url(#mm-arrow)"/>'
    return path + (_edge_label(*at, label) if label else "")


Point = tuple[float, float]
Curve = tuple[Point, Point, Point, Point, Point]
"""Start, two control points, end, and where the label stands."""


def _point(point: Point) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _forward_points(graph: Graph, edge: tuple[str, str, str, bool], across: bool) -> Curve:
    a, b = graph.nodes[edge[0]], graph.nodes[edge[1]]
    (aw, ah), (bw, bh) = a.size(), b.size()
    sign = -1 if graph.direction in ("RL", "BT") else 1
    if across:
        start, end = (a.x + sign * aw / 2, a.y), (b.x - sign * bw / 2, b.y)
        half = (end[0] - start[0]) / 2
        first, second = (start[0] + half, start[1]), (end[0] - half, end[1])
    else:
        start, end = (a.x, a.y + sign * ah / 2), (b.x, b.y - sign * bh / 2)
        half = (end[1] - start[1]) / 2
        first, second = (start[0], start[1] + half), (end[0], end[1] - half)
    return start, first, second, end, ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)


def _back_points(graph: Graph, edge: tuple[str, str, str, bool], across: bool) -> Curve:
    a, b = graph.nodes[edge[0]], graph.nodes[edge[1]]
    (aw, ah), (bw, bh) = a.size(), b.size()
    if across:
        reach = max(node.y + node.size()[1] / 2 for node in graph.nodes.values()) + 30
        start, end = (a.x, a.y + ah / 2), (b.x, b.y + bh / 2)
        return start, (start[0], reach), (end[0], reach), end, ((start[0] + end[0]) / 2, reach - 8)
    reach = max(node.x + node.size()[0] / 2 for node in graph.nodes.values()) + 30
    start, end = (a.x + aw / 2, a.y), (b.x + bw / 2, b.y)
    return start, (reach, start[1]), (reach, end[1]), end, (reach - 8, (start[1] + end[1]) / 2)


def _edge_label(x: float, y: float, label: str) -> str:
    words = clipped(label, 160)
    width = text_width(words) + 8
    place = f'x="{number(x - width / 2)}" y="{number(y - 9)}" width="{number(width)}" height="18"'
    return f'<rect class="mm-back" {place} rx="3"/>' + text(x, y + 4, words)


def _shape(node: Node) -> str:
    width, height = node.size()
    left, top = node.x - width / 2, node.y - height / 2
    if node.shape in ("start", "end"):
        centre = f'cx="{number(node.x)}" cy="{number(node.y)}"'
        dot = f'<circle class="mm-dot" {centre} r="{5 if node.shape == "end" else 8}"/>'
        return f'<circle class="mm-ring" {centre} r="8"/>{dot}' if node.shape == "end" else dot
    if node.shape == "diamond":
        corners = ((node.x, top), (left + width, node.y), (node.x, top + height), (left, node.y))
        outline = f'<polygon class="mm-node" points="{" ".join(_point(corner) for corner in corners)}"/>'
    else:
        corner = {"box": 5.0, "round": min(height / 2, 16.0), "circle": height / 2}[node.shape]
        place = f'x="{number(left)}" y="{number(top)}" width="{number(width)}" height="{number(height)}"'
        outline = f'<rect class="mm-node" {place} rx="{number(corner)}"/>'
    lines = node.lines()
    first = node.y + 4 - (len(lines) - 1) * 8
    return outline + "".join(text(node.x, first + index * 16, line) for index, line in enumerate(lines))
