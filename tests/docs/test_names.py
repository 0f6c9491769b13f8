"""What the documentation names exists: settings, metrics, commands, files, headings."""

import re

import pytest
import typer
from prometheus_client import CollectorRegistry
from typer.core import TyperGroup

from tallygate.adapters.prometheus.capture import CaptureMetrics
from tallygate.adapters.prometheus.injector import InjectorMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.processes import GroupMetrics
from tallygate.adapters.redis import keys
from tallygate.cli import app
from tallygate.domain.ids import AccountId, EventId, OperationId, ReservationId, TenantId
from tallygate.settings import Settings
from tallygate.settings_sources import secret_fields

from . import settings_page
from .pages import PACKAGE, ROOT, blocks, commands, inline_commands, links, pages, prose, rows

PAGES = sorted(pages())
NOT_FED = "*Not fed yet.*"
# What an app is told, by who puts a sidecar beside it, or tells its client: no settings of ours.
APPS = frozenset({"ADDRESS", "TARGET"})
SOURCE = re.compile(r"`((?:[a-z_]+/)+[a-z0-9_]+\.(?:py|lua|sql|proto|log|yaml|md))`")


def metrics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return our metrics by the name that a scraper sees: the attribute, and the labels."""
    declared = Metrics(CollectorRegistry(), version="1")
    attributes = {
        getattr(value, "_metric", value): name
        for name, value in vars(declared).items()
        if name != "registry"
    }
    group = GroupMetrics(CollectorRegistry()).registry
    injector = InjectorMetrics(CollectorRegistry()).registry
    capture = CaptureMetrics(CollectorRegistry()).registry
    found = {}
    apart = (group, injector, capture)
    collectors = {each for registry in apart for each in registry._collector_to_names}
    for collector in {*collectors, *declared.registry._collector_to_names}:
        name = str(getattr(collector, "_name", "") or getattr(collector, "name", ""))
        if name.startswith("tallygate_"):
            suffix = "_total" if getattr(collector, "_type", "") == "counter" else ""
            labels = tuple(getattr(collector, "_labelnames", getattr(collector, "labels", ())))
            found[name + suffix] = (attributes.get(collector, ""), labels)
    return found


def test_settings_page_is_the_settings() -> None:
    """docs/settings.md is what the settings give; `python -m tests.docs.settings_page` makes it."""
    assert settings_page.PAGE.read_text() == settings_page.render()


def test_every_setting_is_read() -> None:
    """No setting is without effect."""
    code = "\n".join(
        path.read_text() for path in PACKAGE.rglob("*.py") if not path.name.startswith("settings")
    )
    unread = [name for name in Settings.model_fields if f"settings.{name}" not in code]
    assert not unread


@pytest.mark.parametrize("page", PAGES)
def test_variables_are_settings(page: str) -> None:
    """Every TALLYGATE_ variable that a page names is a setting."""
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"} | APPS
    known |= {f"{name.upper()}_FILE" for name in secret_fields()}
    named = set(re.findall(r"TALLYGATE_([A-Z_]+[A-Z])", pages()[page]))
    assert named <= known


def test_readme_shows_the_real_defaults() -> None:
    """The README's settings have the defaults that the code has."""
    for variable, shown, *_ in rows(pages()["README.md"]):
        name = variable.strip("`").removeprefix("TALLYGATE_").lower()
        if name not in Settings.model_fields:
            continue
        default = Settings.model_fields[name].default
        expected = ",".join(default) if isinstance(default, tuple) else str(default or "")
        assert shown.strip("`") == expected, variable


def test_metrics_page_is_the_metrics() -> None:
    """docs/metrics.md names each metric with its labels, and no other."""
    documented = {
        cells[0].strip("`"): tuple(re.findall(r"`(\w+)`", cells[1]))
        for cells in rows(pages()["docs/metrics.md"])
    }
    assert documented == {name: labels for name, (_, labels) in metrics().items()}


def test_metrics_that_nothing_feeds_are_marked() -> None:
    """A metric that is declared and never set is marked as such, and no other is."""
    code = "\n".join(
        path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "metrics.py"
    )
    idle = {
        name
        for name, (attribute, _) in metrics().items()
        if attribute and not re.search(rf"metrics\.{attribute}\b", code)
    }
    marked = {
        cells[0].strip("`") for cells in rows(pages()["docs/metrics.md"]) if NOT_FED in cells[2]
    }
    assert marked == idle


@pytest.mark.parametrize("page", PAGES)
def test_metrics_that_are_named_exist(page: str) -> None:
    """Every metric that a page names is one."""
    named = set(re.findall(r"`(tallygate_[a-z_]+)`", pages()[page]))
    assert named <= set(metrics())


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page: str) -> None:
    """Every command shown can be given: its verb, its flags, its make target."""
    shown = [words for each in blocks("console", "sh") for words in commands(each.text)
             if each.page == page]  # fmt: skip
    shown += inline_commands(pages()[page])
    targets = re.findall(r"^([a-z][a-z-]*):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in shown:
        program = words[0].rpartition("/")[2]
        if program == "make":
            assert all(word in targets or "=" in word for word in words[1:]), words
        elif program == "tallygate":
            check_command(words[1:])


def test_flags_of_the_commands_exist() -> None:
    """A flag that a row of the tables of commands names is one of that row's command."""
    checked = 0
    for name, text, *_ in (*rows(pages()["README.md"]), *rows(pages()["docs/commands.md"])):
        verb = re.match(r"`tallygate ([a-z-]+)", name)
        if verb is None:
            continue
        for code in re.findall(r"`(--[^`]+)`", text):
            check_command([verb[1], code.partition(" ")[0]])
            checked += 1
    assert checked


def test_every_command_is_listed() -> None:
    """The tables of commands, in the README and beside it, leave no verb out."""
    root = typer.main.get_group(app)
    listed = pages()["README.md"] + pages()["docs/commands.md"]
    named = {words[1] for words in inline_commands(listed) if len(words) > 1}
    assert set(root.list_commands(typer.Context(root))) <= named


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    """Every link within the repository leads to a file, and to a heading of it."""
    folder = (ROOT / page).parent
    for target in links(pages()[page]):
        path, _, fragment = target.partition("#")
        found = (folder / path).resolve() if path else ROOT / page
        assert found.exists(), target
        assert not fragment or fragment in anchors(found.read_text()), target


@pytest.mark.parametrize("page", PAGES)
def test_sources_that_are_named_exist(page: str) -> None:
    """Every file that a page names by its path is there."""
    for path in SOURCE.findall(prose(pages()[page])):
        assert any((folder / path).is_file() for folder in (ROOT, PACKAGE, ROOT / "tests")), path


def test_keys_are_as_shown() -> None:
    """The table of Redis keys is what `keys.py` spells."""
    tenant, operation = TenantId("TENANT"), OperationId("OPERATION")
    account, reservation = AccountId("ACCOUNT"), ReservationId("RESERVATION")
    shown = {cells[0].strip("`") for cells in rows(section("docs/architecture.md", "Redis"))}
    spelt = {
        keys.meta(7),
        keys.stream(7),
        keys.seen(7),
        keys.announced(7, "EPOCH"),
        keys.account(7, "EPOCH", account),
        keys.holds(7, "EPOCH", account),
        keys.operation(7, "EPOCH", tenant, operation),
        keys.reservation(7, "EPOCH", tenant, reservation),
        keys.refunded(7, "EPOCH", tenant, EventId("EVENT")),
        keys.layout(),
        keys.catalog_snapshot(),
        keys.catalog_changes(),
        keys.tenant(0x3F),
    }
    assert {key for key in shown if key.startswith("{")} == spelt


def test_tables_are_as_shown() -> None:
    """The list of Postgres tables is that of the schema, partitions left out."""
    files = (PACKAGE / "adapters" / "postgres").glob("schema*.sql")
    schema = "\n".join(file.read_text() for file in files)
    created = re.findall(r"^create table tallygate\.([a-z_]+)", schema, re.MULTILINE)
    shown = [
        name
        for cells in rows(section("docs/architecture.md", "Postgres"))
        for name in re.findall(r"`([a-z_]+)`", cells[0])
    ]
    assert sorted(shown) == sorted(set(created) - {"usage_event_default"})


def test_decisions_are_numbered_and_whole() -> None:
    """Decisions are numbered without a gap, and each has its four parts."""
    decisions = [page for page in PAGES if page.startswith("docs/decisions/")]
    for number, page in enumerate(decisions, 1):
        assert re.fullmatch(rf"docs/decisions/{number:04}-[a-z-]+\.md", page)
        text = pages()[page]
        assert text.startswith(f"# {number:04}: ")
        parts = re.findall(r"^## (.*)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Alternatives"], page


def test_wrong_commands_are_noticed() -> None:
    """A verb or a flag that does not exist is not let pass."""
    check_command(["apply", "-f", "catalog.yaml", "--dry-run"])
    for wrong in (["aply"], ["usage", "--tennant", "acme"], ["import", "logs"]):
        with pytest.raises(AssertionError):
            check_command(wrong)


def check_command(words: list[str]) -> None:
    """Walk from the command line's root down the words; every verb and flag must be known."""
    command = typer.main.get_command(app)
    for word in words:
        if word.startswith("-"):
            known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            assert word.partition("=")[0] in {*known, "--help"}, words
        elif isinstance(command, TyperGroup):
            # Most verbs are looked up once they are asked for.
            found = command.get_command(typer.Context(command), word)
            assert found is not None, words
            command = found


def section(page: str, title: str) -> str:
    """Return what stands under a heading of the second level."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", pages()[page], re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).strip().replace(" ", "-") for each in headings}
