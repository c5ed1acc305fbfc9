"""Trainings by TRL's AsyncGRPOTrainer on the CPU, whose rollouts a real policy samples beside it.

In place of vLLM, NCCL and a Hub kernel, which need GPUs, stand a copy of the model that samples,
the weights handed over in memory, and attention by ``scaled_dot_product_attention``. The copy
samples in this process, one rollout ahead of the other (``Backlog``), or behind the HTTP interface
that TRL's own rollout process asks (``serving``).
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import uvicorn
from datasets import Dataset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, packing
from trl.experimental.async_grpo import async_grpo_trainer as trl_async
from trl.experimental.async_grpo import async_rollout_worker as trl_worker
from trl.experimental.async_grpo.async_rollout_worker import AsyncRolloutWorker, RolloutSample
from trl_trainings import ROWS, saved_model, share_of_digits

GROUP, LENGTH = 4, 6


def varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, at_q: Tensor, at_k: Tensor, *_: Any, **options: Any
) -> Tensor:
    """Attend segment by segment, [tokens, heads, width] each; a segment ends its own path."""
    shared = query.shape[1] // key.shape[1]
    parts = []
    for q0, q1, k0, k1 in zip(at_q[:-1], at_q[1:], at_k[:-1], at_k[1:], strict=True):
        q, k, v = (x.transpose(0, 1) for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        k, v = (x.repeat_interleave(shared, dim=0) for x in (k, v))
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        scale = options.get("softmax_scale")
        attend = torch.nn.functional.scaled_dot_product_attention
        parts.append(attend(q, k, v, attn_mask=seen, scale=scale).transpose(0, 1))
    return torch.cat(parts)


class Sampler:
    """A copy of the policy that samples: what an inference server holds."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.generator = torch.Generator().manual_seed(seed)
        self._one_at_a_time = threading.Lock()

    @torch.no_grad()
    def load(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Take over weights by their names."""
        mine = dict(self.model.named_parameters())
        with self._one_at_a_time:
            for name, weight in weights:
                mine[name].copy_(weight)

    @torch.no_grad()
    def complete(self, prompt: list[int], length: int = LENGTH) -> tuple[list[int], list[float]]:
        """Sample a completion token by token; return it and the log-probability of each token."""
        tokens: list[int] = []
        log_probs: list[float] = []
        while len(tokens) < length:
            with self._one_at_a_time:
                logits = self.model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
            logs = logits.log_softmax(dim=-1)
            token = int(torch.multinomial(logs.exp(), 1, generator=self.generator))
            tokens.append(token)
            log_probs.append(float(logs[token]))
            if token == self.tokenizer.eos_token_id:
                break
        return tokens, log_probs


class InMemory:
    """Hands the trainer's weights to the sampler, and keeps after how many updates."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.trainer, self.sent_at = sampler, None, []

    def init_weight_transfer(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def destroy(self) -> None: ...

    def send_weights(self, iterator: Iterator[tuple[str, Tensor]]) -> None:
        self.sent_at.append(self.trainer.state.global_step)
        self.sampler.load(iterator)


class Backlog:
    """A rollout worker that is always ``ahead`` rollouts ahead of the trainer, deterministically.

    It is its own queue: what is taken was sampled when ``ahead`` others were still to be taken.
    """

    def __init__(self, sampler: Sampler, ahead: int) -> None:
        self.sampler, self.ahead = sampler, ahead
        self.version = 0
        self.given: list[RolloutSample] = []
        self.metrics_queue: queue.Queue[Any] = queue.Queue()
        self.rollout_buffer = self
        self._ready: deque[RolloutSample] = deque()
        self._group = 0

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def check_health(self, stale_after_s: float) -> None: ...

    def update_model_version(self, model_version: int) -> None:
        self.version = model_version

    def qsize(self) -> int:
        return len(self._ready)

    def get(self, timeout: float | None = None) -> RolloutSample:
        while len(self._ready) <= self.ahead:
            self._ready.extend(self._sampled_group())
        self.given.append(self._ready.popleft())
        return self.given[-1]

    def _sampled_group(self) -> list[RolloutSample]:
        text = ROWS[self._group % len(ROWS)]["prompt"]
        prompt = self.sampler.tokenizer(text).input_ids
        answers = [self.sampler.complete(prompt) for _ in range(GROUP)]
        texts = [self.sampler.tokenizer.decode(t, skip_special_tokens=True) for t, _ in answers]
        rewards = np.array(share_of_digits(texts))
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
        self._group += 1
        return [
            RolloutSample(
                prompt=[{"role": "user", "content": text}],
                completion=[{"role": "assistant", "content": answer}],
                input_ids=np.array([*prompt, *tokens]),
                completion_mask=np.array([0] * len(prompt) + [1] * len(tokens)),
                old_log_probs=np.array([0.0] * len(prompt) + logs, dtype=np.float32),
                advantage=float(advantage),
                model_version=self.version,
                group_id=self._group,
                metrics={"reward": float(reward), "reward_std": float(rewards.std())},
            )
            for answer, (tokens, logs), reward, advantage in zip(
                texts, answers, rewards, advantages, strict=True
            )
        ]


def digits_in_replies(completions: list[Any], **_: Any) -> list[float]:
    """Reward the content of replies; TRL's rollout process finds this by its name."""
    return share_of_digits([each[0]["content"] for each in completions])


@contextmanager
def serving(sampler: Sampler) -> Iterator[str]:
    """Serve a sampler as vLLM would, at the address that is yielded."""

    def complete(request: Any) -> JSONResponse:
        tokens, log_probs = sampler.complete(request["prompt"], request["max_tokens"])
        choice = {"token_ids": tokens, "logprobs": {"token_logprobs": log_probs}}
        return JSONResponse({"choices": [choice]})

    async def completions(request: Request) -> JSONResponse:
        return complete(await request.json())

    routes = [Route("/v1/completions", completions, methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Heard:
    """A queue that keeps what was taken from it, in order."""

    def __init__(self, taken_from: Any) -> None:
        self.queue, self.given = taken_from, []

    def get(self, timeout: float | None = None) -> Any:
        self.given.append(self.queue.get(timeout=timeout))
        return self.given[-1]

    def qsize(self) -> int:
        return int(self.queue.qsize())


def worker_of_trl(sampler: Sampler, address: str) -> AsyncRolloutWorker:
    """Return TRL's own rollout worker, a process that asks a server at this address."""
    sampler.tokenizer.chat_template = "{% for each in messages %}{{ each['content'] }}{% endfor %}"
    sampler.tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "fields": {"content": {"close_pattern": r"</s>", "content": "text"}},
    }
    return AsyncRolloutWorker(
        model_name="policy",
        dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
        ),
        reward_funcs=[digits_in_replies],
        processing_class=sampler.tokenizer,
        eos_token_ids=[sampler.tokenizer.eos_token_id],
        num_generations=GROUP,
        max_inflight_tasks=16,
        queue_maxsize=24,
        vllm_server_url=address,
        max_tokens=LENGTH,
    )


def on_the_cpu(patch: Any) -> None:
    """Let AsyncGRPOTrainer run without a GPU: its attention, and its question for peak FLOPS."""
    patch.setattr(
        packing, "_flash_attn", lambda: SimpleNamespace(flash_attn_varlen_func=varlen_attention)
    )
    patch.setattr(trl_worker, "is_vllm_available", lambda **_: True)  # which is only asked for
    patch.setattr(trl_async, "get_peak_flops_per_device", lambda *_: None)


def async_trainer(
    folder: Path,
    *,
    ahead: int = 16,
    sampler: Sampler | None = None,
    worker: Any = None,
    **changes: Any,
) -> Any:
    """Return an AsyncGRPOTrainer with its sampler; 8 rollouts a learner step, in groups of 4."""
    torch.set_num_threads(1)
    model = saved_model(folder)
    sampler = sampler or Sampler(model)
    transfer = InMemory(sampler)
    options = {
        "output_dir": str(folder / "an async training"),
        "use_cpu": True,
        "bf16": False,
        "dtype": "float32",
        "report_to": [],
        "logging_steps": 1,
        "max_steps": 20,
        "save_strategy": "no",
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": GROUP,
        "max_completion_length": LENGTH,
        "max_staleness": 8,
        "weight_sync_steps": 1,
        "token_budget": 0,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "log_level": "error",
        "seed": 0,
    }
    trainer = AsyncGRPOTrainer(
        model=str(model),
        args=AsyncGRPOConfig(**(options | changes)),
        reward_funcs=share_of_digits,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=sampler.tokenizer,
        rollout_worker=worker or Backlog(sampler, ahead),
        weight_transfer=transfer,
    )
    transfer.trainer = trainer
    return trainer
