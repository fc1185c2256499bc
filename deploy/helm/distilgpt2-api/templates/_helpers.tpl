{{/* The name of every object: the release's name, with the chart's unless it is part of it. */}}
{{- define "distilgpt2-api.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{/* The labels that select this release's pods. */}}
{{- define "distilgpt2-api.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "distilgpt2-api.pickerLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-endpoint-picker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of an object, for people and tools. */}}
{{- define "distilgpt2-api.labels" -}}
{{ include "distilgpt2-api.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "distilgpt2-api.image" -}}
{{- $repository := required "image.repository: name the image, such as ghcr.io/your-github-name/distilgpt2-api" .Values.image.repository }}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* A setting's value as a string. YAML's numbers are floats, which Go would print as 1e+07. */}}
{{- define "distilgpt2-api.setting" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . | toString | quote }}{{ else }}{{ toString . | quote }}{{ end }}
{{- end }}

{{/* Maps the endpoint picker's metrics to ours. */}}
{{- define "distilgpt2-api.pickerConfig" -}}
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: metrics-data-source
    parameters:
      scheme: http
      path: /metrics
  - type: core-metrics-extractor
    parameters:
      defaultEngine: distilgpt2-api
      engineConfigs:
        - name: distilgpt2-api
          queuedRequestsSpec: distilgpt2_waiting_sequences
          runningRequestsSpec: distilgpt2_running_sequences
          kvUsageSpec: distilgpt2_kv_cache_usage_ratio
  - type: queue-scorer
  - type: kv-cache-utilization-scorer
  - type: prefix-cache-scorer
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: queue-scorer
        weight: 2
      - pluginRef: kv-cache-utilization-scorer
        weight: 2
      # A prompt goes to a pod that has recently computed its beginning, unless that pod is much busier.
      - pluginRef: prefix-cache-scorer
        weight: 3
{{- end }}
