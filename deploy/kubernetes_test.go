package deploy_test

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	"go.yaml.in/yaml/v3"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/pratique-sec/pratique/pkg/access"
)

// cluster is what a kustomization makes, decoded strictly: an unknown or repeated field is an error.
type cluster struct {
	deployments  map[string]*appsv1.Deployment
	statefulSets map[string]*appsv1.StatefulSet
	services     map[string]*corev1.Service
	configMaps   map[string]*corev1.ConfigMap
	accounts     map[string]*corev1.ServiceAccount
	budgets      map[string]*policyv1.PodDisruptionBudget
	networks     map[string]*networkingv1.NetworkPolicy
	namespaces   map[string]*corev1.Namespace
	autoscalers  map[string]*autoscalingv2.HorizontalPodAutoscaler
	scaled       map[string]*keda.ScaledObject
}

func kustomized(t *testing.T, folder string) cluster {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), path.Join("kubernetes", folder))
	if err != nil {
		t.Fatalf("kubernetes/%s: %v", folder, err)
	}
	known := runtime.NewScheme()
	if err := scheme.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	if err := keda.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	c := cluster{
		map[string]*appsv1.Deployment{}, map[string]*appsv1.StatefulSet{}, map[string]*corev1.Service{}, map[string]*corev1.ConfigMap{},
		map[string]*corev1.ServiceAccount{}, map[string]*policyv1.PodDisruptionBudget{}, map[string]*networkingv1.NetworkPolicy{},
		map[string]*corev1.Namespace{}, map[string]*autoscalingv2.HorizontalPodAutoscaler{}, map[string]*keda.ScaledObject{},
	}
	for _, r := range made.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			t.Fatalf("kubernetes/%s: %s: %v", folder, r.CurId(), err)
		}
		name := r.GetName()
		switch o := object.(type) {
		case *appsv1.Deployment:
			c.deployments[name] = o
		case *appsv1.StatefulSet:
			c.statefulSets[name] = o
		case *corev1.Service:
			c.services[name] = o
		case *corev1.ConfigMap:
			c.configMaps[name] = o
		case *corev1.ServiceAccount:
			c.accounts[name] = o
		case *policyv1.PodDisruptionBudget:
			c.budgets[name] = o
		case *networkingv1.NetworkPolicy:
			c.networks[name] = o
		case *corev1.Namespace:
			c.namespaces[name] = o
		case *autoscalingv2.HorizontalPodAutoscaler:
			c.autoscalers[name] = o
		case *keda.ScaledObject:
			c.scaled[name] = o
		default:
			t.Errorf("kubernetes/%s: nobody looks at a %T", folder, o)
		}
		if name := r.GetNamespace(); name != "pratique" && r.GetKind() != "Namespace" {
			t.Errorf("%s is in namespace %q", r.CurId(), name)
		}
	}
	return c
}

// pods are the templates of all workloads.
func (c cluster) pods() map[string]corev1.PodTemplateSpec {
	all := map[string]corev1.PodTemplateSpec{}
	for name, d := range c.deployments {
		all[name] = d.Spec.Template
	}
	for name, s := range c.statefulSets {
		all[name] = s.Spec.Template
	}
	return all
}

// selected are the workloads whose pods a selector is about.
func (c cluster) selected(t *testing.T, s *metav1.LabelSelector) []string {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name, p := range c.pods() {
		if selector.Matches(labels.Set(p.Labels)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// mounts puts everything that a pod's container is given in its place: the files of ConfigMaps, and empty
// ones where secrets and volumes are. Their keys are answered by the path of their file.
func (c cluster) mounts(t *testing.T, p corev1.PodSpec) *rootfs {
	t.Helper()
	root := newRootfs(t.TempDir())
	volumes := map[string]corev1.Volume{}
	for _, v := range p.Volumes {
		volumes[v.Name] = v
	}
	for _, m := range p.Containers[0].VolumeMounts {
		root.add(t, m.MountPath)
		source, ok := volumes[m.Name]
		if !ok {
			t.Fatalf("volume %s is mounted, and not there", m.Name)
		}
		delete(volumes, m.Name)
		if source.ConfigMap == nil {
			continue
		}
		data := c.configMaps[source.ConfigMap.Name]
		if data == nil {
			t.Fatalf("there is no ConfigMap %s", source.ConfigMap.Name)
		}
		for key, text := range data.Data {
			root.file(t, path.Join(m.MountPath, key), text)
		}
	}
	for name := range volumes {
		t.Errorf("volume %s is mounted nowhere", name)
	}
	return root
}

func TestKubernetesServices(t *testing.T) {
	c := kustomized(t, "base")
	d, err := readDockerfile()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range services {
		t.Run(name, func(t *testing.T) {
			deployment, ok := c.deployments["pratique-"+name]
			if !ok {
				t.Fatal("is not deployed")
			}
			pod := deployment.Spec.Template.Spec
			box := pod.Containers[0]
			root := c.mounts(t, pod)
			var env []string
			for _, v := range box.Env {
				if strings.HasPrefix(v.Name, "PRATIQUE_") {
					env = append(env, v.Name+"="+v.Value)
				}
			}
			got := accepted(t, name, c.local(t, root, env))

			mounted := map[string]bool{}
			for _, m := range box.VolumeMounts {
				mounted[m.MountPath] = true
			}
			for at, p := range got.absolute() {
				if !holds(mounted, root.container(p)) {
					t.Errorf("%s is %s, where nothing is mounted", at, p)
				}
			}
			for at, service := range map[string]string{"nats.url": "nats", "redis.url": "redis"} {
				if u := got.at(at); u != "" && !c.reaches(u, service) {
					t.Errorf("%s is %s, which is no Service", at, u)
				}
			}
			ports := got.ports(name)
			declared := map[string]string{}
			for _, p := range box.Ports {
				declared[p.Name] = fmt.Sprint(p.ContainerPort)
			}
			if !maps.Equal(ports, declared) {
				t.Errorf("ports %v are declared, %v are listened on", declared, ports)
			}
			for what, probe := range map[string]*corev1.Probe{"startup /livez": box.StartupProbe, "liveness /livez": box.LivenessProbe, "readiness /readyz": box.ReadinessProbe} {
				if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port.StrVal != "admin" || !strings.HasSuffix(what, " "+probe.HTTPGet.Path) {
					t.Errorf("%s: %+v", what, probe)
				}
			}
			if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace < got.duration(t, "drain")+afterEnd {
				t.Errorf("terminationGracePeriodSeconds %v, the drain %s", grace, got.at("drain"))
			}

			target := d.target(t, name)
			image, _, _ := strings.Cut(box.Image, ":")
			if image != "pratique-"+name || len(box.Command) > 0 || len(box.Args) > 0 {
				t.Errorf("runs image %s with %v %v", box.Image, box.Command, box.Args)
			}
			if user := fmt.Sprintf("%d:%d", *pod.SecurityContext.RunAsUser, *pod.SecurityContext.RunAsGroup); user != target.user {
				t.Errorf("runs as %s, the image as %s", user, target.user)
			}
		})
	}
	for name := range c.deployments {
		if service, ours := strings.CutPrefix(name, "pratique-"); ours && !slices.Contains(services, service) {
			t.Errorf("%s is no service", name)
		}
	}
}

// local has paths in the files of ConfigMaps, and in an environment, replaced by this machine's.
func (c cluster) local(t *testing.T, root *rootfs, env []string) []string {
	t.Helper()
	for _, target := range root.targets {
		if strings.HasSuffix(target, ".yaml") {
			root.rewrite(t, target)
		}
	}
	return root.localAll(env)
}

// reaches tells whether a URL leads to a port of a Service.
func (c cluster) reaches(url, service string) bool {
	m := regexp.MustCompile(`^[a-z]+://` + service + `:(\d+)(/|$)`).FindStringSubmatch(url)
	if s := c.services[service]; m != nil && s != nil {
		return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return fmt.Sprint(p.Port) == m[1] })
	}
	return false
}

// The namespace enforces the restricted level, so everything in it must be of it; by the library that decides.
func TestKubernetesPodsAreRestricted(t *testing.T) {
	for _, folder := range []string{"base", "hpa", "keda"} {
		c := kustomized(t, folder)
		if got := c.namespaces["pratique"].Labels[psa.EnforceLevelLabel]; got != string(psa.LevelRestricted) {
			t.Errorf("the namespace enforces %q", got)
		}
		evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range c.pods() {
			for _, result := range evaluator.EvaluatePod(psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}, &p.ObjectMeta, &p.Spec) {
				if !result.Allowed {
					t.Errorf("%s: %s: %s", name, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			box := p.Spec.Containers[0]
			if box.SecurityContext.ReadOnlyRootFilesystem == nil || !*box.SecurityContext.ReadOnlyRootFilesystem {
				t.Errorf("%s: can write to its image", name)
			}
			if p.Spec.AutomountServiceAccountToken == nil || *p.Spec.AutomountServiceAccountToken {
				t.Errorf("%s: is given a token of the cluster", name)
			}
			if p.Spec.EnableServiceLinks == nil || *p.Spec.EnableServiceLinks {
				t.Errorf("%s: is given variables of every Service", name)
			}
			if account := c.accounts[p.Spec.ServiceAccountName]; account == nil || account.AutomountServiceAccountToken == nil || *account.AutomountServiceAccountToken {
				t.Errorf("%s: ServiceAccount %q", name, p.Spec.ServiceAccountName)
			}
			if box.Resources.Limits.Memory().IsZero() || box.Resources.Requests.Memory().IsZero() || box.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s: resources %v", name, box.Resources)
			}
		}
	}
}

// Selectors select: a budget, a Service or a policy about nobody says nothing.
func TestKubernetesSelectors(t *testing.T) {
	c := kustomized(t, "base")
	for name, b := range c.budgets {
		if got := c.selected(t, b.Spec.Selector); !slices.Equal(got, []string{name}) {
			t.Errorf("PodDisruptionBudget %s is about %v", name, got)
		}
	}
	for _, name := range services {
		if c.budgets["pratique-"+name] == nil {
			t.Errorf("pratique-%s has no PodDisruptionBudget", name)
		}
	}
	for name, s := range c.services {
		got := c.selected(t, &metav1.LabelSelector{MatchLabels: s.Spec.Selector})
		if !slices.Equal(got, []string{name}) {
			t.Errorf("Service %s leads to %v", name, got)
			continue
		}
		for _, p := range s.Spec.Ports {
			if !slices.ContainsFunc(c.pods()[name].Spec.Containers[0].Ports, func(q corev1.ContainerPort) bool { return q.Name == p.TargetPort.StrVal }) {
				t.Errorf("Service %s leads to port %s", name, p.TargetPort.String())
			}
		}
	}
	for name, d := range c.deployments {
		for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
			if got := c.selected(t, spread.LabelSelector); !slices.Equal(got, []string{name}) {
				t.Errorf("%s is spread with %v", name, got)
			}
		}
	}
}

// Who talks to whom is who may: every policy is about somebody, and lets in at ports that are there.
func TestKubernetesNetwork(t *testing.T) {
	c := kustomized(t, "base")
	into := map[string][]string{} // workload → ports that are let in
	out := map[string][]string{}
	for name, n := range c.networks {
		about := c.selected(t, &n.Spec.PodSelector)
		if len(about) == 0 {
			t.Errorf("NetworkPolicy %s is about nobody", name)
		}
		for _, workload := range about {
			for _, rule := range n.Spec.Ingress {
				for _, p := range rule.Ports {
					into[workload] = append(into[workload], p.Port.String())
				}
			}
			for _, rule := range n.Spec.Egress {
				for _, to := range rule.To {
					if to.PodSelector == nil {
						continue
					}
					out[workload] = append(out[workload], c.selected(t, to.PodSelector)...)
				}
			}
		}
	}
	for name, p := range c.pods() {
		for _, port := range into[name] {
			if !slices.ContainsFunc(p.Spec.Containers[0].Ports, func(q corev1.ContainerPort) bool { return fmt.Sprint(q.ContainerPort) == port }) {
				t.Errorf("%s is reached at port %s, where nobody listens", name, port)
			}
		}
	}
	for name, want := range map[string][]string{
		"pratique-ingest": {"nats"}, "pratique-psaauditor": {"nats"}, "pratique-alertrouter": {"nats"},
		"pratique-layercache": {"nats", "redis"}, "pratique-scanner": {"nats", "redis"},
	} {
		slices.Sort(out[name])
		if !slices.Equal(out[name], want) {
			t.Errorf("%s reaches %v, want %v", name, out[name], want)
		}
	}
	if deny := c.networks["default-deny"]; len(deny.Spec.PolicyTypes) != 2 || len(deny.Spec.Ingress)+len(deny.Spec.Egress) > 0 {
		t.Errorf("default-deny: %+v", deny.Spec)
	}
}

// The secrets that pods are given are those that docs/operations.md tells to make, key by key.
func TestKubernetesSecrets(t *testing.T) {
	page := read(t, "../docs/operations.md")
	c := kustomized(t, "base")
	made := map[string]string{} // secret → the command that makes it
	for _, m := range regexp.MustCompile(`(?m)^\s+kubectl -n pratique create secret generic (\S+) (.*)$`).FindAllStringSubmatch(page, -1) {
		made[m[1]] = m[2]
	}
	used := map[string]bool{}
	for name, p := range c.pods() {
		for _, v := range p.Spec.Volumes {
			if v.Secret == nil {
				continue
			}
			used[v.Secret.SecretName] = true
			if made[v.Secret.SecretName] == "" {
				t.Errorf("%s: docs/operations.md makes no secret %s", name, v.Secret.SecretName)
			}
		}
	}
	for secret, command := range made {
		if !used[secret] {
			t.Errorf("docs/operations.md makes %s, which nobody uses", secret)
		}
		if service, ok := strings.CutSuffix(strings.TrimPrefix(secret, "pratique-"), "-nats"); ok {
			if want := "--from-file=nats.creds=installation/" + access.CredsFile(access.Role(service)); command != want {
				t.Errorf("docs/operations.md makes %s by %s, want %s", secret, command, want)
			}
		}
	}
	for _, name := range services {
		for at, p := range c.configured(t, name).absolute() {
			for secret, key := range c.secretAt(name, p) {
				if !strings.Contains(made[secret], "--from-file="+key+"=") {
					t.Errorf("%s: %s is key %s of %s, which is made by %s", name, at, key, secret, made[secret])
				}
			}
		}
	}
}

// configured is what a service runs with, with the paths of its container.
func (c cluster) configured(t *testing.T, name string) settings {
	t.Helper()
	pod := c.deployments["pratique-"+name].Spec.Template.Spec
	for _, v := range pod.Volumes {
		if v.ConfigMap != nil {
			var s settings
			if err := yaml.Unmarshal([]byte(c.configMaps[v.ConfigMap.Name].Data["config.yaml"]), &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatalf("%s has no configuration", name)
	return nil
}

// secretAt is the secret and its key that a path of a service's container leads to, if it does to one.
func (c cluster) secretAt(name, p string) map[string]string {
	pod := c.deployments["pratique-"+name].Spec.Template.Spec
	for _, m := range pod.Containers[0].VolumeMounts {
		for _, v := range pod.Volumes {
			if key, ok := strings.CutPrefix(p, m.MountPath+"/"); ok && v.Name == m.Name && v.Secret != nil {
				return map[string]string{v.Secret.SecretName: key}
			}
		}
	}
	return nil
}

// Autoscalers scale the scanners, on a metric that is shown, by the rule that makes it theirs.
func TestAutoscalers(t *testing.T) {
	c := kustomized(t, "hpa")
	h := c.autoscalers["pratique-scanner"]
	if h == nil {
		t.Fatal("kubernetes/hpa has no HorizontalPodAutoscaler")
	}
	if c.deployments[h.Spec.ScaleTargetRef.Name].Spec.Replicas != nil {
		t.Error("the Deployment sets replicas, over which it and the autoscaler would fight")
	}
	metric := h.Spec.Metrics[0].External
	rule := adapter(t).ExternalRules[0]
	if metric.Metric.Name != rule.Name.As || !slices.Equal(adapterSeries(t), []string{metric.Metric.Name}) {
		t.Errorf("the autoscaler asks for %s, the adapter makes %s of %v", metric.Metric.Name, rule.Name.As, adapterSeries(t))
	}

	s := scaledObject(t)
	if s.Spec.ScaleTargetRef.Name != h.Spec.ScaleTargetRef.Name {
		t.Errorf("KEDA scales %s", s.Spec.ScaleTargetRef.Name)
	}
	trigger := s.Spec.Triggers[0]
	if trigger.Type != "prometheus" || trigger.Metadata["ignoreNullValues"] != "false" {
		t.Errorf("trigger %+v: what is not known must not count as no work", trigger)
	}
	if trigger.Metadata["threshold"] != metric.Target.AverageValue.String() {
		t.Errorf("KEDA gives each scanner %s s of work, the HorizontalPodAutoscaler %s", trigger.Metadata["threshold"], metric.Target.AverageValue)
	}
	// Those of KEDA's scaler: it reads no others and does not complain of them either.
	known := []string{"serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues"}
	for _, key := range sorted(trigger.Metadata) {
		if !slices.Contains(known, key) {
			t.Errorf("trigger: %s", key)
		}
	}
}

func scaledObject(t *testing.T) *keda.ScaledObject {
	t.Helper()
	s := kustomized(t, "keda").scaled["pratique-scanner"]
	if s == nil {
		t.Fatal("kubernetes/keda has no ScaledObject")
	}
	return s
}

// adapterRules is the part of prometheus-adapter's configuration that we use.
type adapterRules struct {
	ExternalRules []struct {
		SeriesQuery string `yaml:"seriesQuery"`
		Resources   struct {
			Overrides map[string]struct{ Resource string }
		}
		Name         struct{ Matches, As string }
		MetricsQuery string `yaml:"metricsQuery"`
	} `yaml:"externalRules"`
}

func adapter(t *testing.T) adapterRules {
	t.Helper()
	var rules adapterRules
	d := yaml.NewDecoder(bytes.NewReader([]byte(read(t, "prometheus/adapter.yaml"))))
	d.KnownFields(true)
	if err := d.Decode(&rules); err != nil || len(rules.ExternalRules) != 1 {
		t.Fatalf("prometheus/adapter.yaml: %v", err)
	}
	return rules
}

// adapterSeries are those that the adapter finds and asks for.
func adapterSeries(t *testing.T) []string {
	t.Helper()
	rule := adapter(t).ExternalRules[0]
	found := regexp.MustCompile(`__name__="(\w+)"`).FindStringSubmatch(rule.SeriesQuery)
	if found == nil {
		t.Fatalf("seriesQuery %s names no metric", rule.SeriesQuery)
	}
	query := strings.NewReplacer("<<.Series>>", found[1], "<<.LabelMatchers>>", `namespace="pratique"`, "<<.GroupBy>>", "namespace").Replace(rule.MetricsQuery)
	return metricsOf(t, query)
}
