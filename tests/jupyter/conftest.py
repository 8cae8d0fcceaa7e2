"""The server that clients are run against, and the bridge for those that know only local kernels."""

import os
import re

import pytest

URL = os.environ["EVERCELL_URL"]
TOKEN = os.environ["EVERCELL_TOKEN"]


@pytest.fixture(scope="session")
def url():
    """Where the server is."""
    return URL


@pytest.fixture(scope="session")
def token():
    """What lets us in."""
    return TOKEN


@pytest.fixture(scope="session")
def host():
    """Its name and port."""
    return re.sub("^http://", "", URL)


# What the kernel managers of `jupyter_server` take the address from, as the documentation says.
os.environ["JUPYTER_GATEWAY_URL"] = URL
os.environ["JUPYTER_GATEWAY_AUTH_TOKEN"] = TOKEN


@pytest.fixture
def with_token(monkeypatch, token):
    """`jupyter_server`'s own kernel client connects without the token that its manager has; a proxy would add it."""
    import websocket

    connect = websocket.create_connection
    header = [f"Authorization: token {token}"]
    monkeypatch.setattr(
        websocket, "create_connection", lambda *args, **keys: connect(*args, header=header, **keys)
    )
