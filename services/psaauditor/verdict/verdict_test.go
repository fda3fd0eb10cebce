package verdict_test

import (
	"slices"
	"testing"

	"k8s.io/pod-security-admission/policy"

	"github.com/pratique-sec/pratique/services/psaauditor/manifest"
	"github.com/pratique-sec/pratique/services/psaauditor/verdict"
)

// judge answers the ids of the checks that a pod fails.
func judge(t *testing.T, level verdict.Level, version, pod string) []string {
	t.Helper()
	v, err := verdict.ParseVersion(version)
	if err != nil {
		t.Fatal(err)
	}
	set, err := manifest.Parse([]byte(pod))
	if err != nil || len(set.Problems) > 0 || len(set.Objects) != 1 {
		t.Fatalf("%v, %v, %d objects", err, set.Problems, len(set.Objects))
	}
	var ids []string
	for _, bad := range verdict.Evaluate(level, v, set.Objects[0].Metadata, set.Objects[0].Spec) {
		ids = append(ids, bad.Check)
	}
	return ids
}

const hardened = `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - {name: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
`

// Rules that depend on the version, on user namespaces and on the operating system.
func TestRules(t *testing.T) {
	pod := func(spec string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {" + spec + "}}"
	}
	const closed = "allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}"
	for _, c := range []struct {
		name    string
		level   verdict.Level
		version string
		pod     string
		want    []string
	}{
		{"hardened", verdict.Restricted, "latest", hardened, nil},
		{"plain", verdict.Baseline, "latest", pod("containers: [{name: a}]"), nil},
		{"plain", verdict.Restricted, "latest", pod("containers: [{name: a}]"), []string{"allowPrivilegeEscalation", "capabilities_restricted", "runAsNonRoot", "seccompProfile_restricted"}},
		{"a user namespace lets root in from 1.35 on", verdict.Restricted, "latest",
			pod("hostUsers: false, securityContext: {runAsUser: 0, seccompProfile: {type: RuntimeDefault}}, containers: [{name: a, securityContext: {" + closed + "}}]"), nil},
		{"and not before", verdict.Restricted, "v1.34",
			pod("hostUsers: false, securityContext: {runAsUser: 0, seccompProfile: {type: RuntimeDefault}}, containers: [{name: a, securityContext: {" + closed + "}}]"), []string{"runAsNonRoot", "runAsUser"}},
		{"Windows is excused from 1.25 on", verdict.Restricted, "v1.25", pod("os: {name: windows}, securityContext: {runAsNonRoot: true}, containers: [{name: a}]"), nil},
		{"and not before", verdict.Restricted, "v1.24", pod("os: {name: windows}, securityContext: {runAsNonRoot: true}, containers: [{name: a}]"), []string{"allowPrivilegeEscalation", "capabilities_restricted", "seccompProfile_restricted"}},
		{"probes of other hosts from 1.34 on", verdict.Baseline, "v1.34", pod("containers: [{name: a, livenessProbe: {httpGet: {host: h, port: 1}}}]"), []string{"hostProbesAndHostLifecycle"}},
		{"and not before", verdict.Baseline, "v1.33", pod("containers: [{name: a, livenessProbe: {httpGet: {host: h, port: 1}}}]"), nil},
		{"a sysctl of 1.37", verdict.Baseline, "v1.36", pod("securityContext: {sysctls: [{name: net.ipv4.tcp_notsent_lowat, value: '1'}]}, containers: [{name: a}]"), []string{"sysctls"}},
		{"and since", verdict.Baseline, "v1.37", pod("securityContext: {sysctls: [{name: net.ipv4.tcp_notsent_lowat, value: '1'}]}, containers: [{name: a}]"), nil},
		{"ephemeral containers", verdict.Baseline, "latest", pod("containers: [{name: a}], ephemeralContainers: [{name: e, securityContext: {privileged: true}}]"), []string{"privileged"}},
		{"init containers", verdict.Baseline, "latest", pod("containers: [{name: a}], initContainers: [{name: i, securityContext: {privileged: true}}]"), []string{"privileged"}},
		{"restricted overrides baseline", verdict.Restricted, "latest", pod("securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, volumes: [{name: v, hostPath: {path: /}}], containers: [{name: a, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [SYS_ADMIN]}}}]"), []string{"capabilities_restricted", "restrictedVolumes"}},
		{"a volume without a source is an emptyDir", verdict.Restricted, "latest", pod("securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, volumes: [{name: v}], containers: [{name: a, securityContext: {" + closed + "}}]"), nil},
		{"hostNetwork makes ports the host's", verdict.Baseline, "latest", pod("hostNetwork: true, containers: [{name: a, ports: [{containerPort: 80}]}]"), []string{"hostNamespaces", "hostPorts"}},
	} {
		if got := judge(t, c.level, c.version, c.pod); !slices.Equal(got, c.want) {
			t.Errorf("%s, %s %s: fails %v, want %v", c.name, c.level, c.version, got, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"", "1.34", "v1", "v2.0", "v1.034", "newest"} {
		if _, err := verdict.ParseVersion(s); err == nil {
			t.Errorf("version %q was taken", s)
		}
	}
	for _, s := range []string{"", "privileged", "Baseline"} {
		if _, err := verdict.ParseLevel(s); err == nil {
			t.Errorf("level %q was taken", s)
		}
	}
}

// Ids are in identities of findings: one that the library renames is a migration.
func TestCheckIDs(t *testing.T) {
	want := []string{
		"allowPrivilegeEscalation", "appArmorProfile", "capabilities_baseline", "capabilities_restricted", "hostNamespaces",
		"hostPathVolumes", "hostPorts", "hostProbesAndHostLifecycle", "privileged", "procMount", "procMount_restricted",
		"restrictedVolumes", "runAsNonRoot", "runAsUser", "seLinuxOptions", "seccompProfile_baseline",
		"seccompProfile_restricted", "sysctls", "windowsHostProcess",
	}
	var got []string
	for _, c := range policy.DefaultChecks() {
		got = append(got, string(c.ID))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("checks are %v, were %v", got, want)
	}
}
