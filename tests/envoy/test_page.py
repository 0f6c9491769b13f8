"""docs/envoy.md shows catalogs that work, names all there is, and examples that agree."""

import json
import re
from typing import Any

from tallygate.adapters.catalog import envoy
from tallygate.adapters.catalog.document import parse
from tallygate.domain.envoy import LogField, LogMeasure, LogPlace
from tests.envoy.world import PAGE, blocks, catalog, configuration

FILTER = "envoy.filters.http.ratelimit"


def sections() -> list[Any]:
    """Return the page's excerpts of catalogs."""
    return [each["envoy"] for each in blocks() if set(each) == {"envoy"}]


def test_catalogs_are_good() -> None:
    """The whole catalog that is shown is taken, and so is each excerpt within it."""
    assert parse(json.dumps(catalog())).catalog.envoy.domains
    assert len(sections()) == 2
    for section in sections():
        found = parse(json.dumps(catalog(envoy=section))).catalog.envoy
        assert found.domains or found.access_logs


def test_every_key_is_shown() -> None:
    """Whoever copies the excerpts has seen every key; what values may be stands beside them."""
    page = PAGE.read_text()
    shown = json.dumps(sections())
    for key in (*envoy._DOMAIN, *envoy._RULE, *envoy._ENTRY, *envoy._GIVEN, *envoy._LOG):
        assert f'"{key}"' in shown, key
    for word in (*LogField, *LogMeasure, *(each for each in LogPlace if each is not LogPlace.TEXT)):
        assert re.search(rf"`{word}`", page), word


def test_examples_agree() -> None:
    """The filter and the actions that Istio is given are those that the real Envoy runs."""
    (manager,) = configuration()["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    own = manager["typed_config"]
    (asked,) = [each for each in own["http_filters"] if each["name"] == FILTER]
    (istio,) = [each for each in blocks() if each.get("kind") == "EnvoyFilter"]
    given, host = (each["patch"]["value"] for each in istio["spec"]["configPatches"])
    service = given["typed_config"]["rate_limit_service"]["grpc_service"]["envoy_grpc"]
    assert service.pop("cluster_name").startswith("outbound|50061||")
    asked["typed_config"]["rate_limit_service"]["grpc_service"]["envoy_grpc"].pop("cluster_name")
    assert given == asked
    assert host["rate_limits"] == own["route_config"]["virtual_hosts"][0]["rate_limits"]
