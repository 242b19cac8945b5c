"""The OpenAPI schema, asked by schemathesis: what it says is what the service answers."""

import io

import numpy as np
import pytest
from PIL import Image

schemathesis = pytest.importorskip('schemathesis', reason='schemathesis is not installed')
hypothesis = pytest.importorskip('hypothesis', reason='hypothesis is not installed')

# A body of random bytes fits the schema and is no image, which is refused.
LEFT_OUT = [schemathesis.checks.positive_data_acceptance]


def images():
    """Files of images, small ones so that many are tried."""
    random = np.random.default_rng(0)
    made = []
    for kind, mode in (('PNG', 'RGB'), ('JPEG', 'L'), ('BMP', 'RGB'), ('PNG', 'RGBA')):
        buffer = io.BytesIO()
        side = int(random.integers(8, 60))
        channels = {'L': (), 'RGB': (3,), 'RGBA': (4,)}[mode]
        Image.fromarray(random.integers(0, 256, (side, 40, *channels), np.uint8), mode).save(buffer, kind)
        made.append(buffer.getvalue())
    return made


for media_type in ('image/*', 'application/octet-stream'):
    schemathesis.openapi.media_type(
        media_type,
        hypothesis.strategies.one_of(hypothesis.strategies.sampled_from(images()), hypothesis.strategies.binary()),
    )


@pytest.fixture(scope='module')
def service_schema(server):
    return schemathesis.openapi.from_url(f'{server.url}/openapi.json')


PATHS = [('POST', '/v1/segment'), *(('GET', path) for path in ('/v1/models', '/healthz', '/readyz', '/metrics'))]


def test_every_path_is_asked(service_schema):
    found = {(operation.ok().method.upper(), operation.ok().path) for operation in service_schema.get_all_operations()}
    assert found == set(PATHS)


@pytest.mark.parametrize('mode', list(schemathesis.GenerationMode), ids=str)
@pytest.mark.parametrize('method, path', PATHS)
def test_answers_are_those_of_the_schema(service_schema, method, path, mode):
    """With what the schema allows, and with what it does not."""
    if mode is schemathesis.GenerationMode.NEGATIVE and method == 'GET':
        pytest.skip('a path without options or body: there is nothing that it does not allow')
    operation = service_schema[path][method]

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case):
        case.call_and_validate(excluded_checks=LEFT_OUT, timeout=120)

    ask()
