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
            place = _third(place, link.third)
        found[link.library] = place
    return found


def _third(place: Place, number: int) -> Place:
    """One of three that are joined, in one tensor of a file or in three."""
    rows = place.shape[0] // 3
    if len(place.pieces) == 3:
        return replace(place, pieces=place.pieces[number : number + 1], shape=(rows, *place.shape[1:]))
    return place.rows(rows * number, rows * (number + 1))


def _turned(place: Place) -> Place:
    (piece,) = place.pieces
    return replace(place, pieces=(replace(piece, turned=not piece.turned),), shape=place.shape[::-1])
