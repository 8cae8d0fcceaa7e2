"""Configuration of the tuned peer: what is shipped, without the two settings that hurt it most."""

from tornado.iostream import IOStream

c = get_config()  # noqa: F821 - given by traitlets

# As shipped, a second small message waits for the acknowledgement of the first, some 40 ms. There is no
# setting for it: Tornado turns Nagle's algorithm on again after each request, WebSockets included.
_set_nodelay = IOStream.set_nodelay
IOStream.set_nodelay = lambda stream, _: _set_nodelay(stream, True)

# As shipped, output beyond 1,000 messages or 1 MB a second is dropped.
c.ZMQChannelsWebsocketConnection.limit_rate = False
