"""What is said of a run: a table of cases and clients, then each fault.

Refuses to know how cases are played.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from clients.conformance.play import Outcome


def report(outcomes: Sequence[Outcome], console: Console) -> int:
    """Print the table and the faults; return how many cases failed."""
    languages = list(dict.fromkeys(each.language for each in outcomes))
    by_case: dict[str, dict[str, Outcome]] = {}
    for each in outcomes:
        by_case.setdefault(each.case, {})[each.language] = each
    table = Table("case", *languages, box=None)
    for case, found in sorted(by_case.items()):
        table.add_row(case, *(_cell(found.get(name)) for name in languages))
    console.print(table)
    failed = [each for each in outcomes if each.fault]
    for each in failed:
        console.print(f"\n[bold red]{each.language}: {each.case}[/]")
        console.print(f"  {escape(each.fault)}", highlight=False, soft_wrap=True)
    for name in languages:
        own = [each for each in outcomes if each.language == name]
        passed = sum(not each.fault for each in own)
        console.print(
            f"{name}: {passed} of {len(own)} passed, {sum(each.seconds for each in own):.1f} s",
            highlight=False,
        )
    return len(failed)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return "[red]FAILED[/]" if outcome.fault else f"[green]ok[/] {outcome.seconds:.2f}"
