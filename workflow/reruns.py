"""Say in plain words why jobs would run again, from Snakemake's own decision and records.

    python workflow/reruns.py [the arguments that snakemake would get]

`make why` calls it. Snakemake decides; this only asks it (in its own process, by its own API) and
translates its reasons: which setting changed from what to what, which module, which input.
"""

import ast
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from snakemake.api import SnakemakeApi
from snakemake.cli import parse_args, parse_config
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
    StorageSettings,
)

ABSENT = object()
# Options that choose other jobs than those that this plans.
UNHEARD = ("force", "forceall", "until", "omit_from", "batch", "consider_ancient", "directory")
LONGEST = 60  # characters of a value that is shown


@contextmanager
def planned(arguments: list[str], *, snakefile: str | None = None) -> Iterator:
    """Yield Snakemake's workflow with its graph of jobs, as `snakemake -n` would plan it here.

    Args:
        arguments: of the command line: profiles, config, targets, --forcerun.
        snakefile: the workflow, if it is not in the current directory.

    Raises:
        SystemExit: an option chooses jobs in a way that is not asked about here.
    """
    parser, args = parse_args(arguments)
    _refuse(parser, args)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, stdout=False)) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(
                config=parse_config(args.config),
                configfiles=args.configfile,
                config_args=args.config,
            ),
            storage_settings=StorageSettings(),
            snakefile=snakefile or args.snakefile,
        )
        workflow.dag(
            DAGSettings(
                targets=args.targets,
                forcerun=args.forcerun,
                force_incomplete=args.rerun_incomplete,
                rerun_triggers=args.rerun_triggers,
                max_checksum_file_size=args.max_checksum_file_size,
            )
        )
        # What `snakemake --summary` does, without printing.
        workflow = workflow._workflow
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        yield workflow


def _refuse(parser, args) -> None:
    given = [
        max(action.option_strings, key=len)
        for action in parser._actions
        if action.dest in UNHEARD and getattr(args, action.dest) not in (None, False, [], set(), {})
    ]
    if given:
        raise SystemExit(
            f"make why: {', '.join(given)} would be ignored here. Leave it out, and name targets, "
            "or jobs by --forcerun; snakemake -n says what would run with it."
        )


def rerun_jobs(workflow) -> dict:
    """Return {job: reason} of the jobs that would run; the named targets make nothing."""
    dag = workflow.dag
    return {job: dag.reason(job) for job in dag.needrun_jobs() if not job.rule.norun}


def lines(workflow) -> list[str]:
    """Return a line for each rule and cause, in the order in which they would run."""
    changes = _config_changes(workflow)
    jobs = rerun_jobs(workflow)
    causes = defaultdict(list)
    for level in workflow.dag.toposorted():
        for job in sorted(level, key=lambda job: (job.rule.name, *job.wildcards)):
            for cause in _causes(job, jobs.get(job), workflow, changes) if job in jobs else ():
                causes[job.rule.name, cause].append("/".join(job.wildcards))
    return [f"{rule}{_which(names)}: {cause}" for (rule, cause), names in causes.items()]


def _which(names: list[str]) -> str:
    names = [name for name in names if name]
    if len(names) > 3:
        return f" {names[0]} ... {names[-1]} ({len(names)} jobs)"
    return f" {', '.join(names)}" if names else ""


def _causes(job, reason, workflow, changes) -> Iterator[str]:
    if reason.forced:
        interrupted = reason._incomplete_output or workflow.async_run(
            workflow.persistence.incomplete(job)
        )
        yield "it was interrupted before it was finished" if interrupted else "it was asked for"
    for path in sorted(reason.missing_output):
        known = workflow.persistence.metadata(path) is not None
        yield f"{path} {'was deleted' if known else 'has not been made yet'}"
    for path in sorted(reason.updated_input - reason.updated_input_run):
        yield f"its input {path} changed"
    if reason.input_changed:
        yield from _input_changes(job, workflow.persistence)
    if reason.params_changed:
        yield from _param_changes(job, reason.params_changed, workflow.persistence, changes)
    if reason.software_stack_changed:
        yield f"its environment {job.rule.conda_env} changed"
    if reason.code_changed:
        yield "the command in its rule changed"
    if reason.updated_input_run:
        makers = {
            maker.rule.name
            for maker, files in workflow.dag.dependencies[job].items()
            if not reason.updated_input_run.isdisjoint(files)
        }
        yield f"it reads what {' and '.join(sorted(makers))} will make"


def _input_changes(job, persistence) -> Iterator[str]:
    now = {str(path) for path in persistence._input(job)}
    before = {path for output in job.output for path in persistence.input(output) or ()}
    for path in sorted(now - before):
        yield f"{path} is a new input"
    for path in sorted(before - now):
        yield f"{path} is no longer an input"


def _param_changes(job, change, persistence, changes) -> Iterator[str]:
    """Explain a change of parameters; Snakemake records their values, not their names."""
    before = [_value(text) for text in sorted(change.only_old)]
    changed = [
        (name, _structure(value))
        for name, value in job.params.items()
        if persistence._serialize_param(value) in change.only_new
    ]
    told = _known_scalars(before, changed, changes)
    for name, key, old, new in told:
        before.remove(old)
        changed.remove((name, new))
        yield _setting(key, old, new)
    yield from _mistakable(before, changed)
    for name, value in changed:
        known = max(before, key=lambda old, value=value: _likeness(old, value), default=ABSENT)
        if known is ABSENT or not _likeness(known, value):
            yield f"its parameter {name} is new"
            continue
        before.remove(known)
        if name == "code":
            yield from _code_changes(known, value)
        elif isinstance(value, dict):
            section = getattr(dict(job.rule.params.items()).get(name), "path", "")
            for key, old, new in _leaves(known, value, section):
                yield _setting(key, old, new)
        else:
            yield f"its parameter {name} changed from {_show(known)} to {_show(value)}"
    for value in before:
        yield f"it no longer has the parameter {_show(value)}"


def _known_scalars(before: list, changed: list, changes) -> list[tuple]:
    """Return (parameter, setting, old, new) of the scalars that the config's record tells apart."""
    told = []
    for name, value in changed:
        found = [
            (key, old)
            for key, old, new in changes
            if not isinstance(value, dict) and _same(new, value) and _holds(before, old)
        ]
        # Two settings may have come to one value: the parameter's name is the end of its key.
        named = [pair for pair in found if pair[0].replace(".", "_").endswith(name)]
        found = named if len(named) == 1 else found
        if len(found) == 1:
            told.append((name, *found[0], value))
    old = [known for _, _, known, _ in told]
    return [one for one in told if sum(_same(one[2], other) for other in old) == 1]


def _mistakable(before: list, changed: list) -> Iterator[str]:
    """Name scalars whose old values cannot be told apart, and take them from both lists."""
    for _, value in [pair for pair in changed if not isinstance(pair[1], dict)]:
        alike = [pair for pair in changed if _likeness(pair[1], value) == 1.0]
        olds = [old for old in before if not isinstance(old, dict) and _likeness(old, value) == 1.0]
        if olds and max(len(alike), len(olds)) > 1:
            for pair in alike:
                yield f"its parameter {pair[0]} changed to {_show(pair[1])}"
                changed.remove(pair)
            for old in olds:
                before.remove(old)


def _same(a, b) -> bool:
    return type(a) is type(b) and a == b


def _holds(values: list, wanted) -> bool:
    return any(_same(value, wanted) for value in values)


def _setting(key: str, old, new) -> str:
    if old is ABSENT:
        return f"the setting {key} is new"
    if new is ABSENT:
        return f"it no longer depends on the setting {key}"
    return f"the setting {key} changed from {_show(old)} to {_show(new)}"


def _code_changes(old: dict, new: dict) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"it now runs {name} as well"
        elif name not in new:
            yield f"it no longer runs {name}"
        elif old[name] != new[name]:
            yield f"the code of {name} changed"


def _config_changes(workflow) -> list[tuple]:
    """Return (key, old, new) of the whole config since the last run that recorded itself."""
    for job in workflow.dag.jobs:
        if job.rule.name == "record_run":
            recorded = workflow.persistence.params(job.output[0]) or []
            known = [_value(text) for text in recorded]
            now = json.loads(job.params.config)
            known = [value for value in known if isinstance(value, dict) and "seed" in value]
            return list(_leaves(known[0], now, "")) if known else []
    return []


def _leaves(old, new, path: str) -> Iterator[tuple]:
    """Yield (dotted key, old value, new value) wherever two structures differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            here = f"{path}.{key}" if path else key
            yield from _leaves(old.get(key, ABSENT), new.get(key, ABSENT), here)
    elif old is ABSENT or new is ABSENT or old != new:
        yield path, old, new


def _likeness(old, new) -> float:
    """Return how likely two values are of one parameter, 0 to 1."""
    if isinstance(old, dict) and isinstance(new, dict):
        return len(old.keys() & new.keys()) / max(len(old.keys() | new.keys()), 1)
    return float(type(old) is type(new) or {type(old), type(new)} == {int, float})


def _value(recorded: str):
    """Return the value that Snakemake recorded by its repr."""
    return _structure(ast.literal_eval(recorded))


def _structure(value):
    if isinstance(value, str) and value[:1] == "{":
        return json.loads(value)
    return value


def _show(value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def main(arguments: list[str]) -> None:
    """Print the lines."""
    with planned(arguments) as workflow:
        said = lines(workflow)
    print("\n".join(said) or "Nothing would run again: everything is there and up to date.")


if __name__ == "__main__":
    main(sys.argv[1:])
