"""Shell: envelopes between nodes over gRPC; the only door to grpc."""

import os
from importlib.metadata import version

_ENGINE_MINORS = range(80, 86)
"""Releases of grpcio 1 that leave sockets to threads of an "event engine" unless they are told otherwise. Older ones
never do. Whether a newer one can be told is not known, and one that cannot would complain on stderr."""

# All before grpc is imported, which reads them once; what an operator has set stands.
# Its own log repeats what the links say.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Without the engine the thread that waits for completions reads the sockets itself: one hop less a message (ADR 12).
_major, _minor = version("grpcio").split(".")[:2]
if _major == "1" and int(_minor) in _ENGINE_MINORS:
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
