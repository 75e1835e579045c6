"""The same generated operations on RabbitMQ and on Warren, step by step, and what they answer compared."""
