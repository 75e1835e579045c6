"""Shell: the node's LMDB environment, the logs and saved states in it, and the one writing thread."""
