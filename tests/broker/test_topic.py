"""The topic trie, AMQP 3.1.3.3, against examples and against the definition."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.broker.topic import TopicTrie, split_words


def naive_match(pattern: list[str], words: list[str]) -> bool:
    """The definition, by backtracking."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(naive_match(pattern[1:], words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and naive_match(pattern[1:], words[1:])


def matches(pattern: str, key: str) -> bool:
    trie: TopicTrie[str] = TopicTrie()
    trie.add(pattern, 1, "bound")
    return list(trie.match(key)) == ["bound"]


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*", "", False),
        ("*", ".", False),
        ("*.*", ".", True),
        ("a.*.c", "a..c", True),
        ("#", "", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("#.a", "a", True),
        ("#.a.#", "b.a.c.d", True),
        ("#.#", "", True),
        ("#.*", "", False),
        ("*.#", "a", True),
        ("a.#.b.#.c", "a.b.x.b.c", True),
        ("a.#.b.#.c", "a.c", False),
        ("", "", True),
        ("", "a", False),
        ("a.", "a.", True),
        ("a.", "a", False),
        ("*", "#", True),
        ("a", "*", False),
        ("a", "#", False),
    ],
)
def test_pattern_matches_routing_key(pattern: str, key: str, expected: bool) -> None:
    """`*` matches a single word, `#` matches zero or more words."""
    assert matches(pattern, key) is expected


WORDS = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6).map(".".join)


@given(st.lists(WORDS, max_size=12), st.lists(WORDS, max_size=6), st.data())
def test_trie_agrees_with_definition_while_bindings_come_and_go(
    patterns: list[str], keys: list[str], data: st.DataObject
) -> None:
    """Whatever was added and removed, the trie finds what the definition finds, each once."""
    trie: TopicTrie[int] = TopicTrie()
    for uid, pattern in enumerate(patterns):
        trie.add(pattern, uid, uid)
    kept = dict(enumerate(patterns))
    for uid in data.draw(st.lists(st.sampled_from(sorted(kept)), unique=True)) if kept else []:
        trie.remove(kept.pop(uid), uid)
    for key in keys:
        expected = [uid for uid in kept if naive_match(split_words(kept[uid]), split_words(key))]
        assert sorted(trie.match(key)) == expected


@given(st.lists(WORDS, max_size=12))
def test_trie_is_empty_when_all_is_removed(patterns: list[str]) -> None:
    """No node stays behind: a client that binds and unbinds for ever leaks nothing."""
    trie: TopicTrie[int] = TopicTrie()
    for uid, pattern in enumerate(patterns):
        trie.add(pattern, uid, uid)
    for uid, pattern in enumerate(patterns):
        trie.remove(pattern, uid)
    assert trie.is_empty()


def test_many_hashes_do_not_explode() -> None:
    """A pattern of 60 hashes against 120 words takes milliseconds, where backtracking takes for ever."""
    trie: TopicTrie[int] = TopicTrie()
    trie.add(".".join(["#", "a"] * 60 + ["b"]), 1, 1)
    started = time.perf_counter()
    assert list(trie.match(".".join(["a"] * 120))) == []
    assert time.perf_counter() - started < 1
