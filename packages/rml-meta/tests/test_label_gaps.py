"""Labels of a task that are not 0 .. N-1: classes without a support image are never chosen, the others undisturbed."""

from __future__ import annotations

import pytest
import torch
from rml_meta import Baseline, BaselinePP, Episode, FewShotMethod, MatchingNet, ProtoNet, RelationNet
from torch import nn

MAKERS = {
    "protonet": lambda: ProtoNet(nn.Flatten()),
    "euclidean": lambda: ProtoNet(nn.Flatten(), distance="euclidean"),
    "cosine": lambda: ProtoNet(nn.Flatten(), distance="cosine"),
    "matching": lambda: MatchingNet(nn.Flatten(), 16, contextual=False),
    "relation": lambda: RelationNet(nn.Identity(), (4, 2, 2)),
    "baseline": lambda: Baseline(nn.Flatten(), 16, 5, fit_epochs=3),
    "baseline++": lambda: BaselinePP(nn.Flatten(), 16, 5, fit_epochs=3),
}


@pytest.mark.parametrize("labels", [[0, 0, 2, 2], [10, 10, 20, 20], [1, 1, 1, 1], [3, 0, 3, 3]])
@pytest.mark.parametrize("kind", MAKERS)
def test_labels_with_gaps(kind: str, labels: list[int]) -> None:
    torch.manual_seed(0)
    method: FewShotMethod = MAKERS[kind]()
    y = torch.tensor(labels)
    x, q = torch.randn(4, 4, 2, 2), torch.randn(6, 4, 2, 2)
    logits = method.predict(method.fit_support(x, y), q)
    present = sorted(set(labels))
    absent = [c for c in range(max(labels) + 1) if c not in present]
    assert logits.shape == (6, max(labels) + 1)
    assert (logits[:, absent] == -torch.inf).all()
    assert logits[:, present].isfinite().all()
    if not kind.startswith("baseline"):  # whose heads are fitted to all outputs
        dense = method.predict(method.fit_support(x, torch.tensor([present.index(c) for c in labels])), q)
        torch.testing.assert_close(logits[:, present], dense)
        assert method.training_loss(Episode(x, y, x + 0.1, y)).isfinite()


@pytest.mark.parametrize("kind", ["protonet", "euclidean", "cosine", "matching", "relation"])
def test_gradient_with_gaps(kind: str) -> None:
    torch.manual_seed(0)
    method = MAKERS[kind]()
    y, x = torch.tensor([0, 2, 2]), torch.randn(3, 4, 2, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(method.training_loss(Episode(x, y, x + torch.randn(3, 4, 2, 2), y)), x)
    assert grad.isfinite().all()
    assert grad.any()


def test_tasks_of_different_classes_side_by_side() -> None:
    method = ProtoNet(nn.Flatten(), 4)
    y = torch.tensor([[0, 1, 1], [3, 2, 2]])
    x = torch.randn(2, 3, 5)
    logits = method.predict(method.fit_support(x, y), x)
    assert (logits == -torch.inf).any(1).tolist() == [[False, False, True, True], [True, True, False, False]]
