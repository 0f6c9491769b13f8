{{/*
The sidecar, for an app's chart that has this one as a dependency, and for the injector: one
container, however it comes into a pod. Each template takes this chart's context, in a parent chart
`.Subcharts.tallygate`, or a dict with that as `root` and with `with`, which outranks the values of
`sidecar` key by key.
*/}}


{{/* The values of `sidecar`, with what the caller has otherwise. */}}
{{- define "tallygate.sidecar.values" -}}
{{- $root := ternary .root . (hasKey . "root") -}}
{{- mergeOverwrite (deepCopy $root.Values.sidecar) (deepCopy (.with | default dict)) | toYaml -}}
{{- end -}}

{{/* What the app's client is told: the address of the sidecar. */}}
{{- define "tallygate.sidecar.address" -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- if $sidecar.socket.enabled -}}
{{- printf "unix://%s/tallygate.sock" $sidecar.socket.directory -}}
{{- else -}}
{{- printf "127.0.0.1:%d" (int $sidecar.tcp.port) -}}
{{- end -}}
{{- end -}}

{{/* A list of environment for the app's containers. */}}
{{- define "tallygate.sidecar.appEnv" -}}
- name: TALLYGATE_ADDRESS
  value: {{ include "tallygate.sidecar.address" . | quote }}
{{- end -}}

{{/* A list of mounts for the app's containers: where the socket is. */}}
{{- define "tallygate.sidecar.appVolumeMounts" -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- if $sidecar.socket.enabled -}}
- {name: tallygate-socket, mountPath: {{ $sidecar.socket.directory }}, readOnly: true}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{/* Labels for the pod, which monitors find it by. */}}
{{- define "tallygate.sidecar.labels" -}}
tallygate.dev/sidecar: "true"
{{- end -}}

{{/* Annotations for the pod. */}}
{{- define "tallygate.sidecar.annotations" -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- toYaml $sidecar.podAnnotations -}}
{{- end -}}

{{/* The pod's securityContext: the group that shares the socket with the app. */}}
{{- define "tallygate.sidecar.podSecurityContext" -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- toYaml $sidecar.podSecurityContext -}}
{{- end -}}

{{/* The Secret with the URL of Redis, as YAML. */}}
{{- define "tallygate.sidecar.redisUrl" -}}
{{- $root := ternary .root . (hasKey . "root") -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- include "tallygate.redisUrl" (dict "root" $root "own" $sidecar.redisUrl "who" "sidecars (or sidecar.redisUrl.secretName)") -}}
{{- end -}}

{{/* Settings that follow from the values, as YAML. */}}
{{- define "tallygate.sidecar.owned" -}}
{{- $root := ternary .root . (hasKey . "root") -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- $addresses := list -}}
{{- if $sidecar.socket.enabled -}}
{{- $addresses = append $addresses (printf "unix:%s/tallygate.sock" $sidecar.socket.directory) -}}
{{- end -}}
{{- if $sidecar.tcp.port -}}
{{- $addresses = append $addresses (printf "%s:%d" $sidecar.tcp.host (int $sidecar.tcp.port)) -}}
{{- end -}}
{{- if not $addresses -}}
{{- fail "sidecar.socket.enabled or sidecar.tcp.port is required: an app has to reach its sidecar" -}}
{{- end -}}
{{- $settings := mergeOverwrite (deepCopy $root.Values.settings) (deepCopy $sidecar.settings) -}}
{{- if and $sidecar.socket.enabled (gt (int $settings.processes) 1) -}}
{{- fail "sidecar.settings.processes above 1 needs sidecar.socket.enabled=false: a Unix socket has one listener" -}}
{{- end -}}
{{- $owned := dict
  "grpc_address" (join "," $addresses)
  "ops_address" (printf "%s:%d" $sidecar.ops.host (int $sidecar.ops.port))
  "redis_url_file" "/etc/tallygate/redis/url"
  "data_dir" "/var/lib/tallygate"
  "drain_grace_ms" (mul (int $sidecar.drainSeconds) 1000)
  "journal" (ternary "on" "off" $sidecar.journal.enabled)
-}}
{{- if $sidecar.journal.enabled -}}
{{- $bytes := include "tallygate.bytes" $sidecar.journal.size | int64 -}}
{{- $_ := set $owned "journal_max_bytes" (div (mul $bytes 7) 8) -}}
{{- end -}}
{{- if $sidecar.catalog.configMapName -}}
{{- $_ := set $owned "catalog" (printf "/etc/tallygate/catalog/%s" $sidecar.catalog.key) -}}
{{- end -}}
{{- if $sidecar.socket.mode -}}
{{- $_ := set $owned "socket_mode" $sidecar.socket.mode -}}
{{- end -}}
{{- if $sidecar.tls.secretName -}}
{{- $owned = merge $owned (include "tallygate.tlsSettings" $sidecar.tls | fromYaml) -}}
{{- else if and $sidecar.tcp.port (not (has $sidecar.tcp.host (list "127.0.0.1" "[::1]" "localhost"))) -}}
{{- fail "sidecar.tls.secretName is required where sidecar.tcp.host is more than loopback" -}}
{{- end -}}
{{- if $sidecar.identities.configMapName -}}
{{- $_ := set $owned "tls_identities" (printf "/etc/tallygate/identities/%s" $sidecar.identities.key) -}}
{{- end -}}
{{- toYaml $owned -}}
{{- end -}}

{{/* A quantity of Kubernetes' in bytes. */}}
{{- define "tallygate.bytes" -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Z]i$" . -}}
{{- mul (regexFind "^[0-9]+" . | int64) (index $units $unit | int64) -}}
{{- end -}}

{{/* The container, as one beside the app. */}}
{{- define "tallygate.sidecar.container" -}}
{{- $root := ternary .root . (hasKey . "root") -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
name: {{ $sidecar.name }}
image: {{ include "tallygate.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [serve]
env:
  {{- $owned := include "tallygate.sidecar.owned" . | fromYaml -}}
  {{- $layers := list $root.Values.settings $sidecar.settings $owned -}}
  {{- include "tallygate.settingsEnv" (dict "layers" $layers) | trim | nindent 2 }}
  {{- with $sidecar.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: tg-ops, containerPort: {{ int $sidecar.ops.port }}, protocol: TCP}
  {{- if $sidecar.tcp.port }}
  - {name: tg-grpc, containerPort: {{ int $sidecar.tcp.port }}, protocol: TCP}
  {{- end }}
{{- $path := ternary "/readyz" "/livez" (eq $sidecar.waitFor "catalog") -}}
{{- include "tallygate.probes" (dict "startSeconds" $sidecar.startupSeconds "startPath" $path) | nindent 0 }}
{{- with $sidecar.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $sidecar.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: tallygate-data, mountPath: /var/lib/tallygate}
  - {name: tallygate-tmp, mountPath: /tmp}
  {{- if $sidecar.socket.enabled }}
  - {name: tallygate-socket, mountPath: {{ $sidecar.socket.directory }}}
  {{- end }}
  - {name: tallygate-redis, mountPath: /etc/tallygate/redis, readOnly: true}
  {{- if $root.Values.redis.tlsSecretName }}
  - {name: tallygate-redis-tls, mountPath: /etc/tallygate/redis-tls, readOnly: true}
  {{- end }}
  {{- if $sidecar.catalog.configMapName }}
  - {name: tallygate-catalog, mountPath: /etc/tallygate/catalog, readOnly: true}
  {{- end }}
  {{- if $sidecar.tls.secretName }}
  - {name: tallygate-tls, mountPath: /etc/tallygate/tls, readOnly: true}
  {{- end }}
  {{- if $sidecar.identities.configMapName }}
  - {name: tallygate-identities, mountPath: /etc/tallygate/identities, readOnly: true}
  {{- end }}
{{- end -}}

{{/* The container as a native sidecar: first of the initContainers. */}}
{{- define "tallygate.sidecar.initContainer" -}}
{{ include "tallygate.sidecar.container" . }}
# Stays while the app runs, ends after it, and lets a Job complete.
restartPolicy: Always
{{- end -}}

{{/*
The pod's volumes. Secrets can be read by whoever the container runs as: nobody else mounts them,
and an app's pod may have another fsGroup.
*/}}
{{- define "tallygate.sidecar.volumes" -}}
{{- $root := ternary .root . (hasKey . "root") -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
{{- $redis := include "tallygate.sidecar.redisUrl" . | fromYaml -}}
{{- $journal := $sidecar.journal -}}
- name: tallygate-tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if $sidecar.socket.enabled }}
- name: tallygate-socket
  emptyDir: {sizeLimit: 1Mi}
{{- end }}
{{ include "tallygate.secretFile" (dict "name" "tallygate-redis" "ref" $redis "file" "url" "mode" 292) }}
{{- with $root.Values.redis.tlsSecretName }}
- name: tallygate-redis-tls
  secret: {secretName: {{ . }}, defaultMode: 292}
{{- end }}
{{- with $sidecar.catalog }}
{{- if .configMapName }}
- name: tallygate-catalog
  configMap: {name: {{ .configMapName }}}
{{- end }}
{{- end }}
{{- with $sidecar.tls.secretName }}
- name: tallygate-tls
  secret: {secretName: {{ . }}, defaultMode: 292}
{{- end }}
{{- with $sidecar.identities.configMapName }}
- name: tallygate-identities
  configMap: {name: {{ . }}}
{{- end }}
{{- if or (not $journal.enabled) (eq $journal.kind "emptyDir") }}
- name: tallygate-data
  emptyDir: {sizeLimit: {{ ternary $journal.size "64Mi" $journal.enabled }}}
{{- else if eq $journal.kind "ephemeral" }}
- name: tallygate-data
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- include "tallygate.sidecar.claimSpec" $journal | nindent 8 }}
{{- else if $journal.claimName }}
- name: tallygate-data
  persistentVolumeClaim: {claimName: {{ $journal.claimName }}}
{{- end }}
{{- end -}}

{{- define "tallygate.sidecar.claimSpec" -}}
accessModes: [ReadWriteOncePod]
{{- with .storageClassName }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .size }}}}
{{- end -}}

{{/* A StatefulSet's volumeClaimTemplates: the journal outlives the pod. */}}
{{- define "tallygate.sidecar.volumeClaimTemplates" -}}
{{- $sidecar := include "tallygate.sidecar.values" . | fromYaml -}}
- metadata: {name: tallygate-data}
  spec:
    {{- include "tallygate.sidecar.claimSpec" $sidecar.journal | nindent 4 }}
{{- end -}}

{{/* What goes out of the sidecar, as rules of an egress policy of the app's own. */}}
{{- define "tallygate.sidecar.egress" -}}
{{- $root := ternary .root . (hasKey . "root") -}}
{{ include "tallygate.egress" (dict "root" $root "to" (list "dns" "redis")) }}
{{- end -}}
