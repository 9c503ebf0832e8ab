"""The chooser: what is raced, what the verdict rests on, and what comes out on drawn problems."""

from __future__ import annotations

import pytest
import torch
from fdiv_noisy import (
    FDivergenceLoss,
    NoiseReport,
    PairConditionalLoss,
    Sparse,
    auto_loss,
    class_prior,
)
from fdiv_noisy.auto import choose_loss
from fdiv_noisy.choice.candidates import candidates
from fdiv_noisy.choice.race import Plan, Race, run_race, warmup_steps
from fdiv_noisy.choice.verdict import decide, is_settled
from fdiv_noisy.estimation import select_structure
from fdiv_noisy.estimation.blocks import completed, find_groups
from fdiv_noisy.estimation.structure import information_warnings, label_floors, rate_interval
from fdiv_noisy.noise import corrupt
from fdiv_noisy.transition import check_matrix
from torch import Tensor, nn

NO_PAIRS = torch.zeros(0, 2, dtype=torch.int64)
PRIOR = torch.full((4,), 0.25)
PAIRS = Sparse(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0.7, 0.2], [0.7, 0.2]]), 4)


def report(structure: str, transition: Tensor | Sparse = PAIRS, pairs: Tensor = NO_PAIRS) -> NoiseReport:
    return NoiseReport(structure, transition, pairs, 0.4, 0.0, 1.0, 1000, "x")


def blobs(n: int, k: int = 10, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, 20, generator=generator) * spread
    labels = torch.randint(k, (n,), generator=generator)
    return centres[labels] + torch.randn(n, 20, generator=generator), labels, generator


def test_corrections_are_candidates_only_on_good_grounds() -> None:
    mild = torch.eye(4) * 0.6 + 0.1
    singular = torch.full((4, 4), 0.25) + 0.001 * torch.eye(4)
    singular = singular / singular.sum(1, keepdim=True)
    plain = ["ce", "gce", "kl"]
    for kind in ("clean", "uniform", "undecided"):
        assert list(candidates(report(kind, mild), PRIOR, 1000)) == plain
    assert list(candidates(report("general", mild), PRIOR, 1000)) == [*plain, "forward", "kl corrected"]
    assert list(candidates(report("general", singular), PRIOR, 1000)) == plain
    assert list(candidates(report("sparse", PAIRS, PAIRS.pairs), PRIOR, 1000))[3] == "pair-conditional"


def test_a_matrix_that_should_not_be_inverted_is_not() -> None:
    matrix = torch.eye(10) * 0.3 + 0.07
    matrix[0] = matrix[1] + torch.tensor([0.01, -0.01] + [0.0] * 8)
    matrix /= matrix.sum(1, keepdim=True)
    found = NoiseReport("general", matrix, NO_PAIRS, 0.5, 0.0, 1.0, 1000, "x", tuple(information_warnings(matrix)))
    assert "do not invert it" in found.warnings[0]
    loss = choose_loss(found, torch.full((10,), 0.1)).then
    assert isinstance(loss, FDivergenceLoss)
    assert loss.correction is None


def race(**rights: float) -> Race:
    """Guesses with so many right of 1,000; the better of two is right wherever the worse one is."""
    labels = torch.arange(1000) % 4
    guesses = {}
    for name, right in rights.items():
        guesses[name] = torch.where(torch.arange(1000) < 1000 * right, labels, (labels + 1) % 4)
    return Race(labels, guesses)


def test_the_verdict_asks_for_a_clear_lead() -> None:
    clean = report("clean", torch.eye(4))
    assert decide(race(ce=0.6, gce=0.6, kl=0.6), clean).name == "ce"
    assert decide(race(ce=0.6, gce=0.7, kl=0.65), clean).name == "gce"
    assert decide(race(ce=0.6, gce=0.7, kl=0.8), clean).name == "kl"
    assert decide(race(ce=0.6, gce=0.5, kl=0.4), clean).name == "ce"
    mild = report("general", torch.eye(4) * 0.6 + 0.1)
    assert decide(race(ce=0.5, gce=0.5, kl=0.5, forward=0.6), mild).name == "forward"
    text = str(decide(race(ce=0.5, gce=0.5, kl=0.5, forward=0.4), mild))
    assert "taken: ce, the plain choice, which none beats clearly (1000 labels kept back)" in text


def test_where_flips_are_likelier_noisy_accuracy_does_not_decide() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(4, (4000,), generator=generator)
    labels = corrupt(clean, PAIRS, generator=generator)
    likeliest = PAIRS.matrix().argmax(1)[clean]  # what a network that fits noisy labels says
    guesses = {"ce": likeliest, "gce": likeliest, "kl": likeliest, "pair-conditional": clean}
    found = report("sparse", PAIRS, PAIRS.pairs)
    verdict = decide(Race(labels, guesses), found)
    assert verdict.name == "pair-conditional"
    accuracy = {one.name: one.accuracy for one in verdict.standings}
    assert accuracy["ce"] > accuracy["pair-conditional"]
    useless = dict(guesses, **{"pair-conditional": torch.zeros_like(clean)})
    assert decide(Race(labels, useless), found).name == "ce"


def test_the_implied_accuracy_is_unbiased() -> None:
    matrix = torch.eye(4) * 0.6 + 0.1
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(4, (40_000,), generator=generator)
    guess = torch.where(torch.rand(40_000, generator=generator) < 0.8, clean, (clean + 1) % 4)
    labels = corrupt(clean, matrix, generator=generator)
    verdict = decide(Race(labels, dict.fromkeys(("ce", "gce", "kl", "forward"), guess)), report("general", matrix))
    assert verdict.standings[0].implied == pytest.approx(0.8, abs=0.02)  # four standard errors
    assert verdict.standings[0].accuracy == pytest.approx(0.8 * 0.7 + 0.2 * 0.1, abs=0.01)


def test_the_race_is_repeatable_and_leaves_the_random_state() -> None:
    inputs, labels, _ = blobs(200)
    losses = candidates(report("clean", torch.eye(10)), class_prior(labels, 10), 1000)
    state = torch.get_rng_state()
    plan = Plan(steps=12, batch_size=32)
    first, second = (run_race(inputs, labels, 10, losses, plan=plan, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first.labels) == 200
    for name in losses:
        assert torch.equal(first.guesses[name], second.guesses[name])


def test_the_race_follows_the_schedule_of_the_learning_rate() -> None:
    inputs, labels, _ = blobs(200)
    losses = candidates(report("clean", torch.eye(10)), class_prior(labels, 10), 1000)
    rates: list[float] = []

    class Recorded(torch.optim.lr_scheduler.LinearLR):
        def step(self, epoch: int | None = None) -> None:
            rates.append(self.optimizer.param_groups[0]["lr"])
            super().step(epoch)

    def schedule(optimizer: torch.optim.Optimizer, steps: int) -> Recorded:
        return Recorded(optimizer, 1.0, 0.5, total_iters=steps)

    run_race(inputs, labels, 10, losses, plan=Plan(4, 32, make_schedule=schedule), settled=lambda found: True)
    one = [1e-3, *(1e-3 * (1 - 0.125 * done) for done in range(4))]  # it steps once where it is made
    assert rates == pytest.approx(one * 3)


def test_a_settled_race_is_not_run_on() -> None:
    inputs, labels, _ = blobs(200)
    losses = candidates(report("clean", torch.eye(10)), class_prior(labels, 10), 1000)
    asked: list[int] = []

    def settled(found: Race) -> bool:
        asked.append(len(found.labels))
        return len(asked) == 2

    plan = Plan(steps=12, batch_size=32)
    part = run_race(inputs, labels, 10, losses, plan=plan, seed=3, settled=settled)
    whole = run_race(inputs, labels, 10, losses, plan=plan, seed=3)
    assert asked == [50, 100]
    assert torch.equal(part.labels, whole.labels[:100])
    assert torch.equal(part.guesses["kl"], whole.guesses["kl"][:100])


def test_a_race_is_settled_far_from_what_a_lead_needs() -> None:
    clean = report("clean", torch.eye(4))
    assert is_settled(race(ce=0.6, gce=0.5, kl=0.4), clean)
    assert is_settled(race(ce=0.4, gce=0.6, kl=0.4), clean)
    assert not is_settled(race(ce=0.6, gce=0.601, kl=0.4), clean)


def test_a_pair_loss_that_gives_pairs_away_is_not_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(4, (4000,), generator=generator)
    labels = corrupt(clean, PAIRS, generator=generator)
    guesses = dict.fromkeys(("ce", "gce", "kl"), PAIRS.matrix().argmax(1)[clean])
    lost = torch.where(torch.arange(4000) % 5 == 0, (clean + 2) % 4, clean)  # the other pair
    found = report("sparse", PAIRS, PAIRS.pairs)
    assert decide(Race(labels, guesses | {"pair-conditional": clean}), found).name == "pair-conditional"
    assert decide(Race(labels, guesses | {"pair-conditional": lost}), found).name == "ce"


def test_plans() -> None:
    assert Plan().race_steps(1280) == 200
    assert Plan().race_steps(1_000_000) == 3000
    assert Plan(steps=90).race_steps(300) == 90
    assert [warmup_steps(steps, 10) for steps in (1, 20, 50, 1000)] == [1, 4, 10, 10]
    with pytest.raises(ValueError, match="steps and batch_size must be >= 1"):
        Plan(steps=0)


def test_overlap_is_not_taken_for_noise() -> None:
    inputs, labels, _ = blobs(3000, spread=0.5)
    criterion, found = auto_loss(inputs, labels, 10, steps=60)
    assert found.structure == "undecided"
    assert found.interval[0] < 0.03
    assert "may be classes that overlap" in str(found)
    assert isinstance(criterion.then, nn.CrossEntropyLoss)
    assert criterion.steps == 12


def test_classes_that_a_weak_network_mixes_are_not_taken_for_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    to_next = torch.eye(6).roll(1, 1)
    sides = 0.75 * to_next + 0.25 * to_next.T
    sharp, blurred = (peak * torch.eye(6) + (1 - peak) * sides for peak in (0.85, 0.45))
    cells = torch.randint(6, (4000,), generator=generator)
    probs = torch.where(torch.rand(4000, 1, generator=generator) < 0.1, sharp[cells], blurred[cells])
    clean = torch.multinomial(probs, 1, generator=generator)[:, 0]  # no label is wrong, the classes overlap everywhere
    found = select_structure(probs, clean)
    assert found.structure == "undecided"
    assert found.interval[0] == 0
    assert found.rate == found.interval[1]
    assert found.rate < 0.25  # the sharp samples bound it: half of the blurred ones differ from their class
    assert f"none to {found.rate:.0%} of 4000 labels wrong" in str(found)
    assert list(candidates(found, torch.full((6,), 1 / 6), 10_000)) == ["ce", "gce", "kl"]


def test_few_steps_leave_cross_entropy() -> None:
    inputs, labels, generator = blobs(300)
    noisy = corrupt(labels, torch.eye(10) * 0.5556 + 0.04444, generator=generator)
    criterion, _ = auto_loss(inputs, noisy, 10, steps=90)
    assert isinstance(criterion.then, nn.CrossEntropyLoss)


def test_pairs_that_flip_more_often_than_not_take_the_pair_loss() -> None:
    inputs, labels, generator = blobs(3000)
    flips = Sparse(torch.arange(10).view(5, 2), torch.tensor([[0.7, 0.2]] * 5), 10)
    criterion, found = auto_loss(inputs, corrupt(labels, flips, generator=generator), 10, steps=400)
    assert found.structure == "sparse"
    assert isinstance(criterion.then, PairConditionalLoss)
    low, high = found.interval
    assert low < 0.45 < high + 0.03


def posteriors(matrix: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Imperfect posteriors of noisy labels, the labels, and the clean ones."""
    generator = torch.Generator().manual_seed(seed)
    k = len(matrix)
    clean = torch.randint(k, (n,), generator=generator)
    sure = torch.full((n, k), 0.03 / (k - 1)).scatter_(1, clean[:, None], 0.97)
    noise = 0.3 * torch.randn(n, k, generator=generator)
    return ((sure @ matrix).log() + noise).softmax(1), corrupt(clean, matrix, generator=generator), clean


@pytest.mark.parametrize("n", [4000, 20_000])
def test_pairs_on_a_background(n: int) -> None:
    pairs = torch.block_diag(*[torch.tensor([[0.7, 0.3], [0.3, 0.7]])] * 5)
    matrix = pairs @ (torch.eye(10) * (0.8 - 0.2 / 9) + 0.2 / 9)
    probs, labels, clean = posteriors(matrix, n)
    found = select_structure(probs, labels)
    assert found.structure == "sparse+uniform"
    assert found.pairs.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert found.rate == pytest.approx(float((labels != clean).float().mean()), abs=0.02)
    assert float((found.matrix() - matrix).abs().sum()) / 10 < 0.15


def test_groups_of_many_classes_are_not_uniform_noise() -> None:
    matrix = torch.block_diag(*[torch.eye(5) * 0.5 + 0.1] * 20)
    probs, labels, clean = posteriors(matrix, 10_000)
    found = select_structure(probs, labels)
    assert found.structure == "groups"
    assert found.rate == pytest.approx(float((labels != clean).float().mean()), abs=0.03)
    assert float((found.matrix() - matrix).abs().sum()) / 100 < 0.15


def test_two_classes_that_look_alike_join_no_groups() -> None:
    counts = torch.full((20, 20), 2)
    for start in (0, 5, 10):
        counts[start : start + 5, start : start + 5] = 60
    counts[4, 5] = counts[5, 4] = 60  # of two groups
    found = find_groups(counts)
    assert found.members.tolist() == [0] * 5 + [5] * 5 + [10] * 5 + list(range(15, 20))
    inside, links = 3 * 20 * 60, 2 * 60
    assert found.share == pytest.approx(inside / (inside + links + (380 - 62) * 2))
    assert found.contrast == pytest.approx(60 / ((links + (380 - 62) * 2) / (380 - 60)))
    cycle = 60 * (torch.eye(20).roll(1, 1) + torch.eye(20).roll(1, 0)).long() + 2
    assert find_groups(cycle).members.tolist() == list(range(20))


def test_overlap_does_not_raise_the_rate_of_even_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean_probs = (3 * torch.randn(6000, 10, generator=generator)).softmax(1)
    clean = torch.multinomial(clean_probs, 1, generator=generator)[:, 0]
    even = torch.eye(10) * 0.7 + 0.03
    labels = corrupt(clean, even, generator=generator)
    probs = clean_probs @ even
    assert float((clean_probs.argmax(1) == clean).float().mean()) < 0.75
    assert label_floors(probs, labels).sum() == pytest.approx(0.3, abs=0.04)
    assert label_floors(clean_probs, clean).sum() < 0.01
    found = select_structure(probs, labels)
    assert found.structure == "uniform"
    assert found.rate == pytest.approx(float((clean != labels).float().mean()), abs=0.03)


def test_completed_matrices_are_row_stochastic() -> None:
    flips = torch.tensor([[0.0, 0.7, 0.6], [0.1, 0.0, 0.2], [0.0, 0.0, 0.0]])
    matrix = completed(flips)
    check_matrix(matrix, 1e-6)
    torch.testing.assert_close(matrix[1], torch.tensor([0.1, 0.7, 0.2]))
    torch.testing.assert_close(matrix[0], torch.tensor([0.0, 0.7 / 1.3, 0.6 / 1.3]))
    assert matrix[2].tolist() == [0, 0, 1]


def test_the_interval_holds_the_rate_of_even_noise() -> None:
    for seed in range(5):
        probs, labels, _ = posteriors(torch.eye(10) * 0.7 + 0.03, 4000, seed)
        low, high = rate_interval(probs, labels)
        assert low < 0.27 < high
        assert 0 < high - low < 0.35
