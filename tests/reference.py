"""Reads the reference outputs of the original implementation."""

import ast
import importlib.util

import numpy as np
import torch


def reference_shapes(oracle, name):
    lines = (oracle / f'state_dict_{name}.txt').read_text().splitlines()
    return {key: ast.literal_eval(shape) for key, shape, _ in (line.split('\t') for line in lines if line)}


def recipe_weights(oracle, shapes):
    """The reference weights, made from key names and shapes alone."""
    spec = importlib.util.spec_from_file_location('oracle_weights', oracle / 'weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {key: torch.from_numpy(np.asarray(value)) for key, value in module.weights(shapes).items()}
