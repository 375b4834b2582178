"""The shape of an embedding space: how it points, how many dimensions it really has, who is everybody's neighbour.

Five looks, each a function that gives a typed result with intervals and one sentence of reading:

- ``isotropy``: mean cosine of different texts, principal components, IsoScore, effective rank;
- ``intrinsic_dimension``: TwoNN and maximum likelihood, from the distances to the nearest neighbours;
- ``hubness``: texts that are among the nearest of too many others, and texts that are among nobody's;
- ``norm_relations``: what the lengths of vectors, and the place of texts, have to do with the length of texts;
- ``modality_gap``: how far two sets that should share a space (images and captions, queries and answers) are apart.

All of them read a memory map in place, a few thousand rows at a time. Those that need neighbours compare every pair of
a sample, whose size the result states.
"""

from __future__ import annotations

from embedlab.understand.geometry.dimension import IntrinsicDimension, intrinsic_dimension
from embedlab.understand.geometry.gap import ModalityGap, modality_gap
from embedlab.understand.geometry.hubness import Hubness, hubness
from embedlab.understand.geometry.isotropy import Isotropy, isotropy, mean_cosine
from embedlab.understand.geometry.neighbours import Neighbours, nearest
from embedlab.understand.geometry.norms import NormRelations, norm_relations

__all__ = [
    "Hubness",
    "IntrinsicDimension",
    "Isotropy",
    "ModalityGap",
    "Neighbours",
    "NormRelations",
    "hubness",
    "intrinsic_dimension",
    "isotropy",
    "mean_cosine",
    "modality_gap",
    "nearest",
    "norm_relations",
]
