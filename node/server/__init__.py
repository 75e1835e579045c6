"""Client sockets: the shell between the event loop and the sessions."""
