{{/* What the injector puts into pods, as the file that it reads. */}}

{{- define "tallygate.injector.file" -}}
{{- $sidecar := .Values.sidecar -}}
{{- if not $sidecar.socket.enabled -}}
{{- fail "sidecar.socket.enabled is required for the injector: apps are given the socket" -}}
{{- end -}}
{{- if and (eq $sidecar.journal.kind "claim") (not $sidecar.journal.claimName) -}}
{{- fail "sidecar.journal.kind: claim is a StatefulSet's own; pods that the injector sees name theirs by the annotation tallygate.dev/journal-volume" -}}
{{- end -}}
container:
  {{- include "tallygate.sidecar.container" . | nindent 2 }}
volumes:
  {{- include "tallygate.sidecar.volumes" . | nindent 2 }}
socket:
  volume: tallygate-socket
  path: {{ $sidecar.socket.directory }}/tallygate.sock
{{- if $sidecar.journal.enabled }}
journal:
  volume: tallygate-data
{{- end }}
mode: {{ $sidecar.mode }}
{{- with $sidecar.podSecurityContext.fsGroup }}
fsGroup: {{ int . }}
{{- end }}
labels:
  {{- include "tallygate.sidecar.labels" . | nindent 2 }}
{{- with $sidecar.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "tallygate.injector.certName" -}}
{{- $certificate := .Values.injector.certificate -}}
{{- if eq $certificate.source "secret" -}}
{{- $certificate.secretName | required "injector.certificate.secretName is required where source is secret" -}}
{{- else -}}
{{- printf "%s-cert" (include "tallygate.roleName" (dict "root" . "role" "injector")) -}}
{{- end -}}
{{- end -}}

{{/* Cluster-wide objects have the namespace in their name: two releases of one name may exist. */}}
{{- define "tallygate.injector.clusterName" -}}
{{- printf "%s-%s" (include "tallygate.roleName" (dict "root" . "role" "injector")) .Release.Namespace -}}
{{- end -}}

{{/* One of its two webhooks: dict root, name, path, namespace and object expressions. */}}
{{- define "tallygate.injector.webhook" -}}
{{- $root := .root -}}
{{- $values := $root.Values.injector -}}
- name: {{ .name }}.injector.tallygate.dev
  admissionReviewVersions: [v1]
  clientConfig:
    service:
      name: {{ include "tallygate.roleName" (dict "root" $root "role" "injector") }}
      namespace: {{ $root.Release.Namespace }}
      path: /inject/{{ .name }}
      port: 443
    {{- if eq $values.certificate.source "secret" }}
    caBundle: {{ $values.certificate.caBundle | required "injector.certificate.caBundle is required where source is secret" }}
    {{- end }}
  rules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods], scope: Namespaced}
  failurePolicy: {{ $values.failurePolicy }}
  matchPolicy: Equivalent
  reinvocationPolicy: {{ $values.reinvocationPolicy }}
  sideEffects: None
  timeoutSeconds: {{ int $values.timeoutSeconds }}
  namespaceSelector:
    matchExpressions:
      - {{ toJson .namespaces }}
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values: {{ append $values.excludedNamespaces $root.Release.Namespace | uniq | toJson }}
  objectSelector:
    matchExpressions:
      - {{ toJson .objects }}
{{- end -}}
