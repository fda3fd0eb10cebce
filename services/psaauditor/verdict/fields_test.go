package verdict_test

import (
	"slices"
	"testing"

	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

// What makes a fixture fail is named, whatever it is.
func TestFieldsOfFixtures(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range fixtures(t) {
		if f.allowed || seen[string(f.body)] {
			continue
		}
		seen[string(f.body)] = true
		o := f.pod(t)
		for _, bad := range verdict.Evaluate(f.level, f.version, o.Metadata, o.Spec) {
			if len(verdict.Fields(bad, f.version, o.Metadata, o.Spec)) == 0 {
				t.Errorf("%s: %s has no field", f.path, bad.Message)
			}
		}
	}
}

func TestFields(t *testing.T) {
	for _, c := range []struct {
		name, check, version, object string
		want                         []string
	}{
		{"of a template", "privileged", "latest",
			"{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {containers: [{name: a}, {name: b, securityContext: {privileged: true}}]}}}}",
			[]string{"spec.template.spec.containers[1].securityContext.privileged"}},
		{"the pod once instead of each container", "runAsNonRoot", "latest",
			"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}, {name: b}]}}",
			[]string{"spec.securityContext.runAsNonRoot"}},
		{"and a container that insists", "runAsNonRoot", "latest",
			"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}, {name: b, securityContext: {runAsNonRoot: false}}]}}",
			[]string{"spec.containers[1].securityContext.runAsNonRoot", "spec.securityContext.runAsNonRoot"}},
		{"absent fields", "capabilities_restricted", "latest",
			"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, securityContext: {capabilities: {add: [SYS_ADMIN]}}}], initContainers: [{name: i}]}}",
			[]string{"spec.containers[0].securityContext.capabilities.add", "spec.containers[0].securityContext.capabilities.drop", "spec.initContainers[0].securityContext.capabilities.drop"}},
		{"several of the pod", "hostNamespaces", "latest",
			"{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {jobTemplate: {spec: {template: {spec: {hostPID: true, hostNetwork: true, containers: [{name: a}]}}}}}}",
			[]string{"spec.jobTemplate.spec.template.spec.hostNetwork", "spec.jobTemplate.spec.template.spec.hostPID"}},
		{"volumes by their source", "restrictedVolumes", "latest",
			"{apiVersion: v1, kind: PodTemplate, metadata: {name: t}, template: {spec: {volumes: [{name: a}, {name: b, nfs: {}}], containers: [{name: a}]}}}",
			[]string{"template.spec.volumes[1].nfs"}},
		{"an annotation of the template", "appArmorProfile", "latest",
			"{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d}, spec: {template: {metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/a: unconfined}}, spec: {containers: [{name: a}]}}}}",
			[]string{"spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]"}},
		{"hosts of probes", "hostProbesAndHostLifecycle", "latest",
			"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a, startupProbe: {tcpSocket: {host: h, port: 1}}, livenessProbe: {httpGet: {port: 1}}, lifecycle: {preStop: {httpGet: {host: h, port: 1}}}}]}}",
			[]string{"spec.containers[0].lifecycle.preStop.httpGet.host", "spec.containers[0].startupProbe.tcpSocket.host"}},
		{"ephemeral containers", "seLinuxOptions", "latest",
			"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}], ephemeralContainers: [{name: e, securityContext: {seLinuxOptions: {user: u, type: container_t}}}]}}",
			[]string{"spec.ephemeralContainers[0].securityContext.seLinuxOptions.user"}},
		{"by the version's own check", "sysctls", "v1.36",
			"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {securityContext: {sysctls: [{name: net.ipv4.tcp_syncookies, value: '1'}, {name: net.ipv4.tcp_notsent_lowat, value: '1'}]}, containers: [{name: a}]}}",
			[]string{"spec.securityContext.sysctls[1].name"}},
	} {
		set, err := manifest.Parse([]byte(c.object))
		if err != nil || len(set.Objects) != 1 {
			t.Fatalf("%s: %v %v", c.name, err, set.Problems)
		}
		v, err := verdict.ParseVersion(c.version)
		if err != nil {
			t.Fatal(err)
		}
		o, found := set.Objects[0], false
		for _, bad := range verdict.Evaluate(verdict.Restricted, v, o.Metadata, o.Spec) {
			if bad.Check != c.check {
				continue
			}
			found = true
			var got []string
			for _, f := range verdict.Fields(bad, v, o.Metadata, o.Spec) {
				got = append(got, o.Field(f))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		if !found {
			t.Errorf("%s: passes %s", c.name, c.check)
		}
	}
}
