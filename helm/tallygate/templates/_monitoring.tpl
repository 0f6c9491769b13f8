{{/* How a role is scraped: dict root, role. The job is the role, whatever finds its pods. */}}
{{- define "tallygate.scrape" -}}
- port: tg-ops
  path: /metrics
  interval: {{ .root.Values.monitoring.interval }}
  relabelings:
    - {targetLabel: job, replacement: tallygate-{{ .role }}, action: replace}
{{- end -}}

{{/* A file of rules or a dashboard, its links leading to where the runbooks are. */}}
{{- define "tallygate.watchFile" -}}
{{- $text := .root.Files.Get .path -}}
{{- with .root.Values.monitoring.runbooksUrl -}}
{{- $text = replace "docs/runbooks" (trimSuffix "/" .) $text -}}
{{- end -}}
{{- $text -}}
{{- end -}}
