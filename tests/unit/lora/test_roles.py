"""Roles on one base: the gradient of three copies from one, whatever runs between forward and backward."""

import functools
from collections.abc import Callable

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape
from rlhf_video.diffusion.flow import interpolate
from rlhf_video.errors import AdapterError
from rlhf_video.lora import LoraConfig, adapter_off, adapter_parameters, adapter_state, attach, load_adapter_state
from rlhf_video.lora.roles import FAKE, Role, leaf, role, splice
from rlhf_video.testing import TINY_PROMPTS

SIGMA, LEVEL = torch.tensor(1.0), torch.tensor(0.4)
SHAPE = VideoShape(batch=2, frames=9, height=32, width=32)
ROLES: tuple[Role, ...] = ("teacher", "student", "fake")


def _noise(backbone: VideoBackbone, seed: int) -> Tensor:
    return backbone.noise(SHAPE, torch.Generator().manual_seed(seed))


def _perturb(parameters: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _with_roles(backbone: VideoBackbone) -> VideoBackbone:
    attach(backbone, LoraConfig(rank=2, alpha=4.0), seed=0)
    attach(backbone, LoraConfig(rank=3, alpha=3.0), seed=1, name=FAKE)
    _perturb(adapter_parameters(backbone), 2)
    _perturb(adapter_parameters(backbone, name=FAKE), 3)
    return backbone


@pytest.fixture
def base(tiny_wan: VideoBackbone) -> VideoBackbone:
    """Return one base with a student and a fake score, both away from zero."""
    return _with_roles(tiny_wan)


@pytest.fixture
def cond(tiny_wan: VideoBackbone) -> Conditioning:
    """Return two encoded prompts."""
    return tiny_wan.encode_prompts(TINY_PROMPTS)


def _sample(student: VideoBackbone, cond: Conditioning) -> Tensor:
    noise = _noise(student, 4)
    return noise - student.velocity(noise, SIGMA, cond)


def _critics(teacher: Tensor, fake: Tensor) -> Tensor:
    """Return a loss in which both critics' Jacobians matter."""
    return (teacher.square().mean(dim=(1, 2, 3, 4)) - 0.5 * (teacher * fake).mean(dim=(1, 2, 3, 4))).sum()


def _noised(backbone: VideoBackbone, sample: Tensor) -> Tensor:
    return interpolate(sample, _noise(backbone, 5), LEVEL)


def _flat(gradients: list[Tensor | None]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def _outputs(backbone: VideoBackbone, cond: Conditioning) -> dict[str, Tensor]:
    noise, outputs = _noise(backbone, 4), {}
    for name in ROLES:
        with torch.no_grad(), role(backbone, name):
            outputs[name] = backbone.velocity(noise, SIGMA, cond)
    return outputs


def test_new_roles_are_the_base_exactly(tiny_wan: VideoBackbone, cond: Conditioning) -> None:
    noise = _noise(tiny_wan, 4)
    expected = tiny_wan.velocity(noise, SIGMA, cond)
    attach(tiny_wan, LoraConfig(rank=2), seed=0)
    attach(tiny_wan, LoraConfig(rank=3), seed=1, name=FAKE)
    for output in _outputs(tiny_wan, cond).values():
        assert torch.equal(output, expected)


def test_each_role_runs_its_own_weights_and_the_student_runs_outside(
    base: VideoBackbone, cond: Conditioning, make_tiny_wan: Callable[[], VideoBackbone]
) -> None:
    outputs, noise = _outputs(base, cond), _noise(base, 4)
    for name, state in (("teacher", None), ("student", adapter_state(base)), ("fake", adapter_state(base, name=FAKE))):
        alone = make_tiny_wan()
        if state is not None:
            rank, alpha = (2, 4.0) if name == "student" else (3, 3.0)
            attach(alone, LoraConfig(rank=rank, alpha=alpha), seed=9)
            load_adapter_state(alone, state)
        torch.testing.assert_close(alone.velocity(noise, SIGMA, cond), outputs[name], rtol=0, atol=1e-6)
    assert torch.equal(base.velocity(noise, SIGMA, cond), outputs["student"])
    assert len({output.sum().item() for output in outputs.values()}) == 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_spliced_gradient_is_that_of_three_copies(
    base: VideoBackbone, cond: Conditioning, make_tiny_wan: Callable[[], VideoBackbone], checkpointing: bool
) -> None:
    copies = [make_tiny_wan() for _ in ROLES]
    teacher, student, fake = copies[0], _with_roles(copies[1]), _with_roles(copies[2])
    joint = _sample(student, cond)
    noised = _noised(student, joint)
    with role(fake, "fake"):
        loss = _critics(teacher.velocity(noised, LEVEL, cond), fake.velocity(noised, LEVEL, cond))
        loss.backward()
    expected = _flat([parameter.grad for parameter in adapter_parameters(student)])

    base.set_gradient_checkpointing(checkpointing)
    sample = _sample(base, cond)
    collected = leaf(sample)
    noised = _noised(base, collected)
    with role(base, "teacher"):
        of_teacher = base.velocity(noised, LEVEL, cond)
    with role(base, "fake"):
        of_fake = base.velocity(noised, LEVEL, cond)
    (collected.grad,) = torch.autograd.grad(_critics(of_teacher, of_fake), collected)
    splice(base, sample, collected).backward()
    found = _flat([parameter.grad for parameter in adapter_parameters(base)])
    assert found.shape == expected.shape
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(parameter.grad is None for parameter in adapter_parameters(base, name=FAKE))


def _gradient(base: VideoBackbone, cond: Conditioning, *, inside: Role) -> Tensor:
    sample = _sample(base, cond)
    with role(base, inside):
        return _flat(list(torch.autograd.grad(sample.square().sum(), adapter_parameters(base))))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("inside", ["teacher", "fake"])
def test_a_backward_pass_in_another_role_is_still_the_students(
    base: VideoBackbone, cond: Conditioning, checkpointing: bool, inside: Role
) -> None:
    expected = _gradient(base, cond, inside="student")
    base.set_gradient_checkpointing(checkpointing)
    assert torch.equal(_gradient(base, cond, inside=inside), expected)


def test_under_a_plain_checkpoint_the_same_backward_pass_would_be_silently_wrong(
    base: VideoBackbone, cond: Conditioning
) -> None:
    transformer = base.transformers["transformer"]
    assert isinstance(transformer, WanTransformer3DModel)
    transformer.enable_gradient_checkpointing(functools.partial(checkpoint, use_reentrant=True))
    noise = _noise(base, 4).requires_grad_()
    output = noise - base.velocity(noise, SIGMA, cond)
    with role(base, "fake"):
        output.square().sum().backward()
    assert all(parameter.grad is None for parameter in adapter_parameters(base))
    assert all(parameter.grad is not None for parameter in adapter_parameters(base, name=FAKE))


def test_a_checkpointed_graph_can_be_walked_twice(base: VideoBackbone, cond: Conditioning) -> None:
    base.set_gradient_checkpointing(True)
    loss = _sample(base, cond).square().sum()
    with role(base, "fake"):
        first = torch.autograd.grad(loss, adapter_parameters(base), retain_graph=True)
        second = torch.autograd.grad(loss, adapter_parameters(base))
    assert torch.equal(_flat(list(first)), _flat(list(second)))


@pytest.mark.parametrize("trained", ["student", "fake"])
def test_a_step_of_one_role_touches_no_other_and_not_the_base(
    base: VideoBackbone, cond: Conditioning, trained: Role
) -> None:
    adapters = {"student": adapter_parameters(base), "fake": adapter_parameters(base, name=FAKE)}
    everything = {id(p): p for t in base.transformers.values() for p in t.parameters()}
    before = {key: parameter.detach().clone() for key, parameter in everything.items()}
    with role(base, trained):
        loss = base.velocity(_noise(base, 4), LEVEL, cond).square().mean()
    loss.backward()
    torch.optim.SGD(adapters[trained], lr=1.0).step()
    own = {id(parameter) for parameter in adapters[trained]}
    assert len(own) == 40
    for key, parameter in everything.items():
        assert (parameter.grad is not None) == (key in own)
        assert torch.equal(parameter, before[key]) != (key in own)


def test_what_ran_before_comes_back_after_an_exception(base: VideoBackbone, cond: Conditioning) -> None:
    outputs, noise = _outputs(base, cond), _noise(base, 4)
    with torch.no_grad():
        with role(base, "fake"):
            with pytest.raises(ZeroDivisionError), role(base, "teacher"):
                raise ZeroDivisionError
            assert torch.equal(base.velocity(noise, SIGMA, cond), outputs["fake"])
        with pytest.raises(ZeroDivisionError), role(base, "fake"):
            raise ZeroDivisionError
        assert torch.equal(base.velocity(noise, SIGMA, cond), outputs["student"])
        with adapter_off(base), role(base, "student"):
            assert torch.equal(base.velocity(noise, SIGMA, cond), outputs["student"])
    parameters = [*adapter_parameters(base), *adapter_parameters(base, name=FAKE)]
    assert all(parameter.requires_grad for parameter in parameters)


def test_a_role_with_fewer_targets_runs_nowhere_else(tiny_wan: VideoBackbone, cond: Conditioning) -> None:
    noise = _noise(tiny_wan, 4)
    attach(tiny_wan, LoraConfig(rank=2, targets=("to_q",)), seed=0)
    _perturb(adapter_parameters(tiny_wan), 2)
    student = tiny_wan.velocity(noise, SIGMA, cond)
    attach(tiny_wan, LoraConfig(rank=2, targets=("to_q", "to_k")), seed=1, name=FAKE)
    _perturb(adapter_parameters(tiny_wan, name=FAKE), 3)
    assert torch.equal(tiny_wan.velocity(noise, SIGMA, cond), student)
    outputs = _outputs(tiny_wan, cond)
    assert torch.equal(outputs["student"], student)
    assert not torch.equal(outputs["fake"], student)
    assert [len(adapter_parameters(tiny_wan, name=name)) for name in ("default", FAKE)] == [8, 16]


def test_attaching_a_role_leaves_other_adapters_trainable_or_frozen(tiny_wan: VideoBackbone) -> None:
    student = attach(tiny_wan, LoraConfig(rank=2), seed=0)
    student[0].requires_grad_(False)
    fake = attach(tiny_wan, LoraConfig(rank=2), seed=1, name=FAKE)
    third = attach(tiny_wan, LoraConfig(rank=2), seed=1, name="third")
    assert [parameter.requires_grad for parameter in student] == [False] + [True] * 39
    assert all(parameter.requires_grad for parameter in (*fake, *third))
    for name in (FAKE, "default"):
        with pytest.raises(AdapterError, match="has an adapter already"):
            attach(tiny_wan, LoraConfig(rank=2), seed=0, name=name)
    with pytest.raises(AdapterError, match=r"no Linear of transformer ends in 'lora_A'"):
        attach(tiny_wan, LoraConfig(rank=2, targets=("lora_A",)), seed=0, name="fourth")


def test_states_of_roles_are_told_apart(base: VideoBackbone) -> None:
    student, fake = adapter_state(base), adapter_state(base, name=FAKE)
    assert student.keys() == fake.keys()
    assert not any(student[name].shape == fake[name].shape for name in student)
    load_adapter_state(base, {name: tensor + 1 for name, tensor in fake.items()}, name=FAKE)
    assert all(torch.equal(tensor, student[name]) for name, tensor in adapter_state(base).items())
    assert all(torch.equal(tensor, fake[name] + 1) for name, tensor in adapter_state(base, name=FAKE).items())
    with pytest.raises(AdapterError, match="does not fit"):
        load_adapter_state(base, student, name=FAKE)


def test_splice_refuses_what_would_be_another_gradient(base: VideoBackbone, cond: Conditioning) -> None:
    sample = _sample(base, cond)
    collected = leaf(sample)
    with pytest.raises(AdapterError, match="losses were back-propagated"):
        splice(base, sample, collected)
    collected.square().sum().backward()
    assert torch.equal(collected, sample)
    with pytest.raises(AdapterError, match="sample with its graph"):
        splice(base, sample.detach(), collected)
    for name in ("teacher", "fake"):
        with role(base, name), pytest.raises(AdapterError, match=r"in the student's role: leave `with role"):
            splice(base, sample, collected)
    splice(base, sample, collected).backward()
    assert all(parameter.grad is not None for parameter in adapter_parameters(base))


def test_a_role_that_is_not_attached_is_refused(tiny_wan: VideoBackbone) -> None:
    attach(tiny_wan, LoraConfig(rank=2), seed=0)
    with pytest.raises(AdapterError, match=r"No adapter 'fake' is attached.*attach it first"), role(tiny_wan, "fake"):
        pass
