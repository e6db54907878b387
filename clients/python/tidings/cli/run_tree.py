"""A run as a tree of its plan, with states and times."""

from __future__ import annotations

from collections import defaultdict

from rich.text import Text
from rich.tree import Tree

from tidings.cli.output import plain, state_text, time_text
from tidings.cli.records import error_text
from tidings.v1.run_pb2 import PlanStep, Run


def run_tree(run: Run) -> Tree:
    """Steps stand below the step that they are a part of, in the order of the plan."""
    children = defaultdict(list)
    for step in run.plan:
        children[step.parent_step_id].append(step)
    root = Tree(_run_label(run), highlight=False)
    open_branches = [(root, step) for step in reversed(children[""])]
    while open_branches:
        parent, step = open_branches.pop()
        branch = parent.add(_step_label(step))
        open_branches += [(branch, child) for child in reversed(children[step.step_id])]
    return root


def steps_text(run: Run) -> str:
    """How many steps have ended, of how many; empty without a plan."""
    progress = run.progress
    return f"{progress.succeeded + progress.failed + progress.skipped}/{progress.total} steps" if progress.total else ""


def _run_label(run: Run) -> Text:
    label = Text.assemble((plain(run.run_id), "bold"), "  ", state_text(run.state))
    return _with(label, steps_text(run), _times(run), plain(run.result_summary), error_text(run.error))


def _step_label(step: PlanStep) -> Text:
    return _with(
        Text.assemble(plain(step.step_id), "  ", state_text(step.state)), _times(step), plain(step.description)
    )


def _with(label: Text, *more: str) -> Text:
    for each in filter(None, more):
        label.append(f"  {each}")
    return label


def _times(of: Run | PlanStep) -> str:
    """From when on, and how long if it is over."""
    if not of.HasField("start_time"):
        return time_text(of.end_time)
    if not of.HasField("end_time"):
        return f"since {time_text(of.start_time)}"
    took = of.end_time.ToDatetime() - of.start_time.ToDatetime()
    return f"{time_text(of.start_time)} for {took.total_seconds():.1f} s"
