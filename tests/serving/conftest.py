"""One service for all tests that only ask it, and one browser."""

import shutil

import pytest
from serving_process import running


@pytest.fixture(scope='session')
def server():
    """With the demonstration model; has `url`."""
    pytest.importorskip('fastapi', reason="the extra 'serve' is not installed")
    with running() as found:
        yield found


@pytest.fixture(scope='session')
def chromium():
    playwright = pytest.importorskip('playwright.sync_api', reason='needs Playwright: pip install playwright')
    executable = shutil.which('chromium') or shutil.which('chromium-browser')
    if executable is None:
        pytest.skip('needs Chromium: apt-get install chromium')
    # The camera shows a test picture, and nobody is asked for permission.
    camera = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=executable, args=['--no-sandbox', *camera])
        yield browser
        browser.close()
