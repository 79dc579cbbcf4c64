{{- /* Names. */ -}}
{{- define "frazil.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "frazil.labels" -}}
app.kubernetes.io/name: frazil
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "frazil.selector" -}}
app.kubernetes.io/name: frazil
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* A secret that is made once and then stays: what the Secret holds already, or what this render has drawn. */ -}}
{{- define "frazil.secret" -}}
{{- $root := .root -}}
{{- if not (hasKey $root.Values "_drawn") -}}
{{- $_ := set $root.Values "_drawn" dict -}}
{{- $held := lookup "v1" "Secret" $root.Release.Namespace (printf "%s-credentials" (include "frazil.name" $root)) -}}
{{- $_ := set $root.Values "_held" (dig "data" dict ($held | default dict)) -}}
{{- end -}}
{{- if not (hasKey $root.Values._drawn .key) -}}
{{- $value := randAlphaNum 32 -}}
{{- if hasKey $root.Values._held .key -}}{{- $value = index $root.Values._held .key | b64dec -}}{{- end -}}
{{- $_ := set $root.Values._drawn .key $value -}}
{{- end -}}
{{- index $root.Values._drawn .key -}}
{{- end }}

{{- define "frazil.redisHost" -}}
{{ include "frazil.name" . }}-redis.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "frazil.redisControlUrl" -}}
{{- if .Values.redis.enabled -}}
redis://control:{{ include "frazil.secret" (dict "root" . "key" "redis-control") }}@{{ include "frazil.redisHost" . }}:6379/0
{{- else -}}
{{ required "redis.externalUrl is needed with redis.enabled: false" .Values.redis.externalUrl }}
{{- end -}}
{{- end }}

{{- /* The broker as the pods of a tenant reach it: with a user of their own, since one who may write to the control plane's queue can have results of every namespace removed. */ -}}
{{- define "frazil.redisTenantUrl" -}}
{{- if .root.Values.redis.enabled -}}
redis://tenant-{{ .tenant }}:{{ include "frazil.secret" (dict "root" .root "key" (printf "redis-tenant-%s" .tenant)) }}@{{ include "frazil.redisHost" .root }}:6379/0
{{- else -}}
{{- $field := printf "redis.externalTenantUrls.%s" .tenant -}}
{{- $remedy := printf "make a user for that namespace with `ACL SETUSER tenant-%s on >PASSWORD %s` and name it there: redis://tenant-%s:PASSWORD@host:6379/0" .tenant (include "frazil.redisTenantRights" .tenant) .tenant -}}
{{- $urls := .root.Values.redis.externalTenantUrls | default dict -}}
{{- if not (hasKey $urls .tenant) }}{{ fail (printf "%s is needed with redis.enabled: false; %s" $field $remedy) }}{{ end -}}
{{- $url := index $urls .tenant -}}
{{- $user := include "frazil.redisUser" $url -}}
{{- $taken := dict (include "frazil.redisUser" (include "frazil.redisControlUrl" .root)) "redis.externalUrl" -}}
{{- range without .root.Values.tenants .tenant }}
{{- with index $urls . }}{{ $_ := set $taken (include "frazil.redisUser" .) "another namespace" }}{{ end }}
{{- end -}}
{{- with index $taken $user }}{{ fail (printf "%s has the user %q, which is that of %s; %s" $field $user . $remedy) }}{{ end -}}
{{ $url }}
{{- end -}}
{{- end }}

{{- /* What the user of a namespace may do in Redis: nothing but with keys and channels of its own, and not list others. */ -}}
{{- define "frazil.redisTenantRights" -}}
~frazil:{{ . }}:* resetchannels &frazil:{{ . }}:* +@all -@admin -@dangerous -scan -randomkey -dbsize
{{- end }}

{{- /* The user of a URL of Redis, which knows one without a name as `default`. */ -}}
{{- define "frazil.redisUser" -}}
{{ (urlParse .).userinfo | splitList ":" | first | default "default" }}
{{- end }}

{{- /* Helm fills in no defaults within a list: the destinations with theirs, as JSON. */ -}}
{{- define "frazil.destinations" -}}
{{- $found := list -}}
{{- $default := dict "name" "default" "bucket" "frazil" "prefix" "results" "endpoint" "" "publicEndpoint" "" "region" "" "existingSecret" "" "customCa" false "namespaces" (list "*") "inputs" list -}}
{{- range .Values.destinations }}{{ $found = append $found (merge (deepCopy .) $default) }}{{ end -}}
{{- toJson $found -}}
{{- end }}

{{- define "frazil.minioEndpoint" -}}
http://{{ include "frazil.name" . }}-minio.{{ .Release.Namespace }}.svc:9000
{{- end }}

{{- define "frazil.endpoint" -}}
{{- if .destination.endpoint -}}
{{ .destination.endpoint }}
{{- else -}}
{{- if not .root.Values.minio.enabled }}{{ fail (printf "destinations: %s has no endpoint, and minio.enabled is false" .destination.name) }}{{ end -}}
{{ include "frazil.minioEndpoint" .root }}
{{- end -}}
{{- end }}

{{- /* Whether a destination serves a namespace: "true" or nothing. */ -}}
{{- define "frazil.serves" -}}
{{- $all := .destination.namespaces | default (list "*") -}}
{{- if or (has "*" $all) (has .namespace $all) }}true{{ end -}}
{{- end }}

{{- define "frazil.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "frazil.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "frazil.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "frazil.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: [{{ range $index, $name := . }}{{ if $index }}, {{ end }}{name: {{ $name }}}{{ end }}]
{{- end }}
{{- end }}

{{- define "frazil.python" -}}
{{- if .Values.environmentClaim }}{{ .Values.environmentClaim.python }}{{ else }}python{{ end -}}
{{- end }}

{{- define "frazil.environmentMount" -}}
{{- with .Values.environmentClaim }}
- {name: environment, mountPath: {{ .mountPath }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "frazil.environmentVolume" -}}
{{- with .Values.environmentClaim }}
- name: environment
  persistentVolumeClaim: {claimName: {{ .claimName }}, readOnly: true}
{{- end }}
{{- end }}

{{- /* What a pod of the control plane opens the broker and every store with. */ -}}
{{- define "frazil.workerMounts" -}}
- {name: config, mountPath: /frazil/config, readOnly: true}
- {name: control, mountPath: /frazil/control, readOnly: true}
{{- range (include "frazil.destinations" . | fromJsonArray) }}
- {name: store-{{ .name }}, mountPath: /frazil/stores/{{ .name }}, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- include "frazil.environmentMount" . }}
{{- end }}

{{- define "frazil.workerVolumes" -}}
{{- $name := include "frazil.name" . -}}
- name: config
  configMap: {name: {{ $name }}-worker}
- name: control
  secret: {secretName: {{ $name }}-control}
{{- range (include "frazil.destinations" . | fromJsonArray) }}
- name: store-{{ .name }}
  secret:
    {{- if .endpoint }}
    secretName: {{ required (printf "destinations: %s has an endpoint and needs existingSecret" .name) .existingSecret }}
    {{- else }}
    secretName: {{ $name }}-store-{{ .name }}
    {{- end }}
{{- end }}
- {name: tmp, emptyDir: {}}
{{- include "frazil.environmentVolume" . }}
{{- end }}
