{{/* Reference of a Talktime image: registry/name:tag. Call with (dict "root" $ "name" "talktime/control"). */}}
{{- define "talktime.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := $image.tag | default .root.Chart.AppVersion -}}
{{- if $image.registry }}{{ trimSuffix "/" $image.registry }}/{{ end }}{{ .name }}:{{ $tag }}
{{- end -}}

{{/* Reference of an image that already has its tag; the registry goes before our own ones only. */}}
{{- define "talktime.taggedImage" -}}
{{- $registry := .root.Values.image.registry -}}
{{- if and $registry (hasPrefix "talktime/" .ref) }}{{ trimSuffix "/" $registry }}/{{ end }}{{ .ref }}
{{- end -}}

{{/* Labels of an object. Call with (dict "root" $ "component" "ledger"). */}}
{{- define "talktime.labels" -}}
{{ include "talktime.selector" . }}
app.kubernetes.io/part-of: talktime
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* Labels that select a component's pods; they never change. */}}
{{- define "talktime.selector" -}}
app.kubernetes.io/name: talktime
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Annotations that tell a Prometheus where `/metrics` is. */}}
{{- define "talktime.scrape" -}}
prometheus.io/scrape: "true"
prometheus.io/port: "8080"
prometheus.io/path: /metrics
{{- end -}}

{{/* Pod-level settings common to all pods: the "restricted" Pod Security Standard, placement, pull Secrets. */}}
{{- define "talktime.podSpec" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Two replicas are worth more on two nodes; a cluster of one node still runs them. */}}
{{- define "talktime.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "talktime.selector" . | nindent 8 }}
{{- end -}}

{{- define "talktime.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Probes of a Talktime server on port `http`; it starts within 60 s and is restarted after 30 s without an answer. */}}
{{- define "talktime.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  failureThreshold: 30
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  timeoutSeconds: 3
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* The ServiceAccount token with which a process authenticates to the ledger. */}}
{{- define "talktime.ledgerTokenVolume" -}}
- name: ledger-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: talktime-ledger
          expirationSeconds: 3600
{{- end -}}

{{- define "talktime.ledgerTokenMount" -}}
- name: ledger-token
  mountPath: /var/run/secrets/talktime
  readOnly: true
{{- end -}}

{{- define "talktime.commonEnv" -}}
- name: TALKTIME_LOG_LEVEL
  value: {{ .Values.logLevel | quote }}
- name: TALKTIME_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: TALKTIME_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end -}}

{{/* Where the DSN of the ledger's database is. */}}
{{- define "talktime.dsnSecret" -}}
{{- if .Values.postgres.embedded -}}
name: talktime-postgres
key: dsn
{{- else -}}
name: {{ required "postgres.dsnSecret.name is needed when postgres.embedded is false" .Values.postgres.dsnSecret.name }}
key: {{ .Values.postgres.dsnSecret.key }}
{{- end -}}
{{- end -}}

{{- /* A pod that is deleted serves on while its successor starts: requests go to one that ends as long as nobody else
is ready. Agents call twenty seconds without a ledger an outage. Within terminationGracePeriodSeconds. */ -}}
{{- define "talktime.servesOn" -}}
lifecycle:
  preStop:
    exec: {command: [sleep, "15"]}
{{- end -}}
