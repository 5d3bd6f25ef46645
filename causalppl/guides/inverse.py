"""The order in which a guide samples, and what each site has to see: a faithful inverse of a program's graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["faithful_inverse"]


def faithful_inverse(
    parents: Mapping[str, Iterable[str]],
    sampled: Mapping[str, int],
    observed: Iterable[str],
    together: Iterable[Iterable[str]] = (),
) -> dict[str, frozenset[str]]:
    r"""Sites in the order of sampling, each with the sites that its law depends on.

    Sites are eliminated from the moral graph, those in the most plates first and among them those that add the fewest edges. A site's
    context is what it is linked to when it is eliminated, and sampling goes backwards. So no independence is claimed that
    the program's posterior does not have:

    .. math:: p(x_1, \ldots, x_n \mid y) = \prod_i p(x_i \mid \text{context}_i)

    An observed site that may be missing is sampled too. It stays linked after its turn, because it is known in other questions; so the
    contexts are right for every subset of what is observed.

    Args:
        parents: site to its direct parents, for sampled and observed sites; deterministic sites left out, their parents in their place.
        sampled: site to the number of plates that it stands in, for the sites that get a law, in the order of the program.
        observed: sites whose values may be known.
        together: further sets of sites that depend on each other given the rest: the arguments of factors.

    References:
        Stefan Webb, Adam Golinski, Robert Zinkov, N. Siddharth, Tom Rainforth, Yee Whye Teh, Frank Wood (2018), Faithful Inversion of
        Generative Models for Effective Amortized Inference. https://arxiv.org/abs/1712.00287

    Example:
        >>> chain = faithful_inverse({"a": "", "b": "a", "y": "b"}, {"a": 0, "b": 0}, ["y"])
        >>> {name: sorted(context) for name, context in chain.items()}
        {'b': ['y'], 'a': ['b']}
    """
    known = set(observed)
    nodes = set(sampled) | known
    linked: dict[str, set[str]] = {n: set() for n in nodes}

    def link(group: Iterable[str]) -> None:
        members = [n for n in group if n in nodes]
        for one in members:
            linked[one].update(other for other in members if other != one)

    for name in nodes:
        link([name, *parents.get(name, ())])
    for group in together:
        link(group)
    place = {name: i for i, name in enumerate(sampled)}
    remaining = dict(sampled)
    found: dict[str, frozenset[str]] = {}
    while remaining:
        deepest = max(remaining.values())

        def cost(name: str) -> tuple[int, int]:
            around = linked[name]
            missing = sum(len(around - linked[other]) - 1 for other in around)
            # where nothing else decides, the program's last site first: then causes are sampled before their effects
            return missing, -place[name]

        chosen = min((n for n, depth in remaining.items() if depth == deepest), key=cost)
        found[chosen] = frozenset(linked[chosen])
        link(linked[chosen])
        del remaining[chosen]
        if chosen not in known:
            for other in linked.pop(chosen):
                linked[other].discard(chosen)
    return dict(reversed(found.items()))
