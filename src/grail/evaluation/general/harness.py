"""General tasks through lm-evaluation-harness: a loaded model answers items, giving outcomes.

The only module that imports ``lm_eval``.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

from grail.config.run import GENERAL_TASKS
from grail.errors import DivergenceError, InputError, did_you_mean
from grail.evaluation.general.items import Item, LocalTask
from grail.evaluation.general.outcomes import Outcome
from grail.model.forward import Policy, evaluating
from grail.model.fused_lora import fused
from grail.progress import Tick, silent

ID = "grail_id"
_KEY = "evaluation.general_tasks"
_CHOICE = "multiple_choice"
_BATCH_TOKENS = 4096
"""lm-eval keeps the logits of whole prompts: with 49,000 words in float32 these fill 0.8 GB."""

Tasks = Mapping[str, Sequence[Any]]
"""Name -> lm-eval's own task objects: one, or the subtasks of a group such as mmlu."""


def check_tasks(tasks: Sequence[LocalTask | str]) -> None:
    """Refuse tasks that lm-eval does not have, or any if it is not installed.

    Only a name other than the paper's five makes lm-eval search all of its tasks (10 seconds).
    """
    if tasks and find_spec("lm_eval") is None:
        raise InputError(
            f"{_KEY}: lm-evaluation-harness is not installed. Install the extra: "
            "pip install 'grail-unlearning[general]', or leave the list empty."
        )
    names = (task for task in tasks if isinstance(task, str) and task not in GENERAL_TASKS)
    if unknown := [name for name in names if name not in _index().all_tasks]:
        known = [*GENERAL_TASKS, *_index().all_tasks]
        problems = [
            f"{_KEY}: lm-eval has no task '{name}'.{did_you_mean(name, known)} Give one of its "
            "names, a *.jsonl file, or a folder of them, written with a slash."
            for name in unknown
        ]
        raise InputError(problems)


def build(tasks: Sequence[LocalTask | str]) -> Tasks:
    """Load lm-eval's tasks, by name, in order; refuse one without data, or without choices."""
    if not tasks:
        return {}  # lm-eval takes seconds to import
    with _quiet():
        return {
            task if isinstance(task, str) else task.name: (
                _of_hub(task) if isinstance(task, str) else [local_task(task)]
            )
            for task in tasks
        }


def local_task(task: LocalTask) -> Any:
    """Return a task of lm-eval over local items; nothing is downloaded or cached.

    The answer is the choice with the largest log-likelihood (``acc``), or with the largest per
    character (``acc_norm``), without examples before the question.
    """
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [
        {ID: i.id, "prompt": prompt(i), "choices": list(i.choices), "answer": i.answer}
        for i in task.items
    ]
    metrics = [
        {"metric": name, "aggregation": "mean", "higher_is_better": True}
        for name in ("acc", "acc_norm")
    ]
    return ConfigurableTask(
        config={
            "task": task.name,
            "custom_dataset": lambda: {"test": Dataset.from_list(rows)},
            "test_split": "test",
            "output_type": _CHOICE,
            "num_fewshot": 0,
            "doc_to_text": "prompt",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "target_delimiter": " ",
            "metric_list": metrics,
        }
    )


def prompt(item: Item) -> str:
    """Return the text before " " and a choice: context, blank line, question, "Answer:".

    All local tasks have this form, as has lm-eval's arc_challenge. Its other tasks differ: mmlu
    lists the choices with letters and scores the letter; truthfulqa_mc1 puts six answered questions
    first; social_iqa has "Q: context question" and "A:"; race has "Article:" and earlier questions
    with their answers. So compare models with each other here, not with leaderboards.
    """
    context = f"{item.context}\n\n" if item.context else ""
    return f"{context}Question: {item.question}\nAnswer:"


class Harness:
    """lm-eval around one model, whose weights may change between two runs.

    Attributes:
        tasks: lm-eval's task objects by name (``build``).
        most: The most items of each task (of each subtask of a group); None for all.
    """

    def __init__(
        self, model: Policy, tokenizer: Any, tasks: Tasks, batch_size: int, most: int | None
    ) -> None:
        from lm_eval.models import huggingface

        wrapper: Any = huggingface.HFLM
        self.tasks, self.most, self._model, self._batch_size = tasks, most, model, batch_size
        with _quiet(), evaluating(model):
            self._lm = wrapper(
                pretrained=model,
                backend="causal",
                tokenizer=tokenizer,
                batch_size=1,
                softmax_dtype="float32",  # bfloat16 would round a log-likelihood of 30 to 0.125
            )
        self._lm.loglikelihood = partial(self._lm.loglikelihood, disable_tqdm=True)

    def run(self, label: str, warn: Callable[[str], None], tick: Tick = silent) -> list[Outcome]:
        """Return one outcome per item, in the order of tasks and items.

        ``label`` is the model's name in messages; ``warn`` hears of each task with items that are
        too long for the model; ``tick`` counts choices read, of those of all tasks.

        Raises:
            DivergenceError: if a log-likelihood is not finite: the model's weights are broken.
        """
        parts = [(name, part) for name, tasks in self.tasks.items() for part in tasks]
        with _quiet():
            for _, part in parts:
                part.build_all_requests(limit=self.most)
        outcomes: list[Outcome] = []
        total, done = sum(len(part.instances) for _, part in parts), 0
        for name, part in parts:
            lengths, note = self._lengths(part), f"{label}: {part.task_name}"
            if cut := sum(tokens > self._lm.max_length + 1 for tokens in lengths):
                warn(
                    f"{label}: {cut} items of {part.task_name} are longer than the model has "
                    f"positions for ({self._lm.max_length}); lm-eval cuts them from the left."
                )
            choices = range(done, done := done + len(part.instances))
            with _counted(self._model, tick, choices, total, note):
                outcomes += self._ask(label, name, part, max(lengths))
            tick(done, total, note)
        return outcomes

    def _lengths(self, task: Any) -> list[int]:
        """Return the number of tokens of each item's prompt and longest choice."""
        longest: dict[int, int] = {}
        for request in task.instances:
            tokens = len(self._lm.tok_encode("".join(request.args)))
            longest[request.doc_id] = max(tokens, longest.get(request.doc_id, 0))
        return list(longest.values())

    def _ask(self, label: str, name: str, task: Any, widest: int) -> list[Outcome]:
        import lm_eval

        evaluate: Any = lm_eval.evaluate
        self._lm.batch_size_per_gpu = max(1, min(self._batch_size, _BATCH_TOKENS // widest))
        with _quiet(), evaluating(self._model), fused(self._model):
            results = evaluate(
                lm=self._lm,
                task_dict={"tasks": {task.task_name: task}},
                limit=self.most,
                bootstrap_iters=0,  # standard errors are computed from the items
                log_samples=True,
            )
        samples = results["samples"][task.task_name]
        first = [sample for sample in samples if sample["filter"] == samples[0]["filter"]]
        return [_outcome(label, name, task.task_name, sample) for sample in first]


@contextmanager
def _counted(model: Policy, tick: Tick, choices: range, total: int, note: str) -> Iterator[None]:
    """Report progress after each forward pass: ``choices`` are the counts of the current task.

    lm-eval reads choices of one token in one row, so the count may stay below the last one.
    """
    rows = 0

    def read(_: Any, inputs: tuple[Any, ...], __: Any) -> None:
        nonlocal rows
        rows += len(inputs[0])
        if rows < len(choices):
            tick(choices[rows], total, note)

    hook = model.register_forward_hook(read)
    try:
        yield
    finally:
        hook.remove()


def _outcome(label: str, name: str, part: str, sample: Mapping[str, Any]) -> Outcome:
    likelihoods = [float(likelihood) for likelihood, _ in sample["filtered_resps"]]
    if not all(map(math.isfinite, likelihoods)):
        raise DivergenceError(
            f"a log-likelihood of the {label} model on {part} is not finite: its weights are "
            "broken. Delete its folder, lower the learning rate that made it and run again."
        )
    key = sample["doc"].get(ID) or f"{part}/{sample['doc_id']}"
    norm = sample.get("acc_norm")
    return Outcome(name, key, float(sample["acc"]), None if norm is None else float(norm))


def _of_hub(name: str) -> list[Any]:
    """Load a task, or the subtasks of a group, with lm-eval's own data and prompts."""
    try:
        parts: Mapping[str, Any] = _index().load([name])["tasks"]
    except Exception as error:  # network, cache, names, formats: no common base class
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{_KEY}: the data of lm-eval's task '{name}' could not be loaded ({reason}). It needs "
            "a network, or a copy in the Hugging Face cache. Otherwise give your own rows as a "
            "*.jsonl file, or a folder of such files."
        ) from error
    for part in parts.values():
        if part.OUTPUT_TYPE != _CHOICE or "acc" not in part.aggregation():
            raise InputError(
                f"{_KEY}: '{part.task_name}' is not multiple choice with an accuracy, so there "
                "is no outcome per item to compare two models by. Give another task."
            )
        part.set_fewshot_seed(seed=0)
    return list(parts.values())


@cache
def _index() -> Any:
    """Return lm-eval's index of its tasks; reading its 14,000 files takes 10 seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence lm-eval's advice on loading a model, and its progress bars."""
    from lm_eval.api import task

    log, bar = logging.getLogger("lm_eval"), task.tqdm
    level = log.level
    log.setLevel(logging.ERROR)
    task.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        log.setLevel(level)
        task.tqdm = bar
