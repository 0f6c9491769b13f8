"""The catalog of one file: changes are taken over, a broken one is told and left alone."""

import os
from pathlib import Path

import pytest

from tallygate.adapters.catalog.file_view import FileCatalogView
from tallygate.domain.errors import CatalogInvalid, CatalogNotLoaded, UnknownTenant
from tallygate.domain.ids import PlanName, TenantId
from tests.catalog.documents import GOOD, changed

ACME = TenantId("acme")
NO_DEFAULT = changed("default_plan: free\n", "")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The good document as a file."""
    path = tmp_path / "catalog.yaml"
    path.write_text(GOOD)
    return path


def replace(path: Path, text: str | bytes) -> None:
    """Write a file as deployments do: whole, under another name, then renamed."""
    other = path.with_suffix(".new")
    other.write_bytes(text if isinstance(text, bytes) else text.encode())
    other.rename(path)


def put(path: Path, text: str) -> None:
    """Write a file as editors do: in place."""
    path.write_text(text)


def replace_unseen(path: Path, text: str) -> None:
    """Replace a file by one that claims to be as old."""
    before = path.stat()
    replace(path, text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_folder(path: Path) -> None:
    """Put a folder in the place of nothing."""
    path.mkdir()


def remove(path: Path) -> None:
    """Remove a file or an empty folder."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()


async def test_the_file_is_read_at_the_first_refresh(file: Path) -> None:
    """Before it, there is no catalog; after it, all tenants are in memory."""
    view = FileCatalogView(file)
    with pytest.raises(CatalogNotLoaded):
        view.current()
    assert await view.refresh() == 1
    assert (view.version, view.current().version) == (1, 1)
    held = view.lineage_held(ACME)
    assert held is not None
    assert [tenant.tenant_id for tenant in held] == ["acme", "org"]
    assert await view.lineage(ACME) == held


async def test_an_unchanged_file_is_not_read_again(file: Path) -> None:
    """Without a change a refresh does nothing."""
    view = FileCatalogView(file)
    await view.refresh()
    assert await view.refresh() == 0
    assert view.version == 1


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_changed_file_is_taken_over(file: Path, in_place: bool) -> None:
    """A change, written in place or renamed into place, is the next version."""
    view = FileCatalogView(file)
    await view.refresh()
    text = changed("org: {plan: pro}", "org: {plan: free}")
    (put if in_place else replace)(file, text)
    assert await view.refresh() == 1
    assert (await view.lineage(ACME))[1].plan == "free"
    assert view.version == 2


async def test_a_change_of_the_same_size_is_seen(file: Path) -> None:
    """A file that keeps its size and its time is still another file."""
    view = FileCatalogView(file)
    await view.refresh()
    replace_unseen(file, changed("limit: 5_000", "limit: 6_000"))
    assert await view.refresh() == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("version: 1", "version: 2"), "must be 1"),
        (b"version: 1\n# \xff\n", "is not UTF-8"),
        ("", "must be 1"),
        (b"#" * (16 * 1024 * 1024 + 1), "is larger than"),
        ("tenants: {acme: {plan: free}}\n" * 2, "twice"),
    ],
    ids=["rules", "bytes", "empty", "size", "keys"],
)
async def test_a_broken_file_is_told_once(file: Path, text: str | bytes, message: str) -> None:
    """The last good catalog stays in use; the fault is told, and gone with the next good file."""
    view = FileCatalogView(file)
    await view.refresh()
    replace(file, text)
    with pytest.raises(CatalogInvalid) as raised:
        await view.refresh()
    assert any(message in fault.message for fault in raised.value.faults)
    assert await view.refresh() == 0
    assert view.version == 1
    assert view.lineage_held(ACME) is not None
    replace(file, GOOD)
    assert await view.refresh() == 1
    assert view.version == 2


async def test_a_file_that_is_gone_is_told(file: Path) -> None:
    """A missing file, or a folder in its place, takes nothing away."""
    view = FileCatalogView(file)
    await view.refresh()
    remove(file)
    with pytest.raises(CatalogInvalid) as raised:
        await view.refresh()
    assert raised.value.faults[0].message == "cannot be read: No such file or directory"
    assert await view.refresh() == 0
    replace_by_folder(file)
    with pytest.raises(CatalogInvalid):
        await view.refresh()
    assert view.version == 1
    remove(file)
    put(file, GOOD)
    assert await view.refresh() == 1


async def test_a_file_that_comes_late(tmp_path: Path) -> None:
    """A sidecar can wait for its file."""
    view = FileCatalogView(tmp_path / "catalog.yaml")
    with pytest.raises(CatalogInvalid):
        await view.refresh()
    with pytest.raises(CatalogNotLoaded):
        await view.lineage(ACME)
    put(tmp_path / "catalog.yaml", GOOD)
    assert await view.refresh() == 1


async def test_undeclared_tenants(file: Path) -> None:
    """Who is not declared lives by the default plan, or is unknown without one."""
    view = FileCatalogView(file)
    await view.refresh()
    someone = TenantId("someone")
    assert (await view.lineage(someone))[0].plan == PlanName("free")
    replace(file, NO_DEFAULT)
    await view.refresh()
    assert view.lineage_held(someone) is None
    with pytest.raises(UnknownTenant) as raised:
        await view.lineage(someone)
    assert raised.value.field == "tenant_id"
