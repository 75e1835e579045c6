"""Tests of node.session: bytes of clients in, bytes to clients out, on a broker of one node without IO."""
