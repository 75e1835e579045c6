"""The broker process: everything that knows AMQP."""

__version__ = "0.1.0"
