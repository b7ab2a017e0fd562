"""The losses of attacks: their formulas, their order, and what they do with few classes."""

import math

import pytest
import torch

from robustframe.losses import LOSSES, best_wrong, cross_entropy, dlr, margin, probability_margin, targeted_dlr

LOGITS = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 5.0, 4.0, 1.0], [2.0, 2.5, -1.0, 0.0]])
LABELS = torch.tensor([0, 2, 0])
TARGETS = torch.tensor([3, 1, 2])


def test_margin_is_the_best_wrong_logit_minus_the_true_one():
    torch.testing.assert_close(margin(LOGITS, LABELS), torch.tensor([-2.0, 1.0, 0.5]))
    torch.testing.assert_close(best_wrong(LOGITS, LABELS), torch.tensor([1.0, 5.0, 2.5]))


def test_cross_entropy_is_minus_the_log_probability_of_the_label():
    expected = [-math.log(row.softmax(0)[label].item()) for row, label in zip(LOGITS, LABELS)]
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS), torch.tensor(expected))


def test_dlr_divides_the_margin_by_the_first_minus_the_third():
    torch.testing.assert_close(dlr(LOGITS, LABELS), torch.tensor([-2.0 / 2.5, 1.0 / 4.0, 0.5 / 2.5]))


def test_targeted_dlr_divides_by_the_first_minus_the_mean_of_third_and_fourth():
    expected = torch.tensor([-5.0 / 3.75, 1.0 / 4.5, -3.0 / 3.0])
    torch.testing.assert_close(targeted_dlr(LOGITS, LABELS, TARGETS), expected)


@pytest.mark.parametrize("name", list(LOSSES))
def test_every_loss_rises_towards_a_misclassification(name):
    true = torch.linspace(5, -5, 21)
    logits = torch.stack([true, torch.zeros(21), torch.full((21,), -6.0), torch.full((21,), -7.0)], 1)
    value = LOSSES[name](logits, torch.zeros(21, dtype=torch.long))
    assert (value[1:] > value[:-1]).all()
    if name != "cross_entropy":
        assert torch.equal(value > 0, true < 0)


def test_the_probability_margin_is_that_of_scaled_logits():
    factor = 8 / (LOGITS.amax(1) - LOGITS.mean(1)).unsqueeze(1)
    scaled = factor * LOGITS
    found = probability_margin(LOGITS, LABELS)
    torch.testing.assert_close(found, margin(scaled.softmax(1), LABELS))
    for scale in (1e-3, 1e6):
        torch.testing.assert_close(probability_margin(scale * LOGITS + 1, LABELS), found, rtol=1e-3, atol=1e-3)
    # Logits that are all the same are no answer, and no error.
    assert torch.equal(probability_margin(torch.ones(1, 5), LABELS[:1]), torch.zeros(1))
    leaf = LOGITS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(probability_margin(leaf, LABELS).sum(), leaf)
    free = scaled.clone().requires_grad_()
    (inner,) = torch.autograd.grad(margin(free.softmax(1), LABELS).sum(), free)
    # The scale is a constant on the way back.
    torch.testing.assert_close(slope, factor * inner)


@pytest.mark.parametrize("loss", [dlr, lambda logits, labels: targeted_dlr(logits, labels, TARGETS)])
def test_dlr_does_not_change_with_shift_and_scale(loss):
    torch.testing.assert_close(loss(7 * LOGITS - 3, LABELS), loss(LOGITS, LABELS))


def test_few_classes_fall_back_to_differences():
    two, three = LOGITS[:, :2], LOGITS[:, :3]
    labels = torch.tensor([0, 1, 0])
    for loss in (dlr, probability_margin):
        assert torch.equal(loss(two, labels), margin(two, labels))
    targets = torch.tensor([2, 0, 1])
    expected = torch.stack([three[i, t] - three[i, y] for i, (t, y) in enumerate(zip(targets, labels))])
    assert torch.equal(targeted_dlr(three, labels, targets), expected)
    targets = torch.tensor([1, 0, 1])
    assert torch.equal(targeted_dlr(two, labels, targets), margin(two, labels))


@pytest.mark.parametrize("loss", [dlr, lambda logits, labels: targeted_dlr(logits, labels, TARGETS)])
def test_equal_logits_give_zero_and_not_nan(loss):
    assert torch.equal(loss(torch.ones(3, 4), LABELS), torch.zeros(3))


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_gradient_of_an_example_does_not_depend_on_the_others(name):
    leaf = LOGITS.clone().requires_grad_()
    (whole,) = torch.autograd.grad(LOSSES[name](leaf, LABELS).sum(), leaf)
    one = LOGITS[:1].clone().requires_grad_()
    (alone,) = torch.autograd.grad(LOSSES[name](one, LABELS[:1]).sum(), one)
    torch.testing.assert_close(whole[:1], alone)
