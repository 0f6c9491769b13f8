"""What the clients share is the same in each, and their READMEs are what is run."""

import json

import pytest

from clients.builds.recipes import CLIENTS, RECIPES
from clients.readme.pages import HERE, PLACE, languages, page, regions, stale

POLICY = CLIENTS / "service_config.json"
COPIES = {
    "python": "tallygate_client/service_config.json",
    "go": "service_config.json",
    "typescript": "src/service-config.json",
    "java": "tallygate-client/src/main/resources/io/tallygate/service_config.json",
}
PRESENT = [each for each in languages().values() if (CLIENTS / each["folder"]).is_dir()]


def test_every_client_has_the_one_policy_of_retries() -> None:
    """A client's copy of the service configuration is the shared one."""
    expected = json.loads(POLICY.read_text())
    found = {
        folder: json.loads((CLIENTS / folder / name).read_text())
        for folder, name in COPIES.items()
        if (CLIENTS / folder).is_dir()
    }
    assert found == dict.fromkeys(found, expected)
    assert "python" in found


def test_readmes_are_fresh() -> None:
    """Each README is what the template gives; `python -m clients.readme` makes it."""
    present = {CLIENTS / each["folder"] for each in PRESENT}
    assert [path for path in stale() if path.parent in present] == []


@pytest.mark.parametrize("name", languages())
def test_every_place_of_the_template_has_its_text(name: str) -> None:
    """A page has no placeholder left, and is short."""
    made = page(languages()[name])
    assert not PLACE.search(made)
    assert len(made.splitlines()) <= 180


def test_a_region_without_an_end_is_a_fault() -> None:
    """What a page shows begins and ends where its marks say."""
    assert regions("a\n  # [one]\n  b\n  # [/one]\nc") == {"one": "b"}
    with pytest.raises(ValueError, match="no end"):
        regions("# [one]\nb")
    with pytest.raises(ValueError, match="ends"):
        regions("# [one]\n# [/two]")


def test_every_client_has_a_recipe_and_a_licence() -> None:
    """What is published is built by `make test-clients`, and says under which terms."""
    assert {each.folder.name for each in RECIPES} == {
        each["folder"] for each in languages().values()
    }
    assert all((HERE / each["sample"]).is_file() for each in languages().values())
    licence = (CLIENTS / "LICENSE").read_text()
    assert all((CLIENTS / each["folder"] / "LICENSE").read_text() == licence for each in PRESENT)
