"""Drawings of causal graphs, in the language of Graphviz."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GraphError

if TYPE_CHECKING:
    from .causal_graph import CausalGraph

__all__ = ["Drawing", "draw"]


class Drawing:
    """A drawing; the text of :attr:`source` needs nothing, pictures need the program ``dot``."""

    def __init__(self, digraph: Any) -> None:
        self._digraph = digraph

    @property
    def source(self) -> str:
        """The drawing in DOT."""
        return str(self._digraph.source)

    def svg(self) -> str:
        """The drawing as SVG.

        Raises:
            GraphError: the program ``dot`` is not installed.
        """
        return self._pipe("svg").decode()

    def png(self) -> bytes:
        """The drawing as PNG; raises as :meth:`svg` does."""
        return self._pipe("png")

    def save(self, path: str | Path) -> Path:
        """Write the drawing to a file ending in .dot, .svg or .png, and return its path."""
        file = Path(path)
        if file.suffix == ".dot":
            file.write_text(self.source, encoding="utf-8")
        elif file.suffix in (".svg", ".png"):
            file.write_bytes(self._pipe(file.suffix[1:]))
        else:
            raise GraphError(f"save: {file.name!r} ends in none of .dot, .svg and .png")
        return file

    def _repr_svg_(self) -> str | None:
        try:
            return self.svg()
        except GraphError:
            return None  # a notebook then shows the text

    def __repr__(self) -> str:
        return self.source

    def _pipe(self, form: str) -> bytes:
        import graphviz

        try:
            return bytes(self._digraph.pipe(format=form))
        except graphviz.ExecutableNotFound as error:
            raise GraphError(
                "pictures are drawn by the program dot, which is not installed: apt-get install graphviz, brew install graphviz or "
                "conda install graphviz; render().source, the drawing as text, works without it"
            ) from error


def draw(graph: CausalGraph) -> Drawing:
    """Latent nodes dashed, observed shaded, functions in boxes, intervened doubly bordered, factors black, plates as boxes around."""
    import graphviz

    font = {"fontname": "Helvetica,Arial,sans-serif"}
    picture = graphviz.Digraph(graph_attr={"rankdir": "TB", **font}, node_attr=font)
    keys = {n: f"n{i}" for i, n in enumerate([*graph.nodes, *graph.selection])}

    def fill(box: Any, path: tuple[str, ...]) -> None:
        inside: dict[tuple[str, ...], None] = {}
        for node in graph.nodes:
            plates = graph.plates.get(node, ())
            if plates == path:
                box.node(keys[node], graphviz.escape(node), **_look(graph, node))
            elif plates[: len(path)] == path:
                inside[plates[: len(path) + 1]] = None
        for deeper in inside:
            with box.subgraph(name=f"cluster_{'_'.join(map(repr, deeper))}") as smaller:
                smaller.attr(label=graphviz.escape(deeper[-1]), labeljust="r", labelloc="b")
                fill(smaller, deeper)

    fill(picture, ())
    for factor in graph.selection:
        look = {"shape": "box", "style": "filled", "fillcolor": "black", "fontcolor": "white"}
        picture.node(
            keys[factor], graphviz.escape(factor), height="0.3", margin="0.08,0.04", **look
        )
    for parent, node in graph.edges:
        style = "dotted" if parent in graph.hidden else "solid"
        picture.edge(keys[parent], keys[node], style=style)
    for factor, parents in graph.selection.items():
        for parent in sorted(parents):
            picture.edge(keys[parent], keys[factor], arrowhead="none")
    return Drawing(picture)


def _look(graph: CausalGraph, node: str) -> dict[str, str]:
    latent = node in graph.latent
    look = {"style": "dashed"} if latent else {"style": "filled", "fillcolor": "lightgrey"}
    if node in graph.deterministic and node not in graph.intervened:
        look["shape"] = "box"
    if node in graph.intervened:
        look["peripheries"] = "2"
    return look
