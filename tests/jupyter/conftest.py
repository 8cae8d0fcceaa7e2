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


@pytest.fixture(scope="session", autouse=True)
def gateway():
    """Sets up the gateway that all kernel managers of `jupyter_server` use."""
    from jupyter_server.gateway.gateway_client import GatewayClient

    client = GatewayClient.instance()
    client.url = URL
    client.auth_token = TOKEN
    client.auth_scheme = "token"
    client.init_connection_args()
    client.ws_url = re.sub("^http", "ws", URL)
    return client
