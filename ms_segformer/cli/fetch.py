"""`ms-segformer fetch MODEL`: bring a published model to this machine, for use without a network."""

HELP = 'download a published model, to use it without a network later'


def add_arguments(parser):
    parser.add_argument('model', help='b0 to b5, or a hub id such as '
                                      'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k')
    parser.add_argument('--revision', help='branch, tag or commit (default: master)')
    parser.add_argument('--to', metavar='DIR', help='put the files here instead of in ModelScope\'s cache')


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


def fetch(model_id, revision=None, folder=None):
    """Download a model repository and return its directory.

    Raises:
        ConnectionError: the hub cannot be reached, or has no such model; the message says what to try.
    """
    from requests import RequestException

    from ms_segformer import plugin
    plugin.activate()
    from modelscope.hub.snapshot_download import snapshot_download
    try:
        return snapshot_download(model_id, revision=revision, **({'local_dir': folder} if folder else {}))
    except plugin.HubUnreachable:
        raise
    except (RequestException, ConnectionError) as error:
        raise ConnectionError(
            f'{model_id} (revision {revision or "master"}) could not be downloaded: {error}. Check the id on '
            f'modelscope.cn, the network, and the variables HTTPS_PROXY and MODELSCOPE_ENDPOINT.') from error


def _usable_name(model_id, args, folder):
    from ms_segformer.metainfo import variant_of_hub_id
    by_id = not args.to and not args.revision and variant_of_hub_id(model_id) is not None
    return model_id if by_id else str(folder)
