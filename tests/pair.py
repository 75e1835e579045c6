"""A client and the broker's side of its connection, which exchange bytes without a socket.

The broker's side is a bare `node.amqp.Connection`: logins, virtual hosts, channels that open and all that closes are
answered at once unless a test says otherwise, all other events are the test's to answer.
"""

from node.amqp import Channel, Connection, Options
from node.amqp.events import ChannelClosing, ChannelOpened, ConnectionClosing, Event, Login, Open
from node.wire.methods import ChannelOpenOk
from tests.amqp_client import AmqpClient, ClientEvent


class Pair:
    """Both ends of one connection.

    Args:
        options: of the server's side.
        client: the other end.

    Attributes:
        now_ms: the time; a test moves it.
        accept: answer events as said above.
    """

    def __init__(self, options: Options | None = None, client: AmqpClient | None = None) -> None:
        self.server = Connection(options or Options())
        self.client = client or AmqpClient()
        self.now_ms = 1000
        self.accept = True

    def opened(self, *channels: int) -> "Pair":
        """Go through the handshake and open channels."""
        self.client.open()
        self.exchange()
        assert self.client.ready, "the handshake failed"
        for channel in channels:
            self.client.open_channel(channel)
        self.exchange()
        return self

    def channel(self, number: int) -> Channel:
        """The server's side of a channel."""
        return self.server.channels[number]

    def to_server(self) -> list[Event]:
        """Give the server what the client has to send; what the server makes of it."""
        return self.receive(self.client.data_to_send())

    def receive(self, data: bytes) -> list[Event]:
        """Give the server these bytes of the client; what it makes of them."""
        events = self.server.receive_data(data, self.now_ms)
        for event in list(events):
            if self.accept and self._answer(event):
                events += self.server.receive_data(b"", self.now_ms)
        return events

    def _answer(self, event: Event) -> bool:
        """Whether the server may have waited for the answer."""
        match event:
            case Login():
                self.server.login_accepted(event.user)
            case Open():
                self.server.open_accepted()
            case ChannelOpened():
                event.channel.send(ChannelOpenOk())
            case ChannelClosing():
                event.channel.finish()
            case ConnectionClosing():
                self.server.finish()
        return isinstance(event, Login | Open)

    def to_client(self) -> list[ClientEvent]:
        """Give the client what the server has to send; what the client makes of it."""
        return self.client.receive_data(b"".join(self.server.data_to_send()))

    def exchange(self) -> tuple[list[Event], list[ClientEvent]]:
        """Both ways until nobody has anything to say: (events of the server, events of the client)."""
        of_server: list[Event] = []
        of_client: list[ClientEvent] = []
        while True:
            sent = self.client.data_to_send()
            if sent:
                self.client._out.append(sent)
                of_server += self.to_server()
            chunks = self.server.data_to_send()
            of_client += self.client.receive_data(b"".join(chunks))
            if not sent and not chunks:
                return of_server, of_client
