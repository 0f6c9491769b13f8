{{/* The pods of roles and jobs: one shape for all. */}}

{{/* What of `pod` holds for a role: its own over everybody's. */}}
{{- define "tallygate.podValues" -}}
{{- $own := (index .root.Values .role | default dict).pod | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.pod) (deepCopy $own) | toYaml -}}
{{- end -}}

{{/*
A pod template. Dict:
  root, role     whose it is
  args           the command's arguments
  command        what runs in place of the image's own command
  values         resources, settings, drainSeconds, secrets: the role's values
  owned          settings that the chart sets, over the user's
  redis, postgres  references to Secrets, as YAML; empty: it has none
  ports, volumes, mounts, env   more of each, as lists
  account        the ServiceAccount's name; apiAccess: whether its token is mounted
  once           a pod that ends: no probes, no ops port
*/}}
{{- define "tallygate.podTemplate" -}}
{{- $pod := include "tallygate.podValues" . | fromYaml -}}
{{- $root := .root -}}
{{- $scope := dict "root" .root "role" .role -}}
metadata:
  labels:
    {{- include "tallygate.labels" $scope | nindent 4 }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (.annotations | default dict) $pod.annotations $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .account }}
  serviceAccountName: {{ . }}
  {{- end }}
  automountServiceAccountToken: {{ .apiAccess | default false }}
  # A Service of ours would otherwise be variables that look like settings.
  enableServiceLinks: false
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .once }}
  restartPolicy: Never
  {{- else }}
  # The drain, and room to close connections after it.
  terminationGracePeriodSeconds: {{ add (int (.values.drainSeconds | default 10)) 20 }}
  {{- end }}
  {{- include "tallygate.placement" (dict "pod" $pod "scope" $scope "once" .once) | nindent 2 }}
  containers:
    - name: {{ .role }}
      {{- include "tallygate.roleContainer" (dict "pod" $pod "of" .) | nindent 6 }}
  volumes:
    {{- include "tallygate.roleVolumes" (dict "pod" $pod "of" .) | nindent 4 }}
{{- end -}}

{{/* Where a pod may run. */}}
{{- define "tallygate.placement" -}}
{{- $scope := .scope -}}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if not .once }}
{{- with .pod.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - topologyKey: {{ .topologyKey }}
    maxSkew: {{ .maxSkew | default 1 }}
    whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
    labelSelector:
      matchLabels:
        {{- include "tallygate.selector" $scope | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "tallygate.roleContainer" -}}
{{- $of := .of -}}
{{- $root := $of.root -}}
{{- $values := $of.values -}}
image: {{ include "tallygate.image" $root }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with $of.command }}
command: {{ toJson . }}
{{- end }}
args: {{ toJson $of.args }}
env:
  {{- $owned := dict "data_dir" "/var/lib/tallygate" -}}
  {{- if not $of.once -}}
  {{- $ops := $root.Values.ops -}}
  {{- $drain := mul (int ($values.drainSeconds | default 10)) 1000 -}}
  {{- $owned = merge $owned (dict "ops_address" (printf "%s:%d" $ops.host (int $ops.port)) "drain_grace_ms" $drain) -}}
  {{- end -}}
  {{- if $of.redis -}}{{- $_ := set $owned "redis_url_file" "/etc/tallygate/redis/url" -}}{{- end -}}
  {{- if $of.postgres -}}{{- $_ := set $owned "postgres_dsn_file" "/etc/tallygate/postgres/dsn" -}}{{- end -}}
  {{- $layers := list $root.Values.settings $values.settings $owned $of.owned -}}
  {{- include "tallygate.settingsEnv" (dict "layers" $layers) | trim | nindent 2 }}
  {{- with concat ($of.env | default list) (.pod.extraEnv | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if not $of.once }}
ports:
  - {name: tg-ops, containerPort: {{ int $root.Values.ops.port }}, protocol: TCP}
  {{- with $of.ports }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- include "tallygate.probes" (dict "startSeconds" 120 "startPath" "/livez") | nindent 0 }}
{{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.containerSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: data, mountPath: /var/lib/tallygate}
  - {name: tmp, mountPath: /tmp}
  {{- if $of.redis }}
  - {name: redis, mountPath: /etc/tallygate/redis, readOnly: true}
  {{- if $root.Values.redis.tlsSecretName }}
  - {name: redis-tls, mountPath: /etc/tallygate/redis-tls, readOnly: true}
  {{- end }}
  {{- end }}
  {{- if $of.postgres }}
  - {name: postgres, mountPath: /etc/tallygate/postgres, readOnly: true}
  {{- if $root.Values.postgres.tlsSecretName }}
  - {name: postgres-tls, mountPath: /etc/tallygate/postgres-tls, readOnly: true}
  {{- end }}
  {{- end }}
  {{- range $values.secrets }}
  - {name: {{ printf "secret-%s" .name }}, mountPath: {{ printf "/etc/tallygate/secrets/%s" .name }}, readOnly: true}
  {{- end }}
  {{- with concat ($of.mounts | default list) (.pod.extraVolumeMounts | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "tallygate.roleVolumes" -}}
{{- $of := .of -}}
{{- $values := $of.root.Values -}}
- name: data
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- if $of.redis }}
{{ include "tallygate.secretFile" (dict "name" "redis" "ref" (fromYaml $of.redis) "file" "url") }}
{{- with $values.redis.tlsSecretName }}
- name: redis-tls
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}
{{- if $of.postgres }}
{{ include "tallygate.secretFile" (dict "name" "postgres" "ref" (fromYaml $of.postgres) "file" "dsn") }}
{{- with $values.postgres.tlsSecretName }}
- name: postgres-tls
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}
{{- range $of.values.secrets }}
- name: {{ printf "secret-%s" .name }}
  secret: {secretName: {{ .secretName }}, defaultMode: 288}
{{- end }}
{{- with concat ($of.volumes | default list) (.pod.extraVolumes | default list) }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Probes ask the ops listener, which no overload reaches. None depends on Redis or Postgres: taking
pods away would not bring those back.
*/}}
{{- define "tallygate.probes" -}}
startupProbe:
  httpGet: {path: {{ .startPath }}, port: tg-ops}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: {{ int .startSeconds }}
livenessProbe:
  # Fails when the main loop has hung, and for nothing else.
  httpGet: {path: /livez, port: tg-ops}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: tg-ops}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}
