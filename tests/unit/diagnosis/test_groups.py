"""Parameter groups: who follows whom, and real optimizers that take steps with them."""

import pytest
import torch

from scanner.api import scan
from scanner.diagnosis.groups import parameter_groups
from scanner.diagnosis.plans import Plan, PlanEntry, PlanKind, make_plan
from schemas.errors import ConfigError

MATRIX, VECTOR = torch.zeros(2, 2), torch.zeros(2)


def plan_of(values, kind=PlanKind.LEARNING_RATE, reason=None, kept=()):
    """A plan with these values by tensor; the `kept` ones stay at the base 1."""
    entries = [
        PlanEntry(
            name=name,
            tensors=(name,),
            params=4,
            alpha=2.0,
            factor=value,
            value=value,
            note="first matrix" if name in kept else None,
        )
        for name, value in values.items()
    ]
    return Plan(
        kind=kind,
        base=1.0,
        alpha="alpha_hill",
        variant="linear",
        scale=(0.5, 1.5),
        beta=None,
        clip=None,
        source="",
        reason=reason,
        entries=tuple(entries),
    )


def rates(planned, parameters, **options):
    """The learning rate of every parameter, by name; each must be in exactly one group."""
    named = {name: value.clone() for name, value in parameters.items()}
    groups = parameter_groups(plan_of(planned, **options), named.items())
    found = {}
    for group in groups:
        for parameter in group["params"]:
            (name,) = (name for name, value in named.items() if value is parameter)
            assert name not in found
            found[name] = group["lr"]
    assert found.keys() == named.keys()
    return found


def test_what_is_not_in_the_plan_keeps_the_base_value():
    found = rates({"a.weight": 0.5}, {"embed.weight": MATRIX, "a.weight": MATRIX, "norm.weight": VECTOR})
    assert found == {"embed.weight": 1.0, "a.weight": 0.5, "norm.weight": 1.0}


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ("fc.weight", "fc.bias"),
        ("weight", "bias"),
        ("self_attn.in_proj_weight", "self_attn.in_proj_bias"),
        ("rnn.weight_ih_l0", "rnn.bias_ih_l0"),
    ],
)
def test_a_bias_follows_its_weight(weight, bias):
    found = rates({weight: 0.5, "other.weight": 2.0}, {weight: MATRIX, bias: VECTOR, "other.weight": MATRIX})
    assert found == {weight: 0.5, bias: 0.5, "other.weight": 2.0}


@pytest.mark.parametrize(
    ("layer", "norm"),
    [
        ("layer1.0.conv2", "layer1.0.bn2"),
        ("conv2", "bn2"),
        ("block.conv2", "block.norm2"),
        ("features.3", "features.4"),
        ("downsample.0", "downsample.1"),
    ],
)
def test_a_norm_follows_the_layer_its_name_points_at(layer, norm):
    other = layer.replace("conv2", "conv1").replace("s.3", "s.0") + ".extra"
    parameters = {
        f"{other}.weight": MATRIX,
        f"{layer}.weight": MATRIX,
        f"{norm}.weight": VECTOR,
        f"{norm}.bias": VECTOR,
    }
    found = rates({f"{layer}.weight": 0.5, f"{other}.weight": 2.0}, parameters)
    assert found == {
        f"{other}.weight": 2.0,
        f"{layer}.weight": 0.5,
        f"{norm}.weight": 0.5,
        f"{norm}.bias": 0.5,
    }


def test_a_norm_follows_the_only_layer_beside_it():
    planned = {"output.dense.weight": 0.5, "deeper.output.dense.weight": 2.0}
    parameters = {**dict.fromkeys(planned, MATRIX), "output.LayerNorm.weight": VECTOR}
    assert rates(planned, parameters)["output.LayerNorm.weight"] == 0.5


def test_a_norm_beside_several_layers_keeps_the_base_value():
    planned = {"layer.linear1.weight": 0.5, "layer.linear2.weight": 2.0}
    assert rates(planned, {**dict.fromkeys(planned, MATRIX), "layer.norm1.weight": VECTOR}) == {
        **planned,
        "layer.norm1.weight": 1.0,
    }
    found = rates({"layer.linear1.weight": 0.5}, {**dict.fromkeys(planned, MATRIX), "layer.n.weight": VECTOR})
    assert found["layer.n.weight"] == 1.0


def test_a_norm_above_the_layers_keeps_the_base_value():
    planned = {"layers.0.mlp.down_proj.weight": 0.5}
    parameters = {"layers.0.mlp.down_proj.weight": MATRIX, "layers.0.input_layernorm.weight": VECTOR}
    assert rates(planned, parameters)["layers.0.input_layernorm.weight"] == 1.0


def test_the_bias_of_a_kept_or_unplanned_layer_keeps_the_base_value():
    parameters = {
        "a.x.weight": MATRIX,
        "a.y.weight": MATRIX,
        "a.y.bias": VECTOR,
        "a.z.weight": MATRIX,
        "a.z.bias": VECTOR,
    }
    found = rates({"a.x.weight": 0.5, "a.y.weight": 1.0}, parameters, kept=("a.y.weight",))
    assert found == {**dict.fromkeys(parameters, 1.0), "a.x.weight": 0.5}


def test_a_loose_vector_keeps_the_base_value():
    assert rates({"fc.weight": 0.5}, {"fc.weight": MATRIX, "gamma": VECTOR})["gamma"] == 1.0


def test_groups_are_named_after_their_tensor_so_that_a_later_plan_finds_them():
    named = {"a.weight": MATRIX, "a.bias": VECTOR, "b.weight": MATRIX}
    groups = parameter_groups(plan_of({"a.weight": 0.5}), named.items())
    assert [(group["name"], len(group["params"])) for group in groups] == [("a.weight", 2), ("base", 1)]


def test_a_uniform_plan_is_one_group():
    named = {"a.weight": MATRIX, "b.weight": MATRIX}
    groups = parameter_groups(plan_of(dict.fromkeys(named, 1.0), reason="alike"), named.items())
    assert [(group["name"], group["lr"], len(group["params"])) for group in groups] == [("base", 1.0, 2)]


def test_a_plan_of_another_model_is_refused():
    with pytest.raises(ConfigError, match=r"plan has a\.weight, the model module\.a\.weight"):
        parameter_groups(plan_of({"a.weight": 0.5}), [("module.a.weight", MATRIX)])


@pytest.mark.parametrize("kind", [PlanKind.PRUNING, PlanKind.EXPERTS])
def test_plans_that_are_not_an_optimizers_have_no_groups(kind):
    with pytest.raises(ConfigError, match="learning-rate or weight-decay"):
        parameter_groups(plan_of({}, kind), [])


# Real models, real optimizers


def network() -> torch.nn.Sequential:
    """Six layers whose spectra go from light to heavy tails."""
    torch.manual_seed(0)
    layers = []
    for power in (0.0, 0.1, 0.4, 0.7, 1.0, 1.3, 0.0):
        linear = torch.nn.Linear(64, 64)
        with torch.no_grad():
            linear.weight *= torch.arange(1, 65)[:, None] ** -power
        layers += [linear, torch.nn.LayerNorm(64)]
    return torch.nn.Sequential(*layers)


def stepped(model, groups, optimizer_class):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = optimizer_class(groups)
    model(torch.ones(3, 64)).square().sum().backward()
    optimizer.step()
    return optimizer, {
        name: (parameter.detach(), before[name]) for name, parameter in model.named_parameters()
    }


def test_sgd_steps_by_the_planned_learning_rates():
    model = network()
    plan = make_plan(list(scan(model.state_dict())), PlanKind.LEARNING_RATE, base=0.01)
    assert plan.reason is None
    groups = parameter_groups(plan, model.named_parameters())
    assert sorted({group["lr"] for group in groups})[0] == pytest.approx(0.005)
    assert max(group["lr"] for group in groups) == pytest.approx(0.015)
    _, moved = stepped(model, groups, torch.optim.SGD)
    rate = {entry.name: entry.value for entry in plan.entries}
    followed = {"2.weight": "2.weight", "2.bias": "2.weight", "3.weight": "2.weight", "3.bias": "2.weight"}
    for name, leader in followed.items():
        after, before = moved[name]
        gradient = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(after, before - rate[leader] * gradient)
    assert rate["2.weight"] != 0.01


def test_adamw_decays_by_the_planned_weight_decays():
    model = network()
    plan = make_plan(list(scan(model.state_dict())), PlanKind.WEIGHT_DECAY, base=0.1)
    optimizer, _ = stepped(model, parameter_groups(plan, model.named_parameters()), torch.optim.AdamW)
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    alphas = {entry.name: entry.alpha for entry in plan.entries if entry.note is None}
    heaviest, lightest = min(alphas, key=alphas.get), max(alphas, key=alphas.get)
    assert decay[heaviest] == pytest.approx(0.1 * 2 / 3)
    assert decay[lightest] == pytest.approx(0.5)
    assert decay["base"] == 0.1
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}


def test_the_heavier_tail_gets_the_smaller_step():
    model = network()
    plan = make_plan(list(scan(model.state_dict())), PlanKind.LEARNING_RATE)
    value = {entry.name: entry.value for entry in plan.entries}
    assert value["10.weight"] < value["6.weight"] < value["2.weight"]
    assert (value["0.weight"], value["12.weight"]) == (0.1, 0.1)
