"""A fingerprint changes with whatever changes results, and with nothing else."""

import dataclasses

import torch

from ms_segformer.config.reader import read_configuration
from ms_segformer.metainfo import demo_model_dir
from ms_segformer.models.fingerprint import fingerprint
from ms_segformer.models.segformer import Segformer


def test_it_follows_weights_and_settings(tiny_model_dir):
    settings = read_configuration(tiny_model_dir)
    model, again = (Segformer.from_pretrained(str(tiny_model_dir)) for _ in range(2))
    before = fingerprint(model, settings)
    assert len(before) == 64 and fingerprint(again, settings) == before
    assert fingerprint(model, dataclasses.replace(settings, source='elsewhere', pipeline_section={})) == before
    for change in (
        {'classes': settings.classes[::-1]},
        {'palette': ((1, 2, 3),)},
        {'preprocess': dataclasses.replace(settings.preprocess, scale=(640, 160))},
    ):
        assert fingerprint(model, dataclasses.replace(settings, **change)) != before
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(again, settings) != before
    assert len(fingerprint(model.to(torch.bfloat16), settings)) == 64


def test_that_of_a_model_stays():
    """Manifests have it: with another one, a folder of results would be refused as made by another model."""
    model = Segformer.from_pretrained(str(demo_model_dir()))
    assert fingerprint(model, read_configuration(demo_model_dir())) == (
        'ad5d01031d9434cbf797211b4682b62535a6b76dfefcbc8ab5160dff4978935d'
    )
