{{/* Names are fixed: the driver, the definitions and the webhooks are the cluster's, so there is one Strand in it. */}}

{{- define "strand.labels" -}}
app.kubernetes.io/name: strand
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels by which one component's pods are found: strand.selector "operator" */}}
{{- define "strand.selector" -}}
app.kubernetes.io/name: strand
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "strand.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* Fits the restricted pod security standard. */}}
{{- define "strand.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "strand.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "strand.logEnv" -}}
- {name: STRAND_LOG_LEVEL, value: {{ .Values.logs.level | quote }}}
- {name: STRAND_LOG_FORMAT, value: {{ .Values.logs.format | quote }}}
{{- end }}

{{- define "strand.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "strand.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "strand.peerKeySecret" -}}
{{ .Values.peerKey.existingSecret | default "strand-peer-key" }}
{{- end }}

{{/* "true" where the cluster, or the values, have volume snapshots. */}}
{{- define "strand.snapshots" -}}
{{- if eq .Values.csi.snapshots "auto" -}}
{{ .Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1" }}
{{- else -}}
{{ eq .Values.csi.snapshots "on" }}
{{- end -}}
{{- end }}

{{/* operator or cert-manager. */}}
{{- define "strand.certificates" -}}
{{- if ne .Values.webhook.certificates "auto" -}}
{{ .Values.webhook.certificates }}
{{- else if .Capabilities.APIVersions.Has "cert-manager.io/v1" -}}
cert-manager
{{- else -}}
operator
{{- end -}}
{{- end }}

{{/* One for each: cert-manager leaves its own behind, and Helm takes no object that it has not made. */}}
{{- define "strand.webhookSecret" -}}
strand-webhook{{ if eq (include "strand.certificates" .) "cert-manager" }}-cert-manager{{ end }}
{{- end }}

{{- define "strand.webhooks" -}}
{{ or .Values.injection.enabled .Values.webhook.validation }}
{{- end }}
