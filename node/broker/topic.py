"""The topic trie: binding patterns by word, matched word by word with all possibilities side by side.

`*` stands for exactly one word, `#` for any number of words, none included. An empty routing key has no
words; `a..b` has three, one of them empty. Time is bounded by words times trie nodes, also for patterns full
of `#`, where backtracking would explode.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    """A place in the trie: what may come next, and what is bound here."""

    __slots__ = ("bound", "children", "is_hash")

    def __init__(self, *, is_hash: bool = False) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.bound: dict[int, T] = {}
        self.is_hash = is_hash


class TopicTrie(Generic[T]):
    """Patterns with what is bound to them."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, pattern: str, uid: int, bound: T) -> None:
        """Bind `bound`, known by `uid`, to a pattern."""
        node = self._root
        for word in split_words(pattern):
            child = node.children.get(word)
            if child is None:
                child = node.children[word] = _Node(is_hash=word == "#")
            node = child
        node.bound[uid] = bound

    def remove(self, pattern: str, uid: int) -> None:
        """Undo `add`; the nodes that served nothing else go too."""
        path: list[tuple[_Node[T], str]] = []
        node = self._root
        for word in split_words(pattern):
            path.append((node, word))
            node = node.children[word]
        del node.bound[uid]
        for parent, word in reversed(path):
            child = parent.children[word]
            if child.bound or child.children:
                break
            del parent.children[word]

    def match(self, routing_key: str) -> Iterator[T]:
        """What is bound to a pattern that the routing key matches, each once."""
        reached: dict[_Node[T], None] = {}
        _reach(reached, self._root)
        for word in split_words(routing_key):
            following: dict[_Node[T], None] = {}
            for node in reached:
                if node.is_hash:
                    _reach(following, node)
                child = node.children.get(word)
                if child is not None:
                    _reach(following, child)
                child = node.children.get("*")
                if child is not None:
                    _reach(following, child)
            if not following:
                return
            reached = following
        for node in reached:
            yield from node.bound.values()

    def is_empty(self) -> bool:
        """Whether nothing is bound and no node is left over."""
        return not self._root.children and not self._root.bound


def split_words(key: str) -> list[str]:
    """The words of a routing key or pattern."""
    return key.split(".") if key else []


def _reach(reached: dict[_Node[T], None], node: _Node[T] | None) -> None:
    """Stand on a node, and on what follows it for free: `#` needs no word."""
    while node is not None and node not in reached:
        reached[node] = None
        node = node.children.get("#")
