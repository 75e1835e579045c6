"""The benchmark of record: what Warren does in a second, and how long a message takes. See docs/performance.md."""
