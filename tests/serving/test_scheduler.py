"""The places and phases by themselves, and the application under another server."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip('fastapi', reason="the extra 'serve' is not installed")
pytest.importorskip('httpx', reason='httpx is not installed')

from fastapi.testclient import TestClient

from ms_segformer.serving import ServeOptions, create_app
from ms_segformer.serving.metrics import Metrics
from ms_segformer.serving.problems import Problem
from ms_segformer.serving.scheduler import GoneError, Scheduler


def in_a_thread(coroutine):
    """Run it where no loop is running: that of a browser's driver may be in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class Large:
    """What a phase is given."""


@pytest.fixture
def scheduler():
    made = Scheduler(100, Metrics())
    yield made
    made.close()


def test_what_is_canceled_while_it_waits_keeps_nothing(scheduler):
    """Its arguments may be as large as an image."""
    held, go = [], threading.Event()

    async def wait_for_the_network():
        scheduler.start()
        first = asyncio.ensure_future(scheduler.run('network', scheduler.take_place(), go.wait))
        await asyncio.sleep(0.05)
        tasks = []
        for _ in range(20):
            large = Large()
            held.append(weakref.ref(large))
            tasks.append(asyncio.ensure_future(scheduler.run('network', scheduler.take_place(), print, large)))
        del large
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del tasks, task
        await asyncio.sleep(0.05)  # the loop lets go of them
        gc.collect()
        assert not [reference for reference in held if reference() is not None]
        go.set()
        assert await first
        assert await scheduler.run('network', scheduler.take_place(), int, '7') == 7

    in_a_thread(wait_for_the_network())


def test_a_thread_is_free_again_only_when_it_is(scheduler):
    started, go = [], threading.Event()

    def work(number):
        started.append(number)
        go.wait(10)

    async def cancel_the_first():
        scheduler.start()
        first = asyncio.ensure_future(scheduler.run('network', scheduler.take_place(), work, 1))
        await asyncio.sleep(0.05)
        first.cancel()
        second = asyncio.ensure_future(scheduler.run('network', scheduler.take_place(), work, 2))
        await asyncio.sleep(0.1)
        assert started == [1]
        go.set()
        await second
        assert started == [1, 2]

    in_a_thread(cancel_the_first())


def test_a_phase_of_a_job_that_has_ended_does_not_begin(scheduler):
    async def end_before():
        scheduler.start()
        job = scheduler.take_place()
        scheduler.leave(job, answered=False)
        with pytest.raises(GoneError):
            await scheduler.run('network', job, int, '7')

    in_a_thread(end_before())
    assert scheduler.active == 0


def test_places_are_bounded():
    scheduler = Scheduler(2, Metrics())
    jobs = [scheduler.take_place(), scheduler.take_place()]
    with pytest.raises(Problem, match='2 requests are worked on') as caught:
        scheduler.take_place()
    assert caught.value.status == 503 and caught.value.retry_after >= 1
    scheduler.leave(jobs[0], answered=True)
    scheduler.take_place()


def options(**changes):
    return ServeOptions(**{'models': (('demo', 'demo'),), 'device': 'cpu', **changes})


def until_ready(client):
    while (answer := client.get('/readyz', headers={'Host': 'localhost'})).status_code != 200:
        assert answer.json()['type'] == 'urn:ms-segformer:starting'
    return client


def test_the_application_can_be_started_again_under_another_server():
    app = create_app(options())
    for _ in range(2):
        with TestClient(app, base_url='http://localhost') as client:
            until_ready(client)
            answer = client.post('/v1/segment', content=b'x', headers={'Content-Type': 'image/png'})
            assert answer.status_code == 422


def test_another_server_says_that_a_model_cannot_be_opened():
    app = create_app(options(models=(('nothing', '/nowhere'),)))
    with TestClient(app, base_url='http://localhost') as client:
        while (answer := client.get('/readyz')).json()['type'] == 'urn:ms-segformer:starting':
            pass
        assert answer.status_code == 500 and 'cannot be opened' in answer.json()['detail']
