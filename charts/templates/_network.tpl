{{- /* Rules of the NetworkPolicies. */ -}}
{{- define "frazil.dns" }}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}
{{- define "frazil.toRedis" }}
{{- if .Values.redis.enabled }}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
      podSelector:
        matchLabels: {{- include "frazil.selector" (dict "root" . "component" "redis") | nindent 10 }}
  ports: [{port: 6379}]
{{- else }}
- to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]
  ports: [{port: {{ include "frazil.portOf" (dict "url" .Values.redis.externalUrl "default" 6379) }}}]
{{- end }}
{{- end }}
{{- define "frazil.toStores" }}
{{- if .Values.minio.enabled }}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Release.Namespace }}}}
      podSelector:
        matchLabels: {{- include "frazil.selector" (dict "root" . "component" "minio") | nindent 10 }}
  ports: [{port: 9000}]
{{- end }}
{{- range (include "frazil.destinations" . | fromJsonArray) }}
{{- if .endpoint }}
# {{ .name }}: a NetworkPolicy knows no names of hosts, so its port is open to all addresses.
- to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]
  ports: [{port: {{ include "frazil.portOf" (dict "url" .endpoint "default" (ternary 443 80 (hasPrefix "https:" .endpoint))) }}}]
{{- end }}
{{- end }}
{{- end }}
{{- /* The internet, by HTTPS: not the cluster, not the machines around it, not the cloud's metadata service. */ -}}
{{- define "frazil.toHub" }}
{{- if .Values.networkPolicy.fetchFromInternet }}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fc00::/7", "fe80::/10"]}
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
