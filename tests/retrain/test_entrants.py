"""Who enters a race and at which width: names, files and random cells; budgets against counting every width."""

import itertools
import json
import random
import re
from dataclasses import replace

import pytest

import genotypes
import retrain.race.entrants as entrants_module
from retrain.race.entrants import NEIGHBOURHOOD, NEIGHBOURS, Entrant, common_budget, load_entrants, nearest_width, widen
from retrain.race.register import as_entered
from wsrnas.architectures.catalogue import ENTRIES
from wsrnas.complexity import count_parameters, multiply_adds, readable
from wsrnas.models import build_model
from wsrnas.runtime.budget import Budget, parse_budget
from wsrnas.runtime.errors import InputError

SHAPE = (3, 32, 32)


def names_of(*specs, seed=0):
    return [entrant.name for entrant in load_entrants(specs, 2, seed)]


def refused(*specs):
    """The one sentence that the entrants are refused with."""
    with pytest.raises(InputError) as caught:
        load_entrants(specs, 2, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- who enters -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("specs", [
    ("RACL,AdvRush,resnet18",), ("RACL", "AdvRush", "resnet18"), ("RACL,", "AdvRush", ",resnet18"),
    ("RACL, AdvRush ,resnet18,",), ("racl", "adv-rush", "ResNet_18")])
def test_entrants_keep_their_order_however_they_are_separated_and_spelled(specs):
    entrants = load_entrants(specs, 7, 0)
    assert entrants == [
        Entrant("RACL", genotypes.load("RACL"), ENTRIES["RACL"].source, "robust NAS", 7),
        Entrant("AdvRush", genotypes.load("AdvRush"), ENTRIES["AdvRush"].source, "robust NAS", 7),
        Entrant("resnet18", "resnet18", ENTRIES["resnet18"].source, "hand-designed", None)]


def test_an_alias_enters_under_the_name_it_stands_for():
    assert names_of("cna_m,WsrNet_Robust") == ["WsrNet_M", "WsrNet_Basic"]


def test_a_network_of_a_design_of_its_own_has_no_number_of_cells():
    layers = {entrant.name: entrant.layers for entrant in load_entrants(("vgg16,robnet_free,RACL,random:1",), 3, 0)}
    assert layers == {"vgg16": None, "robnet_free": None, "RACL": 3, "random_1": 3}


def test_more_random_cells_begin_with_the_fewer():
    three, five = (load_entrants((f"random:{count}",), 2, 4) for count in (3, 5))
    assert five[:3] == three == load_entrants(("random:3",), 2, 4)
    assert [entrant.name for entrant in five] == [f"random_{number}" for number in range(1, 6)]
    cells = [entrant.arch.to_json() for entrant in five]
    assert len(set(cells)) == 5
    others = [entrant.arch.to_json() for entrant in load_entrants(("random:5",), 2, 5)]
    assert not set(cells) & set(others)
    assert {entrant.family for entrant in five} == {"random"} and "seed 4" in five[0].source


def test_files_and_run_directories_enter_under_their_names(tmp_path, monkeypatch):
    cell = genotypes.load("cna_m")
    run = tmp_path / "search" / "first-v1.5"
    for folder in (run, tmp_path / "search" / "first-v1.6"):
        folder.mkdir(parents=True)
        cell.save(folder / "genotype.json")
    for name in ("mine.json", "eps=8, 2nd.json", "x.v2.json"):
        cell.save(tmp_path / name)
    files = [str(run), str(tmp_path / "search" / "first-v1.6" / "genotype.json"), str(tmp_path / "mine.json"),
             str(tmp_path / "x.v2.json")]
    entrants = load_entrants(files, 2, 0)
    assert entrants == [Entrant(name, cell, source, "searched", 2) for name, source in zip(
        ["first-v1.5", "first-v1.6", "mine", "x.v2"], files, strict=True)]
    monkeypatch.chdir(run)
    assert names_of("genotype.json") == names_of("./") == ["first-v1.5"]


@pytest.mark.parametrize(("file", "name"), [
    ("my cell.json", "my-cell"), ("a+b(1).json", "a-b-1-"), ("ok_1.2-x.json", "ok_1.2-x"), ("größe.json", "gr-e")])
def test_a_files_name_becomes_one_for_folders(file, name, tmp_path):
    genotypes.load("RACL").save(tmp_path / file)
    assert names_of(str(tmp_path / file)) == [name]


def test_a_name_may_be_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = genotypes.load("cna_m")
    cell.save("racl.json")
    cell.save("lr=1.json")
    assert load_entrants(("RACL,mine.v-2=racl.json", "again=AdvRush,lr=1.json"), 2, 0) == [
        *load_entrants(("RACL",), 2, 0), Entrant("mine.v-2", cell, "racl.json", "searched", 2),
        replace(load_entrants(("AdvRush",), 2, 0)[0], name="again"), Entrant("lr-1", cell, "lr=1.json", "searched", 2)]
    assert refused("random:2,RACL", "random:1") == (
        "archs asks 2 times for random cells; expected one random:N with all of them")
    assert "unknown architecture '=RACL'" in refused("=RACL") and "twice" in refused("a=RACL,A=AdvRush")


@pytest.mark.parametrize(("specs", "name"), [
    (("RACL,AdvRush,racl",), "RACL"), (("cna_r", "WsrNet_Basic"), "WsrNet_Basic"),
    (("resnet18 ,resnet-18",), "resnet18"), (("RACL", "FOLDER/racl.json"), "RACL"),
    (("FOLDER/racl.json", "FOLDER/RACL.json"), "racl"), (("random:1", "FOLDER/random_1.json"), "random_1")])
def test_the_same_name_twice_is_refused(specs, name, tmp_path):
    for file in ("racl.json", "RACL.json", "random_1.json"):
        genotypes.load("cna_m").save(tmp_path / file)
    assert refused(*(spec.replace("FOLDER", str(tmp_path)) for spec in specs)).startswith(
        f"{name} is among the entrants twice")


@pytest.mark.parametrize(("spec", "words"), [
    ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "no path of operations leads from the input to the output"),
    ("random:0", "archs contains 'random:0'; expected 1 to 10000 random cells"),
    *((spec, f"archs contains {spec}; expected random:N") for spec in ("random", "random:", "random:-1", "Random:2",
                                                                       "random:1x", "random: 2")),
    ("AdvRsh", "unknown architecture 'AdvRsh'; did you mean AdvRush?"),
    ("resnet81", "did you mean resnet18"),
    ("dsrna", "DSRNA cannot be built: published as a drawing"),
    ("RobNet-M", "RobNet_medium cannot be built"),
    ("no/such/run", "no/such/run does not exist"),
])
def test_nobody_unknown_enters(spec, words):
    assert words in refused("RACL", spec)


def test_a_cell_that_refers_forward_is_refused_with_its_node(tmp_path):
    stored = json.loads(genotypes.load("RACL").to_json())
    stored["normal"][5] = ["skip_connect", 4]  # an edge of node 4
    (tmp_path / "genotype.json").write_text(json.dumps(stored))
    said = refused(str(tmp_path))
    assert said.startswith(f"{tmp_path}/genotype.json: edge 1 of node 4 in the normal cell refers forward, to 4")


def test_a_folder_without_a_cell_is_refused(tmp_path):
    assert "holds no genotype.json" in refused(str(tmp_path))


# -- budgets ----------------------------------------------------------------------------------------------------------

def test_budgets_are_read_in_every_way_to_write_them():
    draw = random.Random(0)
    for _ in range(300):
        quantity, unit = draw.choice(["params", "macs"]), draw.choice(["", *"kKmMgGtT"])
        digits = draw.choice(["{:.0f}", "{:.1f}", "{:.3f}"]).format(draw.uniform(1, 900))
        scale = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}[unit.lower()]
        text = f"{quantity}={digits}{unit}"
        assert parse_budget(text) == Budget(quantity, float(digits) * scale, text)
    assert parse_budget("macs=.5G").value == 5e8 and parse_budget("params=3.M").value == 3e6


def test_what_readable_writes_is_a_budget():
    draw = random.Random(1)
    for _ in range(500):
        value = float(f"{10 ** draw.uniform(0, 14.9):.4g}")
        assert parse_budget(f"params={readable(value)}").value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", [
    "", "4.5M", "params", "params=", "params=M", "params=-1", "params=0", "macs=0.0M", "params=4.5 M", "params= 4.5M",
    "params=4.5MB", "flops=1M", "PARAMS=1M", "params=4,5M", "params=1e6", "params=.", "params=1.2.3", "params=inf",
    "params=nan", "macs=1M,params=2M", "params=1M\n", " params=1M"])
def test_what_is_no_budget_is_told(text):
    with pytest.raises(InputError) as caught:
        parse_budget(text)
    assert str(caught.value) == (f"budget is {text!r}; expected params=NUMBER or macs=NUMBER, such as params=4.5M or "
                                 "macs=700M")


def steps(draw, jumps, number=60):
    """A cost by width that does not fall: ``number`` random steps, then regular ones."""
    values = list(itertools.accumulate(draw.choice(jumps) for _ in range(number)))
    return lambda width: values[width - 1] if width <= number else values[-1] + 50 * (width - number)


@pytest.mark.parametrize("jumps", [(1, 2, 5, 30, 100), (0, 0, 0, 1, 40)], ids=["increasing", "repeating"])
def test_the_nearest_width_is_that_of_trying_all(jumps):
    """Also below the first cost, beyond the last, exactly at one, and exactly between two."""
    draw = random.Random(len(jumps))
    for _ in range(400):
        increments = steps(draw, jumps)
        first = draw.randint(1, 50)

        def cost(width, increments=increments, first=first):
            assert width >= 1
            return first + increments(width)

        width = draw.randint(1, 70)
        for target in (draw.uniform(0.1, 1.3 * cost(60)), first / 2, cost(width), (cost(width) + cost(width + 1)) / 2):
            best = min(range(1, 200), key=lambda width: (abs(cost(width) - target), width))
            assert nearest_width(cost, target, draw.randint(1, 100)) == best


def test_few_widths_are_counted():
    counted = []

    def cost(width):
        counted.append(width)
        return 7 * width ** 2 + 1000 * width

    assert nearest_width(cost, cost(12345), 36) == 12345
    assert len(set(counted)) <= 40 and max(counted) < 10 * 12345


@pytest.mark.slow
def test_the_common_budget_is_that_of_trying_all():
    """Met by all, and hardly farther from the target than the nearest of all budgets; none where there is none."""
    draw = random.Random(3)
    outcomes = []
    for _ in range(400):
        tolerance = draw.choice([0.002, 0.01, 0.05])
        scales = [draw.uniform(5, 80) for _ in range(draw.randint(2, 4))]
        costs = [lambda width, scale=scale: round(scale * width ** 2 + 300 * width) for scale in scales]
        target = draw.uniform(3e3, 6e5)
        widths = [nearest_width(cost, target, 20) for cost in costs]
        near = [[cost(other) for other in range(1, 3 * width + 20)
                 if abs(other - width) <= max(NEIGHBOURS, round(NEIGHBOURHOOD * width))]
                for cost, width in zip(costs, widths, strict=True)]

        def met(value, near=near, tolerance=tolerance, margin=0.0):
            return all(any(abs(count - value) <= (tolerance - margin) * value for count in counts) for counts in near)

        if met(target):
            continue  # nobody asks for another one
        found = common_budget(costs, widths, target, tolerance)
        grid = [target * (0.3 + 0.002 * step) for step in range(1000)]
        best = min((value for value in grid if met(value, margin=2e-3)), key=lambda value: abs(value - target),
                   default=None)
        outcomes.append(found is None)
        if found is None:
            assert best is None
            continue
        assert met(found, margin=-1e-9) and found == float(f"{found:.4g}")
        assert best is None or abs(found - target) <= abs(best - target) + 0.002 * target
    assert 20 < sum(outcomes) < len(outcomes) - 20  # both happen


def test_a_budget_for_one_without_a_neighbourhood_is_its_own_cost():
    assert common_budget([lambda width: 1000 * width], [1], 700, 0.02) == pytest.approx(1000 / 1.02, rel=1e-3)


# -- widths of real networks ------------------------------------------------------------------------------------------

FIELD = ("WsrNet_Basic", "RACL", "squeezenet")
COUNTS = {"params": lambda network: count_parameters(network), "macs": lambda network: multiply_adds(network, SHAPE)}


@pytest.fixture(scope="module")
def field():
    """Small entrants, and what each costs at its first widths: by quantity and name, a list."""
    entrants = load_entrants(FIELD, 1, 0)
    counted = {quantity: {} for quantity in COUNTS}
    for entrant in entrants:
        networks = [build_model(entrant.arch, 10, width, entrant.layers, "digits", 3) for width in range(1, 11)]
        for quantity, count in COUNTS.items():
            counted[quantity][entrant.name] = [count(network) for network in networks]
    return entrants, counted


def widened(entrants, text, tolerance):
    return widen(entrants, parse_budget(text), tolerance, 10, SHAPE, "digits", 0)


def test_random_cells_are_drawn_from_those_that_meet_the_budget():
    """First draws that meet it stay, others are drawn again, and fewer random cells are the first of more."""
    before = load_entrants(("random:6",), 1, 0)
    after = widened(before, "params=2.5k", 0.01)
    assert all(abs(entrant.parameters - 2500) <= 25 for entrant in after)
    assert [entrant.name for entrant in after] == [entrant.name for entrant in before]
    assert len({entrant.arch.to_json() for entrant in after}) == 6
    assert widened(before[:2], "params=2.5k", 0.01) == after[:2]
    anything = widened(before, "params=2.5k", 0.99)
    assert [entrant.arch for entrant in anything] == [entrant.arch for entrant in before]
    kept = [entrant.arch == first.arch for first, entrant in zip(before, after, strict=True)]
    nearest = [abs(entrant.parameters - 2500) <= 25 for entrant in anything]
    assert kept == nearest and not all(kept)


def test_random_cells_that_have_entered_are_not_drawn_again():
    asked = load_entrants(["random:2", "squeezenet"], 3, seed=1)
    there = [replace(load_entrants(["random:1"], 3, seed=2)[0], init_channels=7), replace(asked[2], init_channels=5)]
    assert there[0].arch != asked[0].arch and [entrant.drawn for entrant in asked] == [True, True, False]
    assert as_entered(asked, there) == [there[0], *asked[1:]]


def test_where_no_random_cell_meets_the_budget_the_first_draw_is_named(monkeypatch):
    monkeypatch.setattr(entrants_module, "DRAWS", 3)
    entrants = load_entrants(("random:1",), 1, 0)
    with pytest.raises(InputError, match=r"^no width meets the budget params=3 \(parameters\) .*: random_1 comes"):
        widened(entrants, "params=3", 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["params=1.5k", "params=2.5k", "macs=0.25M"])
def test_every_entrant_is_widened_to_what_comes_nearest(text, field):
    entrants, counted = field
    budget = parse_budget(text)
    result = widened(entrants, text, 0.99)
    for before, after in zip(entrants, result, strict=True):
        counts = counted[budget.quantity][before.name]
        best = min(range(10), key=lambda index: abs(counts[index] - budget.value))
        assert best < 9  # the widths counted reach beyond the budget
        assert after == replace(before, init_channels=best + 1, parameters=counted["params"][before.name][best],
                                multiply_adds=counted["macs"][before.name][best])


@pytest.mark.slow
def test_a_budget_that_some_miss_names_them_and_one_that_all_meet(field):
    entrants, counted = field
    with pytest.raises(InputError) as caught:
        widened(entrants, "params=2.5k", 0.07)
    said = str(caught.value)
    assert said.startswith("no width meets the budget params=2.5k (parameters) within 0.07 of it: ")
    assert "\n" not in said
    for entrant in entrants:
        counts = counted["params"][entrant.name]
        width, count = min(enumerate(counts, start=1), key=lambda row: abs(row[1] - 2500))
        words = f"{entrant.name} comes nearest with {readable(count)} ({count / 2500 - 1:+.1%}, init_channels {width})"
        assert (words in said) == (abs(count - 2500) > 0.07 * 2500)
    offered, tolerance = re.search(
        r"; all entrants meet (params=\S+), and --tolerance (\S+) admits all$", said).groups()
    assert widened(entrants, "params=2.5k", float(tolerance))
    with pytest.raises(InputError):
        widened(entrants, "params=2.5k", float(tolerance) - 0.001)
    value = parse_budget(offered).value
    assert all(abs(entrant.parameters - value) <= 0.07 * value for entrant in widened(entrants, offered, 0.07))


@pytest.mark.slow
def test_a_budget_below_every_width_says_so(field):
    with pytest.raises(InputError) as caught:
        widened(field[0], "macs=1k", 0.0001)
    said = str(caught.value)
    assert said.endswith("; no budget near it is met by all entrants")  # and no tolerance, which is below 1
    assert all(f"{entrant.name} comes nearest" in said for entrant in field[0]) and said.count("init_channels 1)") == 3


@pytest.mark.slow
def test_a_network_whose_width_moves_in_steps_is_widened_like_any_other():
    """shufflenet_v2 rounds its stages' widths: its costs grow in unequal steps."""
    entrants = load_entrants(("shufflenet_v2",), 1, 0)
    counts = [count_parameters(build_model("shufflenet_v2", 10, width, None, "digits", 3)) for width in (1, 2, 3, 4)]
    for target in (counts[1] + 1, (counts[1] + counts[2]) // 2 + 9):
        width = 1 + min(range(4), key=lambda index: abs(counts[index] - target))
        entrant, = widened(entrants, f"params={target}", 0.99)
        assert (entrant.init_channels, entrant.parameters) == (width, counts[width - 1])
