"""A model cut into stages computes what the whole library model computes: outputs and gradients, at any cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
import tiny_models
import torch

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import partition as cut
from frazil_jobs.training.tasks import check_stages, open_task


def uniform(blocks: int, stages: int) -> list[range]:
    return [range(start, stop) for start, stop in pairwise(cut.uniform(blocks, stages).bounds)]


KINDS = ("llama", "mistral", "vit", "pixart", "sd3", "dit")
TASK_OF = {"llama": "CausalLM", "mistral": "CausalLM", "vit": "ImageClassification"}


def task_of(kind: str, folder, layers: int = 4, *, checkpointed: bool = False):
    spec = {"parallelism": {"pipeline": 1, "microbatches": 2, "activationCheckpointing": checkpointed}}
    job = tiny_models.job(TASK_OF.get(kind, "DiffusionTransformer"), **spec)
    if kind in ("llama", "mistral"):
        tiny_models.llama(folder, layers=layers)
        if kind == "mistral":
            config = (folder / "config.json").read_text()
            config = config.replace('"LlamaForCausalLM"', '"MistralForCausalLM"').replace('"llama"', '"mistral"')
            (folder / "config.json").write_text(config)
    elif kind == "vit":
        tiny_models.vit(folder, layers=layers)
    else:
        tiny_models.diffusion(folder, kind, layers=layers)
        job = tiny_models.job("DiffusionTransformer", initialWeights="Pretrained", **spec)
    return open_task(job, folder)


def call_of(kind: str, task) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Primary input of two rows in float64, and the other arguments."""
    draw = torch.Generator().manual_seed(1)
    if kind in ("llama", "mistral"):
        return torch.randint(300, (2, 12), generator=draw), {}
    primary = torch.randn((2, *task.sample().shape), generator=draw, dtype=torch.float64)
    if kind == "vit":
        return primary, {}
    arguments = {"timestep": torch.tensor([7, 900])}
    config = task.config
    if kind == "dit":
        return primary, {**arguments, "class_labels": torch.tensor([3, 10])}
    if kind == "pixart":
        text = torch.randn(2, 5, config["caption_channels"], generator=draw, dtype=torch.float64)
        mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        extra = {"encoder_attention_mask": mask}
        if config.get("use_additional_conditions"):
            size = torch.full((2, 2), 32.0, dtype=torch.float64)
            extra |= {"added_cond_kwargs.resolution": size, "added_cond_kwargs.aspect_ratio": size[:, :1]}
        return primary, {**arguments, "encoder_hidden_states": text, **extra}
    text = torch.randn(2, 5, config["joint_attention_dim"], generator=draw, dtype=torch.float64)
    pooled = torch.randn(2, config["pooled_projection_dim"], generator=draw, dtype=torch.float64)
    return primary, {**arguments, "encoder_hidden_states": text, "pooled_projections": pooled}


def whole_output(task, model, primary, arguments):
    nested = {}
    for name, value in arguments.items():
        outer, dot, inner = name.partition(".")
        nested.setdefault(outer, {})[inner] = value
        if not dot:
            nested[outer] = value
    return getattr(model(**{task.cut.primary: primary, **task.cut.constants, **nested}), task.cut.output)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stages", [1, 2, 4])
def test_stages_one_after_the_other_equal_the_whole_model(kind: str, stages: int, tmp_path) -> None:
    task = task_of(kind, tmp_path)
    primary, arguments = call_of(kind, task)
    whole = task.model().double()
    expected = whole_output(task, whole, primary, arguments)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (expected * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in whole.named_parameters()}

    parts = [task.stage(blocks).double() for blocks in uniform(task.blocks, stages)]
    state = (primary,)
    for stage in parts:
        output = stage(*state, **arguments)
        state = output if isinstance(output, tuple) else (output,)
    assert torch.equal(state[0], expected)
    (state[0] * weight).sum().backward()

    found = {name: parameter for stage in parts for name, parameter in stage.weights().items()}
    assert len(found) == sum(len(stage.weights()) for stage in parts), "no parameter lies in two stages"
    assert set(found) == set(gradients), "names are those of the whole model"
    for name, gradient in gradients.items():
        if gradient is None:
            assert found[name].grad is None, name
        else:
            torch.testing.assert_close(found[name].grad, gradient, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpointed_stage_computes_its_blocks_again_and_gives_the_same_gradients(kind: str, tmp_path) -> None:
    gradients, calls = [], []
    for checkpointed in (False, True):
        task = task_of(kind, tmp_path, checkpointed=checkpointed)
        primary, arguments = call_of(kind, task)
        first, second = (task.stage(blocks).double() for blocks in uniform(task.blocks, 2))
        ran = count_blocks(task, first) + count_blocks(task, second)
        state = first(primary, **arguments)
        output = second(*(state if isinstance(state, tuple) else (state,)), **arguments)
        output.double().pow(2).sum().backward()
        gradients.append({name: p.grad for stage in (first, second) for name, p in stage.weights().items()})
        calls.append([len(times) for times in ran])
    assert calls == [[1] * task.blocks, [2] * task.blocks]
    for name, gradient in gradients[0].items():
        again = gradients[1][name]
        assert again is None if gradient is None else torch.equal(again, gradient), name


def count_blocks(task, stage) -> list[list[int]]:
    """A list a block, which grows when something in it runs."""
    found = []
    for block in stage.model.get_submodule(task.cut.blocks)._modules.values():
        ran: list[int] = []
        inner = next(module for module in block.modules() if isinstance(module, torch.nn.Linear))
        inner.register_forward_hook(lambda *_, ran=ran: ran.append(1))
        found.append(ran)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_all_that_travels_between_stages_carries_a_gradient(kind: str, tmp_path) -> None:
    task = task_of(kind, tmp_path)
    primary, arguments = call_of(kind, task)
    output = task.stage(range(2)).double()(primary, **arguments)
    for tensor in output if isinstance(output, tuple) else (output,):
        assert tensor.requires_grad
        assert tensor.is_floating_point()


@pytest.mark.parametrize("kind", ["pixart", "sd3", "dit"])
def test_what_a_middle_stage_only_hands_on_is_no_leaf_of_its_graph(kind: str, tmp_path) -> None:
    task = task_of(kind, tmp_path)
    primary, arguments = call_of(kind, task)
    received = [tensor.detach().requires_grad_() for tensor in task.stage(range(1)).double()(primary, **arguments)]
    for tensor in task.stage(range(1, 2)).double()(*received, **arguments):
        assert not tensor.is_leaf


def test_a_stage_can_be_run_again_with_other_rows(tmp_path) -> None:
    task = task_of("pixart", tmp_path)
    primary, arguments = call_of("pixart", task)
    first, second = (task.stage(blocks).double() for blocks in uniform(4, 2))
    once = second(*first(primary, **arguments), **arguments)
    states = [first(primary[row : row + 1], **{k: v[row : row + 1] for k, v in arguments.items()}) for row in (0, 1)]
    rows = [second(*states[row], **{k: v[row : row + 1] for k, v in arguments.items()}) for row in (0, 1)]
    torch.testing.assert_close(torch.cat(rows), once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["llama", "vit", "pixart"])
def test_a_model_of_fewer_blocks_than_stages_is_refused_before_weights_are_loaded(kind: str, tmp_path) -> None:
    task = task_of(kind, tmp_path, layers=3)
    check_stages(task, 3)
    with pytest.raises(BadConfiguration, match="3 blocks") as caught:
        check_stages(task, 4)
    assert caught.value.field == "spec.parallelism.pipeline"
    assert caught.value.remedy
