"""What a text names that training may start from; nothing is asked for over a network."""

import pytest

from ms_segformer.trainers.starts import check_start


@pytest.mark.parametrize(
    'start', ['model', 'imagenet', 'scratch', 'https://host/mit.pth', 'hf:nvidia/mit-b0', 'nvidia/mit-b0', '.']
)
def test_a_start_is_a_word_a_path_a_url_or_an_id(start):
    check_start(start)


@pytest.mark.parametrize('start', ['imagnet', 'mit.pth', 'hf:mit-b0', 'ftp://host/mit.pth', 'a/b/c', ''])
def test_anything_else_is_refused_with_what_may_be_said(start):
    with pytest.raises(FileNotFoundError, match='training starts from model, imagenet, scratch, a file, a model dir'):
        check_start(start)
