"""What the service counts, in the text form of Prometheus."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PIXELS = tuple(float(2**exponent) for exponent in range(14, 28, 2))
PHASES = ('receive', 'wait', 'decode', 'network', 'encode')
SHARED = 'PROMETHEUS_MULTIPROC_DIR'  # the environment variable by which Prometheus' client finds other processes


class Metrics:
    """Of one application; where several processes serve, each answers for all of them."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            'segformer_requests', 'Answers to /v1/segment', ['status', 'model'], registry=self._registry
        )
        self.phases = Histogram(
            'segformer_phase_seconds',
            'Seconds of a request by phase; wait: in the queues before the phases',
            ['phase'],
            registry=self._registry,
            buckets=SECONDS,
        )
        self.total = Histogram(
            'segformer_request_seconds',
            'Seconds from the first line of a request to its answer',
            registry=self._registry,
            buckets=SECONDS,
        )
        self.places = Gauge(
            'segformer_places_in_use',
            'Requests that are worked on or wait',
            registry=self._registry,
            multiprocess_mode='livesum',
        )
        self.pixels = Histogram(
            'segformer_image_pixels', 'Pixels of the images', registry=self._registry, buckets=PIXELS
        )
        for phase in PHASES:
            self.phases.labels(phase)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Observe how long a block takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.phases.labels(name).observe(perf_counter() - start)

    def text(self) -> bytes:
        """The exposition, of all processes."""
        if SHARED not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)
