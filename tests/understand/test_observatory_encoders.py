"""Embeddings of columns, rows and cells are the hidden states they should be, whatever the company and the order."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab._core.errors import InputError
from embedlab.models import load_model
from embedlab.testing.tiny import tiny_encoder
from embedlab.understand.observatory import (
    LEVELS,
    CellMeanEncoder,
    SentenceColumnEncoder,
    Serialisation,
    Table,
    TableEncoder,
    load_table_encoder,
    random_weights,
    register_level,
    serialise,
)

torch = pytest.importorskip("torch")

TABLE = Table("cities", ("city", "big country"), (("Oslo", "New York", ""), ("Norway", "USA", "Peru")))
WORDS = ["city big country oslo new york norway usa peru one two three four five six seven"]


@pytest.fixture(scope="module")
def host():
    return tiny_encoder(WORDS, max_length=256)


@pytest.fixture(scope="module")
def encoder(host):
    return TableEncoder(host[0].auto_model, host.tokenizer, 64)


def states(host, text):
    """Last hidden states of a text whose special tokens are written out."""
    ids = host.tokenizer(text, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        return host.tokenizer.convert_ids_to_tokens(ids["input_ids"][0]), host[0].auto_model(**ids)[0][0].numpy()


def close(got, expected):
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_columns_are_the_states_at_their_marks(host, encoder):
    tokens, hidden = states(host, "[CLS] city oslo new york [CLS] big country norway usa peru [SEP]")
    marks = [i for i, token in enumerate(tokens) if token == "[CLS]"]
    assert marks == [0, 5]
    close(encoder.columns(TABLE), hidden[marks])


def test_rows_and_the_table_are_the_states_at_theirs(host, encoder):
    text = "[CLS] city oslo big country norway [CLS] city new york big country usa [CLS] city big country peru [SEP]"
    tokens, hidden = states(host, text)
    close(encoder.rows(TABLE), hidden[[i for i, token in enumerate(tokens) if token == "[CLS]"]])
    _, hidden = states(host, "[CLS] city oslo new york big country norway usa peru [SEP]")
    close(encoder.table(TABLE), hidden[0])


def test_a_cell_is_the_mean_of_its_tokens(host, encoder):
    _, hidden = states(host, "[CLS] city oslo new york [CLS] big country norway usa peru [SEP]")
    cells = encoder.cells(TABLE)
    assert cells.shape == (4, 2, 32)
    close(cells[0, 0], hidden[1])
    close(cells[0, 1], hidden[6:8].mean(axis=0))
    close(cells[2, 0], hidden[3:5].mean(axis=0))
    close(cells[3, 1], hidden[10])
    assert np.isnan(cells[3, 0]).all()
    assert np.isfinite(cells[:3]).all()


def test_columns_as_means_leave_the_marks_out(host):
    _, hidden = states(host, "[CLS] city oslo new york [CLS] big country norway usa peru [SEP]")
    encoder = TableEncoder(host[0].auto_model, host.tokenizer, 64, pooling="mean")
    close(encoder.columns(TABLE), [hidden[1:5].mean(axis=0), hidden[6:11].mean(axis=0)])


def test_company_in_a_batch_changes_nothing(encoder):
    long = Table("long", ("city",), (("one two three four five six seven",) * 4,))
    alone = encoder.embed([TABLE], level="column")[0]
    together = encoder.embed([long, TABLE, TABLE.head(1), long], level="column")
    close(together[1], alone)
    assert [each.shape[0] for each in together] == [1, 2, 2, 1]


def test_the_model_keeps_its_mode(host, encoder):
    host[0].auto_model.train()
    try:
        first, second = encoder.columns(TABLE), encoder.columns(TABLE)
        assert host[0].auto_model.training
    finally:
        host[0].auto_model.eval()
    assert (first == second).all()


def test_the_prefix_is_the_largest_that_fits(host):
    tall = Table("tall", ("city", "big country"), (tuple(["one"] * 40), tuple(["two three"] * 40)))
    for limit in (6, 9, 30, 64, 200):
        encoder = TableEncoder(host[0].auto_model, host.tokenizer, limit)
        rows = encoder.num_rows_that_fit([tall], level="column")
        # two marks, three tokens of headers and the end; then three tokens a row
        assert rows == min(40, (limit - 6) // 3)
        encoder.columns(tall.head(rows))
        if rows < 40:
            with pytest.raises(InputError, match="max_length"):
                encoder.columns(tall.head(rows + 1))
        turned = tall.take_columns([1, 0])
        assert encoder.num_rows_that_fit([tall, turned], level="column") == rows
    wider = tall.with_header(("city oslo new york", "big country"))
    encoder = TableEncoder(host[0].auto_model, host.tokenizer, 30)
    assert encoder.num_rows_that_fit([tall, wider], level="column") == 7
    assert encoder.num_rows_that_fit([], level="column") == 0


def test_too_many_columns_are_told(encoder):
    wide = Table("wide", ("city",) * 200, (("one",),) * 200)
    with pytest.raises(InputError, match="200 columns whose headers alone take 401 tokens"):
        encoder.num_rows_that_fit([wide], level="column")
    assert SentenceColumnEncoder(load_model()).columns(wide).shape == (200, 256)


@pytest.mark.parametrize(
    "table",
    [
        Table("nothing", (), ()),
        Table("no rows", ("city", "city"), ((), ())),
        Table("one row", ("city",), (("oslo",),)),
        Table("blank", ("", ""), (("", ""), ("", ""))),
    ],
    ids=lambda table: table.name,
)
@pytest.mark.parametrize("level", ["column", "row", "table", "cell"])
def test_odd_tables_give_as_many_rows_as_objects(encoder, table, level):
    default = load_model()
    expected = {"column": table.num_columns, "row": table.num_rows, "table": 1}
    count = expected.get(level, (table.num_rows + 1) * table.num_columns)
    for each in (encoder, SentenceColumnEncoder(default), CellMeanEncoder(default)):
        assert len(each.embed([table], level=level)[0]) == count
        assert each.num_rows_that_fit([table], level=level) == table.num_rows


def test_frames_are_taken_as_they_are(encoder):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"city": ["Oslo", "New York", None], "big country": ["Norway", "USA", "Peru"]})
    assert (encoder.columns(frame) == encoder.columns(TABLE)).all()
    assert (encoder.cells(frame)[:3] == encoder.cells(TABLE)[:3]).all()


def test_sentence_encoders_read_each_object_alone():
    model = load_model()
    encoder = SentenceColumnEncoder(model)
    close(encoder.columns(TABLE), model.encode_document(["city Oslo New York", "big country Norway USA Peru"]))
    close(encoder.rows(TABLE)[2], model.encode_document(["city big country Peru"])[0])
    assert np.isnan(encoder.cells(TABLE)[3, 0]).all()


def test_sentence_encoders_that_truncate_are_given_what_fits(host):
    class Truncating:
        name, dim = "tiny", 32

        def __init__(self):
            self.host = host

    encoder = SentenceColumnEncoder(Truncating(), max_length=10)
    tall = Table("tall", ("city",), (tuple(["one two"] * 30),))
    assert encoder.num_rows_that_fit([tall], level="column") == 3  # [CLS] city + 3 * 2 tokens + [SEP]
    assert encoder.num_rows_that_fit([tall], level="cell") == 30
    assert SentenceColumnEncoder(Truncating()).max_length == 256


def test_the_mean_of_cells_knows_no_order():
    rng = np.random.default_rng(0)
    columns = tuple(tuple(f"word {v}" for v in rng.integers(0, 9, size=30)) for _ in range(3))
    table, encoder = Table("t", ("a", "b", "c"), columns), CellMeanEncoder(load_model())
    turned = table.take_rows(rng.permutation(30).tolist())
    assert (encoder.columns(turned) == encoder.columns(table)).all()
    assert (encoder.table(turned.take_columns([2, 0, 1])) == encoder.table(table)).all()


def test_random_weights_leave_the_model_alone(host):
    body = host[0].auto_model
    before = {name: weight.clone() for name, weight in body.state_dict().items()}
    fresh = random_weights(body, seed=1)
    assert all(torch.equal(weight, before[name]) for name, weight in body.state_dict().items())
    again, other = random_weights(body, seed=1).state_dict(), random_weights(body, seed=2).state_dict()
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(fresh.state_dict()[name], again[name])
    assert not torch.equal(fresh.state_dict()[name], other[name])


def test_a_new_level_needs_no_change_here(encoder):
    @register_level("header")
    def headers(table):
        """Only the headers, one mark each."""
        pieces = [piece for j, title in enumerate(table.header) for piece in ((None, j), (title, j))]
        return Serialisation(tuple(pieces), table.num_columns, at_mark=True, follows="columns")

    try:
        assert serialise(TABLE, level="header").texts() == ["city", "big country"]
        assert encoder.embed([TABLE], level="header")[0].shape == (2, 32)
        with pytest.raises(InputError, match="taken"):
            register_level("header")
    finally:
        del LEVELS["header"]
    with pytest.raises(InputError, match="did you mean 'column'"):
        encoder.embed([TABLE], level="colum")


def test_models_are_opened_by_name(host, tmp_path):
    host.save(str(tmp_path / "tiny"))
    name = str(tmp_path / "tiny")
    opened = load_table_encoder(name)
    assert isinstance(opened, TableEncoder)
    assert (opened.max_length, opened.pooling) == (256, "mark")
    close(opened.columns(TABLE), TableEncoder(host[0].auto_model, host.tokenizer, 64).columns(TABLE))
    assert load_table_encoder(name, readout="mean").pooling == "mean"
    assert isinstance(load_table_encoder(name, readout="alone"), SentenceColumnEncoder)
    assert isinstance(load_table_encoder(), SentenceColumnEncoder)
    with pytest.raises(InputError, match="no transformer"):
        load_table_encoder(readout="mark")


def test_bad_options_are_refused(host):
    body, tokenizer = host[0].auto_model, host.tokenizer
    for options, says in (
        ({"max_length": 2}, "max_length=2"),
        ({"max_length": 300}, "256 positions"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"pooling": "max"}, "pooling='max'"),
    ):
        with pytest.raises(InputError, match=says):
            TableEncoder(body, tokenizer, **{"max_length": 64, **options})
    with pytest.raises(InputError, match="max_length=0"):
        SentenceColumnEncoder(load_model(), max_length=0)
