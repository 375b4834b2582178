"""Each property on tables where the answer is known, with both controls, and on tables that have no answer."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.testing.tiny import tiny_encoder
from embedlab.understand.observatory import (
    PROPERTIES,
    CellMeanEncoder,
    PropertyResult,
    SentenceColumnEncoder,
    Table,
    TableEncoder,
    as_table,
    characterize,
    column_order,
    entity_stability,
    functional_dependencies,
    heterogeneous_context,
    join_discovery,
    join_relationship,
    measure_over_tables,
    noise_floor,
    perturbation_robustness,
    random_weights,
    register_property,
    row_order,
    sample_fidelity,
)
from embedlab.understand.observatory.headers import synonym
from embedlab.understand.observatory.invariance import distinct_orders

_NAMES = "oslo rome lima bern paris cairo delhi tokyo quito accra hanoi minsk riga sofia tunis dakar lagos kyiv"
WORDS = _NAMES.split(" ")
LANDS = ["norway", "italy", "peru", "france"]
TOWNS = as_table(
    {
        "BillingCity": [WORDS[i % 18] for i in range(30)],
        "Country": [LANDS[(i % 18) % 4] for i in range(30)],  # decided by the city
        "people": [(7 * i) % 13 for i in range(30)],
    },
    name="towns",
)
FIRMS = as_table(
    {"HomeCity": WORDS[:12], "firm name": [f"{w} steel" for w in WORDS[6:]], "founded": list(range(1900, 1912))},
    name="firms",
)


class Numbered:
    """Embeds the object with number n of the original table as a vector that only the order could spoil."""

    name = "numbered"

    def num_rows_that_fit(self, tables, *, level):
        return min(table.num_rows for table in tables)

    def embed(self, tables, *, level):
        """Column j by what its first letters are, row i by its last cell: content, not place."""
        if level == "row":
            return [np.array([[1.0, float(c or 0), 3.0] for c in table.columns[-1]]) for table in tables]
        return [np.array([[1.0, len(h), ord(h[0]) / 50] for h in table.header]) for table in tables]


@pytest.fixture(scope="module")
def default():
    return SentenceColumnEncoder(load_model())


@pytest.fixture(scope="module")
def transformer():
    pytest.importorskip("torch")
    words = [*WORDS, *LANDS, "billingcity country people homecity firm name steel founded", *map(str, range(2000))]
    host = tiny_encoder(words, max_length=256)
    return TableEncoder(host[0].auto_model, host.tokenizer, 256, name="tiny")


def test_permutations_are_distinct_and_all_of_them_if_few():
    rng = np.random.default_rng(0)
    assert distinct_orders(1, 10, rng) == []
    assert sorted(tuple(o) for o in distinct_orders(3, 10, rng)) == [
        (0, 2, 1),
        (1, 0, 2),
        (1, 2, 0),
        (2, 0, 1),
        (2, 1, 0),
    ]
    many = [tuple(o) for o in distinct_orders(30, 50, rng)]
    assert len(set(many)) == 50
    assert tuple(range(30)) not in many
    assert all(sorted(order) == list(range(30)) for order in many)  # all 30 rows, not as many as there are columns
    assert any(set(order[:3]) - set(range(3)) for order in many)
    assert len(distinct_orders(5, 118, rng)) == 118
    assert len(distinct_orders(5, 1000, rng)) == 119


@pytest.mark.parametrize(("measure", "level"), [(row_order, "column"), (row_order, "row"), (column_order, "column")])
def test_objects_are_brought_back_to_their_places(measure, level):
    """An encoder that looks at content alone scores 1 only if every object is compared with itself."""
    result = measure(Numbered(), [TOWNS], level=level, num_permutations=20)
    assert result["cosine"] == 1.0
    assert result["mcv"] == 0.0
    assert len(result.measures["mcv"].values) == (30 if level == "row" else 3)


@pytest.mark.parametrize("level", ["column", "row", "table", "cell"])
def test_the_positive_control_is_perfect(level):
    control = CellMeanEncoder(load_model())
    for measure in (row_order, column_order):
        result = measure(control, [TOWNS, FIRMS], level=level, num_permutations=10)
        assert (result.measures["cosine"].values == 1.0).all()
        assert (result.measures["mcv"].values == 0.0).all()


def test_the_negative_control_depends_on_columns(transformer):
    blank = TableEncoder(random_weights(transformer.model), transformer.tokenizer, 256)
    result = column_order(blank, [TOWNS, FIRMS], num_permutations=5)
    assert result["cosine"] < 0.999
    assert result["mcv"] > 0.01
    assert column_order(transformer, [TOWNS], num_permutations=5)["cosine"] < 1


def test_the_same_table_again_is_the_noise_floor(transformer):
    result = noise_floor(transformer, [TOWNS, FIRMS])
    assert result["cosine"] == pytest.approx(1, abs=1e-9)
    assert result["mcv"] < 1e-5


def test_values_are_those_of_a_loop(transformer):
    table = TOWNS.head(3)
    result = row_order(transformer, [table], num_permutations=100)  # all 5 others
    orders = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    first = transformer.columns(table)
    others = np.stack([transformer.columns(table.take_rows(order)) for order in orders])
    for j in range(3):
        near = [v @ first[j] / np.linalg.norm(v) / np.linalg.norm(first[j]) for v in others[:, j]]
        every = np.vstack([first[j], others[:, j]])
        centre = every.mean(axis=0)
        spread = math.sqrt(centre @ np.cov(every, rowvar=False) @ centre) / (centre @ centre)
        assert result.measures["cosine"].values[j] == pytest.approx(np.mean(near), abs=1e-6)
        assert result.measures["mcv"].values[j] == pytest.approx(spread, rel=1e-3)
    assert result["mcv"] == pytest.approx(result.measures["mcv"].values.mean())


def test_means_are_over_tables(default):
    measure = measure_over_tables([1.0, 1.0, 1.0, 0.0], list("abcd"), ["t", "t", "t", "u"])
    assert measure.interval.estimate == 0.5
    alone = measure_over_tables([1.0, 0.0, 0.5], list("abc"), ["t"] * 3)
    assert alone.interval.low < 0.5 < alone.interval.high
    with pytest.raises(InputError, match="nothing could be measured"):
        measure_over_tables([], [], [])


def test_larger_samples_are_nearer_to_the_whole(default, transformer):
    result = sample_fidelity(default, [TOWNS, FIRMS], num_samples=10)
    cosines = [result[f"cosine_{ratio}"] for ratio in ("0.25", "0.5", "0.75")]
    assert cosines == sorted(cosines)
    assert cosines[-1] < 1
    assert sample_fidelity(transformer, [TOWNS], num_samples=3)["mcv_0.5"] > 0
    few = sample_fidelity(default, [TOWNS.head(4)], ratios=[0.5], num_samples=1000)
    assert len(few.measures["cosine_0.5"].values) == 3
    with pytest.raises(InputError, match="ratios"):
        sample_fidelity(default, [TOWNS], ratios=[1.0])


def test_overlap_is_followed_by_an_encoder_that_sees_words(default):
    result = join_relationship(default, [TOWNS, FIRMS], num_values=6, num_repeats=3)
    assert result["multiset_jaccard"] > 0.5
    assert result["multiset_jaccard"] >= result["jaccard"]
    assert result.measures["jaccard"].interval.low < result["jaccard"] < result.measures["jaccard"].interval.high
    assert result.details["pairs"] == 7 * 3 * result.details["sources"]
    assert result.details["raw_pairs"] > 0
    numbers = as_table({"n": [1, 2, 3]})
    with pytest.raises(InputError, match="join_relationship"):
        join_relationship(default, [numbers])


def test_joinable_columns_are_found_by_search(default):
    result = join_discovery(default, [TOWNS, FIRMS], top_k=(1, 3))
    assert result["recall_1"] == 1.0  # BillingCity ~ HomeCity
    assert result.details["chance_1"] == pytest.approx(1 / 3)
    with pytest.raises(InputError, match="join_discovery"):
        join_discovery(default, [TOWNS])
    with pytest.raises(InputError, match="top_k"):
        join_discovery(default, [TOWNS, FIRMS], top_k=[0])


def test_an_encoder_without_context_reflects_dependencies_by_nature(default):
    result = functional_dependencies(default, [TOWNS])
    assert result["fd_variance"] < 1e-12 < result["non_fd_variance"]
    assert result.details["fds"] == 1
    assert "no step can vary" in result.notes[0]
    assert result.measures["fd_variance"].objects == ("towns.BillingCity -> Country",)


def test_variances_of_dependencies_are_those_of_a_loop(transformer):
    result = functional_dependencies(transformer, [TOWNS], window=1)
    groups: dict[tuple[str, str], list[float]] = {}
    for i in range(30):
        around = range(max(0, i - 1), min(30, i + 2))
        cells = transformer.cells(TOWNS.take_rows(around))[i - around.start + 1]
        key = (TOWNS.columns[0][i], TOWNS.columns[1][i])
        groups.setdefault(key, []).append(float(np.linalg.norm(cells[0] - cells[1])))
    expected = np.mean([np.var(g, ddof=1) for g in groups.values() if len(g) > 1])
    assert result["fd_variance"] == pytest.approx(expected, rel=1e-4)
    # a town, and how many live there, which differs from row to row: with both values fixed, less varies
    assert 0 < result["same_values_variance"] < result["non_fd_variance"]
    assert result.details["same_values_pvalue"] >= result.details["pvalue"]
    assert 0 < result.details["pvalue"] <= 1
    with pytest.raises(InputError, match="no functional dependency"):
        functional_dependencies(transformer, [FIRMS])


def test_an_encoder_agrees_with_itself_on_neighbours(default):
    class Renamed(SentenceColumnEncoder):
        pass

    twin = Renamed(load_model(), name="twin")
    result = entity_stability(default, [TOWNS, FIRMS], others=[twin], top_k=(3, 5))
    assert result["overlap_3"] == result["entity_overlap_5"] == 1.0
    assert result.details["cells"] == 30 + 30 + 12 + 12
    matrix = entity_stability(default, [TOWNS], others=[twin, CellMeanEncoder(load_model())], top_k=[2])
    assert {name.split(" ", 1)[1] for name in matrix.measures} == {
        "[default | twin]",
        "[default | mean of cells]",
        "[twin | mean of cells]",
    }
    with pytest.raises(InputError, match="not 'default' itself"):
        entity_stability(default, [TOWNS])
    with pytest.raises(InputError, match="only 12 cells"):
        entity_stability(default, [FIRMS.take_columns([0])], others=[twin], top_k=[12])


def test_only_changed_columns_count_when_headers_are_reworded(default):
    result = perturbation_robustness(
        default, [TOWNS, FIRMS], perturbations=["abbreviation", lambda header: synonym(header, words={"city": "town"})]
    )
    assert result.details == {"changed_abbreviation": 6, "changed_<lambda>": 2}
    assert result["cosine_abbreviation"] < 1
    assert result.measures["cosine_<lambda>"].objects == (
        "towns.BillingCity -> BillingTown",
        "firms.HomeCity -> HomeTown",
    )
    with pytest.raises(InputError, match="perturbation_robustness"):
        perturbation_robustness(default, [TOWNS], perturbations=[str])
    with pytest.raises(InputError, match="did you mean 'synonym'"):
        perturbation_robustness(default, [TOWNS], perturbations=["synonyms"])


def test_types_are_pure_where_columns_have_nothing_in_common(default):
    pytest.importorskip("sklearn")
    result = heterogeneous_context(default, [TOWNS, FIRMS], num_instances=4)
    assert result["purity_alone_text"] > result.details["chance_text"]
    assert result["cosine_table_text"] == 1.0  # without context, context changes nothing
    given = heterogeneous_context(default, [TOWNS], types={("towns", 0): "place", ("towns", 1): "land"})
    assert given.details["types_text"] == 2
    assert not any(name.endswith("other") for name in given.measures)
    with pytest.raises(InputError, match="heterogeneous_context"):
        heterogeneous_context(default, [TOWNS], types={})


def test_all_properties_for_a_transformer_and_a_sentence_encoder(default, transformer):
    pytest.importorskip("sklearn")
    options = {"join_relationship": {"num_values": 4, "num_repeats": 1}, "entity_stability": {"top_k": [3]}}
    for encoder, missing in ((transformer, set()), (default, {"entity_stability"})):
        report = characterize(encoder, [TOWNS, FIRMS], num_variants=3, options=options)
        assert set(report.results) == set(PROPERTIES) - missing
        assert set(report.failed) == missing
        json.dumps(report.to_dict(), allow_nan=False)
        again = characterize(encoder, [TOWNS, FIRMS], num_variants=3, options=options)
        assert again.to_dict() == report.to_dict()
    assert list(report.results)[:2] == ["row_order", "column_order"]


def test_orders_are_compared_at_every_level_asked_for(transformer):
    options = {"properties": ["row_order", "sample_fidelity"], "num_variants": 2}
    report = characterize(transformer, [TOWNS], levels=["column", "row", "table"], **options)
    assert list(report.results) == ["row_order", "row_order_row", "row_order_table", "sample_fidelity"]
    assert len(report.results["row_order_table"].measures["mcv"].values) == 1
    assert report.results["row_order_row"].level == "row"
    for levels, says in ((["rows"], "did you mean 'row'"), ([], "at least one")):
        with pytest.raises(InputError, match=says):
            characterize(transformer, [TOWNS], levels=levels, **options)


def test_frames_are_taken_by_each_property(default):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(dict(zip(TOWNS.header, TOWNS.columns, strict=True)))
    by_frame = sample_fidelity(default, {"towns": frame}, num_samples=3)
    assert by_frame.to_dict() == sample_fidelity(default, [TOWNS], num_samples=3).to_dict()


def test_odd_tables_are_named_with_the_reason(default, transformer):
    wide = Table("wide", ("people",) * 200, (("1", "2", "3", "4"),) * 200)
    odd = [
        Table("nothing", (), ()),
        Table("no rows", ("a",), ((),)),
        Table("one row", ("a", "b"), (("oslo",), ("peru",))),
        Table("one column", ("a",), (("oslo", "rome", "lima", "bern"),)),
        Table("blank", ("", ""), (("", "", "", ""),) * 2),
        Table("constant", ("a", "a"), (("oslo",) * 4,) * 2),
        wide,
    ]
    for encoder in (default, transformer):
        report = characterize(encoder, [*odd, TOWNS], num_variants=2, properties=["row_order", "column_order"])
        assert "fewer than 2 rows" in report.results["row_order"].skipped["one row"]
        assert report.results["column_order"].skipped["one column"] == "it has one column"
        assert {"nothing", "no rows"} <= set(report.results["row_order"].skipped)
    assert "headers alone take" in report.results["row_order"].skipped["wide"]
    everything = characterize(default, odd, num_variants=2)
    assert everything.results["row_order"]["cosine"] <= 1
    assert all(everything.failed.values())
    with pytest.raises(InputError, match="no table"):
        characterize(default, [])


def test_a_ninth_property_needs_no_change_here(default):
    @register_property("width")
    def width(encoder, tables, *, seed):
        values = [float(table.num_columns) for table in tables]
        names = [table.name for table in tables]
        return PropertyResult("width", encoder.name, "table", {"columns": measure_over_tables(values, names, names)})

    try:
        report = characterize(default, [TOWNS, FIRMS], properties=["width", "row_order"], num_variants=2)
        assert report.results["width"]["columns"] == 3
        assert "width" in report.to_html()
        with pytest.raises(InputError, match="taken"):
            register_property("width")
    finally:
        del PROPERTIES["width"]
    with pytest.raises(InputError, match="did you mean 'row_order'"):
        characterize(default, [TOWNS], properties=["row_orders"])
    with pytest.raises(InputError, match="unknown property"):
        characterize(default, [TOWNS], options={"width": {}})


def test_the_page_is_whole_and_escaped(default, tmp_path):
    pytest.importorskip("matplotlib")
    hostile = as_table({"<script>alert(1)</script>": WORDS[:8], "b & c": WORDS[8:16]}, name="<img src=x>")
    report = characterize(default, [hostile, TOWNS], properties=["sample_fidelity", "row_order"], num_variants=3)
    page = report.to_html()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    assert report.to_html() == page
    figure = report.results["sample_fidelity"].plot(reference=report.reference)
    assert [len(axes.get_yticks()) for axes in figure.axes] == [3, 3]  # cosines and spreads, three ratios each
    written = report.write(tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["report.json", "report.html"]
    assert json.loads(written[0].read_text())["encoder"] == "default"


def test_columns_that_are_one_vector_are_told():
    class Narrow(Numbered):
        def embed(self, tables, *, level):
            return [np.tile([1.0, 2.0, 3.0], (table.num_columns, 1)) for table in tables]

    report = characterize(Narrow(), [TOWNS], properties=["row_order"], num_variants=2)
    assert any("almost the same embedding" in remark for remark in report.remarks())
    assert report.reference_quantiles()["median"] == pytest.approx(1)
