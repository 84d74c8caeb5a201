"""``shaken import``: numbers from CSV, records from a policy file, into the store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from shaken_plugin import runtime
from shaken_plugin.cli.outfile import appearing
from shaken_plugin.cli.output import Exit, console, errors, fail, print_json, table, visible
from shaken_plugin.cli.records.changing import not_in_the_file
from shaken_plugin.cli.records.session import Intent, Opened, intends, opened, telling
from shaken_plugin.conduct.decisions import take_over
from shaken_plugin.conduct.state import State
from shaken_plugin.config.dialplans import dial_plan
from shaken_plugin.errors import FileProblems
from shaken_plugin.exchange.columns import TABLES
from shaken_plugin.exchange.csvreading import DELIMITERS, Rows
from shaken_plugin.exchange.importing import Import, Outcome, RejectFile
from shaken_plugin.exchange.rows import Mistake
from shaken_plugin.exchange.yamlfiles import merge, read_policy
from shaken_plugin.ports import PolicyDraft, sayable
from shaken_plugin.sqlitefile import create
from shaken_plugin.stores.staging import Staging

_SHOWN: Final = 20
"""Bad rows that are shown; all of them are in the reject file."""

FORMATS: Final = click.Choice(["yaml", "csv"])


class _TakenBack(Exception):  # no error: the change is not to be
    pass


@dataclass(slots=True)
class _Shown:
    """The first bad rows."""

    rows: list[tuple[int, str, str]] = field(default_factory=list)

    def __call__(self, number: int, _row: Sequence[str], mistakes: Sequence[Mistake]) -> None:
        for mistake in mistakes:
            if len(self.rows) < _SHOWN:
                self.rows.append((number, *mistake))


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--format", "form", type=FORMATS, help="What the file is; default: by its name.")
@click.option("--what", type=click.Choice(list(TABLES)), help="What a CSV file is about; default: by its columns.")
@click.option("--delimiter", metavar="CHARACTER", help="What stands between the cells; default: found in the header.")
@click.option("--partial", is_flag=True, help="Write the good rows even where others are bad.")
@click.option("--update", is_flag=True, help="Rows may change rights and entries that the store has already.")
@click.option(
    "--reject-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where bad rows go, with what is wrong: to be corrected and imported again.",
)
@intends
def import_(
    intent: Intent,
    file: str,
    form: str | None,
    what: str | None,
    delimiter: str | None,
    partial: bool,
    update: bool,
    reject_file: Path | None,
) -> None:
    """Add the numbers of a CSV file, or the records of a policy file, to the store.

    What is there already stays: importing a file twice changes nothing. One bad row keeps all others out, unless
    --partial is given. Nobody who is suspended is reinstated. The columns: docs/policy-files.md.
    """
    if (form or _by_name(file)) == "yaml":
        if partial or update or what or delimiter or reject_file or file == "-":
            raise click.UsageError("a policy file is named, and taken as a whole: these options are for CSV")
        _import_yaml(intent, Path(file))
        return
    names = {"tab": "\t", "\\t": "\t"}
    delimiter = None if delimiter is None else names.get(delimiter, delimiter)
    if delimiter is not None and delimiter not in DELIMITERS:
        raise click.BadParameter("one of , ; | or tab", param_hint="--delimiter")
    job = _Job(opened(intent.settings_file), intent, file, what, delimiter, partial, update, reject_file)
    with telling():
        job.run()


def _by_name(file: str) -> str:
    return "yaml" if Path(file).suffix.lower() in {".yaml", ".yml"} else "csv"


@dataclass(frozen=True, slots=True)
class _Job:
    """One CSV file to be imported."""

    session: Opened
    intent: Intent
    file: str
    what: str | None
    delimiter: str | None
    partial: bool
    update: bool
    reject_file: Path | None

    def run(self) -> None:
        """Import, and say what became of it."""
        create(Path(self.session.settings.store.path))
        before, shown = _version(self.session), _Shown()
        try:
            outcome = self._import(shown)
        except FileProblems as exc:
            fail(exc, Exit.NO)
        except KeyboardInterrupt:
            done = "the import was complete" if _version(self.session) != before else "nothing was changed"
            fail(f"interrupted: {done}", Exit.NO)
        self._report(outcome, shown, before)

    def _import(self, shown: _Shown) -> Outcome:
        with ExitStack() as stack:
            stream = stack.enter_context(_opened(self.file))
            rows = Rows(stream, self.file, TABLES.get(self.what or ""), self.delimiter)
            rejects = stack.enter_context(_rejects(self.reject_file, rows))
            progress = stack.enter_context(_progress(self.file, quiet=self.intent.as_json))

            def reject(number: int, row: Sequence[str], mistakes: Sequence[Mistake]) -> None:
                shown(number, row, mistakes)
                rejects(number, row, mistakes)

            job = Import(
                rows,
                dial_plan(self.session.settings.country),
                stack.enter_context(Staging()),
                partial=self.partial,
                update=self.update,
                reject=reject,
                progress=progress,
            )
            job.read(self.session.store)
            if not job.kept_out:
                with _changing(self.session, self.intent, self.file) as draft:
                    job.write(draft)
            return job.outcome

    def _all_kept_out(self, outcome: Outcome) -> bool:
        return bool(outcome.rejected) and not self.partial

    def _report(self, outcome: Outcome, shown: _Shown, before: int) -> None:
        changed = not self.intent.dry_run and not self._all_kept_out(outcome)
        version = _version(self.session)
        if version != before:
            _note_the_file(self.session, outcome)
        reject_file = str(self.reject_file) if self.reject_file and outcome.rejected else None
        if self.intent.as_json:
            _print_json(self.intent, version, outcome, changed=changed, rejects=shown.rows, reject_file=reject_file)
        else:
            _print_rejects(outcome, shown, reject_file)
            for note in outcome.notes:
                errors.print(note, style="yellow", markup=False)
            _print_outcome(self.intent, version, outcome, changed=changed)
        if outcome.rejected:
            sys.exit(Exit.NO)


@contextmanager
def _changing(session: Opened, intent: Intent, file: str) -> Iterator[PolicyDraft]:
    """The change of an import; taken back where it was but tried."""
    try:
        with session.store.change(intent.author, sayable(f"import of {file}")) as draft:
            yield draft
            if intent.dry_run:
                raise _TakenBack
    except _TakenBack:
        pass


def _note_the_file(session: Opened, outcome: Outcome) -> None:
    if session.settings.policy is not None:
        outcome.notes.append(not_in_the_file(session.settings.policy))


def _version(session: Opened) -> int:
    with session.store.records() as records:
        return records.version


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as stream:
        yield stream


@contextmanager
def _rejects(path: Path | None, rows: Rows) -> Iterator[Callable[[int, Sequence[str], Sequence[Mistake]], object]]:
    """A reject file that is there once the import has ended, if there was anything to reject."""
    if path is None:
        yield lambda *_: None
        return
    with appearing(path) as file:
        rejects: RejectFile | None = None

        def reject(number: int, row: Sequence[str], mistakes: Sequence[Mistake]) -> None:
            nonlocal rejects
            rejects = rejects or RejectFile(file, rows.layout)
            rejects(number, row, mistakes)

        yield reject


@contextmanager
def _progress(file: str, *, quiet: bool) -> Iterator[Callable[[int], object]]:
    """A bar of the bytes read, on a terminal."""
    if quiet or file == "-" or not errors.is_terminal:
        yield lambda _: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(Path(file).name, total=Path(file).stat().st_size)
        yield lambda position: bar.update(task, completed=position)


def _print_json(intent: Intent, version: int, outcome: Outcome, *, changed: bool, **more: Any) -> None:
    rejects = [{"row": row, "column": column, "message": text} for row, column, text in more.pop("rejects", ())]
    print_json(
        {
            "ok": not outcome.rejected,
            "dry_run": intent.dry_run,
            "written": changed,
            "policy_version": version,
            "by": intent.author.who,
            "why": intent.author.why,
            "rows": outcome.rows,
            "rejected": outcome.rejected,
            "new_records": outcome.new_records,
            "changed_records": outcome.changed_records,
            "new_numbers": outcome.new_numbers,
            "mistakes": rejects,
            "notes": outcome.notes,
            **more,
        }
    )


def _print_rejects(outcome: Outcome, shown: _Shown, reject_file: str | None) -> None:
    if not outcome.rejected:
        return
    made = table("row", "column", "what is wrong")
    for row, column, message in shown.rows:
        made.add_row(str(row), visible(column), visible(message))
    errors.print(made)
    where = f"; they are in {reject_file}, to be corrected" if reject_file else "; --reject-file FILE keeps them"
    errors.print(f"{outcome.rejected} of {outcome.rows} rows rejected{where}", style="red", markup=False)


def _print_outcome(intent: Intent, version: int, outcome: Outcome, *, changed: bool) -> None:
    if not changed and not intent.dry_run:
        console.print("nothing was changed: one bad row keeps all out, unless --partial is given", markup=False)
        return
    said = (
        f"{outcome.new_records} new and {outcome.changed_records} changed records, "
        f"{outcome.new_numbers} new numbers and ranges of {outcome.good}"
    )
    console.print(said if changed else f"{said}; nothing was changed (--dry-run)", markup=False)
    console.print(f"in force: policy version {version}", style="bold", markup=False)


def _import_yaml(intent: Intent, path: Path) -> None:
    session, outcome = opened(intent.settings_file), Outcome()
    names = frozenset(credential.name for credential in session.settings.signing.credentials)
    with telling():
        create(Path(session.settings.store.path))
        before = _version(session)
        try:
            with session.store.records() as records:
                policy = read_policy(path, names, beside=records)
        except FileProblems as exc:
            fail(exc, Exit.NO)
        with _changing(session, intent, str(path)) as draft:
            outcome = merge(draft, policy)
        if policy.standings and not intent.dry_run:
            outcome.notes += runtime.first_state(session.settings)
            outcome.notes += take_over(
                State(Path(session.settings.store.state), Path(session.settings.store.path)), policy.standings
            )
        version = _version(session)
    # The file of the settings says what it says itself.
    if version != before and path.absolute() != Path(session.settings.policy or "").absolute():
        _note_the_file(session, outcome)
    if intent.as_json:
        _print_json(intent, version, outcome, changed=not intent.dry_run)
        return
    for note in outcome.notes:
        errors.print(note, style="yellow", markup=False)
    _print_outcome(intent, version, outcome, changed=not intent.dry_run)
