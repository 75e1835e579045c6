"""codec.py offers the compiled codec where there is one and the reference where there is none."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from node.wire import codec, reference
from tests.wire.streams import CODECS


def test_codec_is_the_compiled_one_where_it_was_built() -> None:
    assert (len(CODECS) == 2) == codec.COMPILED
    assert codec.scan is CODECS[-1].scan


def test_codec_is_the_reference_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """An install without compiled parts works, only slower."""
    monkeypatch.setitem(sys.modules, "node.wire._codec", None)
    spec = importlib.util.spec_from_file_location("codec_without_compiler", codec.__file__)
    assert spec is not None
    assert spec.loader is not None
    chosen = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chosen)
    assert chosen.COMPILED is False
    assert chosen.scan is reference.scan
    assert chosen.content_frames is reference.content_frames
