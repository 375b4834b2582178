"""Search by aspect: heads on the vectors that a collection stores anyway, so they are in step with every commit.

A head is a small network on the vector of a passage. Nothing is stored per passage: aspect vectors are worked out in
memory when an aspect is first asked for, and for new passages as they come.
"""

from embedlab.search.aspects.index import AspectIndex
from embedlab.search.aspects.shelf import Aspects
from embedlab.search.aspects.view import AspectSpace, AspectView

__all__ = ["AspectIndex", "AspectSpace", "AspectView", "Aspects"]
