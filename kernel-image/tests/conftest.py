"""One zygote for all tests, and a fresh kernel for each: a fork is cheap."""

import agent
import pytest


@pytest.fixture(scope="session")
def zygote():
    """The zygote."""
    started = agent.Zygote()
    yield started
    started.close()


@pytest.fixture
def kernel(zygote):
    """A kernel of the test's own."""
    spawned = zygote.spawn()
    yield spawned
    spawned.close()
