"""What a run starts from: the model, an ImageNet backbone in every dialect, random weights, a URL, an id."""

import hashlib
import io
import sys
from pathlib import Path

import pytest
import torch
from backbones import DIALECTS
from modelscope.metainfo import Trainers
from modelscope.trainers import build_trainer
from safetensors.torch import save_file
from tiny_run import shrink

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub.fixtures import Python  # noqa: E402
from hub.server import Hub  # noqa: E402

from ms_segformer.config.reader import read_configuration  # noqa: E402
from ms_segformer.metainfo import own_configuration  # noqa: E402
from ms_segformer.models.checkpoint import CheckpointError, read_checkpoint  # noqa: E402
from ms_segformer.models.segformer import Segformer  # noqa: E402
from ms_segformer.trainers import pretrained  # noqa: E402
from ms_segformer.trainers.errors import TrainingError  # noqa: E402


@pytest.fixture
def model(tiny_model_dir):
    """A network of the tiny model's size whose every parameter is 7."""
    made = Segformer.from_pretrained(str(tiny_model_dir)).train()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(7.0)
    return made


@pytest.fixture(scope='module')
def weights(tiny_model_dir):
    """The tensors of the tiny model."""
    return read_checkpoint(tiny_model_dir / 'pytorch_model.pt')[0]


@pytest.fixture(scope='module')
def backbone(weights):
    """The backbone's tensors, without `backbone.` before their names."""
    return {key.removeprefix('backbone.'): value for key, value in weights.items() if key.startswith('backbone.')}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The loopback hub; what is fetched goes to `tmp_path/cache/weights`."""
    monkeypatch.setenv('MS_SEGFORMER_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with Hub() as hub:
        monkeypatch.setenv('HF_ENDPOINT', hub.url)
        yield hub


def content_of(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def require_backbone_only(model, backbone):
    for key, value in model.state_dict().items():
        if key.startswith('backbone.'):
            assert torch.equal(value, backbone[key.removeprefix('backbone.')]), key
    assert all((parameter == 7).all() for parameter in model.decode_head.parameters())


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('dialect', DIALECTS)
def test_the_backbone_of_every_dialect_is_the_start_and_the_head_is_new(
    model, backbone, tmp_path, messages, caplog, dialect, suffix
):
    path, theirs = tmp_path / f'mit{suffix}', DIALECTS[dialect](backbone)
    if dialect != 'mmsegmentation':
        assert not set(theirs) & set(backbone)
    save_file(theirs, path) if suffix == '.safetensors' else torch.save({'state_dict': theirs}, path)
    assert pretrained.load(model, load_from='imagenet', pretrained=str(path)) == str(path)
    require_backbone_only(model, backbone)
    (said,) = (message for message in messages if message.startswith('start: '))
    assert f'{path}, {len(backbone)} tensors; the head starts anew' in said
    named = {
        'NVlabs': '; dropped: head.bias, head.weight',
        'Hugging Face': '; dropped: classifier.bias, classifier.we',
        'below encoder.': '; dropped: decoder.mlp_stage.0.linear.weight',
    }.get(dialect)
    assert not [record for record in caplog.records if record.name.startswith('ms_segformer')], 'it lacks nothing'
    assert named in said and ('and 1 more' in said) == (dialect == 'below encoder.') if named else 'dropped' not in said


def test_of_a_whole_model_imagenet_takes_the_backbone_only(model, backbone, weights, tmp_path, messages):
    torch.save(weights, tmp_path / 'whole.pth')
    pretrained.load(model, load_from='imagenet', pretrained=str(tmp_path / 'whole.pth'))
    require_backbone_only(model, backbone)
    assert [message for message in messages if 'dropped: decode_head' in message]


def test_a_url_is_fetched_once_and_its_name_s_digest_is_checked(model, backbone, server, tmp_path, messages):
    content = content_of(DIALECTS['NVlabs'](backbone))
    name = f'mit_b0-{hashlib.sha256(content).hexdigest()[:8]}.pth'
    server.add_file(f'/pretrain/{name}', content)
    for _ in range(2):
        loaded = pretrained.load(model, load_from='imagenet', pretrained=f'{server.url}/pretrain/{name}')
    assert loaded == str(tmp_path / 'cache' / 'weights' / name) and len(server.asked(name)) == 1
    require_backbone_only(model, backbone)
    assert [message for message in messages if message == f'fetching {server.url}/pretrain/{name} to {loaded}']
    Path(loaded).write_bytes(content[:-1] + b'!')
    with pytest.raises(TrainingError, match=f'{name} has a SHA-256 that begins with .*put it at {loaded}'):
        pretrained.load(model, load_from='imagenet', pretrained=f'{server.url}/pretrain/{name}')


def test_another_file_than_its_name_says_is_not_kept(model, server, tmp_path):
    server.add_file('/mit_b0-0123abcd.pth', b'another')
    with pytest.raises(TrainingError, match='mit_b0-0123abcd.pth has a SHA-256 that begins with ae448ac8'):
        pretrained.load(model, load_from=f'{server.url}/mit_b0-0123abcd.pth')
    assert not [path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]


@pytest.mark.parametrize(
    'content, said',
    [
        (b'<!DOCTYPE html><html>log in', 'a web page'),
        (b'', 'the file is empty'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'a Git LFS pointer'),
        (None, 'a truncated or damaged'),
    ],
)
def test_what_is_no_checkpoint_is_not_kept_and_asked_for_again(model, backbone, server, tmp_path, content, said):
    whole = content_of(DIALECTS['NVlabs'](backbone))
    server.add_file('/mit.pth', whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(TrainingError, match=rf'/mit\.pth cannot be had: what came is no checkpoint: {said}'):
        pretrained.load(model, load_from=f'{server.url}/mit.pth')
    assert not [path for path in (tmp_path / 'cache').rglob('*') if path.is_file()]
    server.add_file('/mit.pth', whole)
    pretrained.load(model, load_from=f'{server.url}/mit.pth')
    require_backbone_only(model, backbone)


def test_a_url_that_cannot_be_had_names_where_to_put_the_file(model, server, tmp_path):
    url = f'{server.url}/nothing-0123abcd.pth'
    with pytest.raises(TrainingError, match=f'{url} cannot be had: .*404.*put it at .*weights/nothing-0123abcd.pth'):
        pretrained.load(model, load_from='imagenet', pretrained=url)


def test_ids_of_both_hubs_are_fetched(model, backbone, weights, server, tmp_path, monkeypatch):
    save_file(DIALECTS['Hugging Face'](backbone), tmp_path / 'mit.safetensors')
    server.add_file('/nvidia/mit-b0/resolve/main/pytorch_model.bin', content_of(DIALECTS['Hugging Face'](backbone)))
    pretrained.load(model, load_from='hf:nvidia/mit-b0')
    require_backbone_only(model, backbone)
    with pytest.raises(TrainingError, match='hf:nvidia/mit-b9: .*404.*HF_ENDPOINT'):
        pretrained.load(model, load_from='hf:nvidia/mit-b9')
    folder = tmp_path / 'snapshot'
    folder.mkdir()
    (folder / 'config.json').write_text('{}')
    for name in ('model.safetensors', 'pytorch_model.bin'):  # a repository of transformers has both
        (folder / name).write_bytes((tmp_path / 'mit.safetensors').read_bytes())
    monkeypatch.setattr(
        pretrained.start_weights, 'fetch', lambda model_id: str(folder) if model_id == 'nvidia/mit-b0' else 0
    )
    assert pretrained.load(model, load_from='nvidia/mit-b0') == str(folder / 'model.safetensors')


def test_two_processes_fetch_once_and_both_end_where_it_cannot_be_had(
    tiny_data, tiny_model_dir, tmp_path, backbone, server, runs, two
):
    server.add_file('/mit.pth', content_of(DIALECTS['NVlabs'](backbone)))
    settings = {
        'model': str(tiny_model_dir),
        'data_root': str(tiny_data),
        'classes': ['sky', 'grass', 'disc'],
        'device': 'cpu',
        'work_dir': str(tmp_path / 'run'),
        'evaluate_only': True,
    }
    two = [{**one, 'MS_SEGFORMER_CACHE': str(tmp_path / 'cache'), 'no_proxy': '127.0.0.1'} for one in two]
    codes, output = runs({**settings, 'load_from': f'{server.url}/mit.pth'}, two)
    assert codes == [0, 0] and len(server.asked('/mit.pth')) == 1, output
    second = next(runs.folder.glob(f'output{runs.count}_1')).read_text()
    assert (output.count('start: the backbone of'), second.count('start: ')) == (1, 0)
    codes, output = runs({**settings, 'load_from': f'{server.url}/nothing.pth'}, two)
    assert codes == [1, 1] and 'nothing.pth cannot be had: HTTP Error 404' in output


def test_an_id_of_modelscope_s_hub_is_fetched_by_its_client(backbone, server, tmp_path, tiny_model_dir):
    save_file(DIALECTS['Hugging Face'](backbone), tmp_path / 'mit.safetensors')
    server.add_model(
        'nvidia/mit-b0',
        {
            'config.json': b'{}',
            'configuration.json': b'{}',
            'model.safetensors': (tmp_path / 'mit.safetensors').read_bytes(),
        },
    )
    python = Python(tmp_path, server)
    loaded = python.result(f"""
        import json
        from ms_segformer.models.segformer import Segformer
        from ms_segformer.trainers import pretrained
        model = Segformer.from_pretrained({str(tiny_model_dir)!r})
        print(json.dumps(pretrained.load(model, load_from='nvidia/mit-b0')))
    """)
    assert loaded.startswith(str(python.cache)) and loaded.endswith('model.safetensors')
    assert server.asked('mit-b0.*model.safetensors')


def test_nothing_is_fetched_unasked(model, server, weights, tmp_path):
    url = f'{server.url}/mit_b0.pth'
    server.add_file('/mit_b0.pth', content_of(weights))
    with pytest.raises(TrainingError, match=rf'what to start from is not said.*{url}, is not on.*--from imagenet'):
        pretrained.load(model, pretrained=url)
    assert pretrained.load(model, load_from='scratch', pretrained=url) is None
    torch.save(weights, tmp_path / 'pytorch_model.pt')
    for start in (None, 'model'):
        assert pretrained.load(model, tmp_path, start, url) == str(tmp_path / 'pytorch_model.pt')
    assert server.requests == []


def test_a_start_that_is_none_is_named(model, backbone, tmp_path):
    for start, error, said in (
        (3, TrainingError, 'load_from is 3; expected model, imagenet, scratch'),
        ('nowhere.pth', FileNotFoundError, 'nowhere.pth: no such file or model directory'),
        ('checkpoints/mit.pth', FileNotFoundError, 'checkpoints/mit.pth: no such file'),
        ('http://[', FileNotFoundError, r'http://\[: no such file or model directory'),
        ('model', TrainingError, 'there are no weights of a model'),
        ('imagenet', TrainingError, 'model.pretrained names nothing'),
    ):
        with pytest.raises(error, match=said):
            pretrained.load(model, load_from=start)
    wide = {
        key: torch.cat([value, value]) if key == 'layers.0.0.projection.weight' else value
        for key, value in backbone.items()
    }
    torch.save(wide, tmp_path / 'wide.pth')
    with pytest.raises(CheckpointError, match='does not fit the configuration.*projection.weight is .16, '):
        pretrained.load(model, load_from='imagenet', pretrained=str(tmp_path / 'wide.pth'))
    torch.save({key: value for key, value in backbone.items() if key != 'layers.3.2.bias'}, tmp_path / 'part.pth')
    with pytest.raises(CheckpointError, match='part.pth: does not fit .*missing keys: backbone.layers.3.2.bias$'):
        pretrained.load(model, load_from='imagenet', pretrained=str(tmp_path / 'part.pth'))
    torch.save({'features.0.weight': torch.ones(3)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=r'other\.pth: no weights of a whole model nor of .*features'):
        pretrained.load(model, load_from='imagenet', pretrained=str(tmp_path / 'other.pth'))


@pytest.mark.parametrize('file, ours', [('b3', 'b2'), ('b1', 'b0'), ('b0', 'b2')])
def test_the_backbone_of_another_variant_is_refused_by_its_name(tmp_path, file, ours):
    """B3 has all that B2 has, in the same shapes, and blocks besides."""
    theirs, model = (Segformer(**read_configuration(own_configuration(name)).model_section) for name in (file, ours))
    save_file(theirs.half().backbone.state_dict(), tmp_path / 'mit.safetensors')
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f'this is a {file.upper()} checkpoint, the conf.* says {ours.upper()}.'):
        pretrained.load(model, load_from=str(tmp_path / 'mit.safetensors'))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_password_in_a_url_is_not_kept(options, backbone, server):
    server.add_file('/mit.pth', content_of(DIALECTS['NVlabs'](backbone)))
    url = server.url.replace('//', '//me:secret@') + '/mit.pth'
    trainer = build_trainer(Trainers.easycv, {**options, 'load_from': url})
    assert trainer.cfg.load_from == f'{server.url}/mit.pth'


@pytest.mark.parametrize('where', ['configuration', 'argument'])
def test_imagenet_in_place_of_the_model_s_weights(options, backbone, tmp_path, where):
    torch.save(DIALECTS['NVlabs']({key: value + 1 for key, value in backbone.items()}), tmp_path / 'mit.pth')
    chosen = {'load_from': 'imagenet'} if where == 'argument' else {'cfg_modify_fn': from_imagenet}
    trainer = build_trainer(
        Trainers.easycv, {**options, **chosen, 'cfg_options': {'model.pretrained': str(tmp_path / 'mit.pth')}}
    )
    state = trainer.bare_model.state_dict()
    assert all(torch.equal(state[f'backbone.{key}'], value + 1) for key, value in backbone.items())
    assert trainer.cfg.load_from == 'imagenet' and trainer.starting_point == str(tmp_path / 'mit.pth')


def from_imagenet(cfg):
    cfg.load_from = 'imagenet'
    return shrink(cfg)
