{{- /* Rules of the NetworkPolicies. */ -}}
{{- /* The resolvers. OpenShift's pods listen on 5353. */ -}}
{{- define "frazil.dns" }}
- to: {{- toYaml .Values.networkPolicy.dnsTo | nindent 4 }}
  ports:
    {{- range list 53 5353 }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- define "frazil.privateRanges" -}}
["10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"]
{{- end }}
{{- /* The broker: the bundled one, or that of a URL. */ -}}
{{- define "frazil.toRedis" }}
{{- if .root.Values.redis.enabled }}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .root.Release.Namespace }}}}
      podSelector:
        matchLabels: {{- include "frazil.selector" (dict "root" .root "component" "redis") | nindent 10 }}
  ports: [{port: 6379}]
{{- else }}
{{- include "frazil.toUrl" (dict "url" .url "default" 6379) }}
{{- end }}
{{- end }}
{{- define "frazil.toMinio" }}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
      podSelector:
        matchLabels: {{- include "frazil.selector" (dict "root" . "component" "minio") | nindent 10 }}
  ports: [{port: 9000}]
{{- end }}
{{- /* The stores of all destinations, or of those that serve a namespace: each store once. */ -}}
{{- define "frazil.toStores" }}
{{- $seen := list }}
{{- range (include "frazil.destinations" .root | fromJsonArray) }}
{{- $wanted := or (not $.namespace) (include "frazil.serves" (dict "destination" . "namespace" $.namespace)) }}
{{- if and $wanted (not (has .endpoint $seen)) }}
{{- $seen = append $seen .endpoint }}
{{- if .endpoint }}
{{- include "frazil.toUrl" (dict "url" .endpoint "default" (ternary 443 80 (hasPrefix "https:" .endpoint))) }}
{{- else }}
{{- include "frazil.toMinio" $.root }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- /*
A server that somebody else runs. NetworkPolicies know no names of hosts: an address is held to, a Service's name to its
namespace (a Service's port need not be that of its pods), and for any other name the port is open to all addresses.
*/ -}}
{{- define "frazil.toUrl" }}
{{- $host := (urlParse .url).hostname }}
{{- $labels := splitList "." $host }}
{{- if and (ge (len $labels) 3) (eq (index $labels 2) "svc") }}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ index $labels 1 }}}}}]
{{- else }}
{{- $blocks := ternary (list (printf "%s/128" $host)) (list "0.0.0.0/0" "::/0") (contains ":" $host) }}
{{- if regexMatch "^[0-9]+([.][0-9]+){3}$" $host }}{{ $blocks = list (printf "%s/32" $host) }}{{ end }}
- to: [{{ range $index, $block := $blocks }}{{ if $index }}, {{ end }}{ipBlock: {cidr: {{ $block | quote }}}}{{ end }}]
  ports: [{port: {{ include "frazil.portOf" . }}}]
{{- end }}
{{- end }}
{{- /* The internet, by HTTPS: not the cluster, not the machines around it, not the cloud's metadata service. */ -}}
{{- define "frazil.toHub" }}
{{- if .Values.networkPolicy.fetchFromInternet }}
{{- $private := include "frazil.privateRanges" . | fromJsonArray }}
{{- $six := list }}{{ $four := list }}
{{- range $private }}{{ if contains ":" . }}{{ $six = append $six . }}{{ else }}{{ $four = append $four . }}{{ end }}{{ end }}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: {{ toJson $four }}}
    - ipBlock: {cidr: "::/0", except: {{ toJson $six }}}
  ports: [{port: 443}]
{{- end }}
{{- end }}
{{- /* The port of a URL: host:port, [address]:port, or the default. */ -}}
{{- define "frazil.portOf" -}}
{{- $host := (urlParse .url).host -}}
{{- if regexMatch ":[0-9]+$" $host }}{{ regexFind "[0-9]+$" $host }}{{ else }}{{ .default }}{{ end -}}
{{- end }}
{{- define "frazil.fromJobs" }}
{{- range .Values.tenants }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . }}}}
  podSelector: {matchLabels: {frazil.dev/managed: "true"}}
{{- end }}
{{- end }}
{{- define "frazil.policy" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "frazil.name" .root }}-{{ .component }}
  labels: {{- include "frazil.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "frazil.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end }}
