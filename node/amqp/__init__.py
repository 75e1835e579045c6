"""The protocol state machine of one server-side AMQP 0-9-1 connection: bytes become events, replies become
bytes.

Third hop of a message's path (wire -> amqp -> session). Pure: no IO, no clock, no chance. Reading order:
states, events, channel (with content, unacked, confirms), handshake, connection.
"""

from node.amqp.channel import Channel
from node.amqp.connection import Connection
from node.amqp.handshake import Options

__all__ = ["Channel", "Connection", "Options"]
