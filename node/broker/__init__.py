"""What AMQP means, pure: exchanges, queues, bindings, users, and the machines that hold them."""
