// Package verdict judges pods by the Pod Security Standards, with the official checks of
// k8s.io/pod-security-admission chosen exactly as the admission plugin chooses them. Unlike the plugin's
// evaluator it says which check failed, by its stable id: what findings are told apart by.
package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// Level is how much a standard demands. Restricted includes baseline.
type Level = api.Level

// The levels that demand something.
const (
	Baseline   = api.LevelBaseline
	Restricted = api.LevelRestricted
)

// ParseLevel reads "baseline" or "restricted".
func ParseLevel(s string) (Level, error) {
	if l := Level(s); l == Baseline || l == Restricted {
		return l, nil
	}
	return "", fmt.Errorf("level %q: want baseline or restricted", s)
}

// Version is the version of Kubernetes whose standards are judged by.
type Version = api.Version

// ParseVersion reads "v1.34" or "latest".
func ParseVersion(s string) (Version, error) {
	v, err := api.ParseVersion(s)
	if err != nil {
		return Version{}, fmt.Errorf("version %q: want v1.NN or latest", s)
	}
	return v, nil
}

// Newest is the newest version whose standards differ from those before it: what later ones, and "latest",
// are judged by.
func Newest() Version { return checks().newest }

// Violation is a check that a pod fails.
type Violation struct {
	Check   string // stable id: "privileged", "capabilities_restricted"
	Level   Level  // that the check belongs to
	Reason  string // in a few words: "hostPort"
	Message string // what the plugin says: "hostPort (container "a" uses hostPort 80)"
}

// Evaluate answers the checks of a level and version that a pod fails, in the plugin's order: those of
// baseline first, then by id. nil: the pod is allowed. The pod must have the API's defaults (see package
// manifest), as the plugin's pods have.
func Evaluate(l Level, v Version, meta *metav1.ObjectMeta, spec *corev1.PodSpec) []Violation {
	var out []Violation
	for _, c := range checks().of(l, v) {
		if bad := c.violation(meta, spec); bad != nil {
			out = append(out, *bad)
		}
	}
	return out
}

// check is one check in the version that applies.
type check struct {
	id        policy.CheckID
	level     Level
	pod       policy.CheckPodFn
	overrides []policy.CheckID
}

func (c check) violation(meta *metav1.ObjectMeta, spec *corev1.PodSpec) *Violation {
	r := c.pod(meta, spec)
	if r.Allowed {
		return nil
	}
	all := policy.AggregateCheckResults([]policy.CheckResult{r})
	return &Violation{Check: string(c.id), Level: c.level, Reason: all.ForbiddenReason(), Message: all.ForbiddenDetail()}
}

// registry holds the checks that apply, by level and version.
type registry struct {
	newest Version
	byUse  map[api.LevelVersion][]check
}

// checks are made once. Their functions are pure.
var checks = sync.OnceValue(func() registry { return newRegistry(policy.DefaultChecks()) })

func newRegistry(all []policy.Check) registry {
	r := registry{byUse: map[api.LevelVersion][]check{}}
	for _, c := range all {
		for _, v := range c.Versions {
			if r.newest.Older(v.MinimumVersion) {
				r.newest = v.MinimumVersion
			}
		}
	}
	for minor := 0; minor <= r.newest.Minor(); minor++ {
		v := api.MajorMinorVersion(1, minor)
		baseline, restricted := applicable(all, Baseline, v), applicable(all, Restricted, v)
		r.byUse[api.LevelVersion{Level: Baseline, Version: v}] = baseline
		r.byUse[api.LevelVersion{Level: Restricted, Version: v}] = slices.Concat(notOverridden(baseline, restricted), restricted)
	}
	return r
}

func (r registry) of(l Level, v Version) []check {
	if r.newest.Older(v) { // so is "latest"
		v = r.newest
	}
	return r.byUse[api.LevelVersion{Level: l, Version: v}]
}

// applicable lists a level's own checks, each in the newest form that is not newer than v.
func applicable(all []policy.Check, l Level, v Version) []check {
	var out []check
	for _, c := range all {
		if c.Level != l {
			continue
		}
		for _, form := range slices.Backward(c.Versions) {
			if v.Older(form.MinimumVersion) {
				continue
			}
			out = append(out, check{id: c.ID, level: c.Level, pod: form.CheckPod, overrides: form.OverrideCheckIDs})
			break
		}
	}
	slices.SortFunc(out, func(a, b check) int { return cmp.Compare(a.id, b.id) })
	return out
}

// notOverridden drops the baseline checks that a restricted one replaces.
func notOverridden(baseline, restricted []check) []check {
	return slices.DeleteFunc(slices.Clone(baseline), func(b check) bool {
		return slices.ContainsFunc(restricted, func(r check) bool { return slices.Contains(r.overrides, b.id) })
	})
}
