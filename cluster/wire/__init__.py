"""Generated from proto/cluster/wire by `make proto`; do not edit."""
