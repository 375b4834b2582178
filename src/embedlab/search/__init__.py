"""Collections: index documents incrementally, search them by words and by meaning, on LanceDB."""

from embedlab.search.catalog import list_collections, remove_collection
from embedlab.search.collection import Collection
from embedlab.search.compression.compressing import compress_collection, undo_compression
from embedlab.search.compression.reports import CompressionReport, Form, UndoReport, UpgradeReport
from embedlab.search.compression.upgrading import upgrade_collection
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
    "CompressionReport",
    "DocumentInfo",
    "Failure",
    "Finding",
    "Form",
    "Hit",
    "IndexReport",
    "PassageInfo",
    "Progress",
    "Settings",
    "UndoReport",
    "UpgradeReport",
    "compress_collection",
    "doctor",
    "list_collections",
    "remove_collection",
    "undo_compression",
    "upgrade_collection",
]
