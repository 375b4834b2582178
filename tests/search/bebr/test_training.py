"""Training: the losses against loops, what each objective improves, and a start that is never made worse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from embedlab._core.errors import InputError  # noqa: E402
from embedlab.search.bebr import BebrCodec, RecurrentBinarizer, Training, compare  # noqa: E402
from embedlab.search.bebr.development import Development, reciprocal_ranks, surely_better  # noqa: E402
from embedlab.search.bebr.network import Network, sign  # noqa: E402
from embedlab.search.bebr.objectives import hard_contrast, kept_neighbours  # noqa: E402
from embedlab.search.bebr.recurrence import rotation_start, unit  # noqa: E402

Vectors = NDArray[np.float32]
SHORT = Training(steps=40, batch_size=128)


def pairs(num: int = 900, dim: int = 24, seed: int = 0, noise: float = 1.3) -> tuple[Vectors, Vectors]:
    """Pairs that agree in half of their directions, and are disturbed in the other, which is louder."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(num, dim // 2))
    turn = np.linalg.qr(np.random.default_rng(99).normal(size=(dim, dim)))[0]
    sides = [np.concatenate([meaning, noise * rng.normal(size=meaning.shape)], axis=1) for _ in range(2)]
    return tuple(unit(side @ turn).astype(np.float32) for side in sides)  # type: ignore[return-value]


def rank(scores: Vectors) -> float:
    return float(reciprocal_ranks(scores, np.arange(len(scores))).mean())


def test_contrast_is_the_loop_over_hardest_negatives() -> None:
    rng = np.random.default_rng(0)
    anchors, candidates = (unit(rng.normal(size=(size, 5))) for size in (6, 9))
    same = np.eye(6, 9, dtype=bool)
    same[2, 7] = True
    expected = []
    for i in range(6):
        scores = candidates @ anchors[i] / 0.1
        hardest = sorted((scores[j] for j in range(9) if not same[i, j]), reverse=True)[:3]
        expected.append(-np.log(np.exp(scores[i]) / (np.exp(scores[i]) + np.exp(hardest).sum())))
    found = hard_contrast(*map(torch.tensor, (anchors, candidates, same)), temperature=0.1, negatives=3)
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-9)


def test_distillation_is_the_divergence_of_neighbourhoods() -> None:
    rng = np.random.default_rng(0)
    rows, codes = (unit(rng.normal(size=(7, 5))) for _ in range(2))

    def share(vectors: NDArray[np.float64], i: int) -> NDArray[np.float64]:
        weights = np.exp([vectors[i] @ vectors[j] / 0.2 for j in range(7) if j != i])
        return weights / weights.sum()

    expected = np.mean([np.sum(share(rows, i) * np.log(share(rows, i) / share(codes, i))) for i in range(7)])
    found = kept_neighbours(torch.tensor(rows), torch.tensor(codes), temperature=0.2)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    assert float(kept_neighbours(torch.tensor(rows), torch.tensor(rows))) == pytest.approx(0, abs=1e-12)


def test_the_gradient_of_a_sign_passes_inside_one_and_is_a_new_tensor() -> None:
    rows = torch.tensor([-2.0, -1.0, 0.0, 0.5, 3.0], requires_grad=True)
    incoming = torch.arange(1.0, 6.0)
    signs = sign(rows)
    signs.backward(incoming)
    assert signs.tolist() == [-1, -1, 1, 1, 1]
    assert rows.grad is not None
    assert rows.grad.tolist() == [0, 2, 3, 4, 0]
    assert incoming.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("random", [False, True])
def test_the_network_folds_to_what_it_is_in_evaluation(random: bool) -> None:
    rows = pairs()[0]
    network = Network(rotation_start(rows, 16, 2), hidden=8, random=random)
    for _ in range(3):  # move the running statistics
        network(torch.tensor(rows[:100]) * 1.5)
    for each in network.modules():
        if isinstance(each, torch.nn.ParameterDict):
            torch.nn.init.normal_(each["outer"], std=0.1, generator=torch.Generator().manual_seed(0))
    _, sums = network.eval().sums(torch.tensor(rows))
    folded = network.recurrence()
    mine = (folded.codes(rows) * 2.0 - 7) / 4
    assert (np.abs(mine - sums.detach().numpy()) < 1e-6).mean() > 0.999
    again = Network(folded).eval().sums(torch.tensor(rows))[1].detach().numpy()
    assert (np.abs(mine - again) < 1e-6).mean() > 0.999


def test_new_hidden_units_change_nothing_at_first() -> None:
    rows = pairs()[0]
    start = rotation_start(rows, 24, 1)
    assert np.array_equal(Network(start, hidden=8).recurrence().codes(rows), start.codes(rows))


def test_pairs_raise_the_task_above_the_start_and_above_the_floats() -> None:
    known, fresh = pairs(), pairs(300, seed=7)
    start = RecurrentBinarizer(24, rounds=1, hidden=16).fit(known[1], training=Training(steps=0))
    trained = RecurrentBinarizer(24, rounds=1, hidden=16).fit(known[1], pairs=known, training=SHORT)
    ranks = [rank(each.encode(fresh[0]).score(each.encode(fresh[1]))) for each in (start, trained)]
    floats = rank(fresh[0] @ fresh[1].T)
    assert trained.report is not None
    assert trained.report.kept
    assert ranks[1] > max(ranks[0], floats) + 0.1
    losses = trained.report.losses
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_without_pairs_neighbourhoods_are_kept_or_the_start_is() -> None:
    rng = np.random.default_rng(0)
    loud = np.array([3.0] * 6 + [0.5] * 18)
    rows = unit(rng.normal(size=(1500, 24)) * loud).astype(np.float32)
    fresh = unit(rng.normal(size=(300, 24)) * loud).astype(np.float32)
    scores = {}
    for steps in (0, 60):
        codec = BebrCodec(24, bits=1, steps=steps).fit(rows)
        development = Development(fresh, rows, np.arange(300), itself=False)
        scores[steps] = development.judge(codec.binarizer.recurrence).fidelity.mean()  # type: ignore[arg-type]
    assert scores[60] >= scores[0]


def test_a_start_that_cannot_be_improved_is_kept() -> None:
    rows = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)
    start = BebrCodec(16, bits=4, steps=0).fit(rows)
    harmed = RecurrentBinarizer(16, rounds=3, hidden=0).fit(rows, training=Training(steps=6, learning_rate=50.0))
    assert harmed.report is not None
    assert not harmed.report.kept
    assert np.array_equal(harmed.encode(rows).pack(), start.encode(rows))


def test_too_little_to_judge_by_leaves_the_start() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 16))
    codec = BebrCodec(16).fit(rows, pairs=(rows, rows))
    assert codec.report is None
    assert np.array_equal(codec.encode(rows), BebrCodec(16, steps=0).fit(rows).encode(rows))


def test_better_means_by_more_than_chance() -> None:
    start = np.full(100, 0.5)
    noise = np.random.default_rng(0).normal(size=100)
    noise -= noise.mean()
    assert surely_better(start + 0.01, start)
    assert not surely_better(start + 0.01 + noise, start)
    assert not surely_better(start, start)


def test_new_queries_find_old_codes_and_strangers_do_not() -> None:
    known, fresh = pairs(noise=0.7), pairs(200, seed=7, noise=0.7)
    third = tuple(side[:450] for side in known)
    old = RecurrentBinarizer(24, code_dim=16, rounds=0, hidden=8, seed=5)
    old.fit(third[1], pairs=third, training=Training(steps=10, batch_size=128))
    index = old.encode(fresh[1])
    new = RecurrentBinarizer(24, rounds=1, hidden=8).fit(known[1], pairs=known, old=old, training=SHORT)
    apart = RecurrentBinarizer(24, rounds=1, hidden=8).fit(known[1], pairs=known, training=SHORT)
    before, after = rank(old.encode(fresh[0]).score(index)), rank(new.encode(fresh[0]).score(index))
    assert after >= before
    assert rank(apart.encode(fresh[0]).score(index)) < 0.1 < before
    assert rank(compare(new.floats(fresh[0]), index)) >= before
    given = RecurrentBinarizer(24, hidden=8).fit(known[1], pairs=known, old=old.encode(known[1]), training=SHORT)
    assert np.array_equal(given.encode(fresh[0]).codes, new.encode(fresh[0]).codes)


def test_codes_of_old_and_new_codecs_lie_in_one_index() -> None:
    known, fresh = pairs(), pairs(200, seed=7)
    old = BebrCodec(24, bits=2, steps=0, seed=3).fit(known[1])
    new = BebrCodec(24, bits=2, steps=30, hidden=8).fit(known[1], pairs=known, old=old)
    mixed = np.concatenate([old.encode(fresh[1][:100]), new.encode(fresh[1][100:])])
    scores = new.score(fresh[0], mixed)
    assert rank(scores) > rank(old.score(fresh[0], old.encode(fresh[1]))) - 0.02
    rows = new.scanner(mixed).search(fresh[0], 1)[1]
    np.testing.assert_allclose(np.take_along_axis(scores, rows, axis=1)[:, 0], scores.max(axis=1), atol=1e-5)


def test_a_queue_and_ids_change_what_is_a_negative() -> None:
    known = pairs(400)
    plain, queued, grouped = (
        RecurrentBinarizer(24, hidden=0).fit(known[1], pairs=known, ids=ids, training=training)
        for training, ids in (
            (Training(steps=4, batch_size=64), None),
            (Training(steps=4, batch_size=64, queue=256), None),
            (Training(steps=4, batch_size=64), np.arange(400) // 4),
        )
    )
    losses = [each.report.losses for each in (plain, queued, grouped)]  # type: ignore[union-attr]
    assert losses[1][0] == losses[0][0]  # the queue is empty at first
    assert losses[1][-1] > losses[0][-1]  # and then brings harder negatives
    assert losses[2] != losses[0]


def test_the_float_reference_is_trained_without_signs() -> None:
    known, fresh = pairs(), pairs(300, seed=7)
    made = RecurrentBinarizer(24, rounds=0, hidden=16)
    made.fit(known[1], pairs=known, training=Training(steps=40, batch_size=128, signs=False))
    floats = rank(made.floats(fresh[0]) @ made.floats(fresh[1]).T)
    assert floats > rank(made.encode(fresh[0]).score(made.encode(fresh[1])))
    assert floats > rank(fresh[0] @ fresh[1].T)


def test_progress_is_told_and_a_budget_ends_training() -> None:
    told: list[float] = []
    codec = BebrCodec(24, steps=12).fit(pairs()[1], on_progress=told.append)
    assert told == sorted(told)
    assert all(0 <= share <= 1 for share in told)
    assert codec.report is not None
    assert codec.report.steps == 12
    hurried = BebrCodec(24, steps=100_000, budget_s=0.3).fit(pairs()[1])
    assert hurried.report is not None
    assert hurried.report.steps < 100_000


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"slowness": 1.5}, "slowness"),
        ({"steps": -1}, "steps"),
        ({"budget_s": 0.0}, "budget_s"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Training(**settings)  # type: ignore[arg-type]


def test_old_codes_must_fit() -> None:
    known = pairs(100)
    old = RecurrentBinarizer(24, code_dim=24).fit(known[1], training=Training(steps=0))
    with pytest.raises(InputError, match="old needs pairs"):
        RecurrentBinarizer(24).fit(known[1], old=old)
    with pytest.raises(InputError, match="do not fit"):
        RecurrentBinarizer(24, code_dim=16).fit(known[1], pairs=known, old=old)
    with pytest.raises(InputError, match="one each"):
        RecurrentBinarizer(24).fit(known[1], pairs=known, ids=[1, 2])


def test_encoding_and_searching_need_no_torch(tmp_path: object) -> None:
    rows = pairs(100)[1]
    BebrCodec(24, steps=0).fit(rows).save(f"{tmp_path}/codec")
    script = (
        "import sys, numpy as np\n"
        "sys.modules['torch'] = None\n"
        "from embedlab.search.codecs import load_codec\n"
        f"codec = load_codec({str(tmp_path)!r} + '/codec')\n"
        "rows = np.random.default_rng(0).normal(size=(50, 24))\n"
        "found = codec.scanner(codec.encode(rows)).search(rows[:5], 1)[1]\n"
        "assert found[:, 0].tolist() == [0, 1, 2, 3, 4], found\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
