"""HTTP for operators: status, health and metrics of one node."""
