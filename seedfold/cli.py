"""The command line: parses, calls, prints. No logic."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seedfold import __version__, config
from seedfold.diagnose import commands as diagnose
from seedfold.errors import UserError
from seedfold.speedrun import standard

TO_MEND = 1
BAD_INPUT = 2
STOPPED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that spin for long while they wait halve the speed when another process wants a core. Read as torch loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    arguments = _parser().parse_args(argv)
    try:
        code = arguments.call(arguments) or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"seedfold: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("\nseedfold: stopped; nothing evaluated is lost, the same command goes on from here", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader went away, as head(1) does
        return 0
    except OSError as error:
        print(
            f"seedfold: {error}; what was recorded is safe, mend that and run the same command again", file=sys.stderr
        )
        return BAD_INPUT
    return int(code)


# Commands


def _demo(arguments: argparse.Namespace) -> None:
    from importlib.resources import files

    text = files("seedfold").joinpath("demo.toml")
    print(text.read_text(encoding="utf-8").splitlines()[0].lstrip("# "), flush=True)
    _study(config.load(str(text), arguments.set), arguments.out or Path("runs/demo"))


def _run(arguments: argparse.Namespace) -> None:
    chosen = config.load(arguments.config, arguments.set)
    _study(chosen, arguments.out or Path("runs") / chosen.name)


def _study(chosen: config.Config, folder: Path) -> None:
    from seedfold import study
    from seedfold.progress import Progress
    from seedfold.report.lines import one_pass

    finished = study.run(chosen, folder, Progress())
    print(finished)
    print(f"\nreport: {folder / 'report.html'}   record: {folder / 'record.json'}   recipes: {folder / 'recipes'}")
    if better := one_pass(finished.record):
        print(f"deploy the {better['method']}: seedfold export {folder / better['recipes'][0]} DIR")


def _speedrun(arguments: argparse.Namespace) -> int:
    from seedfold.speedrun import record, run, table, verify

    if [arguments.config, arguments.verify, arguments.records].count(None) != 2:
        raise UserError("speedrun takes one of CONFIG.toml, --verify RECORD and --records DIR; give one of them")
    if arguments.set and not arguments.config:
        raise UserError(f"--set {arguments.set[0]} changes a standard, but none is given; give its CONFIG.toml")
    if arguments.records:
        print(f"wrote {table.write(arguments.records)}")
        return 0
    if arguments.verify:
        verdicts, remarks = verify.verify(arguments.verify, arguments.out, arguments.model, arguments.commit)
        print(verify.told(verdicts, remarks))
        return TO_MEND if any(verdict.good is False for verdict in verdicts) else 0
    path = run.run(standard.load(arguments.config, arguments.set), arguments.out, arguments.model, arguments.commit)
    print(f"{table.told(record.read(path))}\n\nrecord: {path}")
    return 0


def _new_task(arguments: argparse.Namespace) -> None:
    from seedfold.tasks.scaffold import new

    print("\n".join(new(arguments.folder, arguments.kind)))


def _check_task(arguments: argparse.Namespace) -> int:
    from seedfold.check import check

    found = check(config.load(arguments.config, arguments.set), arguments.prompts, arguments.reference)
    print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False) if arguments.json else found)
    return 0 if found.good else TO_MEND


def _eval(arguments: argparse.Namespace) -> None:
    from seedfold.evaluation import evaluate
    from seedfold.progress import Progress

    changes = list(arguments.set)
    for field, value in (("model.name", arguments.model), ("task.name", arguments.task)):
        if value:
            changes.append(f"{field}={json.dumps(value)}")
    chosen = config.load(arguments.config, changes)
    line = evaluate(chosen, arguments.recipe or [], arguments.split, arguments.answers, Progress())
    if arguments.json:
        print(json.dumps(line, indent=1))
    else:
        low, high = line["interval"]
        print(
            f"{line['model']}{' with ' + ', '.join(line['recipes']) if line['recipes'] else ''} on {line['task']} "
            f"({line['split']}, n={line['n']}): {line['accuracy']:.1%} [{low:.1%}, {high:.1%}], "
            f"lenient {line['lenient']:.1%}, truncated {line['truncated']}"
        )


def _export(arguments: argparse.Namespace) -> None:
    if arguments.adapter:
        from seedfold.export import adapter as write
    else:
        from seedfold.evaluation import export as write
    print(f"wrote {write(arguments.recipe, arguments.folder, arguments.model)}")


def _inspect(arguments: argparse.Namespace) -> None:
    from seedfold.evaluation import inspect

    steps, recipe = inspect(arguments.recipe, arguments.model)
    if arguments.json:
        print(json.dumps([vars(step) for step in steps], indent=1))
        return
    print(f"base {recipe.base.name} {recipe.base.fingerprint}   {len(recipe.terms)} terms   norm {recipe.norm():.3g}")
    print(f"{recipe.dtype}, rounding {recipe.rounding}, scale {recipe.scale}\n")
    print(f"{'tensor':52} {'weights':>11} {'changed':>8} {'cosine':>7} {'intended':>9} {'realised':>9}")
    for step in steps:
        print(
            f"{step.tensor[-52:]:52} {step.weights:>11,} {step.changed:>8.1%} {step.cosine:>7.3f} "
            f"{step.intended:>9.2e} {step.realised:>9.2e}"
        )


def _plan(arguments: argparse.Namespace) -> None:
    from seedfold.plan import imagined, plan

    gpus = imagined(arguments.gpus) if arguments.gpus else None
    print(plan(config.load(arguments.config, arguments.set), not arguments.no_probe, gpus))
    if arguments.config and standard.is_standard(arguments.config):
        print(standard.load(arguments.config, arguments.set).more())


def _doctor(arguments: argparse.Namespace) -> None:
    from seedfold.doctor import doctor

    print(doctor(probe=not arguments.no_probe))


def _report(arguments: argparse.Namespace) -> None:
    from seedfold import study
    from seedfold.journal import Journal
    from seedfold.report import compare
    from seedfold.report.page import of_folder

    if arguments.compare:
        compared = compare.compare([*([arguments.folder] if arguments.folder else []), *arguments.compare])
        compare.write(compared, arguments.out)
        print(f"{compared}\n\npage: {arguments.out}")
        return
    if arguments.folder is None:
        raise UserError('"DIR" is not given; give the folder of a finished study, or several after --compare')
    if arguments.parquet:
        with Journal.read(arguments.folder) as journal:
            journal.export_parquet(arguments.parquet)
        print(f"wrote {arguments.parquet}")
    finished = study.load(arguments.folder)
    of_folder(finished.record, arguments.folder)
    print(finished)
    print(f"\nreport: {arguments.folder / 'report.html'}")


def _watch(arguments: argparse.Namespace) -> None:
    from seedfold.watch import watch

    try:
        watch(arguments.folder, arguments.every, arguments.once, arguments.page)
    except KeyboardInterrupt:  # of the look, not of the study
        print()


# Arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seedfold",
        description="Post-train language models without gradients: search seeded weight perturbations, let the best "
        "vote, and know from held-out examples what it gained.",
        epilog="Start with: seedfold demo",
    )
    parser.add_argument("--version", action="version", version=f"seedfold {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, call: Any, text: str, settings: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text + ".",
            epilog=_settings_help(name) if settings else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(call=call)
        if settings:
            sub.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="set any field below")
        return sub

    sub = command("demo", _demo, "post-train SmolLM2-135M on arithmetic: a whole study in minutes", settings=True)
    sub.add_argument("--out", type=Path, help="the study's folder (default runs/demo)")

    sub = command("run", _run, "run the study of a config, or resume it", settings=True)
    sub.add_argument("config", type=Path, metavar="CONFIG.toml")
    sub.add_argument("--out", type=Path, help="the study's folder (default runs/NAME); again to resume")

    sub = command(
        "speedrun",
        _speedrun,
        "run a fixed standard, its phases timed, and keep the record; or run a record again and compare",
        settings=True,
    )
    sub.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml")
    sub.add_argument("--out", type=Path, metavar="RECORD.jsonl", help="the record (default: in benchmarks/records)")
    sub.add_argument("--model", default="", help="where the model is, if not where the standard says")
    sub.add_argument("--commit", default="", help="of the code, where it is a copy without git; the record says so")
    sub.add_argument("--verify", type=Path, metavar="RECORD.jsonl", help="run this record again and compare")
    sub.add_argument("--records", type=Path, metavar="DIR", help="write DIR/../RECORDS.md from the records in DIR")

    sub = command("new-task", _new_task, "write a folder with rows, a reward and a study, to begin a task of your own")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument(
        "--kind", default="classification", help="classification (the default), extraction, tool-calls or freeform"
    )

    sub = command(
        "check-task",
        _check_task,
        "show the prompts as the model sees them, and what is wrong with the data or the reward",
        settings=True,
    )
    sub.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml")
    sub.add_argument("--prompts", type=int, default=3, metavar="N", help="how many prompts to show (default 3)")
    sub.add_argument(
        "--reference", default="", metavar="COLUMN", help="the column of right answers (default: answer, label, …)"
    )
    sub.add_argument("--json", action="store_true", help="print what was found as JSON")

    sub = command("eval", _eval, "measure a model, a recipe, or the vote of several on a task", settings=True)
    sub.add_argument("--model", help="model name or directory, in place of model.name")
    sub.add_argument("--recipe", action="append", type=Path, help="a recipe file; several vote, the best first")
    sub.add_argument("--task", help="in place of task.name")
    sub.add_argument("--config", type=Path, metavar="CONFIG.toml", help="take everything else from here")
    sub.add_argument("--split", default="test", choices=["search", "select", "gate", "test"])
    sub.add_argument("--answers", type=Path, metavar="FILE.jsonl", help="write every completion and its grade")
    sub.add_argument("--json", action="store_true", help="print the numbers as JSON")

    sub = command("export", _export, "write a recipe's model as an ordinary Hugging Face checkpoint")
    sub.add_argument("recipe", type=Path)
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--model", default="", help="where the base is, if not where the recipe says")
    sub.add_argument("--adapter", action="store_true", help="write a LoRA adapter of PEFT instead (lora families)")

    sub = command(
        "inspect", _inspect, "show what a recipe does to each tensor: share changed, intended against realised"
    )
    sub.add_argument("recipe", type=Path)
    sub.add_argument("--model", default="", help="where the base is, if not where the recipe says")
    sub.add_argument("--json", action="store_true")

    sub = command(
        "plan", _plan, "say what a study will cost in answers, time and memory, before it is run", settings=True
    )
    sub.add_argument("config", type=Path, nargs="?", metavar="CONFIG.toml")
    sub.add_argument("--no-probe", action="store_true", help="do not load the model to measure its speed")
    sub.add_argument("--gpus", default="", metavar="COUNTxGIB", help="plan for GPUs that are not here, such as 8x80")

    sub = command("doctor", _doctor, "say what this machine can do")
    sub.add_argument("--no-probe", action="store_true", help="do not load a model to check the arithmetic")

    told = "say what a study's folder, finished or running, tells about its population"
    diagnose.add(commands.add_parser("diagnose", help=told, description=told + "."))

    sub = command(
        "report", _report, "write the report of a finished study anew and print its results; or compare several"
    )
    sub.add_argument("folder", type=Path, nargs="?", metavar="DIR")
    sub.add_argument("--compare", type=Path, nargs="+", metavar="DIR", help="finished studies, each against the first")
    sub.add_argument(
        "--out", type=Path, default=Path("compare.html"), metavar="FILE", help="the comparison's page (compare.html)"
    )
    sub.add_argument("--parquet", type=Path, metavar="FILE", help="also write all evaluations as a Parquet file")

    sub = command("watch", _watch, "show a study while it runs: how far it is, and the candidates on search so far")
    sub.add_argument("folder", type=Path, metavar="DIR")
    sub.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="between two looks (default 2)")
    sub.add_argument("--once", action="store_true", help="look once and end")
    sub.add_argument(
        "--page", action="store_true", help="also keep DIR/live.html, which a browser loads again and again"
    )
    return parser


def _settings_help(name: str) -> str:
    lines = ["settings, in the TOML file or as --set section.field=value:"]
    known = config.describe() + (config.describe(standard.Speedrun, "speedrun.") if name == "speedrun" else [])
    for path, kind, default, text in known:
        shown = json.dumps(list(default) if isinstance(default, tuple) else default)
        lines += [f"  {path} = {shown}", f"      {text} ({kind})"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
