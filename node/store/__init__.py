"""Shell: a node's journal and LMDB environment, the logs and saved states in them, and the two threads that write."""
