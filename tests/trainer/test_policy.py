"""A policy whose weights and gradients are two vectors, saved and loaded like any checkpoint."""

import pytest
import torch
from factories import a_config
from transformers import AutoModelForCausalLM

from storage.commandline import BadInput
from trainer.policy import FlatWeights, choose_device, load_policy, make_optimizer
from trainer.workloads.arithmetic import build_model, build_tokenizer

CPU = torch.device("cpu")


def loss_of(model):
    return model(torch.tensor([[4, 5, 6, 7]])).logits.square().mean()


def flat(tensors):
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def test_the_vector_is_the_weights_of_the_model_in_order():
    model = build_model(16, 1)
    before = flat(model.parameters())
    weights = FlatWeights(model)
    assert torch.equal(weights.vector, before)
    assert weights.vector.dtype == torch.float32
    assert weights.vector.numel() == sum(p.numel() for p in model.parameters())


def test_changing_the_vector_changes_the_model_and_the_other_way_round():
    model = build_model(16, 1)
    weights = FlatWeights(model)
    with torch.no_grad():
        before = loss_of(model)
        weights.vector.mul_(2)
        assert torch.equal(flat(model.parameters()), weights.vector)
        assert loss_of(model) != before
        next(model.parameters()).fill_(7.0)
    first = next(model.parameters()).numel()
    assert bool((weights.vector[:first] == 7).all())
    assert not bool((weights.vector[first:] == 7).any())


def test_gradients_gather_in_the_vector_and_agree_with_a_plain_model():
    plain, model = build_model(16, 1), build_model(16, 1)
    weights = FlatWeights(model)
    torch.autograd.backward(loss_of(plain))
    expected = flat(p.grad for p in plain.parameters())
    torch.autograd.backward(loss_of(model))
    assert torch.allclose(weights.gradient, expected, rtol=1e-5, atol=1e-8)
    torch.autograd.backward(loss_of(model))
    assert torch.allclose(weights.gradient, 2 * expected, rtol=1e-5, atol=1e-8)
    weights.gradient.zero_()
    torch.autograd.backward(loss_of(model))
    assert torch.allclose(weights.gradient, expected, rtol=1e-5, atol=1e-8)


def test_tied_embeddings_are_counted_once_and_stay_tied():
    model = build_model(16, 1)
    weights = FlatWeights(model)
    with torch.no_grad():
        weights.vector.add_(1)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_weights_that_do_not_learn_are_left_out():
    model = build_model(16, 1)
    frozen = model.model.embed_tokens.weight.requires_grad_(False)
    weights = FlatWeights(model)
    assert weights.vector.numel() == sum(p.numel() for p in model.parameters()) - frozen.numel()
    before = frozen.clone()
    weights.vector.zero_()
    assert torch.equal(frozen, before)


def test_a_snapshot_is_a_copy_that_can_be_loaded_again():
    model = build_model(16, 1)
    weights = FlatWeights(model)
    snapshot = weights.snapshot()
    with torch.no_grad():
        before = loss_of(model)
        weights.vector.add_(1)
        assert loss_of(model) != before
        weights.load(snapshot)
        assert loss_of(model) == before
        weights.vector.add_(1)
    assert not torch.equal(snapshot, weights.vector)


def test_a_policy_survives_being_saved_and_loaded(tmp_path):
    model, tokenizer = build_model(16, 1), build_tokenizer()
    weights = FlatWeights(model)
    with torch.no_grad():
        weights.vector.mul_(1.5)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, loaded_tokenizer = load_policy(tmp_path, CPU)
    assert torch.equal(FlatWeights(loaded).vector, weights.vector)
    with torch.no_grad():
        assert torch.equal(loss_of(loaded), loss_of(model))
    prompts = ["12+34=", "5="]
    mine = tokenizer(prompts, padding=True)["input_ids"]
    assert loaded_tokenizer(prompts, padding=True)["input_ids"] == mine
    assert mine[1] == [0] * 4 + [4 + 5, 15]  # padded on the left; "5" is the tenth sign, "=" last
    assert loaded_tokenizer.decode(mine[0]) == "12+34="


def test_a_policy_is_loaded_in_fp32_and_without_dropout(tmp_path):
    model = build_model(16, 1).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    loaded, _ = load_policy(tmp_path, CPU)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not loaded.training
    assert next(AutoModelForCausalLM.from_pretrained(tmp_path).parameters()).dtype != torch.float32


def test_a_folder_without_a_policy_is_an_error(tmp_path):
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        load_policy(tmp_path, CPU)


# -- devices and optimizers --------------------------------------------------------------------


def test_the_device_is_the_accelerator_if_there_is_one_and_cpu_when_asked():
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else CPU
    assert choose_device("auto").type == found.type
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    if torch.accelerator.is_available() and torch.accelerator.current_accelerator().type == name:
        pytest.skip(f"this machine has {name}")
    with pytest.raises(BadInput) as found:
        choose_device(name)
    [line] = str(found.value).splitlines()
    assert line.startswith(f"device: {name!r} is not on this machine")


def stepped(**changes):
    """Take one optimizer step on known weights 1, 2 and gradients 3, −4; return what moved."""
    model = torch.nn.Linear(2, 1, bias=False)
    weights = FlatWeights(model)
    with torch.no_grad():
        weights.vector.copy_(torch.tensor([1.0, 2.0]))
    optimizer = make_optimizer(weights, a_config(**changes))
    weights.gradient.copy_(torch.tensor([3.0, -4.0]))
    optimizer.step()
    assert torch.equal(flat(model.parameters()), weights.vector)
    return weights.vector.tolist()


def test_the_first_step_of_adamw_has_the_size_of_the_learning_rate_after_decay():
    # Decoupled: θ·(1 − η·λ), then −η·sign(g) in the first step.
    found = stepped(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    assert found == pytest.approx([1 * 0.95 - 0.1, 2 * 0.95 + 0.1])


def test_the_first_step_of_sgd_is_the_gradient_times_the_learning_rate():
    assert stepped(optimizer="sgd", learning_rate=0.1) == pytest.approx([1 - 0.3, 2 + 0.4])
