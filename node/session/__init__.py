"""The joint between AMQP and the broker: events of connections become commands, effects become replies."""
