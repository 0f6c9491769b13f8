"""What is promised of the chart, and which tests show it."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

CHART: Final = (
    Promise(
        "A chart is refused before it is applied, or Kubernetes takes it",
        "Values that cannot be meant are refused by the field's name, all at once, and so are "
        "settings that no process takes. What is rendered holds the strict schemas of every "
        "Kubernetes since 1.29, is what it was before, and runs as nobody in particular.",
        "Kinds that operators bring (monitors, KEDA's, cert-manager's) are held to their version "
        "alone.",
        (45,),
        (
            *_of(
                "chart/test_render",
                "renders_equal_their_golden_files",
                "kubernetes_takes_it",
                "the_schemas_are_strict",
                "every_pod_is_confined",
                "migration_comes_first",
            ),
            *_of(
                "chart/test_refusals",
                "wrong_values_are_refused_by_name",
                "all_faults_are_told_at_once",
                "lint_tells_the_same",
            ),
            *_of("chart/test_values", "lint_finds_nothing", "nothing_unknown_is_let_pass"),
            *_of("chart/test_settings", "processes_take_their_settings"),
            *_of("chart/test_sidecar", "the_three_ways_give_one_container"),
            *_of("chart/test_network", "each_role_reaches_what_it_needs"),
        ),
    ),
)
