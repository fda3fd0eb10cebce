package verdict

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxRepairs bounds how many changes are tried on one pod: each is judged anew, so the cost is their
// square. Beyond it a violation has no fields, and its message says enough.
const maxRepairs = 200

// Fields answers which fields of a pod make it fail a check: a smallest set of those that the check reads
// whose repair makes it pass, found by repairing them and asking the check itself. Of ways to repair (all
// containers, or the pod once), it is that of the pod where the fields are absent. nil: not known.
func Fields(bad Violation, v Version, meta *metav1.ObjectMeta, spec *corev1.PodSpec) []string {
	c, ok := checks().find(bad, v)
	if !ok {
		return nil
	}
	all := repairs(bad.Check, meta, spec)
	if len(all) == 0 || len(all) > maxRepairs {
		return nil
	}
	passes := func(some []repair) bool {
		m, s := meta.DeepCopy(), spec.DeepCopy()
		for _, r := range some {
			r.apply(m, s)
		}
		return c.violation(m, s) == nil
	}
	if !passes(all) {
		return nil
	}
	// What can be left out one after the other is not needed. The pod's own come last, and so stay.
	for i := 0; i < len(all); {
		if rest := slices.Delete(slices.Clone(all), i, i+1); passes(rest) {
			all = rest
		} else {
			i++
		}
	}
	out := make([]string, len(all))
	for i, r := range all {
		out[i] = r.field
	}
	slices.Sort(out)
	return out
}

// find answers the check that found a violation, in the form of a version.
func (r registry) find(bad Violation, v Version) (check, bool) {
	own := r.of(bad.Level, v)
	i := slices.IndexFunc(own, func(c check) bool { return string(c.id) == bad.Check })
	if i < 0 {
		return check{}, false
	}
	return own[i], true
}

// repair is a change of one field after which no check has anything against it.
type repair struct {
	field string
	apply func(*metav1.ObjectMeta, *corev1.PodSpec)
}

// repairs lists what can be changed about the fields that a check reads: the containers' first, then the
// pod's. A field that is absent is listed where its absence can be what is wrong.
func repairs(checkID string, meta *metav1.ObjectMeta, spec *corev1.PodSpec) []repair {
	l := &lister{meta: meta, spec: spec}
	switch checkID {
	case "allowPrivilegeEscalation":
		l.secure("allowPrivilegeEscalation", func(s *corev1.SecurityContext) { s.AllowPrivilegeEscalation = new(bool) })
	case "appArmorProfile":
		l.secure("appArmorProfile.type", func(s *corev1.SecurityContext) { s.AppArmorProfile = nil })
		l.securePod("appArmorProfile.type", func(s *corev1.PodSecurityContext) { s.AppArmorProfile = nil })
		l.annotations(corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
	case "capabilities_baseline", "capabilities_restricted":
		l.secure("capabilities.add", func(s *corev1.SecurityContext) { capabilities(s).Add = nil })
		l.secure("capabilities.drop", func(s *corev1.SecurityContext) { capabilities(s).Drop = []corev1.Capability{"ALL"} })
	case "hostNamespaces":
		l.pod("hostNetwork", func(s *corev1.PodSpec) { s.HostNetwork = false })
		l.pod("hostPID", func(s *corev1.PodSpec) { s.HostPID = false })
		l.pod("hostIPC", func(s *corev1.PodSpec) { s.HostIPC = false })
	case "hostPathVolumes", "restrictedVolumes":
		l.volumes()
	case "hostPorts":
		l.ports()
	case "hostProbesAndHostLifecycle":
		l.hosts()
	case "privileged":
		l.secure("privileged", func(s *corev1.SecurityContext) { s.Privileged = nil })
	case "procMount", "procMount_restricted":
		l.secure("procMount", func(s *corev1.SecurityContext) { s.ProcMount = nil })
	case "runAsNonRoot":
		yes := true
		l.secure("runAsNonRoot", func(s *corev1.SecurityContext) { s.RunAsNonRoot = &yes })
		l.securePod("runAsNonRoot", func(s *corev1.PodSecurityContext) { s.RunAsNonRoot = &yes })
	case "runAsUser":
		l.secure("runAsUser", func(s *corev1.SecurityContext) { s.RunAsUser = nil })
		l.securePod("runAsUser", func(s *corev1.PodSecurityContext) { s.RunAsUser = nil })
	case "seLinuxOptions":
		l.seLinux()
	case "seccompProfile_baseline", "seccompProfile_restricted":
		fine := &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
		l.secure("seccompProfile.type", func(s *corev1.SecurityContext) { s.SeccompProfile = fine })
		l.securePod("seccompProfile.type", func(s *corev1.PodSecurityContext) { s.SeccompProfile = fine })
		l.annotations("seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/")
	case "sysctls":
		l.sysctls()
	case "windowsHostProcess":
		l.secure("windowsOptions.hostProcess", func(s *corev1.SecurityContext) { s.WindowsOptions = nil })
		l.securePod("windowsOptions.hostProcess", func(s *corev1.PodSecurityContext) { s.WindowsOptions = nil })
	}
	return l.all
}

func capabilities(s *corev1.SecurityContext) *corev1.Capabilities {
	if s.Capabilities == nil {
		s.Capabilities = &corev1.Capabilities{}
	}
	return s.Capabilities
}

// lister collects repairs.
type lister struct {
	meta *metav1.ObjectMeta
	spec *corev1.PodSpec
	all  []repair
}

func (l *lister) add(field string, apply func(*metav1.ObjectMeta, *corev1.PodSpec)) {
	if len(l.all) <= maxRepairs {
		l.all = append(l.all, repair{field, apply})
	}
}

func (l *lister) pod(field string, apply func(*corev1.PodSpec)) {
	l.add("spec."+field, func(_ *metav1.ObjectMeta, s *corev1.PodSpec) { apply(s) })
}

func (l *lister) securePod(field string, apply func(*corev1.PodSecurityContext)) {
	l.pod("securityContext."+field, func(s *corev1.PodSpec) {
		if s.SecurityContext == nil {
			s.SecurityContext = &corev1.PodSecurityContext{}
		}
		apply(s.SecurityContext)
	})
}

// container is one that checks look at: all kinds have the same fields.
type container struct {
	path string
	of   func(*corev1.PodSpec) *corev1.Container
}

func (l *lister) containers() []container {
	var out []container
	for i := range l.spec.InitContainers {
		out = append(out, container{fmt.Sprintf("initContainers[%d].", i), func(s *corev1.PodSpec) *corev1.Container { return &s.InitContainers[i] }})
	}
	for i := range l.spec.Containers {
		out = append(out, container{fmt.Sprintf("containers[%d].", i), func(s *corev1.PodSpec) *corev1.Container { return &s.Containers[i] }})
	}
	for i := range l.spec.EphemeralContainers {
		out = append(out, container{fmt.Sprintf("ephemeralContainers[%d].", i), func(s *corev1.PodSpec) *corev1.Container {
			return (*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon)
		}})
	}
	return out
}

func (l *lister) secure(field string, apply func(*corev1.SecurityContext)) {
	for _, c := range l.containers() {
		l.pod(c.path+"securityContext."+field, func(s *corev1.PodSpec) {
			c := c.of(s)
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			apply(c.SecurityContext)
		})
	}
}

func (l *lister) annotations(prefixes ...string) {
	for _, key := range slices.Sorted(maps.Keys(l.meta.Annotations)) {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			l.add("metadata.annotations["+key+"]", func(m *metav1.ObjectMeta, _ *corev1.PodSpec) { delete(m.Annotations, key) })
		}
	}
}

func (l *lister) volumes() {
	for i, v := range l.spec.Volumes {
		l.pod(fmt.Sprintf("volumes[%d]%s", i, source(v.VolumeSource)), func(s *corev1.PodSpec) {
			s.Volumes[i].VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		})
	}
}

// source is the field of a volume that says what it is, with its dot; "" when there is none.
func source(v corev1.VolumeSource) string {
	of := reflect.ValueOf(v)
	for i := range of.NumField() {
		if !of.Field(i).IsNil() {
			name, _, _ := strings.Cut(of.Type().Field(i).Tag.Get("json"), ",")
			return "." + name
		}
	}
	return ""
}

func (l *lister) ports() {
	for _, c := range l.containers() {
		for i := range c.of(l.spec).Ports {
			l.pod(fmt.Sprintf("%sports[%d].hostPort", c.path, i), func(s *corev1.PodSpec) { c.of(s).Ports[i].HostPort = 0 })
		}
	}
}

func (l *lister) sysctls() {
	if l.spec.SecurityContext == nil {
		return
	}
	for i := range l.spec.SecurityContext.Sysctls {
		l.pod(fmt.Sprintf("securityContext.sysctls[%d].name", i), func(s *corev1.PodSpec) {
			s.SecurityContext.Sysctls[i].Name = "kernel.shm_rmid_forced" // allowed by every version
		})
	}
}

func (l *lister) seLinux() {
	for _, f := range []struct {
		name  string
		clear func(*corev1.SELinuxOptions)
	}{
		{"type", func(o *corev1.SELinuxOptions) { o.Type = "" }},
		{"user", func(o *corev1.SELinuxOptions) { o.User = "" }},
		{"role", func(o *corev1.SELinuxOptions) { o.Role = "" }},
	} {
		l.secure("seLinuxOptions."+f.name, func(s *corev1.SecurityContext) {
			if s.SELinuxOptions != nil {
				f.clear(s.SELinuxOptions)
			}
		})
		l.securePod("seLinuxOptions."+f.name, func(s *corev1.PodSecurityContext) {
			if s.SELinuxOptions != nil {
				f.clear(s.SELinuxOptions)
			}
		})
	}
}

// hosts lists the hosts that probes and lifecycle handlers name.
func (l *lister) hosts() {
	for _, c := range l.containers() {
		for _, at := range []struct {
			name   string
			action func(*corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction)
		}{
			{"livenessProbe", func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
				return probed(c.LivenessProbe)
			}},
			{"readinessProbe", func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
				return probed(c.ReadinessProbe)
			}},
			{"startupProbe", func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
				return probed(c.StartupProbe)
			}},
			{"lifecycle.postStart", func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
				if c.Lifecycle == nil {
					return nil, nil
				}
				return handled(c.Lifecycle.PostStart)
			}},
			{"lifecycle.preStop", func(c *corev1.Container) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
				if c.Lifecycle == nil {
					return nil, nil
				}
				return handled(c.Lifecycle.PreStop)
			}},
		} {
			get, socket := at.action(c.of(l.spec))
			if get != nil {
				l.pod(c.path+at.name+".httpGet.host", func(s *corev1.PodSpec) { get, _ := at.action(c.of(s)); get.Host = "" })
			}
			if socket != nil {
				l.pod(c.path+at.name+".tcpSocket.host", func(s *corev1.PodSpec) { _, socket := at.action(c.of(s)); socket.Host = "" })
			}
		}
	}
}

func probed(p *corev1.Probe) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
	if p == nil {
		return nil, nil
	}
	return p.HTTPGet, p.TCPSocket
}

func handled(h *corev1.LifecycleHandler) (*corev1.HTTPGetAction, *corev1.TCPSocketAction) {
	if h == nil {
		return nil, nil
	}
	return h.HTTPGet, h.TCPSocket
}
