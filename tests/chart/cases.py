"""The values that the chart is rendered with, case by case.

Owns the matrix. Guarantees that each case is as a platform team would write it. Refuses to know
what comes of it.
"""

from typing import Any, Final

Values = dict[str, Any]
"""As helm takes them: what they may be is for the schema to say."""

NEEDED: Final[Values] = {
    "redis": {"url": {"secretName": "redis"}},
    "postgres": {"dsn": {"secretName": "postgres"}},
}
CATALOG: Final = "version: 1\nmeters:\n  requests: {aggregation: count}\n"

POD: Final[Values] = {
    "labels": {"team": "billing"},
    "annotations": {"example.com/note": "metering"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "metering", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "metering", "operator": "Exists"}]}
                ]
            }
        }
    },
    "topologySpread": [
        {
            "topologyKey": "topology.kubernetes.io/zone",
            "maxSkew": 2,
            "whenUnsatisfiable": "DoNotSchedule",
        }
    ],
    "priorityClassName": "metering",
    "runtimeClassName": "gvisor",
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    "extraVolumes": [{"name": "zones", "configMap": {"name": "zones"}}],
    "extraVolumeMounts": [{"name": "zones", "mountPath": "/etc/zones", "readOnly": True}],
}

EVERYTHING: Final[Values] = {
    "fullnameOverride": "metering",
    "commonLabels": {"cost-centre": "42"},
    "commonAnnotations": {"example.com/owner": "platform"},
    "image": {
        "repository": "registry.example.com/tallygate",
        "digest": "sha256:" + "0" * 64,
        "pullPolicy": "Always",
    },
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"log_level": "warning", "redis_timeout_ms": 800, "anomaly_sensitivity": 4.5},
    "redis": {"url": {"secretName": "redis", "key": "any"}, "tlsSecretName": "redis-ca"},
    "postgres": {"dsn": {"secretName": "postgres", "key": "any"}, "tlsSecretName": "postgres-ca"},
    "sidecar": {
        "redisUrl": {"secretName": "redis-sidecar"},
        "tcp": {"port": 50051},
        "journal": {"kind": "ephemeral", "size": "4Gi", "storageClassName": "fast"},
        "settings": {"leases": "on", "stream_entries_max": 1_000_000},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "podAnnotations": {"example.com/metered": "yes"},
    },
    "pod": POD,
    "ops": {"host": "[::]"},
    "ingest": {
        "redisUrl": {"secretName": "redis-ingest"},
        "postgresDsn": {"secretName": "postgres-ingest"},
        "settings": {"ingest_batch_max": 500},
        "secrets": [{"name": "extra", "secretName": "extra"}],
        "serviceAccount": {"name": "ingester", "annotations": {"example.com/role": "ingest"}},
        "autoscaling": {"kind": "hpa", "metricSelector": {"namespace": "metering"}},
        "pod": {"labels": {"tier": "gold"}, "nodeSelector": {"disk": "ssd"}},
    },
    "relay": {
        "postgresDsn": {"secretName": "postgres-relay"},
        "secrets": [{"name": "stripe", "secretName": "stripe-keys"}],
        "stripeReports": {"enabled": True},
        "disruptionBudget": {"maxUnavailable": "50%"},
        "serviceAccount": {"create": False, "name": "sender"},
        "autoscaling": {
            "kind": "keda",
            "serverAddress": "http://prometheus.monitoring:9090",
            "authenticationRef": "prometheus",
        },
    },
    "control": {
        "postgresDsn": {"secretName": "postgres-control"},
        "service": {"annotations": {"example.com/dns": "metering.example.com"}},
        "drainSeconds": 30,
    },
    "migrate": {
        "postgresDsn": {"secretName": "postgres-owner"},
        "roles": True,
        "serviceAccountName": "migrator",
    },
    "catalog": {"content": CATALOG},
    "monitoring": {
        "scrape": "pods",
        "labels": {"release": "prometheus"},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Metering"}},
    },
    "networkPolicy": {
        "redis": {"ports": [6379, 16379], "to": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]},
        "postgres": {"to": [{"podSelector": {"matchLabels": {"app": "postgres"}}}]},
        "scrapeFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
        "controlFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "operators"}}}
        ],
        "extraEgress": [{"ports": [{"protocol": "TCP", "port": 4317}]}],
    },
    "injector": {"enabled": True},
}

DEV: Final[Values] = {
    "dev": {"redis": {"enabled": True}, "postgres": {"enabled": True}},
    "catalog": {"content": CATALOG},
    "networkPolicy": {"enabled": True},
    "ingest": {"replicas": 1, "disruptionBudget": {"enabled": False}},
    "monitoring": {"scrape": "services", "sidecars": False},
}

SIDECARS: Final[Values] = {
    # Limits alone: no ledger, the catalog from a file, the injector certified by cert-manager.
    "redis": {"url": {"secretName": "redis"}},
    "ingest": {"enabled": False},
    "relay": {"enabled": False},
    "control": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "sidecar": {
        "mode": "container",
        "catalog": {"configMapName": "limits"},
        "journal": {"enabled": False},
        "waitFor": "process",
    },
    "injector": {
        "enabled": True,
        "failurePolicy": "Fail",
        "certificate": {"source": "certManager"},
    },
}

SECURED: Final[Values] = {
    **NEEDED,
    "sidecar": {
        "socket": {"mode": "0600"},
        "tcp": {"port": 50051, "host": "0.0.0.0"},
        "tls": {"secretName": "sidecar-tls"},
        "identities": {"configMapName": "identities"},
        "journal": {"kind": "claim", "claimName": "journal"},
    },
    "control": {
        "tls": {"secretName": "control-tls", "clientAuth": True},
        "tokenKeys": {"secretName": "keys"},
    },
    "catalog": {
        "content": CATALOG,
        "token": {"secretName": "operator"},
        "caSecretName": "control-tls",
    },
    "injector": {
        "enabled": True,
        "certificate": {"source": "secret", "secretName": "injector-tls", "caBundle": "Y2E="},
    },
}

CASES: Final[dict[str, Values]] = {
    "needed": NEEDED,
    "everything": EVERYTHING,
    "dev": DEV,
    "sidecars": SIDECARS,
    "secured": SECURED,
}
