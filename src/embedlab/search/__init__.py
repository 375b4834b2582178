"""Collections: index documents incrementally, search them by words and by meaning, on LanceDB."""

from embedlab.search.catalog import list_collections, remove_collection
from embedlab.search.collection import Collection
from embedlab.search.doctor import doctor
from embedlab.search.records import (
    AddReport,
    CollectionInfo,
    DocumentInfo,
    Failure,
    Finding,
    Hit,
    IndexReport,
    PassageInfo,
    Progress,
    Settings,
)

__all__ = [
    "AddReport",
    "Collection",
    "CollectionInfo",
    "DocumentInfo",
    "Failure",
    "Finding",
    "Hit",
    "IndexReport",
    "PassageInfo",
    "Progress",
    "Settings",
    "doctor",
    "list_collections",
    "remove_collection",
]
