"""Results in the formats of tools for labeling: run lengths, polygons, and whole files of them."""

from .regions import SIMPLIFY, Polygon, RunLengths, encode_rle, polygons, without_small_parts

__all__ = ['SIMPLIFY', 'Polygon', 'RunLengths', 'encode_rle', 'polygons', 'without_small_parts']
