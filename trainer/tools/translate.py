"""Places of tensors by LDM names from places by the libraries' names, and the other way round. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from trainer.models.library_names import Link
from trainer.tools.places import Place


def to_ldm(links: Iterable[Link], prefix: str, given: Mapping[str, Place]) -> dict[str, Place]:
    """The places of a part's tensors by LDM name; `given`: by the library's. What has no pair is left out."""
    found: dict[str, Place] = {}
    for link in links:
        place = given.get(link.library)
        if place is None:
            continue
        name = prefix + link.ldm
        if link.how == "convolution" and len(place.shape) == 2:
            place = replace(place, shape=(*place.shape, 1, 1))
        elif link.how == "turned":
            place = _turned(place)
        elif link.how == "third" and name in found:
            first = found[name]
            shape = (first.shape[0] + place.shape[0], *place.shape[1:])
            place = replace(first, pieces=(*first.pieces, *place.pieces), shape=shape)
        found[name] = place
    return found


def to_library(links: Iterable[Link], prefix: str, given: Mapping[str, Place]) -> dict[str, Place]:
    """The places of a part's tensors by the library's name; `given`: by LDM name. What has no pair is left out."""
    found: dict[str, Place] = {}
    for link in links:
        place = given.get(prefix + link.ldm)
        if place is None:
            continue
        if link.how == "convolution":
            place = replace(place, shape=place.shape[:2])
        elif link.how == "turned":
            place = _turned(place)
        elif link.how == "third":
            rows = place.shape[0] // 3
            place = place.rows(rows * link.third, rows * (link.third + 1))
        found[link.library] = place
    return found


def _turned(place: Place) -> Place:
    (piece,) = place.pieces
    return replace(place, pieces=(replace(piece, turned=not piece.turned),), shape=place.shape[::-1])
