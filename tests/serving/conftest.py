"""One service for all tests that only ask it."""

import pytest
from serving_process import running


@pytest.fixture(scope='session')
def server():
    """With the demonstration model; has `url`."""
    pytest.importorskip('fastapi', reason="the extra 'serve' is not installed")
    with running() as found:
        yield found
