{{- define "hostgw.labels" -}}
app.kubernetes.io/name: hostgw
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "hostgw.selector" -}}
app.kubernetes.io/name: hostgw
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hostgw.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "hostgw.confDir" -}}
{{- $known := dict "kubeadm" "/etc/cni/net.d" "k0s" "/etc/cni/net.d" "k3s" "/var/lib/rancher/k3s/agent/etc/cni/net.d" -}}
{{- if not (hasKey $known .Values.distribution) -}}
{{- fail (printf "distribution is %q: set kubeadm, k3s or k0s, and cni.confDir and cni.binDir for any other" .Values.distribution) -}}
{{- end -}}
{{ .Values.cni.confDir | default (get $known .Values.distribution) }}
{{- end }}

{{- define "hostgw.binDir" -}}
{{- $known := dict "kubeadm" "/opt/cni/bin" "k0s" "/opt/cni/bin" "k3s" "/var/lib/rancher/k3s/data/cni" -}}
{{ .Values.cni.binDir | default (get $known .Values.distribution) }}
{{- end }}
