{{- define "warren.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "warren.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "warren.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "warren.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "warren.selector" -}}
app.kubernetes.io/name: {{ include "warren.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "warren.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "warren.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "warren.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "warren.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "warren.secret" -}}
{{- default (printf "%s-auth" (include "warren.fullname" .)) .Values.auth.existingSecret }}
{{- end }}

{{/* Every node under the name that its pod keeps, whatever address it has. */}}
{{- define "warren.peers" -}}
{{- $full := include "warren.fullname" . -}}
{{- $peers := list -}}
{{- range $i := until (int .Values.replicaCount) -}}
{{- $peers = append $peers (printf "%s-%d=%s-%d.%s-nodes.%s.svc.%s:7672" $full $i $full $i $full $.Release.Namespace $.Values.cluster.domain) -}}
{{- end -}}
{{- join "," $peers -}}
{{- end }}
