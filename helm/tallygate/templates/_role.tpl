{{/* What each role has around its pods: account, Deployment, budget, autoscaling, ops Service. */}}

{{- define "tallygate.role.account" -}}
{{- $account := (index .root.Values .role).serviceAccount -}}
{{- if $account.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- $name := include "tallygate.serviceAccountName" . -}}
  {{- $metadata := dict "root" .root "role" .role "name" $name "annotations" $account.annotations -}}
  {{- include "tallygate.metadata" $metadata | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{/* As tallygate.podTemplate takes it. */}}
{{- define "tallygate.role.deployment" -}}
{{- $scaled := and .values.autoscaling (ne (.values.autoscaling | default dict).kind "none") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "tallygate.metadata" (dict "root" .root "role" .role "name" (include "tallygate.roleName" .)) | nindent 2 }}
spec:
  {{- if not $scaled }}
  replicas: {{ int .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  strategy:
    type: RollingUpdate
    # Never fewer than there were, so that an upgrade does not make lag.
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "tallygate.selector" . | nindent 6 }}
  template:
    {{- include "tallygate.podTemplate" . | nindent 4 }}
{{- end -}}

{{- define "tallygate.role.budget" -}}
{{- $values := index .root.Values .role -}}
{{- if $values.disruptionBudget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "tallygate.metadata" (dict "root" .root "role" .role "name" (include "tallygate.roleName" .)) | nindent 2 }}
spec:
  maxUnavailable: {{ $values.disruptionBudget.maxUnavailable }}
  # A pod that is not ready protects nothing, and must not hold a node's upkeep up.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tallygate.selector" . | nindent 6 }}
{{- end -}}
{{- end -}}

{{/* Without an address of its own: names the pods for monitors and for `helm test`. */}}
{{- define "tallygate.role.opsService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- $labels := dict "tallygate.dev/ops" "true" -}}
  {{- $name := printf "%s-ops" (include "tallygate.roleName" .) -}}
  {{- include "tallygate.metadata" (dict "root" .root "role" .role "name" $name "labels" $labels) | nindent 2 }}
spec:
  clusterIP: None
  # Who is not ready is scraped all the same.
  publishNotReadyAddresses: true
  ports:
    - {name: tg-ops, port: {{ int .root.Values.ops.port }}, targetPort: tg-ops, protocol: TCP}
  selector:
    {{- include "tallygate.selector" . | nindent 4 }}
{{- end -}}

{{/* By lag: dict root, role, and query, the one of KEDA where the user gives none. */}}
{{- define "tallygate.role.autoscaling" -}}
{{- $name := include "tallygate.roleName" . -}}
{{- $scaling := (index .root.Values .role).autoscaling -}}
{{- $metadata := dict "root" .root "role" .role "name" $name -}}
{{- if eq $scaling.kind "hpa" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "tallygate.metadata" $metadata | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ int $scaling.minReplicas }}
  maxReplicas: {{ int $scaling.maxReplicas }}
  metrics:
    {{- $target := $scaling.target | int | quote }}
    {{- if eq $scaling.metricType "External" }}
    - type: External
      external:
        metric:
          name: {{ $scaling.metricName }}
          {{- with $scaling.metricSelector }}
          selector: {matchLabels: {{ toJson . }}}
          {{- end }}
        target: {type: Value, value: {{ $target }}}
    {{- else }}
    - type: Pods
      pods:
        metric:
          name: {{ $scaling.metricName }}
          {{- with $scaling.metricSelector }}
          selector: {matchLabels: {{ toJson . }}}
          {{- end }}
        target: {type: AverageValue, averageValue: {{ $target }}}
    {{- end }}
  behavior:
    # More at once, fewer slowly: each that goes hands its pending entries over.
    scaleUp: {stabilizationWindowSeconds: 30}
    scaleDown:
      stabilizationWindowSeconds: 300
      policies: [{type: Pods, value: 1, periodSeconds: 60}]
{{- else if eq $scaling.kind "keda" -}}
{{- $address := $scaling.serverAddress | required (printf "%s.autoscaling.serverAddress is required for keda" .role) -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "tallygate.metadata" $metadata | nindent 2 }}
spec:
  scaleTargetRef: {name: {{ $name }}}
  minReplicaCount: {{ int $scaling.minReplicas }}
  maxReplicaCount: {{ int $scaling.maxReplicas }}
  # While Prometheus does not answer: as many as lag could ask for, rather than too few.
  fallback: {failureThreshold: 5, replicas: {{ int $scaling.maxReplicas }}}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          stabilizationWindowSeconds: 300
          policies: [{type: Pods, value: 1, periodSeconds: 60}]
  triggers:
    - type: prometheus
      metricType: Value
      metadata:
        serverAddress: {{ $address | quote }}
        query: {{ $scaling.query | default .query | quote }}
        threshold: {{ $scaling.target | int | quote }}
      {{- with $scaling.authenticationRef }}
      authenticationRef: {name: {{ . }}}
      {{- end }}
{{- end -}}
{{- end -}}
