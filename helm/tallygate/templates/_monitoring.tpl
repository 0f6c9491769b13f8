{{/* How a role is scraped: dict root, role. The job is the role, whatever finds its pods. */}}
{{- define "tallygate.scrape" -}}
- port: tg-ops
  path: /metrics
  interval: {{ .root.Values.monitoring.interval }}
  relabelings:
    - {targetLabel: job, replacement: tallygate-{{ .role }}, action: replace}
{{- end -}}
