"""What every method promises, whatever its kind: a complete record, documentation that fits the code, an example."""

from __future__ import annotations

import doctest
import re
import sys

import pytest

from embedlab._core.anatomy import public_faces
from embedlab._core.errors import MissingDataError
from embedlab._core.registry import EXTRAS, MethodRecord, methods
from embedlab._core.reproduce import load_reproduction, measure
from embedlab.testing import contracts
from embedlab.testing.contract import no_network, random_state_kept

ALL = list(methods().values())
each_method = pytest.mark.parametrize("record", ALL, ids=[record.name for record in ALL])

# Kinds whose objects take or give arrays, and therefore have to say of which shape.
SHAPED = {"loss", "module", "table", "codec", "embedder", "probe"}


@each_method
def test_the_record_is_complete(record: MethodRecord) -> None:
    texts = [record.title, record.authors, record.source, *record.deviations, *record.known_failures]
    assert "?" not in [text.strip() for text in texts], "METHOD still holds a '?' where a text belongs"
    if "arXiv" in record.source:
        assert re.search(r"arXiv:\d{4}\.\d{4,5}v\d+", record.source), f"{record.source!r} lacks the arXiv version (vN)"
    if record.official_code:
        shape = r"[\w.-]+/[\w.-]+(, [\w /.-]+)? \(.+\)"
        assert re.fullmatch(shape, record.official_code), "official_code must read 'owner/name (licence)'"
    assert set(record.extras) <= set(EXTRAS)
    assert len(set(record.kinds.values())) == len(record.kinds), "one object per kind"


@each_method
def test_the_module_offers_what_the_record_names(record: MethodRecord) -> None:
    module = record.load()
    for kind, public in record.kinds.items():
        assert hasattr(module, public), f"METHOD names {public!r} for {kind}, which {record.module} does not have"
    assert callable(getattr(module, "example", None)), "the module lacks example(seed=0)"


@each_method
def test_the_documentation_is_complete(record: MethodRecord) -> None:
    faces = public_faces(*record.sources())
    for kind, public in record.kinds.items():
        face = faces[public]
        sections = face.sections()
        needed = {"Raises", "Example", "References"}
        needed |= {"Args"} if face.parameters else set()
        needed |= {"Shape"} if kind in SHAPED else set()
        needed |= set() if face.is_class else {"Returns"}
        assert needed <= set(sections), f"the docstring of {public} lacks {', '.join(sorted(needed - set(sections)))}"
        assert not [name for name, text in sections.items() if text.strip() in ("", "?")], f"{public}: empty section"
        assert re.search(r"\d{4}\.\d{4,5}v\d+|doi|ISBN", sections["References"]), f"{public}: References lack a version"


@each_method
def test_every_argument_is_explained(record: MethodRecord) -> None:
    for face in public_faces(*record.sources()).values():
        assert face.docstring, f"{face.name} (line {face.line}) has no docstring"
        inner = face.is_class and face.name not in record.kinds.values()  # made by the module, not by its caller
        if face.documented() or not inner:
            assert face.documented() == face.parameters, f"the docstring of {face.name} explains other arguments"


@each_method
def test_the_examples_in_the_documentation_run(record: MethodRecord) -> None:
    module = record.load()
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    found = []
    for public in dict.fromkeys((*record.kinds.values(), *getattr(module, "__all__", ()))):
        item = getattr(module, public)
        home = sys.modules.get(getattr(item, "__module__", record.module), module)
        found += finder.find(item, public, module=home, globs=vars(home).copy())
    shown = {test.name for test in found if test.examples}
    assert set(record.kinds.values()) <= shown, "an object named in METHOD has no runnable example"
    report: list[str] = []
    with no_network():
        for test in found:
            runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


@each_method
def test_the_example_is_ready(record: MethodRecord) -> None:
    make = record.load().example
    make(0)  # first use may import packages that draw from the global random state
    with no_network(), random_state_kept("example()"):
        examples = make(0)
    assert examples.keys() == record.kinds.keys(), "example() must give one example per kind in METHOD"
    for kind, given in examples.items():
        wanted = contracts()[kind].example
        assert isinstance(given, wanted), f"example()[{kind!r}] is a {type(given).__name__}, not a {wanted.__name__}"


@each_method
def test_the_reproduction_is_in_shape(record: MethodRecord) -> None:
    reproduction = load_reproduction(record)
    for word in ("Small here", "Falsified if"):
        assert word in reproduction.words, f"the docstring of {reproduction.path.name} lacks '{word}: ...'"
    for claim in reproduction.claims:
        assert "?" not in (claim.id, claim.words), f"claim {claim.id!r} is not written yet"


@each_method
def test_the_oracle_agrees(record: MethodRecord) -> None:
    with no_network():
        load_reproduction(record).oracle()


@each_method
@pytest.mark.timeout(120)
def test_a_smoke_run_gives_every_number(record: MethodRecord) -> None:
    reproduction = load_reproduction(record)
    try:
        with no_network():
            done = measure(reproduction, 0, "smoke")
    except MissingDataError as error:
        pytest.skip(str(error))
    assert done["numbers"]
