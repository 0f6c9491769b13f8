{{/* Settings as environment, secrets as files. */}}

{{/*
Settings as a container's `env`: dict `layers`, a list of maps of which later ones outrank earlier.
Helm reads every number as a float: whole ones are written without exponent.
*/}}
{{- define "tallygate.settingsEnv" -}}
{{- $settings := dict -}}
{{- range .layers -}}
{{- $settings = mergeOverwrite $settings (deepCopy (. | default dict)) -}}
{{- end -}}
{{- range $name, $value := $settings }}
- name: TALLYGATE_{{ $name | upper }}
  {{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
  value: {{ printf "%d" (int64 $value) | quote }}
  {{- else }}
  value: {{ toString $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The Secret that holds the URL of Redis: dict root, and a role's own reference. */}}
{{- define "tallygate.redisUrl" -}}
{{- $values := .root.Values -}}
{{- if (.own | default dict).secretName -}}
{{- toYaml .own -}}
{{- else if $values.redis.url.secretName -}}
{{- toYaml $values.redis.url -}}
{{- else if $values.dev.redis.enabled -}}
{{- dict "secretName" (include "tallygate.roleName" (dict "root" .root "role" "dev-redis")) "key" "url" | toYaml -}}
{{- else -}}
{{- fail (printf "redis.url.secretName is required for %s: the Secret that holds the URL of Redis" .who) -}}
{{- end -}}
{{- end -}}

{{/* The Secret that holds the DSN of Postgres: the same. */}}
{{- define "tallygate.postgresDsn" -}}
{{- $values := .root.Values -}}
{{- if (.own | default dict).secretName -}}
{{- toYaml .own -}}
{{- else if $values.postgres.dsn.secretName -}}
{{- toYaml $values.postgres.dsn -}}
{{- else if $values.dev.postgres.enabled -}}
{{- dict "secretName" (include "tallygate.roleName" (dict "root" .root "role" "dev-postgres")) "key" "dsn" | toYaml -}}
{{- else -}}
{{- fail (printf "postgres.dsn.secretName is required for %s: the Secret that holds the DSN of Postgres" .who) -}}
{{- end -}}
{{- end -}}

{{/* One key of a Secret as a volume: dict name, ref, file, and the mode where it is not 0440. */}}
{{- define "tallygate.secretFile" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .ref.secretName }}
    defaultMode: {{ .mode | default 288 }}
    items: [{key: {{ .ref.key | quote }}, path: {{ .file }}}]
{{- end -}}

{{/* Settings of a listener's certificate, mounted at /etc/tallygate/tls: a `tls` of the values. */}}
{{- define "tallygate.tlsSettings" -}}
{{- $settings := dict "tls_cert_file" "/etc/tallygate/tls/tls.crt" "tls_key_file" "/etc/tallygate/tls/tls.key" -}}
{{- if .clientAuth -}}
{{- $_ := set $settings "tls_client_ca_file" "/etc/tallygate/tls/ca.crt" -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}
