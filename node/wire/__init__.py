"""AMQP 0-9-1 as bytes: frames to runs, runs to frames, methods, tables and properties. Pure; knows no state."""
