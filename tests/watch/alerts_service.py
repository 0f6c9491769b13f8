"""Alerts on the service itself: its processes and its load.

Owns the thresholds, each with its story. Refuses to know how rules are written down.
"""

from typing import Final

from .asked import HERE
from .rule import PLACE, Alert, Group, Severity, Story, series

_HERE: Final = {"cluster": "c", "namespace": "n"}
_JOB: Final = f"{HERE}, job"
_ROUNDS: Final = "tallygate_loop_iterations_total"

_PROCESSES: Final = (
    Alert(
        "TallygateTargetDown",
        "up == 0\n"
        f"and on ({_JOB}) group by ({_JOB}) (last_over_time(tallygate_build_info[1d]))",
        "5m",
        Severity.PAGE,
        "A process of Tallygate is not scraped",
        "{{ $labels.instance }} of {{ $labels.job }} in {{ $labels.namespace }} does not answer.",
        Story(
            series("up", "1x10 0x30 1x60")
            | series("tallygate_build_info", "1x10 _x30 1x60", version="1"),
            "20m", "60m", PLACE,
        ),
    ),
    Alert(
        "TallygateRoleMissing",
        f'group by ({HERE}, role) (last_over_time(tallygate_role_info{{role!="serve"}}[1d]))\n'
        f"unless on ({HERE}, role) group by ({HERE}, role) (tallygate_role_info)",
        "5m",
        Severity.PAGE,
        "No process has a role that one had",
        "In {{ $labels.namespace }} nothing is {{ $labels.role }} any more.",
        Story(
            series("tallygate_role_info", "1x10 _x40 1x60", role="relay"),
            "25m", "60m", _HERE | {"role": "relay"},
        ),
    ),
    Alert(
        "TallygateRestarting",
        f"sum by ({_JOB}, instance) (changes(process_start_time_seconds[1h])"
        f" and on ({_JOB}, instance) tallygate_build_info) > 3\n"
        f"or sum by ({_JOB}, instance) (increase(tallygate_process_restarts_total[1h])) > 3",
        "",
        Severity.TICKET,
        "A process of Tallygate starts again and again",
        "{{ $labels.instance }} of {{ $labels.job }} has begun {{ $value }} times in an hour.",
        Story(
            series("process_start_time_seconds", "100x10 200 300 400 500 500x120")
            | series("tallygate_build_info", "1x150", version="1"),
            "16m", "90m", PLACE, "4",
        ),
    ),
    Alert(
        "TallygateLoopFailing",
        f'(sum by ({_JOB}, loop) (increase({_ROUNDS}{{outcome="failed"}}[10m])) > 0)\n'
        f"unless on ({_JOB}, loop)"
        f' (sum by ({_JOB}, loop) (increase({_ROUNDS}{{outcome!="failed"}}[10m])) > 0)',
        "10m",
        Severity.TICKET,
        "A background loop fails at every round",
        "The loop {{ $labels.loop }} of {{ $labels.job }} in {{ $labels.namespace }} has not ended"
        " a round well for ten minutes.",
        Story(
            series("tallygate_loop_iterations_total", "0+0x10 0+9x40 0+0x60",
                   loop="relay", outcome="failed")
            | series("tallygate_loop_iterations_total", "0+9x10 90x40 90+9x60",
                     loop="relay", outcome="idle"),
            "45m", "80m", _HERE | {"job": "tallygate", "loop": "relay"},
        ),
    ),
    Alert(
        "TallygateVersionsDiffer",
        f"count by ({HERE}) (group by ({HERE}, version) (tallygate_build_info)) > 1",
        "2h",
        Severity.NOTE,
        "Two versions have run side by side for hours",
        "{{ $value }} versions of Tallygate run in {{ $labels.namespace }}: an upgrade has stopped"
        " half way.",
        Story(
            series("tallygate_build_info", "1x200", version="1")
            | series("tallygate_build_info", "_x10 1x140 _x40", version="2",
                     instance="j:9464"),
            "145m", "165m", _HERE, "2", every="1m",
        ),
    ),
)  # fmt: skip

_LOAD: Final = (
    Alert(
        "TallygateOverloaded",
        f"sum by ({HERE}) (rate(tallygate_admit_queue_refused_total[5m])"
        " + rate(tallygate_rpc_shed_total[5m])) > 0",
        "10m",
        Severity.TICKET,
        "Sidecars refuse calls for want of room",
        "Sidecars in {{ $labels.namespace }} refuse {{ $value | humanize }} calls a second as"
        " OVERLOADED.",
        Story(
            series("tallygate_admit_queue_refused_total", "0x10 0+60x40 2400x60")
            | series("tallygate_rpc_shed_total", "0x120"),
            "30m", "80m", _HERE, "1",
        ),
    ),
)  # fmt: skip

GROUPS: Final = (Group("tallygate-service", _PROCESSES + _LOAD),)
