"""Fine-tunes an adapter by a plan: one explicit loop for a worker, and `fit()` runs it under Ray Train.

    fit: encode rows -> Assignment -> [train() on each rank] -> adapter + what it ate -> out_dir, Fitted

The loss of a step is the sum over its rows divided by the loss tokens of the whole step, which the plan
knows. So one batch of 8, two minibatches of 4 and two ranks of 4 give the same gradient, whatever the rows'
lengths. Gradients are summed over ranks in one flat all-reduce rather than by DistributedDataParallel: DDP
averages over ranks, wants a forward pass on each of them and synchronises in every backward pass; a plain sum
is exact, comes once per step, and a rank without a row in a small last step takes part with zeros.

Errors: TrainingError, also where a worker failed.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from infra.inference import AdapterRecord
from infra.models import (
    BaseModel,
    adapter_digest,
    load_classifier,
    pad,
    resolve,
    tensors_digest,
    without_rename_warning,
)
from training.minibatches import FEWEST_PASSES, PASS_TOKENS, cut
from training.objectives import OBJECTIVES, Encoded, encode_rows
from training.plan import Plan, PlanError
from training.recipe import TrainingConfig, TrainingError

if TYPE_CHECKING:
    from peft import PeftModel

CONSUMPTION_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("rank", pa.int16()),
        ("slot", pa.int32()),
        ("row_no", pa.int64()),
        ("loss_tokens", pa.int32()),
    ]
)

OnStep = Callable[[int, int, float], None]
"""Called after every step with its number from 0, the number of steps, and the step's mean loss."""


@dataclass(frozen=True)
class Fitted:
    """A finished fine-tuning: where the adapter lies, what it is, and what it was made of."""

    adapter_dir: str
    adapter_digest: str
    adapter_digest_before: str
    """Of the freshly initialised adapter and head."""
    steps: int
    consumption: pa.Table
    """CONSUMPTION_SCHEMA by step and slot: what each rank fed to a forward pass; the plan, slot for slot."""
    losses: list[float]
    """Mean loss per loss token, one per step."""
    first_grad_norm: float
    """Before clipping."""
    truncated_rows: int
    """Rows cut to max_length."""
    in_force: dict[str, Any]
    """Read back from the loaded model and the running process, not from the config."""
    seconds: float
    """From the first step to the last, without loading."""
    rows_per_s: float
    peak_mb: float
    """Highest resident memory of the worker processes; with 0 workers, of this one."""


@dataclass(frozen=True)
class Assignment:
    """Everything a worker needs, the same for every rank; one entry per slot of the plan, in its order."""

    base: BaseModel
    labels: tuple[str, ...]
    config: TrainingConfig
    encoded: Encoded
    step: np.ndarray  # int32
    slot: np.ndarray  # int32
    row: np.ndarray  # int64, index into `encoded`
    row_no: np.ndarray  # int64
    steps: int

    def slots_of(self, step: int, *, rank: int, world_size: int) -> np.ndarray:
        """The entries that a rank takes of a step: every world_size-th, from its own rank on."""
        begin, end = np.searchsorted(self.step, [step, step + 1])
        return np.arange(begin, end)[rank::world_size]

    def loss_tokens_of(self, step: int) -> int:
        """Loss tokens of a step over all ranks."""
        begin, end = np.searchsorted(self.step, [step, step + 1])
        return int(self.encoded.n_loss_tokens[self.row[begin:end]].sum())


@dataclass(frozen=True)
class Trained:
    """What one rank reports of its training; the adapter is the same on every rank."""

    adapter_digest_before: str
    losses: list[float]
    first_grad_norm: float
    in_force: dict[str, Any]
    seconds: float
    peak_mb: float


def fit(
    *,
    rows: pa.Table,
    labels: Sequence[str],
    plan: Plan,
    config: TrainingConfig,
    base: BaseModel,
    out_dir: str,
    storage_path: str,
    on_step: OnStep | None = None,
) -> Fitted:
    """Train by the plan and leave the adapter in `out_dir`, which appears whole or not at all.

    `rows` has row_no, row_id, text and label, and holds every planned row. An existing `out_dir` is replaced:
    what makes a checkpoint count is the caller's commit of its digest. `storage_path` is Ray Train's, used
    and shared by all nodes only when there are workers; nothing there is needed afterwards. `on_step` runs
    where rank 0 runs, so with workers in another process. Raises TrainingError.
    """
    assignment = _assign(rows, labels, plan, config, base)
    target = Path(out_dir).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _run(assignment, folder, storage_path=storage_path, on_step=on_step)
        ranks = [Trained(**json.loads(path.read_text())) for path in sorted(folder.glob("rank-*.json"))]
        consumption = _merge_consumption(folder, plan)
        digest = adapter_digest(folder)
        if digest == ranks[0].adapter_digest_before:
            raise TrainingError(
                f"{plan.steps} steps did not change the adapter ({digest}); raise learning_rate"
            )
        for path in folder.glob("rank-*"):
            path.unlink()
        AdapterRecord(
            labels=tuple(labels),
            max_length=config.max_length,
            base_model=base.name,
            base_digest=base.digest,
            method=config.method,
            quantization=config.quantization,
            adapter_digest=digest,
        ).write(folder)  # written last: its existence means the folder is complete
        _replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Fitted(
        adapter_dir=str(target),
        adapter_digest=digest,
        adapter_digest_before=ranks[0].adapter_digest_before,
        steps=plan.steps,
        consumption=consumption,
        losses=ranks[0].losses,
        first_grad_norm=ranks[0].first_grad_norm,
        truncated_rows=assignment.encoded.truncated,
        in_force=ranks[0].in_force,
        seconds=ranks[0].seconds,
        rows_per_s=plan.table.num_rows / ranks[0].seconds,
        peak_mb=max(rank.peak_mb for rank in ranks),
    )


def train(
    assignment: Assignment, *, folder: Path, rank: int = 0, world_size: int = 1, on_step: OnStep | None = None
) -> None:
    """One rank's training. Leaves `rank-*.json` and `rank-*.parquet` in `folder`, and rank 0 the adapter.

    An ordinary function: with a world of one it needs neither Ray nor torch.distributed.
    """
    config = assignment.config
    torch.set_num_threads(config.torch_threads)
    model, in_force = load_tunable(_base_here(assignment.base), assignment.labels, config)
    before = tensors_digest(_adapter_bytes(model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise TrainingError(
            f"no parameter is trainable: target_modules {config.target_modules} match no layer"
        )
    optimizer = _optimizer(trained, config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate_at(s, assignment.steps, config))

    model.train()  # a loaded model comes in eval mode
    losses, eaten, first_grad_norm = [], [], 0.0
    started = time.perf_counter()
    for step in range(assignment.steps):
        mine = assignment.slots_of(step, rank=rank, world_size=world_size)
        optimizer.zero_grad()
        loss, fed = accumulate(model, assignment, mine, loss_tokens=assignment.loss_tokens_of(step))
        loss = _sum_over_ranks(list(trained.values()), loss, world_size)
        norm = float(torch.nn.utils.clip_grad_norm_(trained.values(), config.max_grad_norm))
        if not math.isfinite(loss + norm):
            raise TrainingError(
                f"the loss of step {step} is {loss} and its gradient has norm {norm}; rank {rank} "
                f"had fed rows {assignment.row_no[mine].tolist()[:5]}; lower "
                f"learning_rate = {config.learning_rate} or look at these rows"
            )
        if step == 0 and norm == 0:
            raise TrainingError(
                f"the gradient of the first step has norm {norm}: the trained layers do not learn"
            )
        first_grad_norm = norm if step == 0 else first_grad_norm
        optimizer.step()
        scheduler.step()
        losses.append(loss)
        eaten.append(fed)
        if on_step and rank == 0:
            on_step(step, assignment.steps, loss)
    seconds = time.perf_counter() - started

    in_force |= {
        "optimizer": "adamw",
        "betas": list(optimizer.defaults["betas"]),
        "trainable_parameters": sum(p.numel() for p in trained.values()),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "world_size": world_size,
        "micro_batch_size": config.micro_batch_size,
    }
    # kilobytes on Linux
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = Trained(before, losses, first_grad_norm, in_force, seconds, peak_mb)
    (folder / f"rank-{rank:05d}.json").write_text(json.dumps(asdict(report)))
    pq.write_table(_consumption(assignment, np.concatenate(eaten), rank), folder / f"rank-{rank:05d}.parquet")
    if rank == 0:
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "adapter_model.safetensors").chmod(0o644)  # safetensors makes it private
        (folder / "README.md").unlink(missing_ok=True)  # peft's model card is a blank form


def load_tunable(
    base: BaseModel, labels: Sequence[str], config: TrainingConfig
) -> tuple[PeftModel, dict[str, Any]]:
    """The frozen base with fresh adapters and head in eval mode, and the values in force."""
    from peft import LoraConfig, TaskType, get_peft_model

    device = "cuda" if config.use_gpu else "cpu"
    model, in_force = load_classifier(
        base, labels, quantization=config.quantization, seed=config.seed, device=device
    )
    adapters = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.target_modules),
        modules_to_save=list(config.modules_to_save),
        task_type=TaskType.TOKEN_CLS,  # the head is on tokens, see infra.models
    )
    torch.manual_seed(config.seed)  # again: the adapters shall not depend on how many numbers the head drew
    with without_rename_warning():
        try:
            tunable = get_peft_model(model, adapters)
        except ValueError as error:
            raise TrainingError(f"the adapters do not fit '{base.name}': {error}") from error
    tunable.peft_config["default"].base_model_name_or_path = base.name  # not where it lies on this machine
    return tunable, in_force


def accumulate(
    model: torch.nn.Module, assignment: Assignment, slots: np.ndarray, *, loss_tokens: int
) -> tuple[float, np.ndarray]:
    """Add the gradient of these slots, minibatch by minibatch; their share of the loss, and what was fed.

    Rows of like length go together, which saves padding and changes nothing else: the loss is a sum.
    """
    encoded, config = assignment.encoded, assignment.config
    objective = OBJECTIVES[config.objective]
    device = "cuda" if config.use_gpu else "cpu"
    lengths = encoded.n_tokens[assignment.row[slots]]
    pass_tokens = FEWEST_PASSES if config.use_gpu else PASS_TOKENS
    total, fed = 0.0, []
    for part in cut(lengths, most=config.micro_batch_size, pass_tokens=pass_tokens):
        minibatch = slots[part]
        rows = assignment.row[minibatch]
        input_ids, mask = _pad(encoded, rows, device)
        targets = torch.from_numpy(encoded.targets[rows]).to(device)
        loss = objective.loss_sum(model, input_ids, mask, targets) / loss_tokens
        fed.append(minibatch)
        loss.backward()
        total += float(loss.detach())
    return total, np.concatenate(fed) if fed else np.empty(0, dtype=np.int64)


def rate_at(step: int, steps: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate: rises over the warm-up, then falls as lr_scheduler_type says."""
    warmup = math.ceil(config.warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if config.lr_scheduler_type == "linear":
        return max(0.0, 1 - done)
    if config.lr_scheduler_type == "cosine":
        return (1 + math.cos(math.pi * min(1.0, done))) / 2
    return 1.0


def _assign(
    rows: pa.Table, labels: Sequence[str], plan: Plan, config: TrainingConfig, base: BaseModel
) -> Assignment:
    """Join the plan to the rows; what is wrong about them is found here, before a model is loaded."""
    if missing := [name for name in ("row_no", "row_id", "text", "label") if name not in rows.column_names]:
        raise TrainingError(f"the rows lack the columns {missing}; expected row_no, row_id, text, label")
    encoded = encode_rows(rows, labels, base=base, config=config)
    position = {row_no: index for index, row_no in enumerate(rows["row_no"].to_pylist())}
    table = plan.table.sort_by([("step", "ascending"), ("slot", "ascending")])
    planned = table["row_no"].to_pylist()
    if absent := [row_no for row_no in planned if row_no not in position]:
        raise PlanError(
            f"{len(absent)} planned rows are not among the {len(position)} rows, first {absent[0]}"
        )
    row = np.array([position[row_no] for row_no in planned], dtype=np.int64)
    row_ids = rows["row_id"].cast(pa.binary()).take(pa.array(row)).to_pylist()
    if row_ids != table["row_id"].to_pylist():
        raise PlanError(
            "the plan and the rows give one row_no to different row ids; make the plan from these rows"
        )
    if not np.array_equal(encoded.n_tokens[row], table["n_tokens"].to_numpy()):
        raise PlanError(
            "the plan counts other tokens than these rows have; make it from encode_rows() with the same "
            f"base and max_length = {config.max_length}"
        )
    return Assignment(
        base=base,
        labels=tuple(labels),
        config=config,
        encoded=encoded,
        step=table["step"].to_numpy(),
        slot=table["slot"].to_numpy(),
        row=row,
        row_no=table["row_no"].to_numpy(),
        steps=plan.steps,
    )


def _run(assignment: Assignment, folder: Path, *, storage_path: str, on_step: OnStep | None) -> None:
    """Train on all ranks, and gather what they wrote in `folder`."""
    import ray
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # one line per fit about the local mode, which is meant here
    logging.getLogger("ray.train.v2.api.config").setLevel(logging.WARNING)
    config = assignment.config
    in_process = config.num_workers == 0
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={
            # in the object store once, not in every copy of the configuration
            "assignment": assignment if in_process else ray.put(assignment),
            "folder": str(folder) if in_process else None,
            "on_step": on_step,
        },
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=config.use_gpu,
            resources_per_worker=None if in_process or config.use_gpu else {"CPU": config.torch_threads},
        ),
        # the folder's random name: Ray Train would resume a run of the same name
        run_config=RunConfig(name=folder.name.lstrip("."), storage_path=storage_path),
    )
    if in_process:
        with _leave_torch_as_it_was():
            trainer.fit()
        return
    try:
        checkpoint = trainer.fit().checkpoint
    except TrainingFailedError as error:
        failures = getattr(error, "worker_failures", None) or {0: error}
        rank, reason = next(iter(failures.items()))
        raise TrainingError(f"training failed on rank {rank} of {config.num_workers}: {reason}") from error
    if checkpoint is None:
        raise TrainingError("the workers ended without a checkpoint; see Ray Train's log for what they did")
    checkpoint.to_directory(str(folder))


def _train_on_worker(config: dict[str, Any]) -> None:
    """What Ray Train calls on every rank; only this function and `_run` know Ray."""
    import ray
    from ray.train import Checkpoint, get_context, report

    assignment, on_step = config["assignment"], config["on_step"]
    if config["folder"]:
        train(assignment, folder=Path(config["folder"]), on_step=on_step)
        return
    context = get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(ray.get(assignment), folder=folder, rank=rank, world_size=world_size, on_step=on_step)
        # every rank reports: Ray merges their files, which bear the rank in their names, into one checkpoint
        report({}, checkpoint=Checkpoint.from_directory(folder))


def _base_here(base: BaseModel) -> BaseModel:
    """The base on this machine, which on a cluster need not be where the driver found it."""
    found = resolve(base.path if Path(base.path).is_dir() else base.name)
    if found.digest != base.digest:
        raise TrainingError(
            f"base '{base.name}' has digest {found.digest} on this worker, expected {base.digest}; "
            "install the same model on every node"
        )
    return found


def _optimizer(trained: dict[str, torch.nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    head = [p for name, p in trained.items() if ".modules_to_save." in name]
    adapters = [p for name, p in trained.items() if ".modules_to_save." not in name]
    head_rate = config.classifier_learning_rate or config.learning_rate
    groups = [{"params": adapters, "lr": config.learning_rate}, {"params": head, "lr": head_rate}]
    # fused: one kernel for 76 small tensors
    return torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=config.weight_decay, fused=True)


def _sum_over_ranks(trained: list[torch.nn.Parameter], loss: float, world_size: int) -> float:
    """Replace every gradient by its sum over ranks and return the summed loss, in one all-reduce."""
    if world_size == 1:
        return loss
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
    flat = torch.cat([g.reshape(-1) for g in grads] + [torch.tensor([loss], device=grads[0].device)])
    torch.distributed.all_reduce(flat)
    for parameter, summed in zip(trained, flat.split([p.numel() for p in trained] + [1])[:-1], strict=True):
        parameter.grad = summed.view_as(parameter).clone()
    return float(flat[-1])


def _pad(encoded: Encoded, rows: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    return pad([encoded.input_ids[i] for i in rows], pad_token_id=encoded.pad_token_id, device=device)


def _consumption(assignment: Assignment, fed: np.ndarray, rank: int) -> pa.Table:
    """One line per entry of `fed`, in the order it was fed."""
    columns = {
        "step": assignment.step[fed],
        "rank": np.full(len(fed), rank, dtype=np.int16),
        "slot": assignment.slot[fed],
        "row_no": assignment.row_no[fed],
        "loss_tokens": assignment.encoded.n_loss_tokens[assignment.row[fed]],
    }
    return pa.table(columns, schema=CONSUMPTION_SCHEMA)


def _merge_consumption(folder: Path, plan: Plan) -> pa.Table:
    """What all ranks ate, by step and slot; each planned slot exactly once, or TrainingError."""
    pieces = [
        pq.read_table(path, schema=CONSUMPTION_SCHEMA) for path in sorted(folder.glob("rank-*.parquet"))
    ]
    order = [("step", "ascending"), ("slot", "ascending")]
    eaten = pa.concat_tables(pieces).sort_by(order).combine_chunks()
    same = ["step", "slot", "row_no"]
    if not eaten.select(same).equals(plan.table.sort_by(order).select(same).combine_chunks()):
        raise TrainingError(
            f"the ranks ate {eaten.num_rows} slots of {plan.table.num_rows} planned, or other rows; "
            "nothing was saved"
        )
    return eaten


def _adapter_bytes(model: torch.nn.Module) -> bytes:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})


def _replace(folder: Path, target: Path) -> None:
    """Put the finished folder in the target's place; a folder can only be renamed onto nothing."""
    folder.chmod(0o755)  # mkdtemp made it private
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        target.rename(old / "adapter")
        folder.rename(target)
        shutil.rmtree(old)
    else:
        folder.rename(target)


@contextmanager
def _leave_torch_as_it_was() -> Iterator[None]:
    """The thread count and the random state of this process, which training sets for itself."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
