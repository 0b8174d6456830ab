{{/* Labels of every object; call with (dict "root" $ "component" "router"). */}}
{{- define "wisp.labels" -}}
{{ include "wisp.selector" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: wisp
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The part of the labels that selectors use: it never changes. */}}
{{- define "wisp.selector" -}}
app.kubernetes.io/name: wisp
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* An image reference; call with (dict "root" $ "image" .Values.images.events). */}}
{{- define "wisp.image" -}}
{{- $registry := .image.registry | default .root.Values.image.registry -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $registry) .image.repository -}}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What every pod of the chart has in common, as `spec` fields; call with the root. */}}
{{- define "wisp.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.scheduling.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.scheduling.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The security context of every container of the chart. */}}
{{- define "wisp.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Probes of the Python parts: all serve the same paths on port 9090. */}}
{{- define "wisp.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end }}

{{- define "wisp.scrape" -}}
prometheus.io/scrape: "true"
prometheus.io/port: "9090"
{{- end }}

{{/* Not empty where the bundled NATS is a cluster. */}}
{{- define "wisp.natsCluster" -}}
{{- if and .Values.nats.enabled (gt (int .Values.nats.replicas) 1) }}yes{{ end -}}
{{- end }}

{{- define "wisp.natsUrl" -}}
{{- if .Values.nats.enabled -}}
nats://wisp-nats.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{ required "nats.enabled is false: set nats.external.url to your server's URL, e.g. nats://nats.example:4222" .Values.nats.external.url }}
{{- end -}}
{{- end }}

{{/* All S3 servers that may call the ingest, the bundled MinIO first, as a YAML list. */}}
{{- define "wisp.s3Servers" -}}
{{- $servers := .Values.s3.servers -}}
{{- if .Values.minio.enabled -}}
{{- range $servers }}{{ if eq .name "minio" }}{{ fail "s3.servers: the name minio belongs to the bundled MinIO; choose another one or set minio.enabled=false" }}{{ end }}{{ end -}}
{{- $endpoint := printf "http://wisp-minio.%s.svc:9000" .Release.Namespace -}}
{{- $servers = prepend $servers (dict "name" "minio" "endpoint" $endpoint "notificationArns" (list "arn:minio:sqs::WISP:webhook" "arn:minio:sqs::WISPQUEUE:webhook")) -}}
{{- end -}}
{{- toYaml $servers -}}
{{- end }}

{{/* Environment and volume of a part that connects to NATS with its own credentials; call with (dict "root" $ "user" "router"). */}}
{{- define "wisp.natsEnv" -}}
- name: WISP_NATS_URL
  value: {{ include "wisp.natsUrl" .root }}
- name: WISP_NATS_CREDS
  value: /etc/wisp/nats/creds
- name: WISP_NATS_INBOX
  value: _INBOX.{{ .user }}
{{- end }}

{{/* Where the code store keeps archives; empty: there is no store. */}}
{{- define "wisp.storeEndpoint" -}}
{{- if .Values.store.s3.endpoint -}}
{{- if not .Values.store.s3.secretName }}{{ fail "store.s3.endpoint is set: name the Secret with accessKey and secretKey in store.s3.secretName" }}{{ end -}}
{{ .Values.store.s3.endpoint }}
{{- else if .Values.minio.enabled -}}
http://wisp-minio.{{ .Release.Namespace }}.svc:9000
{{- end -}}
{{- end }}
