"""Shell: envelopes between nodes over gRPC; the only door to grpc."""

import os

# Before grpc is imported, which reads it once: its own log repeats what the links say.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
