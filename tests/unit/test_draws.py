"""Random numbers belong to an example: to its place in the chunk, not to its batch."""

import pytest
import torch

from robustframe.draws import Draws, derive_seed


def draw(draws, kind):
    return {
        "uniform": lambda: draws.uniform(3, 2),
        "normal": lambda: draws.normal(3, 2),
        "sign": lambda: draws.sign(3, 2),
        "integers": lambda: draws.integers(7, 3, 2),
    }[kind]()


every_kind = pytest.mark.parametrize("kind", ["uniform", "normal", "sign", "integers"])


@every_kind
def test_a_row_gets_the_same_numbers_whichever_rows_are_with_it(kind):
    whole = draw(Draws((0, "a"), 50), kind)
    rows = torch.tensor([40, 3, 17])
    assert torch.equal(draw(Draws((0, "a"), 50, rows), kind), whole[rows])


@every_kind
@pytest.mark.parametrize("chunk", [1, 5, 33, 101])
def test_drawing_some_rows_after_the_others_changes_no_number(kind, chunk, monkeypatch):
    rows = torch.randperm(chunk, generator=torch.Generator().manual_seed(0))[: chunk // 2 + 1]

    def twice():
        draws = Draws((0, "a"), chunk, rows)
        return torch.cat([draw(draws, kind), draw(draws, kind)])

    whole = twice()
    monkeypatch.setattr("robustframe.draws._BLOCK", 40)
    assert torch.equal(twice(), whole)


@every_kind
def test_another_key_another_child_and_a_second_draw_give_other_numbers(kind):
    draws = Draws((0, "a"), 50)
    first = draw(draws, kind)
    for other in (draws, Draws((1, "a"), 50), Draws((0, "a"), 50).child("restart", 0), Draws(("0a",), 50)):
        assert not torch.equal(draw(other, kind), first)
    assert torch.equal(draw(Draws((0, "a"), 50), kind), first)


def test_a_child_is_the_same_however_far_its_parent_has_drawn():
    parent = Draws((0,), 5)
    before = parent.child("x").uniform(4)
    parent.normal(100)
    assert torch.equal(parent.child("x").uniform(4), before)


def test_a_child_serves_the_rows_of_its_parent():
    child = Draws((0,), 9, torch.tensor([8, 2])).child("x")
    assert child.rows.tolist() == [8, 2]
    assert child.chunk_size == 9
    assert Draws((0,), 3).rows.tolist() == [0, 1, 2]


def test_the_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    draws = Draws((0,), 5)
    for kind in ("uniform", "normal", "sign", "integers"):
        draw(draws, kind)
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_have_the_distribution_and_the_type_they_should():
    draws = Draws((0,), 4000)
    uniform, normal, sign, integers = draws.uniform(), draws.normal(), draws.sign(), draws.integers(4)
    assert uniform.shape == normal.shape == sign.shape == integers.shape == (4000,)
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(normal.std() - 1) < 0.05
    assert set(sign.tolist()) == {-1.0, 1.0}
    assert abs(sign.mean()) < 0.05
    assert set(integers.tolist()) == {0, 1, 2, 3}
    assert integers.dtype == torch.long


def test_seeds_are_the_same_on_every_machine_and_differ_by_key():
    assert derive_seed(0, "pgd") == 5460691185487897405
    keys = [(), (0,), ("0", ""), (0, "pgd"), (0, "pg", "d"), ("0pgd",), (1, "pgd")]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(*key) < 2**63 for key in keys)
