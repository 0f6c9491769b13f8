{{/* Rules of NetworkPolicies. */}}

{{/* Where pods may send to: dict root, and `to`, names of entries of `networkPolicy`. */}}
{{- define "tallygate.egress" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- range $name := .to }}
{{- $place := index $policy $name }}
- ports:
    {{- range $port := $place.ports }}
    {{- if eq $name "dns" }}
    - {protocol: UDP, port: {{ int $port }}}
    {{- end }}
    - {protocol: TCP, port: {{ int $port }}}
    {{- end }}
  {{- with $place.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Pods of this release at a port: dict root, port, and the role where it is one. */}}
{{- define "tallygate.toRole" -}}
- ports: [{protocol: TCP, port: {{ int .port }}}]
  to:
    - podSelector:
        matchLabels:
          app.kubernetes.io/name: {{ include "tallygate.name" .root }}
          app.kubernetes.io/instance: {{ .root.Release.Name }}
          {{- with .role }}
          app.kubernetes.io/component: {{ . }}
          {{- end }}
{{- end -}}

{{/* Who may come in at a port: dict port, from; nobody named means any. */}}
{{- define "tallygate.ingress" -}}
- ports: [{protocol: TCP, port: {{ int .port }}}]
  {{- with .from }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/*
A role's policy: dict root, role, to, and perhaps `ingress` and `egress`, further rules as YAML.
Who may scrape reaches the ops port, and so does the pod of `helm test`.
*/}}
{{- define "tallygate.policy" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- $in := list -}}
{{- if not .once -}}
{{- $from := $policy.scrapeFrom -}}
{{- if $from -}}
{{- $test := include "tallygate.selector" (dict "root" .root "role" "test") | fromYaml -}}
{{- $from = append $from (dict "podSelector" (dict "matchLabels" $test)) -}}
{{- end -}}
{{- $in = append $in (include "tallygate.ingress" (dict "port" .root.Values.ops.port "from" $from)) -}}
{{- end -}}
{{- with .ingress -}}{{- $in = append $in . -}}{{- end -}}
{{- $out := list (include "tallygate.egress" . | trim) .egress -}}
{{- with $policy.extraEgress -}}{{- $out = append $out (toYaml .) -}}{{- end -}}
{{- $out = compact $out -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "tallygate.metadata" (dict "root" .root "role" .role "name" (include "tallygate.roleName" .)) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "tallygate.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with $in }}
  ingress:
    {{- join "\n" . | nindent 4 }}
  {{- end }}
  {{- with $out }}
  egress:
    {{- join "\n" . | nindent 4 }}
  {{- end }}
{{- end -}}
