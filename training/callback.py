"""Records what somebody's own trainer feeds to its model: transformers' Trainer, TRL's SFTTrainer.

    rows = curriculum_dataset(settings, root)       a datasets.Dataset of row_no, prompt, completion
    callback = ConsumptionCallback(settings, root)
    Trainer(model, args, train_dataset=rows.map(tokenize), callbacks=[callback]).train()
    stemma lineage RUN                              the run is callback.run_id

    dataset row ──collate──▶ batch with its row numbers ──forward──▶ taken out and noted ──step──▶ consumption

A row's number travels with its batch to the model, and is noted when a forward pass that learns takes it: so
prefetching, workers, gradient accumulation and early stopping change nothing. `remove_unused_columns=False`
keeps the column `row_no`.

**The plan.** Such a trainer draws its own order while it goes, so nobody can promise it beforehand. What can
be promised is the set: the plan on record before the first step holds each row that the trainer was offered,
at step -1. What was eaten must be among that, at steps without a gap; its digest and the checkpoint's bitmap
hold it fast from then on. What this cannot show, unlike our own trainings' plans: that a row was fed as often
as meant.

Where it cannot know what was fed it refuses in a sentence instead of writing wrong rows: packed or flattened
sequences, rows that are not the curriculum's, a training that is resumed, several checkpoints to choose from
at the end, sharded models.

Errors: CallbackError.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from infra.models import ModelError, adapter_config_digest, adapter_digest
from infra.runtime import Runtime
from infra.settings import Settings
from lineage import curricula, mirror, runs, verdicts
from lineage.consumption import offer, record_checkpoint, record_plan
from lineage.runs import Going, Outcome
from lineage.schemas import NOT_APPLICABLE
from training.finetune import clear, rows_of
from training.recipe import TrainingError
from training.tiny.bases import resolve_base

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("stemma.callback")

ROW_NO = "row_no"
_FED = "stemma_row_no"  # the key by which a batch carries its row numbers to the model

# What another machine or another try would have otherwise, and what is nobody's business.
_NO_HYPERPARAMETER = ("output_dir", "logging_dir", "run_name", "hub_", "push_to_hub", "report_to", "_n_gpu")


class CallbackError(TrainingError):
    """What a trainer feeds cannot be recorded; the message says why, and what to set."""


def curriculum_dataset(settings: Settings, curriculum: str) -> Dataset:
    """The rows of an admitted curriculum, named by a prefix of its root, as often as their weights say.

    Columns: row_no (keep it), prompt, completion. Sorted by row id. Raises CurriculumError, NotAdmitted, and
    TrainingError where a member is no longer stored.
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise CallbackError(
            "curriculum_dataset needs the package 'datasets'; run: pip install stemma[trl]"
        ) from error
    rows = _rows(settings, curriculum)
    times = [int(weight) for weight in rows["weight"].to_pylist()]
    repeated = rows.take([place for place, n in enumerate(times) for _ in range(n)])
    columns = {ROW_NO: "row_no", "prompt": "text", "completion": "answer"}
    return Dataset.from_dict({name: repeated[held].to_pylist() for name, held in columns.items()})


class ConsumptionCallback(TrainerCallback):
    """Writes plan, consumption, checkpoint and run of a training that another trainer carries out.

    `base_model`: the base by a name that `stemma finetune` takes, where the model does not say it itself.
    After `train()`, `run_id` names the run, and the model lies in the lake. A trainer does not tell that an
    exception broke it off: the next training of this thread puts that on record, or `give_up()` at once.
    """

    def __init__(self, settings: Settings, curriculum: str, *, base_model: str | None = None) -> None:
        """Record trainings on the admitted curriculum that a prefix of its root names."""
        self.run_id: str | None = None
        self._runtime = Runtime(settings)
        self._rows = _rows(settings, curriculum)
        self._root = curricula.load(settings, curriculum).root
        self._base_model = base_model
        self._base: tuple[str, str] | None = None
        self._going: Going | None = None
        self._hook: Any = None
        self._thread = threading.current_thread()
        self._plan = pa.table({})
        self._fed: list[tuple[int, int]] = []
        self._steps: list[list[tuple[int, int]]] = []

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        train_dataloader: Any = None,
        **others: Any,
    ) -> None:
        """Look at what is about to be fed, put the offer on record, and listen to the model."""
        for broken_off in _broken_off():
            broken_off.give_up()
        _require_recordable(args, state, self._runtime.settings)
        offered = _offered(train_dataloader.dataset, known=set(self._rows["row_no"].to_pylist()))
        _carry_row_numbers(train_dataloader, shifted=_is_causal(model))
        self._base = self._base or _base_of(self._runtime, model, self._base_model)
        self._plan = offer(offered, self._ids)
        self._fed, self._steps = [], []
        self._thread = threading.current_thread()
        _listening.append(self)
        if state.is_world_process_zero:
            config = {
                "training": _hyperparameters(args),
                "trainer": _trainer(args),
                "data": {"rows": len(offered)},
            }
            inputs = [f"curriculum:{self._root}", f"model:{_described(model)}"]
            self._going = runs.begin(self._runtime, "train", config=config, inputs=inputs)
            clear(self._runtime.settings, self._going.run)
            record_plan(self._runtime.settings, self._plan, self._going.run)
        self._hook = model.register_forward_pre_hook(self._note, with_kwargs=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """What was fed since the last step is what this step ate."""
        if not self._fed:
            raise self._refused(f"step {state.global_step - 1} took no forward pass of the trainer's model")
        self._steps.append(self._fed)
        self._fed = []

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **others: Any,
    ) -> None:
        """Save the model into the lake, then its consumption, then its checkpoint, then the run's end."""
        eaten = _ledger(_of_all_ranks(self._steps))
        if self._going is None:
            self._stop_listening()
            return
        try:
            outcome = self._record(model, eaten, state)
        except BaseException as error:
            self.give_up(error)
            raise
        outcome = self._going.complete(self._runtime, outcome)
        self._stop_listening()
        self.run_id = outcome.run_id
        mirror.show_outcome(self._runtime.settings, outcome)
        log.info(
            "train %s: %d rows in %d steps; stemma lineage %s",
            self.run_id,
            eaten.num_rows,
            len(self._steps),
            self.run_id,
        )

    def give_up(self, error: BaseException | None = None) -> None:
        """Let go of the model, and put on record that the training failed; nothing where none goes on."""
        going = self._going
        self._stop_listening()
        if going is not None:
            going.fail(self._runtime, error or CallbackError("the trainer was broken off before its end"))

    def _stop_listening(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        if self in _listening:
            _listening.remove(self)
        self._hook = self._going = None

    @property
    def _ids(self) -> dict[int, bytes]:
        return dict(zip(self._rows["row_no"].to_pylist(), self._rows["row_id"].to_pylist(), strict=True))

    def _record(self, model: Any, eaten: pa.Table, state: TrainerState) -> Outcome:
        assert self._going is not None
        run, settings = self._going.run, self._runtime.settings
        folder = settings.path("checkpoints", run.id)
        model.save_pretrained(folder)
        for path in Path(folder).glob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes them private
        assert self._base is not None
        name, digest = self._base
        checkpoint = record_checkpoint(
            self._runtime,
            run,
            eaten=eaten,
            ids=self._ids,
            step=len(self._steps),
            uri=folder,
            adapter_digest=adapter_digest(folder),
            adapter_config_digest=adapter_config_digest(folder),
            base_model=name,
            base_digest=digest,
            curriculum=self._root,
            plan=self._plan,
        )
        counts = {"rows": len(eaten["row_no"].unique()), "eaten": eaten.num_rows}
        logged = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        every_step = [step for step, _ in logged] == list(range(1, len(self._steps) + 1))
        facets = {
            "adapter_digest": checkpoint.adapter_digest,
            "curriculum": self._root,
            "plan_digest": checkpoint.plan_digest,
            "steps": len(self._steps),
            "losses": [round(loss, 5) for _, loss in logged] if every_step else [],
        }
        return Outcome((f"checkpoint:{checkpoint.name}",), counts, facets)

    def _note(self, model: torch.nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Take the row numbers out of what goes into the model; where it learns from it, write them down."""
        fed: torch.Tensor | None = named.pop(_FED, None)
        if model.training and torch.is_grad_enabled():
            if fed is None:
                raise self._refused("the model was fed something else than the training rows")
            sequences = _sequences(named)
            if sequences != len(fed):
                raise self._refused(
                    f"{len(fed)} rows came to the model as {sequences} sequences, so they were packed or "
                    "flattened; set packing=False and padding_free=False"
                )
            self._fed += [(row_no, tokens) for row_no, tokens in fed.tolist()]
        return positional, named

    def _refused(self, sentence: str) -> CallbackError:
        error = CallbackError(f"{sentence}: what was eaten cannot be recorded")
        self.give_up(error)
        return error


_listening: list[ConsumptionCallback] = []
"""Those of this process whose training has begun, and as far as they know goes on."""


def _broken_off() -> list[ConsumptionCallback]:
    """Those whose thread is not at their training any more: it has come here to begin one, or has ended."""
    here = threading.current_thread()
    return [each for each in _listening if each._thread is here or not each._thread.is_alive()]


class _Carrying:
    """A collator that also hands on which rows a batch is made of; pickled to the loader's workers."""

    def __init__(self, collate: Callable[[list[Any]], Any], *, shifted: bool) -> None:
        self.collate = collate
        self.shifted = shifted

    def __call__(self, rows: list[Any]) -> Any:
        batch = self.collate([{name: row[name] for name in row if name != ROW_NO} for row in rows])
        tokens = _loss_tokens(batch.get("labels"), len(rows), shifted=self.shifted)
        fed = [[int(row[ROW_NO]), n] for row, n in zip(rows, tokens, strict=True)]
        batch[_FED] = torch.tensor(fed, dtype=torch.int64)  # (rows, 2): number, loss tokens
        return batch


def _rows(settings: Settings, prefix: str) -> pa.Table:
    curriculum = curricula.load(settings, prefix)
    verdicts.require(settings, curriculum.version)
    return rows_of(Runtime(settings), curriculum)


def _require_recordable(args: TrainingArguments, state: TrainerState, settings: Settings) -> None:
    """Raise CallbackError for what would make the record wrong, before anything is trained."""
    refused = {
        "remove_unused_columns=False, or the trainer drops the column row_no": args.remove_unused_columns,
        "packing=False: of a packed sequence nobody knows the rows": getattr(args, "packing", False),
        "padding_free=False: of a flattened batch nobody knows the rows": getattr(
            args, "padding_free", False
        ),
        "load_best_model_at_end=False: an earlier state has not eaten all that is recorded": (
            args.load_best_model_at_end
        ),
        "no fsdp and no deepspeed: a sharded model cannot be saved from here": (
            bool(args.fsdp) or bool(args.deepspeed)
        ),
        "one GPU per process (torchrun): DataParallel does not keep the order": args.n_gpu > 1,
        "no resume_from_checkpoint: what was eaten before is not known here": state.global_step > 0,
        "a lake that is a folder: the model is saved into it": not settings.is_local,
    }
    for wanted, is_otherwise in refused.items():
        if is_otherwise:
            raise CallbackError(f"the training cannot be recorded; expected {wanted}")


def _offered(dataset: Any, *, known: set[int]) -> list[int]:
    """The row numbers of a training set; of one that is a stream, those of the whole curriculum."""
    if not hasattr(dataset, "__len__"):
        return sorted(known)
    try:
        numbers = dataset[ROW_NO] if hasattr(dataset, "column_names") else [row[ROW_NO] for row in dataset]
        offered = [int(number) for number in numbers]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise CallbackError(
            f"the training set has no column {ROW_NO}, so nobody knows which rows are fed; make it from "
            "curriculum_dataset() and keep that column (packing drops it: set packing=False)"
        ) from error
    strangers = set(offered) - known
    if strangers or not offered:
        what = (
            f"{len(strangers)} rows that are not the curriculum's, as {min(strangers)}"
            if strangers
            else "no row"
        )
        raise CallbackError(f"the training set holds {what}; make it from curriculum_dataset()")
    return offered


def _carry_row_numbers(loader: Any, *, shifted: bool) -> None:
    loader = getattr(loader, "base_dataloader", loader)  # accelerate wraps the loader that reads
    if not isinstance(loader.collate_fn, _Carrying):
        loader.collate_fn = _Carrying(loader.collate_fn, shifted=shifted)


def _loss_tokens(labels: torch.Tensor | None, rows: int, *, shifted: bool) -> list[int]:
    """How many terms each row adds to the loss: label tokens that are not -100; of one label per row, one.

    `shifted`: the first token of a row is predicted from nothing, so it does not count. Flattened rows give
    zeros; the model refuses them.
    """
    if labels is None or len(labels) != rows:
        return [0] * rows
    if labels.dim() == 1:
        return [1] * rows
    return (labels[:, 1:] if shifted else labels).ne(-100).flatten(1).sum(1).tolist()


def _sequences(named: Mapping[str, Any]) -> int:
    """How many sequences go into the model."""
    first = [named[name] for name in ("input_ids", "inputs_embeds") if torch.is_tensor(named.get(name))]
    found = first or [value for value in named.values() if torch.is_tensor(value) and value.dim()]
    return len(found[0]) if found else 0


def _is_causal(model: Any) -> bool:
    return any("ForCausalLM" in name for name in _class_names(model))


def _class_names(model: Any) -> list[str]:
    """Of the model, and of what an adapter sits on."""
    base = getattr(model, "get_base_model", None)
    return [type(each).__name__ for each in (model, base() if base else model)]


def _base_of(runtime: Runtime, model: Any, given: str | None) -> tuple[str, str]:
    """Name and digest of the base; not_applicable where it has none, or none on this machine."""
    adapters = (getattr(model, "peft_config", None) or {}).values()
    named = [each.base_model_name_or_path for each in adapters]
    name = given or next(iter(named), None) or getattr(model.config, "_name_or_path", "")
    if not name:
        return NOT_APPLICABLE, NOT_APPLICABLE
    try:
        base = resolve_base(runtime, name)
    except ModelError:
        if given:
            raise
        return name, NOT_APPLICABLE
    return base.name, base.digest


def _of_all_ranks(steps: Sequence[Sequence[tuple[int, int]]]) -> list[Sequence[Sequence[tuple[int, int]]]]:
    """What each process fed, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [steps]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, steps)
    return found


def _ledger(ranks: Sequence[Sequence[Sequence[tuple[int, int]]]]) -> pa.Table:
    """Consumption by step and slot: within a step rank after rank, each in the order in which it was fed."""
    rows: list[dict[str, int]] = []
    for step in range(max(map(len, ranks), default=0)):
        fed = [(rank, *each) for rank, steps in enumerate(ranks) if step < len(steps) for each in steps[step]]
        rows += [
            {"step": step, "rank": rank, "slot": slot, "row_no": row_no, "loss_tokens": loss_tokens}
            for slot, (rank, row_no, loss_tokens) in enumerate(fed)
        ]
    kinds = {"step": pa.int32(), "rank": pa.int16(), "slot": pa.int32(), "row_no": pa.int64()}
    return pa.Table.from_pylist(rows, schema=pa.schema([*kinds.items(), ("loss_tokens", pa.int32())]))


def _hyperparameters(args: TrainingArguments) -> dict[str, Any]:
    """The trainer's arguments as JSON, without places, names and tokens."""
    told: Mapping[str, Any] = json.loads(json.dumps(args.to_dict(), default=str))
    return {
        name: value
        for name, value in sorted(told.items())
        if not name.startswith(_NO_HYPERPARAMETER) and not name.endswith("_token") and value is not None
    }


def _trainer(args: TrainingArguments) -> str:
    return type(args).__name__


def _described(model: Any) -> str:
    """The model by its class and its count of trained parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return f"{_class_names(model)[-1]}, {trained} trained parameters"
