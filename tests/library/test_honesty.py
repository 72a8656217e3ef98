"""Networks that hide their gradients are found out, honest ones are not accused; the published way flatters."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from studies import known_networks
from studies.known_networks import BROKEN, SOUND, found_out, small_digits
from tests.quick import short_checks, slow_after
from wsrnas.attacks import pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import DataSet, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation.attack_spec import Attack, at_strength, parse_attack
from wsrnas.evaluation.check_levels import CHECK_LEVELS
from wsrnas.evaluation.honesty import (
    LEAST_IMAGES,
    LEAST_STRENGTH,
    Part,
    choose_images,
    choose_strength,
    deterministic_logits,
    honesty_checks,
    larger_strengths,
    random_noise,
    zero_gradients,
)
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.official import BATCH, official_accuracy, official_rows
from wsrnas.evaluation.protocols import custom_attacks
from wsrnas.evaluation.results import measure
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.fitting import check_alone
from wsrnas.subjects.images import images_of

pytestmark = pytest.mark.usefixtures("quick_data")

STRENGTHS = [0.03, 0.06, 0.1]


class Saturated(nn.Sequential):
    """Logits so far apart that the softmax is one and zero in float32."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * 1e4


class Stochastic(nn.Sequential):
    """Noise inside the network."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images + 0.3 * torch.randn_like(images))


class Quantised(nn.Sequential):
    """Steps without slopes."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images * 8).round() / 8)


class Misled(nn.Sequential):
    """Gradients of another function than the one that predicts."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits.detach() - 1e-3 * (logits - logits.detach())


class InCompany(nn.Sequential):
    """An image's logits depend on its batch."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0, keepdim=True))


def layers() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10)]


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_dataset("digits", max_test=100)


def trained(model: nn.Module, data: DataSet, noise: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    images, labels = data.train.images[::2].float() / 255, data.train.labels[::2]
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images + noise * torch.randn_like(images)), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def weights(data) -> dict[str, Tensor]:
    return trained(nn.Sequential(*layers()), data).state_dict()


def evaluated(kind: type[nn.Sequential], weights: dict[str, Tensor], data: DataSet, **arguments) -> dict:
    model = kind(*layers())
    model.load_state_dict(weights)
    evaluation = Evaluation(model.eval(), BatchLoader(data.test, 100, 0, "test"), 10, batch_size=100,
                            log=lambda line: None, **arguments)
    return measure(evaluation, custom_attacks(["pgd-20"], STRENGTHS, []), 100)


@pytest.mark.slow
def test_an_honest_network_trips_no_check(data, weights):
    result = evaluated(nn.Sequential, weights, data)
    assert result["failed_checks"] == [] and len(result["checks"]) == 9
    passed = {check["check"]: check["passed"] for check in result["checks"]}
    assert passed.pop("white box is not weaker than transfer") is None, "there was no other network"
    assert all(passed.values()) and result["complete"]


@pytest.mark.slow
@pytest.mark.parametrize("kind, found", [
    (Saturated, {"gradients are not zero", "accuracy vanishes at a large strength",
                 "gradients are stronger than random noise"}),
    (Quantised, {"gradients are not zero", "accuracy vanishes at a large strength",
                 "gradients are stronger than random noise"}),
    (Stochastic, {"logits are deterministic"}),
    (Misled, {"accuracy vanishes at a large strength", "gradients are stronger than random noise",
              "white box is not weaker than Square"}),
    (InCompany, {"logits are deterministic"}),
])
def test_a_network_that_hides_its_gradients_is_found_out(kind, found, data, weights):
    torch.manual_seed(0)
    drawn = found == {"logits are deterministic"}  # which the length of attacks has nothing to do with
    with short_checks() if drawn else nullcontext():
        result = evaluated(kind, weights, data)
    assert found <= set(result["failed_checks"]), result["checks"]
    assert all(row["says"] and row["passed"] in (True, False, None) for row in result["checks"])


@pytest.mark.slow
def test_an_honest_network_next_to_another_one(data, weights):
    """An honest network's own gradients beat another network's; a saturated one's do not."""
    other = trained(nn.Sequential(*layers()[:2], nn.Linear(192, 10)), data, noise=0.1)
    checks = {}
    for kind in (nn.Sequential, Saturated):
        result = evaluated(kind, weights, data, source=other, source_name="other")
        checks[kind] = next(c for c in result["checks"] if c["check"] == "white box is not weaker than transfer")
    assert checks[nn.Sequential]["passed"] is True and checks[Saturated]["passed"] is False
    assert checks[Saturated]["numbers"]["fell_only_to_weaker"] > checks[Saturated]["numbers"]["fell_only_to_stronger"]


class Backwards(Evaluation):
    """As if attacks became weaker with steps and with strength."""

    def robust(self, attack, among):
        shares = {20: 0.2, 100: 0.8, 50: 0.0}.get(attack.steps, 0.5) + (0.5 if attack.epsilon > 0.15 else 0.0)
        withstood = torch.zeros(self.images, dtype=torch.bool)
        withstood[among[:int(shares * len(among))]] = True
        return withstood


@pytest.mark.slow
def test_attacks_that_become_weaker_are_noticed(data, weights):
    model = nn.Sequential(*layers())
    model.load_state_dict(weights)
    evaluation = Backwards(model.eval(), BatchLoader(data.test, 100, 0, "test"), 10, log=lambda line: None)
    images = torch.arange(100)
    part = Part(evaluation, images, 0.1)
    checks = {check["check"]: check["passed"] for check in honesty_checks(part, [])}
    name = "larger strengths are not easier"
    assert checks["more steps are not weaker"] is False and checks[name] is False
    pgd7 = parse_attack("pgd-7")
    easier = [(at_strength(pgd7, e), images < count) for e, count in ((0.1, 20), (0.05, 60), (0.2, 70))]
    honest = Evaluation(model, evaluation.loader, 10, log=lambda line: None)
    part = Part(honest, honest.clean().nonzero()[:, 0], 0.1)
    row = next(check for check in honesty_checks(part, easier) if check["check"] == name)
    assert row["passed"] is False and "0.2000" in row["says"] and row["numbers"]["fell_only_to_weaker"] == 50


def test_a_network_that_removes_strong_noise_makes_larger_strengths_easier():
    """Whether the larger strengths are the check's own, or those of an evaluation that spares no image."""
    data = small_digits(100)
    model = next(known for known in BROKEN if "strong" in known.what).build(nn.Identity(), data)
    evaluation = Evaluation(model, BatchLoader(data.test, 100, 0, "test"), 10, log=lambda line: None)
    images = evaluation.clean().nonzero().flatten()
    own = larger_strengths(Part(evaluation, images, 0.1), [])
    assert own.passed is False and own.numbers["fell_only_to_weaker"] > own.numbers["images"] / 10
    sound = Evaluation(model.network, evaluation.loader, 10, log=lambda line: None)
    assert larger_strengths(Part(sound, images, 0.1), []).passed is True


@pytest.mark.parametrize("name, spared, passed", [
    ("pgd-7", False, False), ("pgd-7", True, True), ("square-9", True, False)])
def test_where_fallen_images_are_spared_an_attacks_own_strengths_say_nothing(name, spared, passed, data):
    """Square's random numbers belong to a batch, so it spares none."""
    rows = [(at_strength(parse_attack(name), e), torch.arange(100) < count) for e, count in ((0.1, 20), (0.2, 60))]
    assert larger_strengths(Part(Told(data, HONEST), torch.arange(100), 0.1, spared=spared), rows).passed is passed


HONEST = {("PGD-20", 0.1): 40, ("PGD-100", 0.1): 40, ("PGD-20", 0.2): 20, ("PGD-50", 0.5): 1,
          ("random noise-10", 0.1): 50, ("Square-500", 0.1): 40, ("transfer PGD-20", 0.1): 60}


class Told(Evaluation):
    """It is told how many images withstand which attack at which strength: those that come first."""

    def __init__(self, data: DataSet, withstand: dict[tuple[str, float], int]) -> None:
        model = nn.Sequential(*layers()).eval()
        super().__init__(model, BatchLoader(data.test, 100, 0, "test"), 10, source=model, log=lambda line: None)
        self.withstand, self.asked = withstand, set()

    def robust(self, attack: Attack, among: Tensor) -> Tensor:
        self.asked.add((attack.label, round(attack.epsilon, 6)))
        withstood = torch.zeros(self.images, dtype=torch.bool)
        withstood[among[:self.withstand[attack.label, round(attack.epsilon, 6)]]] = True
        return withstood


@pytest.fixture
def all_found(monkeypatch):
    """Every planted example is found: that check has tests of its own."""
    def found(model, images, *rest):
        return (torch.ones(len(images), dtype=torch.bool),) * 2
    monkeypatch.setattr("wsrnas.evaluation.honesty.planted_examples", found)


@pytest.mark.usefixtures("all_found")
@pytest.mark.parametrize("attack, strength, passes, fails, check", [
    # Ten images that chance sends one way have a probability of 1/1024; nine, of 1/512.
    ("PGD-100", 0.1, 49, 50, "more steps are not weaker"),
    ("PGD-20", 0.2, 49, 50, "larger strengths are not easier"),
    ("PGD-50", 0.5, 1, 2, "accuracy vanishes at a large strength"),
    ("Square-500", 0.1, 31, 30, "white box is not weaker than Square"),
    ("transfer PGD-20", 0.1, 31, 30, "white box is not weaker than transfer"),
])
def test_each_check_fails_where_chance_ends_and_no_other_with_it(attack, strength, passes, fails, check, data):
    for count, failed in ((passes, []), (fails, [check])):
        told = Told(data, {**HONEST, (attack, strength): count})
        part = Part(told, torch.arange(100).flip(0), 0.1)
        assert [row["check"] for row in honesty_checks(part, []) if not row["passed"]] == failed
        assert told.asked == set(HONEST)


@pytest.mark.usefixtures("all_found")
@pytest.mark.parametrize("right, passes", [(100, True), (40, False)])
def test_the_evaluations_own_attacks_are_compared_on_correct_images_alone(right, passes, data, monkeypatch):
    """Eight that the longer attack misses are 8 % of 100 and 20 % of 40; it finds eight others, so is as strong."""
    class Known(Told):
        def clean(self) -> Tensor:
            return torch.arange(100) < right

        def robust(self, attack: Attack, among: Tensor) -> Tensor:
            if attack.label not in ("PGD-5", "PGD-9"):
                return super().robust(attack, among)
            return self.clean() & ((torch.arange(100) // 8) != (attack.steps == 5))

        def passes_of(self, attack):
            return None

    attacks = [at_strength(parse_attack(name), 0.1) for name in ("pgd-5", "pgd-9")]
    told = Known(data, {key: min(count, 20) for key, count in HONEST.items()} | {("random noise-10", 0.1): 35})
    result = measure(told, attacks, 100, level="quick")
    check = next(row for row in result["checks"] if row["check"] == "more steps are not weaker")
    assert check["numbers"]["fell_only_to_weaker"] == check["numbers"]["fell_only_to_stronger"] == 8
    assert (check["passed"], check["numbers"]["images"]) == (passes, right)


@pytest.mark.usefixtures("all_found")
def test_quick_checks_run_no_long_attack_and_still_compare_the_evaluations_own(data):
    own = [(at_strength(parse_attack(name), 0.1), torch.arange(100) < count)
           for name, count in (("pgd-50", 20), ("square-100", 10))]
    for rows, ran in (([], set()), (own, {"white box is not weaker than Square"})):
        told = Told(data, HONEST)
        checks = honesty_checks(Part(told, torch.arange(100), 0.1, "quick"), rows)
        assert told.asked == {("PGD-20", 0.1), ("PGD-20", 0.2), ("random noise-10", 0.1)}
        left_out = {check["check"] for check in checks if "left out by --checks quick" in check["says"]}
        assert left_out == {"more steps are not weaker", "accuracy vanishes at a large strength",
                            "white box is not weaker than Square", "white box is not weaker than transfer"} - ran
        assert [check["passed"] for check in checks if check["check"] in ran] == [False] * len(ran)


class Constant(nn.Module):
    """It answers class 0, whatever it sees, and counts the images that it sees with and without a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = {True: 0, False: 0}

    def forward(self, images: Tensor) -> Tensor:
        self.seen[torch.is_grad_enabled()] += len(images)
        return torch.eye(10)[0].expand(len(images), 10) + 0 * images.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize("level", slow_after(1, ["quick", "full"]))
def test_the_checks_cost_what_a_dry_run_says_at_most(level, data):
    """No image falls to any attack, so that every check takes all of its passes, but that nothing can be planted."""
    images = ImageSet(data.test.images[:40], torch.zeros(40, dtype=torch.long))
    model = Constant().eval()
    evaluation = Evaluation(model, BatchLoader(images, 40, 0, "test"), 10, source=model, log=lambda line: None)
    checks = honesty_checks(Part(evaluation, torch.arange(40), 0.1, level), [])
    assert [check["passed"] for check in checks].count(False) == (2 if level == "quick" else 3)
    for seen, unplanted, most in zip((model.seen[True], model.seen[False]), (20, 1), CHECK_LEVELS[level].passes,
                                     strict=True):
        assert 0.8 * most < seen / 40 + unplanted <= most


class SecondTime(nn.Sequential):
    """Other logits when it is asked the second time, and never again."""

    asked = 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        return super().forward(images) + (self.asked == 2)


@pytest.mark.parametrize("kind, changed", [(SecondTime, "again"), (InCompany, "alone")])
def test_logits_that_change_are_said_to_change_when(kind, changed, data):
    evaluation = Evaluation(kind(*layers()).eval(), BatchLoader(data.test, 100, 0, "test"), 10)
    row = deterministic_logits(Part(evaluation, torch.arange(100), 0.1), [])
    assert row.passed is False
    assert [name for name, value in row.numbers.items() if value > 1e-3] == [changed]


def test_a_part_knows_its_own_images(data):
    told = Told(data, {("PGD-7", 0.1): 2, ("PGD-7", 0.3): 3})
    part = Part(told, torch.tensor([40, 7, 90, 3]), 0.1)
    assert part.withstood("pgd-7").tolist() == [True, True, False, False]
    assert part.withstood("pgd-7", 0.3).tolist() == [True, True, True, False]


@pytest.mark.usefixtures("all_found")
@pytest.mark.parametrize("strength, twice", [(0.3, 0.6), (0.9, 1.0)])
def test_twice_the_strength_is_no_more_than_the_range(strength, twice, data):
    told = Told(data, {**{(name, strength): count for (name, _), count in HONEST.items()}, ("PGD-20", strength): 40,
                       ("PGD-20", twice): 20, ("PGD-50", 0.5): 0})
    assert all(row["passed"] for row in honesty_checks(Part(told, torch.arange(100), strength), []))
    assert ("PGD-20", twice) in told.asked


@pytest.mark.parametrize("pgd, noise, strength", [
    ({0.1: 40}, {0.1: 100}, 0.1),  # enough fall at once
    ({0.1: 95, 0.2: 90}, {0.2: 100}, 0.2),  # an honest network that resists the strength evaluated
    ({0.1: 99, 0.2: 95, 0.5: 0}, {0.5: 100}, 0.5),
    ({0.1: 50, 0.2: 40}, {0.1: 59, 0.2: 50}, 0.2),  # many fall to both: nine images decide nothing, ten do
    ({0.1: 50, 0.2: 40}, {0.1: 49, 0.2: 60}, 0.2),
])
def test_noise_and_gradient_are_compared_where_images_decide(pgd, noise, strength, data):
    told = Told(data, HONEST | {("random noise-10", e): 100 for e in (0.1, 0.2, 0.5)}
                | {("PGD-20", e): n for e, n in pgd.items()} | {("random noise-10", e): n for e, n in noise.items()})
    row = random_noise(Part(told, torch.arange(100), 0.1), [])
    assert row.passed is True and f"{strength:.4f}" in row.says


def test_a_gradient_that_breaks_nothing_anywhere_is_no_better_than_noise(data):
    told = Told(data, {("PGD-20", e): 95 for e in (0.1, 0.2, 0.5)} | {
        ("random noise-10", e): 100 for e in (0.1, 0.2, 0.5)})
    assert random_noise(Part(told, torch.arange(100), 0.1), []).passed is False


class AlmostAlone(nn.Sequential):
    """By the deviation of its batch: an image alone has none."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return (logits - logits.mean(0)) / logits.std(0, correction=0)


def test_logits_that_are_no_numbers_alone_are_not_those_of_the_batch(data):
    evaluation = Evaluation(AlmostAlone(*layers()).eval(), BatchLoader(data.test, 100, 0, "test"), 10,
                            log=lambda line: None)
    verdict = deterministic_logits(Part(evaluation, torch.arange(40), 0.1), [])
    assert verdict.passed is False and verdict.numbers == {"again": 0.0, "alone": None}
    with pytest.raises(InputError, match="NaN or infinite for one image alone"):
        check_alone(evaluation.model, data.test.images[:1].float() / 255, 10)


@pytest.mark.parametrize(("pgd", "noise", "passed"), [
    (50, 59, None),  # noise wins nowhere, and too few images decide
    (50, 50, None), (50, 49, False), (91, 100, False), (90, 99, None)])
def test_where_too_few_images_decide_between_noise_and_gradient_nothing_is_said(pgd, noise, passed, data):
    told = Told(data, {(name, e): count for name, count in (("PGD-20", pgd), ("random noise-10", noise))
                       for e in (0.1, 0.2, 0.5)})
    verdict = random_noise(Part(told, torch.arange(100), 0.1), [])
    assert verdict.passed is passed and ("too few to tell" in verdict.says) is (passed is None)


@pytest.mark.usefixtures("all_found")
@pytest.mark.parametrize("rows, failed", [
    ([("fgsm", 20), ("pgd-20", 31)], "more steps are not weaker"), ([("fgsm", 31), ("pgd-20", 20)], None),
    ([("pgd-7", 20), ("pgd-20", 31)], "more steps are not weaker"),
    ([("pgd-7x5", 20), ("pgd-20", 31)], None),  # fewer steps, more starts
    ([("pgd-20x5", 31), ("pgd-7", 20)], "more steps are not weaker"),
    ([("square-100", 20), ("pgd-20", 31)], "white box is not weaker than Square"),
    ([("cw-linf-9", 31), ("square-100", 20)], "white box is not weaker than Square"),
    ([("transfer", 20), ("mim-10", 31)], "white box is not weaker than transfer"),
    ([("square-100", 20), ("fgsm", 31)], None),
])
def test_the_evaluations_own_attacks_are_compared_over_all_images(rows, failed, data):
    told = Told(data, HONEST)
    flags = [(at_strength(parse_attack(name), 0.1), torch.arange(100) < count) for name, count in rows]
    checks = honesty_checks(Part(told, torch.arange(100), 0.1), flags)
    assert [row["check"] for row in checks if not row["passed"]] == [failed] * bool(failed)
    elsewhere = [(at_strength(parse_attack(name), e), torch.arange(100) < count)
                 for (name, count), e in zip(rows, (0.1, 0.15), strict=True)]
    assert all(row["passed"] for row in honesty_checks(Part(told, torch.arange(100), 0.1), elsewhere))


@pytest.mark.usefixtures("all_found")
def test_black_box_attacks_are_judged_against_all_white_box_ones_together(data):
    """Half of the images fall to one, half to the other, all to Square: nothing escapes both."""
    first, second = torch.arange(100) < 50, torch.arange(100) >= 50
    rows = [(at_strength(parse_attack("pgd-1"), 0.1), first),
            (at_strength(parse_attack("square-50"), 0.1), first & second)]
    told = Told(data, HONEST)
    for more, failed in (([], ["white box is not weaker than Square"]),
                         ([(at_strength(parse_attack("mim-9"), 0.1), second)], [])):
        checks = honesty_checks(Part(told, torch.arange(100), 0.1), [*rows, *more])
        assert [row["check"] for row in checks if not row["passed"]] == failed


@pytest.mark.parametrize("escaped, passed", [(21, True), (27, False)])
def test_images_that_only_the_weaker_attack_breaks_are_suspicious_though_the_other_breaks_more(escaped, passed, data):
    """At a share of 5 %, seeing 27 of 250 has a probability below 1/1000, seeing 21 has not."""
    stronger = (at_strength(parse_attack("pgd-20"), 0.1), torch.arange(250) < 100)
    weaker = (at_strength(parse_attack("square-50"), 0.1), torch.arange(250) >= escaped)
    told = Told(data, HONEST)
    row, = (row for row in honesty_checks(Part(told, torch.arange(100), 0.1), [stronger, weaker])
            if row["check"] == "white box is not weaker than Square")
    assert row["passed"] is passed
    if not passed:
        assert (row["numbers"]["fell_only_to_weaker"], row["numbers"]["fell_only_to_stronger"]) == (escaped, 150)


class NoNumber(nn.Sequential):
    """The same logits, and a gradient that is no number wherever a pixel is black."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.where(images > 0, images.sqrt(), 0) ** 2)


@pytest.mark.slow
def test_gradients_that_are_no_numbers_are_found(data, weights):
    result = evaluated(NoNumber, weights, data)
    row = next(check for check in result["checks"] if check["check"] == "gradients are not zero")
    assert row["passed"] is False and row["numbers"]["share"] == 1


@pytest.mark.parametrize("rows, passed", [
    ([("pgd-7", 0.1, 0.0, 20), ("pgd-7", 0.2, 0.0, 60)], False),
    ([("pgd-7", 0.2, 0.0, 20), ("pgd-7", 0.1, 0.0, 60)], True),
    ([("pgd-7", 0.1, 0.0, 20), ("fgsm", 0.2, 0.0, 60)], True),
    ([("pgd-7", 0.1, 0.0, 20), ("pgd-l2-7", 0.2, 0.0, 60)], True),
    ([("pgd-7", 0.1, 0.0, 20), ("pgd-7", 0.2, 0.1, 60)], True),  # another step, as a share of the strength
    ([("pgd-7", 0.1, 0.3, 20), ("pgd-7", 0.2, 0.3, 60)], False),
    ([("cw-l2", None, 0.0, 20), ("pgd-7", 0.2, 0.3, 60)], True),
    ([("square-9", 0.2, 0.0, 60), ("square-9", 0.1, 0.0, 20)], False),
])
def test_strengths_are_compared_within_one_attack(rows, passed, data):
    told = Told(data, HONEST)
    flags = [(at_strength(parse_attack(name), epsilon, ratio), torch.arange(100) < count)
             for name, epsilon, ratio, count in rows]
    row, = (row for row in honesty_checks(Part(told, torch.arange(100), 0.1), flags)
            if row["check"] == "larger strengths are not easier")
    assert row["passed"] is passed


class Blind(nn.Sequential):
    """It looks at images whose first pixel is lit, and at their right half alone."""

    def forward(self, images: Tensor) -> Tensor:
        lit = (images[:, :1, :1, :1] > 0.5).detach()
        return super().forward(images[..., 16:].repeat(1, 1, 1, 2) * lit)


@pytest.mark.parametrize("dark, passed", [(1, True), (2, False)])
def test_one_image_of_a_hundred_may_have_no_gradient(dark, passed):
    pixels = torch.randint(100, 156, (100, 3, 32, 32), dtype=torch.uint8)
    pixels[:, :, 0, 0] = 255
    pixels[:dark, :, 0, 0] = 0
    images = ImageSet(pixels, torch.arange(100) % 10)
    evaluation = Evaluation(Blind(*layers()).eval(), BatchLoader(images, 100, 0, "test"), 10, batch_size=30)
    row = zero_gradients(Part(evaluation, torch.arange(100), 0.1), [])
    assert (row.passed, row.numbers["share"]) == (passed, dark / 100)


@pytest.mark.slow
def test_few_images_are_no_ground_for_a_verdict(data, weights):
    model = nn.Sequential(*layers())
    model.load_state_dict(weights)
    small = ImageSet(data.test.images[:LEAST_IMAGES - 1], data.test.labels[:LEAST_IMAGES - 1])
    result = measure(Evaluation(model.eval(), BatchLoader(small, 9, 0, "test"), 10, log=lambda line: None), [], 100)
    verdicts = [check["passed"] for check in result["checks"]]
    assert verdicts == [True] + [None] * 8 and "only" in result["checks"][1]["says"]


def test_the_images_and_the_strength_of_the_checks():
    clean = torch.arange(100) % 2 == 0
    chosen = choose_images(clean, 20, 0)
    assert len(chosen) == len(chosen.unique()) == 20 and clean[chosen].all() and chosen.equal(chosen.sort().values)
    assert not chosen.equal(choose_images(clean, 20, 1)) and len(choose_images(clean, 80, 0)) == 50
    measured = ((0.04, 0.7), (0.1, 0.5), (0.2, 0.1))
    rows = [{"method": "pgd", "norm": "linf", "epsilon": e, "accuracy": a} for e, a in measured]
    assert choose_strength(rows, 0.9) == 0.1
    assert choose_strength([{**row, "accuracy": 0.9} for row in rows], 0.9) == 0.2, "where nothing helps, the largest"
    assert choose_strength([{**row, "epsilon": row["epsilon"] / 10} for row in rows], 0.9) == LEAST_STRENGTH
    assert choose_strength([{**row, "norm": "l2"} for row in rows], 0.9) == LEAST_STRENGTH


@pytest.mark.slow
def test_every_network_that_is_known_to_be_broken_is_found_out_and_no_sound_one_is_accused(monkeypatch):
    """The table of docs/EVALUATE.md at a small size."""
    monkeypatch.setattr(known_networks, "STEPS", 40)
    data = small_digits(60)
    base = known_networks.trained(known_networks.perceptron(), data)
    images = images_of(data, 60, 0, torch.device("cpu"))
    assert len(BROKEN) >= 10 and len(SOUND) >= 10
    for known in (*BROKEN, *SOUND):
        found = found_out(known, base, data, images, "quick", 60)
        assert (found == []) is known.sound, (known.what, found)


# ---- the published way -----------------------------------------------------------------------------------------------


def normalised() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))


@pytest.fixture(scope="module")
def with_batch_norm(data) -> nn.Module:
    return trained(normalised(), data, noise=0.05)


def in_the_published_way(model: nn.Module, data: ImageSet, epsilon: float, batches: list[Tensor], steps: int) -> Tensor:
    """Written out: training mode, attack, evaluation mode, predict, batch after batch."""
    correct = torch.zeros(len(data), dtype=torch.bool)
    for batch in batches:
        images, labels = data.images[batch].float() / 255, data.labels[batch]
        adversarial = images.clone()
        model.train()
        for _ in range(steps):
            adversarial.requires_grad_(True)
            gradient, = torch.autograd.grad(nn.functional.cross_entropy(model(adversarial), labels), adversarial)
            step = adversarial.detach() + 2.5 * epsilon / steps * gradient.sign()
            adversarial = (images + (step - images).clamp(-epsilon, epsilon)).clamp(0, 1)
        model.eval()
        with torch.no_grad():
            correct[batch] = model(adversarial).argmax(1) == labels
    return correct


@pytest.mark.slow
def test_it_is_the_published_procedure(data, with_batch_norm, monkeypatch, tmp_path):
    orders = []
    real = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda *a, **k: orders.append(real(*a, **k)) or orders[-1])
    before = {name: value.clone() for name, value in with_batch_norm.state_dict().items()}
    found = official_accuracy(with_batch_norm, BatchLoader(data.test, 10, 0, "test"), [0.05, 0.1], World(), steps=5,
                              state=tmp_path / "official.pt")
    assert all(torch.equal(value, before[name]) for name, value in with_batch_norm.state_dict().items())
    model = normalised()
    model.load_state_dict(before)
    batches = orders[-1].split(BATCH)
    expected = [in_the_published_way(model, data.test, e, batches, 5) for e in (0.05, 0.1)]  # statistics wander on
    assert (found != torch.stack(expected)).float().mean() <= 0.01, "rounding may cost an image at the border"
    left = torch.load(tmp_path / "official.pt")["buffers"]
    assert all(torch.allclose(left[name].double(), value.double(), rtol=1e-4) for name, value in model.named_buffers())


@pytest.mark.slow
def test_it_flatters_a_network_with_batch_norm_and_no_other(with_batch_norm, weights):
    loader, strengths = BatchLoader(load_dataset("digits").test, 100, 0, "test"), [0.1, 0.15]
    plain = nn.Sequential(*layers())
    plain.load_state_dict(weights)
    rows = {}
    for name, model in (("batch norm", with_batch_norm), ("plain", plain.eval())):
        images, labels = next(iter(loader.images_at([torch.arange(359)])))
        honest = [model(pgd(model, images, labels, e, 20)).argmax(1) == labels for e in strengths]
        rows[name] = official_rows(strengths, official_accuracy(model, loader, strengths, World()), honest)
    assert all(row["difference"] == 0 for row in rows["plain"])
    for row in rows["batch norm"]:
        assert row["difference"] == pytest.approx(row["published_way"] - row["honest"])
        assert row["interval"][0] > 0, "it flatters beyond chance"


def test_dropout_that_training_mode_turns_on_drops_the_same_each_time(data, weights):
    plain = nn.Sequential(*layers())
    plain.load_state_dict(weights)
    model, loader = nn.Sequential(plain[:-1], nn.Dropout(0.5), plain[-1]).eval(), BatchLoader(data.test, 100, 0, "test")
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(official_accuracy(model, loader, [0.05], World(), steps=2))
        assert torch.initial_seed() == seed
    assert found[0].equal(found[1])


@pytest.mark.slow
def test_killed_it_goes_on(data, with_batch_norm, tmp_path, monkeypatch):
    loader, strengths = BatchLoader(data.test, 100, 0, "test"), [0.05, 0.1]
    state, undisturbed = tmp_path / "eval" / "official.pt", tmp_path / "undisturbed.pt"
    whole = official_accuracy(with_batch_norm, loader, strengths, World(), steps=3, state=undisturbed)
    calls = []

    def dies(*arguments, **named):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return pgd(*arguments, **named)

    monkeypatch.setattr("wsrnas.evaluation.official.pgd", dies)
    with pytest.raises(KeyboardInterrupt):
        official_accuracy(with_batch_norm, loader, strengths, World(), steps=3, state=state, header={"model": "a"})
    again = official_accuracy(with_batch_norm, loader, strengths, World(), steps=3, state=state, header={"model": "a"})
    assert torch.equal(again, whole) and len(calls) == 6 + 8 - 5
    left, expected = (torch.load(path)["buffers"] for path in (state, undisturbed))
    assert all(torch.equal(left[name], expected[name]) for name in expected), "the statistics did not wander on"
    official_accuracy(with_batch_norm, loader, strengths, World(), steps=3, state=state, header={"model": "b"})
    assert len(calls) == 9 + 8, "another network's state was believed"
    official_accuracy(with_batch_norm, loader, strengths, World(), steps=4, state=state, header={"model": "b"})
    official_accuracy(with_batch_norm, loader, [0.05, 0.2], World(), steps=4, state=state, header={"model": "b"})
    assert len(calls) == 17 + 8 + 8, "another attack's state was believed"
