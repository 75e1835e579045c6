"""Shell: envelopes between nodes over gRPC; the only door to grpc."""
