"""The application: what each path answers."""

import asyncio
import difflib
import logging
import re
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.requests import ClientDisconnect

from ..errors import one_line
from ..integrations.modelscope.messages import held_back_messages
from ..preprocessors.image import ImageError, TooManyPixelsError
from ..results.result import VOID
from ..version import __version__
from .answers import JPEG, PNG, Segmentation, SegmentOptions, encode, negotiate
from .body import FORM, RAW, Body, BodyReader, file_of
from .door import CLIENT_GONE, Door
from .metrics import Metrics
from .models import ModelDescriptions, Models
from .options import ServeOptions
from .problems import Problem, documented, install
from .scheduler import GoneError, Job, Scheduler

if TYPE_CHECKING:
    from ..pipelines.image_segmentation import Options, SegformerPipeline
    from ..preprocessors.segformer import PreparedImage
    from ..results.result import SegmentationResult

T = TypeVar('T')
PAGE = Path(__file__).parent / 'page'
SEGMENT = '/v1/segment'
LOOK = 0.05  # seconds between looks whether the models are ready
START_SECONDS = 60  # that ending waits for models that are being made ready
PIXELS_IN_ONE_PIECE = 2**22  # at full size: the network takes up to 0.5 GB a megapixel for them
logger = logging.getLogger(__name__)

IMAGE_BODY = {
    'requestBody': {
        'required': True,
        'content': {
            **{name: {'schema': {'type': 'string', 'format': 'binary'}} for name in ('image/*', RAW)},
            FORM: {
                'schema': {
                    'type': 'object',
                    'required': ['file'],
                    'properties': {'file': {'type': 'string', 'format': 'binary'}},
                }
            },
        },
    }
}


class Service:
    """What the paths of an application share.

    Args:
        options: of the service.

    Attributes:
        stopping: nothing new is taken on; set by the server.
        under_way: requests to segment that have been taken on and not been answered.
        failure: why the models could not be made ready; None while nothing is wrong.
    """

    def __init__(self, options: ServeOptions) -> None:
        self.options = options
        self.metrics = Metrics()
        self.models = Models(options)
        self.scheduler = Scheduler(options.places, self.metrics)
        self.bodies = BodyReader(options)
        self.stopping = False
        self._starter: threading.Thread | None = None
        self.under_way = 0
        self.failure: Exception | None = None

    def start(self) -> None:
        """Make the models ready in a thread; until then requests are told to come back."""
        self.scheduler.start()
        self._starter = threading.Thread(target=self._make_ready, name='segformer-start', daemon=True)
        self._starter.start()

    def _make_ready(self) -> None:
        try:
            with held_back_messages(not self.options.verbose):
                self.models.make_ready()
        except Exception as error:  # of whatever kind: the server ends with it, and another one has it in its log
            self.failure = error
            logger.info('the models cannot be made ready', exc_info=error)

    async def wait(self) -> None:
        """Return when the models are ready or cannot be made ready, or when the server is being stopped."""
        while not (self.models.ready or self.failure or self.stopping):
            await asyncio.sleep(LOOK)

    async def close(self) -> None:
        """End the threads, that which makes the models ready too: Python may not end while it compiles."""
        self.scheduler.close()
        if self._starter is not None:
            await asyncio.to_thread(self._starter.join, START_SECONDS)

    def check_open(self) -> None:
        """Raise `Problem` unless requests are taken on."""
        if self.stopping:
            raise Problem('stopping', 'the server is being stopped; try another one, or later', 5)
        if self.failure is not None:
            raise Problem('internal', 'the models cannot be opened; the log of the server says why')
        if not self.models.ready:
            raise Problem('starting', 'the models are being made ready; try again in 2 s', 2)

    async def segment(self, request: Request, options: SegmentOptions) -> Response:
        """The answer to a request."""
        self.check_open()
        start = perf_counter()
        media_type = negotiate(request.headers.get('accept'))
        name, segmenter = self.models.get(options.model)
        request.scope['segformer_model'] = name
        _check_classes(options, segmenter.classes)
        self.scheduler.check_room()  # before the body: it need not be sent in vain
        body = Body(self.bodies)
        try:
            with self.metrics.phase('receive'):
                await self.bodies.read(request, body)
            job = self.scheduler.take_place()
            answered = False
            try:
                content_type = request.headers.get('content-type', RAW)
                work = self._work(job, segmenter, body, content_type, media_type, name, options)
                content = await _unless_gone(request, work, self.options.seconds)
                answered = True
            finally:
                self.scheduler.leave(job, answered)
        finally:
            body.drop()
        self.metrics.total.observe(perf_counter() - start)
        timing = ', '.join(f'{phase};dur={1000 * seconds:.1f}' for phase, seconds in job.seconds.items())
        return Response(
            content, 200, {'Server-Timing': timing, 'Vary': 'Accept', 'Cache-Control': 'no-store'}, media_type
        )

    async def _work(
        self,
        job: Job,
        segmenter: 'SegformerPipeline',
        body: Body,
        content_type: str,
        media_type: str,
        name: str,
        options: SegmentOptions,
    ) -> bytes:
        call = segmenter.options(
            mode=options.mode,
            resize=not options.full_size,
            with_masks=False,
            with_image=media_type == JPEG,
            max_pixels=self.options.max_pixels,
            between_windows=job.check,
        )
        run = self.scheduler.run
        async with self.scheduler.work():
            prepared = await run('decode', job, self._decode, segmenter, body.content, content_type, call)
            body.drop()
            result = await run('network', job, _segment, segmenter, prepared, call)
            del prepared
            return await run('encode', job, encode, result, media_type, name, options, job.check)

    def _decode(
        self, segmenter: 'SegformerPipeline', body: bytes, content_type: str, call: 'Options'
    ) -> 'PreparedImage':
        try:
            prepared = segmenter.prepare(file_of(body, content_type), call)
        except MemoryError:  # among them that of an image, which is an `ImageError` too
            raise
        except TooManyPixelsError as error:
            raise Problem('too-many-pixels', one_line(error), limit=self.options.max_pixels) from None
        except ImageError as error:
            raise Problem('not-an-image', one_line(error)) from None
        height, width = prepared['ori_shape'][:2]
        self.metrics.pixels.observe(height * width)
        if not call.resize and call.windows is None and height * width > PIXELS_IN_ONE_PIECE:
            raise Problem(
                'too-many-pixels',
                f'the image has {width}×{height} pixels, which are more than {PIXELS_IN_ONE_PIECE:,}, the limit for '
                'full_size in one piece; with mode=slide as well, or without full_size, larger images are taken',
                limit=PIXELS_IN_ONE_PIECE,
            )
        return prepared


def _segment(segmenter: 'SegformerPipeline', prepared: 'PreparedImage', call: 'Options') -> 'SegmentationResult':
    try:
        return segmenter.segment([prepared], call)[0]
    except RuntimeError as error:
        if re.search('memory|alloc', str(error)):  # torch and OpenVINO have no class for it
            raise MemoryError(one_line(error)) from error
        raise


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """What the work returns, unless the client goes away before, or the time is up.

    Raises:
        ClientDisconnect: it has gone.
        Problem: timeout.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise Problem('timeout', f'there was no answer within {seconds:g} s; try again, or send a smaller image', 5)
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())['type'] != 'http.disconnect':
        pass


def _check_classes(options: SegmentOptions, classes: tuple[str, ...]) -> None:
    if (options.classes is not None or options.min_share) and len(classes) > VOID:
        raise Problem(
            'invalid-option',
            f'classes and min_share leave pixels out, and of the ids 0 to {VOID} none is left for them: the model has '
            f'{len(classes)} classes; leave both out',
        )
    for name in options.classes or []:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 3)
            advice = f'did you mean {" or ".join(map(repr, near))}?' if near else '/v1/models lists them'
            raise Problem(
                'invalid-option', f'classes: {name[:100]!r} is none of the {len(classes)} of the model; {advice}'
            )


class _PageFiles(StaticFiles):
    """The page's files, which a browser asks for again, so that it does not mix those of two versions."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """As Starlette's, with a header."""
        response = super().file_response(*arguments, **options)
        response.headers['Cache-Control'] = 'no-cache'
        return response


def create_app(options: ServeOptions, at_once: bool = True) -> FastAPI:
    """The application, for any ASGI server.

    Args:
        options: of the service; what concerns sockets and processes (host, port, workers, header_seconds) is the
            server's part.
        at_once: start before the models are ready, and answer 503 until they are.

    Returns:
        The application; `app.state.service` is its `Service`. Its models are opened when the server starts it.
    """
    service = Service(options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        if not at_once:
            await service.wait()
        yield
        await service.close()

    app = FastAPIOffline(
        docs_url='/docs',
        redoc_url=None,
        static_url='/docs/files',
        favicon_url='/page/icon.svg',
        title='ms-segformer',
        version=__version__,
        summary='Semantic segmentation with SegFormer.',
        lifespan=lifespan,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url='/docs/oauth2-redirect',
        swagger_ui_parameters={'validatorUrl': None},
    )
    app.state.service = service
    install(app)

    @app.post(
        SEGMENT,
        response_model=Segmentation,
        response_class=JSONResponse,
        openapi_extra=IMAGE_BODY,
        responses={
            200: {
                'description': 'JSON; the label map, a palette PNG whose pixel values are class ids (255: left out); '
                'or the overlay: by `Accept`.',
                'content': {name: {'schema': {'type': 'string', 'format': 'binary'}} for name in (PNG, JPEG)},
            },
            **documented(
                'broken-body',
                'not-acceptable',
                'slow-body',
                'body-too-large',
                'media-type',
                'not-an-image',
                'too-many-pixels',
                'invalid-option',
                'busy',
                'starting',
                'stopping',
                'timeout',
            ),
        },
    )
    async def segment(request: Request, options: Annotated[SegmentOptions, Query()]) -> Response:
        """Segment the image in the body; the answer's form is that of `Accept`."""
        service.under_way += 1
        try:
            return await service.segment(request, options)
        except (ClientDisconnect, GoneError):
            return Response(status_code=CLIENT_GONE)  # nobody reads it
        except MemoryError:
            raise Problem('busy', 'there is not enough memory for this image now; try again in 5 s', 5) from None
        finally:
            service.under_way -= 1

    @app.get('/v1/models', responses=documented('starting'))
    async def models() -> ModelDescriptions:
        """The models that are served, with their classes."""
        if not service.models.ready:
            service.check_open()
        return service.models.describe()

    @app.get('/healthz')
    async def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {'status': 'ok'}

    @app.get('/readyz', responses=documented('starting', 'stopping'))
    async def readyz() -> dict[str, str]:
        """Whether requests are taken on: the models are compiled and have run."""
        service.check_open()
        return {'status': 'ready'}

    @app.get('/metrics', response_class=Response, responses={200: {'content': {'text/plain': {}}}})
    async def metrics() -> Response:
        """Counts and times in the form of Prometheus."""
        return Response(service.metrics.text(), media_type=Metrics.media_type)

    @app.get('/', include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / 'index.html', headers={'Cache-Control': 'no-cache'})

    app.mount('/page', _PageFiles(directory=PAGE), name='page')
    app.add_middleware(Door, options=options, metrics=service.metrics, counted=SEGMENT)
    return app
