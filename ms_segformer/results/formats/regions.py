"""Segments of a label map as other projects write them: run lengths, and polygons.

Coordinates count from the upper left corner of the image: pixel (0, 0) covers 0 to 1 in x and y, as in COCO.
"""

from dataclasses import dataclass
from typing import TypedDict

import cv2
import numpy as np
from pycocotools import mask as coco

NEATLY_JOINED = 64  # holes of an outline that are joined at the nearest point, which takes a search of all points each
SIMPLIFY = 0.75  # pixels; the default of everything that makes polygons


class RunLengths(TypedDict):
    """A mask as COCO writes it: [H, W] and compressed run lengths."""

    size: list[int]
    counts: str


@dataclass(frozen=True)
class Polygon:
    """A connected part of a mask; pixels that touch at a corner are connected.

    Attributes:
        outer: N×2 float64, (x, y) of the outline's points, in pixels.
        holes: the outlines of what is cut out of it, in the other sense of rotation.
        area: its pixels, holes left out.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...]
    area: int

    def ring(self) -> np.ndarray:
        """One outline for formats without holes: M×2, each hole joined to the outer ring by an edge walked both ways.

        Whoever fills it by the even-odd or the non-zero rule leaves the holes out.
        """
        holes = [_from_the_left(hole) for hole in self.holes]
        ring = _joined_by_height(self.outer, holes[NEATLY_JOINED:])
        for hole in holes[:NEATLY_JOINED]:
            at = int(((ring - hole[0]) ** 2).sum(1).argmin())
            ring = np.concatenate([ring[: at + 1], hole, ring[at:]])
        return ring


def _from_the_left(hole: np.ndarray) -> np.ndarray:
    """A hole's outline from its leftmost point back to it."""
    start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
    return np.concatenate([hole[start:], hole[: start + 1]])


def _joined_by_height(outer: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """An outline with holes joined to it at points of about the height of each, in a time that is linear in all."""
    order = np.argsort(outer[:, 1], kind='stable')
    heights = outer[order, 1]
    at: dict[int, list[np.ndarray]] = {}
    for hole in holes:
        found = int(order[min(int(np.searchsorted(heights, hole[0, 1])), len(order) - 1)])
        at.setdefault(found, []).extend([hole, outer[found : found + 1]])
    pieces, done = [], 0
    for point in sorted(at):
        pieces += [outer[done : point + 1], *at[point]]
        done = point + 1
    return np.concatenate([*pieces, outer[done:]])


def encode_rle(mask: np.ndarray) -> RunLengths:
    """H×W mask (bool, or numbers of which 0 is outside) to COCO's compressed run lengths."""
    encoded = coco.encode(np.asfortranarray(mask, bool).view(np.uint8))
    return RunLengths(size=[int(side) for side in encoded['size']], counts=encoded['counts'].decode('ascii'))


def polygons(mask: np.ndarray, simplify: float = SIMPLIFY, min_area: int = 0, inset: float = 0) -> list[Polygon]:
    """The connected parts of a mask as polygons, the largest first.

    Args:
        mask: H×W, bool, or numbers of which 0 is outside.
        simplify: how far, in pixels, an outline may move (Douglas and Peucker's method); 0: it follows the pixels'
            edges exactly.
        min_area: parts with fewer pixels are left out, and holes with fewer are filled; 0 and 1 keep all.
        inset: how far within the pixels' edges the outlines lie, in pixels, below a half. Above 0, points rounded down
            are the pixels along the edge: the same outline, for a program that fills from pixel to pixel.

    Returns:
        The parts; with `min_area` 0, filling them (a pixel belongs to a polygon when its center does) gives the mask
        back, exactly with `simplify` 0.
    """
    inside = np.asarray(mask, bool)
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    if not len(rows):
        return []
    left, top = int(columns[0]), int(rows[0])
    part = inside[top : rows[-1] + 1, left : columns[-1] + 1].view(np.uint8)
    # At twice the size every edge of a pixel lies between two points of a contour: see `_corners`.
    contours, hierarchy = cv2.findContours(
        np.repeat(np.repeat(part, 2, 0), 2, 1), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    offset = np.array([left, top], np.float64)
    found = []
    for number, (_, _, child, parent) in enumerate(hierarchy[0]):
        if parent >= 0:
            continue
        outer = _corners(contours[number])
        holes = []
        while child >= 0:
            holes.append(_corners(contours[child]))
            child = hierarchy[0][child][0]
        holes = [hole for hole in holes if _area(hole) >= min_area]
        area = _area(outer) - sum(map(_area, holes))
        if area >= min_area:
            rings = [_simplified(ring, simplify, inset) + offset for ring in (outer, *holes)]
            found.append(Polygon(rings[0], tuple(rings[1:]), area))
    return sorted(found, key=lambda polygon: -polygon.area)


def without_small_parts(mask: np.ndarray, min_area: int) -> np.ndarray:
    """H×W bool: a mask without its connected parts of fewer pixels; holes stay."""
    inside = np.asarray(mask, bool)
    if min_area <= 1:
        return inside
    _, numbers, statistics, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(inside).view(np.uint8))
    large = statistics[:, cv2.CC_STAT_AREA] >= min_area
    large[0] = False
    return large[numbers]


def _corners(contour: np.ndarray) -> np.ndarray:
    """A contour at twice the size to the closed path along the pixels' edges, N×2 int32, in steps of one pixel."""
    path = (contour[:, 0] + 1) // 2
    return path[(path != np.roll(path, 1, 0)).any(1)]


def _area(path: np.ndarray) -> int:
    """The pixels inside a path of `_corners`."""
    following = np.roll(path, -1, 0).astype(np.int64)
    return abs(int((path[:, 0] * following[:, 1] - path[:, 1] * following[:, 0]).sum())) // 2


def _simplified(path: np.ndarray, tolerance: float, inset: float) -> np.ndarray:
    """A path of `_corners` with fewer points, float64, moved to its inside.

    The middles of the pixels' edges are simplified, not their corners: along a slope they lie on a line, while the
    corners form stairs to one side of it.
    """
    steps = np.roll(path, -1, 0) - path
    inward = inset * np.stack([steps[:, 1], -steps[:, 0]], 1)  # of the edge that begins at a corner
    if tolerance > 0:
        middles = ((path + np.roll(path, -1, 0)) / 2 + inward).astype(np.float32)
        ring = cv2.approxPolyDP(middles[:, None], tolerance, True)[:, 0].astype(np.float64).round(4)
        if len(ring) >= 3:
            return ring
    turns = (steps != np.roll(steps, 1, 0)).any(1)
    return (path + inward + np.roll(inward, 1, 0))[turns]
