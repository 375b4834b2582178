"""The aspects of a collection: which there are, searching by them, keeping and forgetting them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from embedlab._core.errors import CollectionError, InputError, unknown_name
from embedlab.search.aspects.files import heads_stamp, read_heads, write_heads
from embedlab.search.aspects.view import AspectSpace, AspectView
from embedlab.search.places import Place
from embedlab.search.snapshot import Snapshot
from embedlab.text.aspect_documents.heads import AspectHead, AspectHeads
from embedlab.text.aspect_documents.names import check_weights

if TYPE_CHECKING:
    from embedlab.search.collection import Collection


class Aspects:
    """The aspects of a collection.

    Args:
        spot: Where the collection lies.
        collection: The collection.
    """

    def __init__(self, spot: Place, collection: Collection) -> None:
        self._place, self._collection = spot, collection
        self._guard = threading.Lock()
        self._heads: tuple[object, AspectHeads | None] = (None, None)
        self._space: AspectSpace | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the aspects that were learnt."""
        heads = self.heads()
        return () if heads is None else tuple(heads.heads)

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """What is known of each aspect: how it was learnt and how well it finds, on held-out documents."""
        heads = self.heads()
        return {} if heads is None else {name: dict(heads.about.get(name, {})) for name in heads.heads}

    def heads(self) -> AspectHeads | None:
        """Return the heads as they are now, of whatever process; None if no aspect was learnt.

        Raises:
            CollectionError: their file is damaged, or belongs to another model.
        """
        stamp = heads_stamp(self._place)
        with self._guard:
            if stamp != self._heads[0]:
                found = None if stamp is None else read_heads(self._place, model=self._collection.vector_fingerprint)
                self._heads = (stamp, found)
            return self._heads[1]

    def view(self, snapshot: Snapshot, weights: Mapping[str, float]) -> AspectView:
        """Return the search by a mix of aspects in one version of the collection.

        Args:
            snapshot: The version.
            weights: Weight of each aspect.

        Returns:
            What stands in for the snapshot where vectors are compared.

        Raises:
            InputError: an unknown aspect, or a weight that is none.
            CollectionError: no aspect was learnt, or what was learnt can't be used.
        """
        heads = self.heads()
        if heads is None:
            raise CollectionError(
                f"collection {self._collection.name!r} has no aspects: make some with "
                f"`embedlab aspects {self._collection.name} --labels FILE`"
            )
        check_weights(weights, heads.heads)
        with self._guard:
            space = self._space
            if space is None or space.snapshot is not snapshot or space.heads is not heads:
                cache_bytes = self._collection.settings.cache_bytes
                space = self._space = AspectSpace(heads, snapshot, cache_bytes=cache_bytes, before=space)
        return space.mixed(weights)

    def keep(self, heads: Mapping[str, AspectHead], about: Mapping[str, Mapping[str, Any]]) -> None:
        """Store heads, beside those of other aspects and in place of those of the same; one step.

        What is there but damaged, or of another model, is replaced as a whole.

        Args:
            heads: Head of each aspect, on vectors of the collection's model.
            about: What is known of each, ready for JSON.

        Raises:
            CollectionError: another process is writing.
            InputError: the heads are for vectors of another width.
        """
        with self._place.writing():
            before = self.heads() if self._readable() else None
            merged = {**(before.heads if before else {}), **heads}
            known = {**(before.about if before else {}), **about}
            found = AspectHeads(
                merged, self._collection.vector_fingerprint, {name: known.get(name, {}) for name in merged}
            )
            if found.dim != self._collection.dim:
                raise InputError(f"heads are for {found.dim}-d vectors, the collection's have {self._collection.dim}")
            write_heads(self._place, found)

    def remove(self, names: Iterable[str] | None = None) -> int:
        """Forget aspects.

        Args:
            names: Their names; None forgets all, also where their file is damaged or of another model.

        Returns:
            How many were forgotten.

        Raises:
            InputError: there is no such aspect.
        """
        with self._place.writing():
            if names is None:
                had = heads_stamp(self._place) is not None
                count = len(self.names) if had and self._readable() else int(had)
                if had:
                    write_heads(self._place, None)
                return count
            wanted = set(names)
            for name in wanted - set(self.names):
                raise unknown_name("aspect", name, self.names)
            heads = self.heads()
            if heads is None or not wanted:
                return 0
            left = {name: head for name, head in heads.heads.items() if name not in wanted}
            about = {name: heads.about.get(name, {}) for name in left}
            write_heads(self._place, AspectHeads(left, heads.fingerprint, about) if left else None)
            return len(wanted)

    def _readable(self) -> bool:
        try:
            self.heads()
        except CollectionError:
            return False
        return True
