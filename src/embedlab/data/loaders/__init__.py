"""Data sets for measuring, from the ``EMBEDLAB_DATA`` folder or any folder in BEIR's form; nothing is fetched."""

from embedlab.data.datasets import BitextData, LabelData, Package, PairData, RetrievalData, Text
from embedlab.data.loaders.beir import load_beir
from embedlab.data.loaders.entities import ENTITY_SETS, AspectPaper, Tagged, load_entities, load_scirex
from embedlab.data.loaders.finance import ReportTable, load_phrasebank, load_tatqa, load_tatqa_tables
from embedlab.data.loaders.functions import Function, load_stdlib_functions
from embedlab.data.loaders.labels import LABEL_SETS, LabelSet, load_banking77, load_labels
from embedlab.data.loaders.opening import csv_rows, data_file, open_text
from embedlab.data.loaders.packages import STDLIB_EXCLUDE, load_debian_packages, stdlib_folder
from embedlab.data.loaders.pairs import (
    PAIR_SETS,
    TATOEBA_LANGUAGES,
    PairSet,
    load_pairs,
    load_sick,
    load_stsb,
    load_tatoeba,
)
from embedlab.data.loaders.records import (
    Occupation,
    Problem,
    TextGraph,
    load_emoji_names,
    load_humaneval,
    load_onet,
    load_qmsum,
    load_text_graph,
)
from embedlab.data.loaders.retrieval import load_cacm, load_cranfield, load_scifact
from embedlab.data.loaders.tables import (
    Schema,
    load_chinook,
    load_openflights,
    load_sp500,
    load_spider_schemas,
    load_wikitablequestions,
)
from embedlab.data.loaders.texts import TEXT_SETS, TextSet, load_texts
from embedlab.data.loaders.treebank import Tree, load_ewt, read_conllu

__all__ = [
    "ENTITY_SETS",
    "LABEL_SETS",
    "PAIR_SETS",
    "STDLIB_EXCLUDE",
    "TATOEBA_LANGUAGES",
    "TEXT_SETS",
    "AspectPaper",
    "BitextData",
    "Function",
    "LabelData",
    "LabelSet",
    "Occupation",
    "Package",
    "PairData",
    "PairSet",
    "Problem",
    "ReportTable",
    "RetrievalData",
    "Schema",
    "Tagged",
    "Text",
    "TextGraph",
    "TextSet",
    "Tree",
    "csv_rows",
    "data_file",
    "load_banking77",
    "load_beir",
    "load_cacm",
    "load_chinook",
    "load_cranfield",
    "load_debian_packages",
    "load_emoji_names",
    "load_entities",
    "load_ewt",
    "load_humaneval",
    "load_labels",
    "load_onet",
    "load_openflights",
    "load_pairs",
    "load_phrasebank",
    "load_qmsum",
    "load_scifact",
    "load_scirex",
    "load_sick",
    "load_sp500",
    "load_spider_schemas",
    "load_stdlib_functions",
    "load_stsb",
    "load_tatoeba",
    "load_tatqa",
    "load_tatqa_tables",
    "load_text_graph",
    "load_texts",
    "load_wikitablequestions",
    "open_text",
    "read_conllu",
    "stdlib_folder",
]
