"""AMQP 0-9-1 as bytes: frames to runs, runs to frames, methods, tables, properties. Pure; without state."""
