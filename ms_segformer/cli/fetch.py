"""`ms-segformer fetch MODEL`: bring a published model to this machine, for use without a network."""
from .arguments import output_folder

HELP = 'download a published model, to use it without a network later'


def add_arguments(parser):
    parser.add_argument('model', help='b0 to b5, or a hub id such as '
                                      'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k')
    parser.add_argument('--revision', help='branch, tag or commit (default: master)')
    parser.add_argument('--to', type=output_folder, metavar='DIR',
                        help="put the files here instead of in ModelScope's cache")


def run(args):
    import os

    from ms_segformer.metainfo import find_model
    model_id = find_model(args.model)
    if os.path.isdir(model_id):
        raise ValueError(f'{args.model} is a model directory on this machine already: {model_id}')
    folder = fetch(model_id, args.revision, args.to)
    print(folder)
    print(f"Works without a network now: pipeline('image-segmentation', {_usable_name(model_id, args, folder)!r})")
    return 0


def model_directory(name: str) -> str:
    """The directory of a model that a command is given: a directory, a hub id, a short name; downloaded when missing.

    Whether the hub answers is known within seconds; without it the cached copy serves.

    Raises:
        FileNotFoundError: the name is none of these.
        ConnectionError: see `fetch`.
    """
    import os

    from ms_segformer.metainfo import find_model
    found = find_model(name)
    return found if os.path.isdir(found) else fetch(found)


def fetch(model_id, revision=None, folder=None):
    """Download a model repository and return its directory; its cached copy while the hub is out of reach.

    Raises:
        ConnectionError: the hub cannot be reached, or has no such model; the message says what to try.
    """
    from requests import RequestException

    from ms_segformer import plugin
    copy = plugin.offline_copy(model_id, revision)
    if copy and folder:
        raise plugin.HubUnreachable(f'{model_id} cannot be downloaded to {folder}: the hub cannot be reached. A copy '
                                    f'lies in {copy}')
    if copy:
        return copy
    from modelscope.hub.snapshot_download import snapshot_download
    try:
        return snapshot_download(model_id, revision=revision, **({'local_dir': folder} if folder else {}))
    except (RequestException, ConnectionError) as error:
        raise ConnectionError(
            f'{model_id} (revision {revision or "master"}) could not be downloaded: {error}. Check the id on '
            f'modelscope.cn, the network, and the variables HTTPS_PROXY and MODELSCOPE_ENDPOINT.') from error


def _usable_name(model_id, args, folder):
    from ms_segformer.metainfo import variant_of_hub_id
    by_id = not args.to and not args.revision and variant_of_hub_id(model_id) is not None
    return model_id if by_id else str(folder)
