{{/* What the injector may do at the API server, and how cert-manager certifies it. */}}

{{/* It lists pods to report those without a sidecar; with a certificate of its own it keeps that. */}}
{{- define "tallygate.injector.rights" -}}
{{- $scope := dict "root" . "role" "injector" -}}
{{- $self := eq .Values.injector.certificate.source "self" -}}
{{- $cluster := include "tallygate.injector.clusterName" . -}}
{{- $subject := dict "kind" "ServiceAccount" "name" (include "tallygate.serviceAccountName" $scope) "namespace" .Release.Namespace -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  {{- include "tallygate.metadata" (dict "root" . "role" "injector" "name" $cluster "clusterWide" true) | nindent 2 }}
rules:
  - {apiGroups: [""], resources: [pods, namespaces], verbs: [list]}
  {{- if $self }}
  - apiGroups: [admissionregistration.k8s.io]
    resources: [mutatingwebhookconfigurations]
    resourceNames: [{{ $cluster }}]
    verbs: [get, patch]
  {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  {{- include "tallygate.metadata" (dict "root" . "role" "injector" "name" $cluster "clusterWide" true) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $cluster }}}
subjects: [{{ toJson $subject }}]
{{- if $self }}
---
{{- $name := include "tallygate.roleName" $scope }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "tallygate.metadata" (dict "root" . "role" "injector" "name" $name) | nindent 2 }}
rules:
  # A name cannot be asked of what does not exist yet.
  - {apiGroups: [""], resources: [secrets], verbs: [create]}
  - {apiGroups: [""], resources: [secrets], resourceNames: [{{ include "tallygate.injector.certName" . }}], verbs: [get, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "tallygate.metadata" (dict "root" . "role" "injector" "name" $name) | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects: [{{ toJson $subject }}]
{{- end }}
{{- end -}}

{{- define "tallygate.injector.certificate" -}}
{{- $name := include "tallygate.injector.certName" . -}}
{{- $service := include "tallygate.roleName" (dict "root" . "role" "injector") -}}
{{- $issuer := .Values.injector.certificate.issuerRef -}}
{{- if not $issuer }}
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  {{- include "tallygate.metadata" (dict "root" . "role" "injector" "name" $name) | nindent 2 }}
spec: {selfSigned: {}}
---
{{- $issuer = dict "name" $name "kind" "Issuer" }}
{{- end }}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "tallygate.metadata" (dict "root" . "role" "injector" "name" $name) | nindent 2 }}
spec:
  secretName: {{ $name }}
  dnsNames:
    - {{ printf "%s.%s.svc" $service .Release.Namespace }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  usages: [server auth]
  issuerRef: {{ toJson $issuer }}
{{- end -}}
