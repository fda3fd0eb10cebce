package manifest

import corev1 "k8s.io/api/core/v1"

// setDefaults gives a pod the defaults that the checks of k8s.io/pod-security-admission 0.37 read, as the
// API server sets them before the plugin sees the pod. The server's own code is in k8s.io/kubernetes,
// which can not be imported; so each is named here with its place there (1.37):
//
//   - a volume without a source is an emptyDir: SetDefaults_Volume (pkg/apis/core/v1/defaults.go). Read by
//     restrictedVolumes, which forbids what has no source that it knows.
//   - with hostNetwork, a port of a container or init container has its containerPort as hostPort:
//     SetDefaults_Pod, defaultHostNetworkPorts (the same file). Read by hostPorts. The server does so for
//     pods and, since 1.28, not for templates; but the pod that a template becomes has it.
//
// All other fields that the checks read have no default that decides: securityContext itself, of the pod
// and the containers (nil and empty are the same to them), procMount (the default is allowed, as is none),
// privileged, allowPrivilegeEscalation, runAsNonRoot, runAsUser, capabilities, seccompProfile,
// appArmorProfile, seLinuxOptions, sysctls, windowsOptions, hostPID, hostIPC, hostUsers, os, and the host of
// probes and handlers (their path, port and scheme have defaults, which nobody reads). AppArmor's old
// annotations are also copied into fields (applyAppArmorVersionSkew, pkg/registry/core/pod/strategy.go);
// the check reads both, with one verdict.
func setDefaults(spec *corev1.PodSpec) {
	for i := range spec.Volumes {
		if source := &spec.Volumes[i].VolumeSource; *source == (corev1.VolumeSource{}) {
			source.EmptyDir = &corev1.EmptyDirVolumeSource{}
		}
	}
	if !spec.HostNetwork {
		return
	}
	for _, containers := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range containers {
			for j := range containers[i].Ports {
				if port := &containers[i].Ports[j]; port.HostPort == 0 {
					port.HostPort = port.ContainerPort
				}
			}
		}
	}
}
