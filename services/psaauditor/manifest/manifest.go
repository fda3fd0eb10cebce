// Package manifest reads Kubernetes manifests and answers the pods that they describe, with the API's
// defaults: what Pod Security checks are made for. It takes what kubectl takes (YAML of many documents,
// JSON, lists), passes over what has no pods, and says of each document that it can not read which it is
// and why; the others are read all the same. It talks to no cluster.
package manifest

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/pratique-sec/pratique/pkg/yamldoc"
)

// MaxSize bounds one input, in bytes.
const MaxSize = 32 << 20

// Object is one that makes pods, or is one.
type Object struct {
	Document  int // of the input, from 1
	Kind      string
	Namespace string // "" when it names none
	Name      string // ends in "-" where the server completes it (metadata.generateName)
	Owner     *Owner // the controller that made it; nil for what somebody wrote

	path     string             // where the pod's spec is in the object: "spec.template.spec"
	Metadata *metav1.ObjectMeta // of the pod
	Spec     *corev1.PodSpec    // with defaults
}

// Field says where in the object a field of the pod is: "spec.hostNetwork" of a Deployment's is its
// "spec.template.spec.hostNetwork".
func (o Object) Field(ofPod string) string {
	return strings.TrimSuffix(o.path, "spec") + ofPod
}

// Owner is an object's controller.
type Owner struct{ Kind, Name string }

// Problem is a document that could not be read. Its error names the line or field.
type Problem struct {
	Document int
	Err      error
}

func (p Problem) String() string { return fmt.Sprintf("document %d: %v", p.Document, p.Err) }

// Set is what an input holds.
type Set struct {
	Documents int
	Objects   []Object
	Other     int // objects of kinds that make no pods
	Problems  []Problem
}

// Parse reads an input of at most MaxSize. The error is of the input as a whole.
func Parse(input []byte) (Set, error) {
	if len(input) > MaxSize {
		return Set{}, fmt.Errorf("%d bytes, at most %d are read; hand them in by parts", len(input), MaxSize)
	}
	docs, err := yamldoc.Split(input)
	if err != nil {
		return Set{}, err
	}
	s := Set{Documents: len(docs)}
	for _, d := range docs {
		body, err := asJSON(d)
		if err == nil {
			err = s.object(d.Number, body, head{}, 0)
		}
		for _, err := range each(err) {
			s.Problems = append(s.Problems, Problem{d.Number, err})
		}
	}
	return s, nil
}

// asJSON makes JSON of a document as kubectl does: YAML 1.1, where "yes" is true.
func asJSON(d yamldoc.Document) (body []byte, err error) {
	if _, err = d.Check(); err == nil {
		if d.JSON {
			return d.Body, nil
		}
		if body, err = yaml.YAMLToJSON(d.Body); err != nil {
			err = fmt.Errorf("line %d: YAML: %s", d.Line, strings.TrimPrefix(err.Error(), "yaml: "))
		}
	}
	if err != nil && bytes.Contains(d.Body, []byte("{{")) {
		err = fmt.Errorf("%w; hand in templates as helm template writes them out", err)
	}
	return body, err
}

// each takes apart what errors.Join joined.
func each(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// head is what says how to read an object.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// group is the API group: "" for core.
func (h head) group() string {
	group, _, found := strings.Cut(h.APIVersion, "/")
	if !found {
		return ""
	}
	return group
}

// maxNesting bounds lists in lists. kubectl makes one level.
const maxNesting = 4

// object reads one object, or all of a list. The objects of a typed list (PodList) say neither kind nor
// version: listed has them.
func (s *Set) object(document int, body []byte, listed head, depth int) error {
	h := listed
	if err := decode(body, &h); err != nil {
		return fmt.Errorf("no Kubernetes object: %w", err)
	}
	if items, isList := strings.CutSuffix(h.Kind, "List"); isList && (h.group() == "" || podPaths[kind{h.group(), items}] != "") {
		return s.list(document, body, h, items, depth)
	}
	path, ok := podPaths[kind{h.group(), h.Kind}]
	switch {
	case ok && h.APIVersion == "":
		return fmt.Errorf("%s: apiVersion is missing", h.Kind)
	case !ok:
		s.Other++
		return nil
	}
	o, err := read(body, path)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Kind, err)
	}
	o.Document, o.Kind = document, h.Kind
	s.Objects = append(s.Objects, o)
	return nil
}

func (s *Set) list(document int, body []byte, h head, itemKind string, depth int) error {
	if depth == maxNesting {
		return fmt.Errorf("lists in lists, more than %d deep", maxNesting)
	}
	var l struct {
		Items []rawObject `json:"items"`
	}
	if err := decode(body, &l); err != nil {
		return fmt.Errorf("%s: %w", h.Kind, err)
	}
	listed := head{APIVersion: h.APIVersion, Kind: itemKind}
	if itemKind == "" {
		listed = head{}
	}
	var errs []error
	for i, item := range l.Items {
		if err := s.object(document, item, listed, depth+1); err != nil {
			for _, err := range each(err) {
				errs = append(errs, fmt.Errorf("items[%d]: %w", i, err))
			}
		}
	}
	return errors.Join(errs...)
}

// rawObject is an object that is decoded later.
type rawObject []byte

// UnmarshalJSON keeps the bytes.
func (r *rawObject) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

// decode reads JSON as the API server does: names of fields count with their case, unknown ones do not.
func decode(body []byte, v any) error {
	err := json.Unmarshal(body, v)
	if wrong, ok := errors.AsType[*stdjson.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return fmt.Errorf("%s: want %s, not %s", wrong.Field, wrong.Type, wrong.Value)
	}
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// kind is an API group and a kind in it. The version does not matter: pods are where they are in all.
type kind struct{ group, name string }

// podPaths says where the kinds that make pods have them.
var podPaths = map[kind]string{
	{"", "Pod"}:                   pathPod,
	{"", "PodTemplate"}:           pathPodTemplate,
	{"", "ReplicationController"}: pathTemplate,
	{"apps", "Deployment"}:        pathTemplate,
	{"apps", "ReplicaSet"}:        pathTemplate,
	{"apps", "StatefulSet"}:       pathTemplate,
	{"apps", "DaemonSet"}:         pathTemplate,
	{"extensions", "Deployment"}:  pathTemplate, // until 1.16
	{"extensions", "ReplicaSet"}:  pathTemplate,
	{"extensions", "DaemonSet"}:   pathTemplate,
	{"batch", "Job"}:              pathTemplate,
	{"batch", "CronJob"}:          pathJobTemplate,
}

const (
	pathPod         = "spec"
	pathPodTemplate = "template.spec"
	pathTemplate    = "spec.template.spec"
	pathJobTemplate = "spec.jobTemplate.spec.template.spec"
)

// Shapes of the kinds, as far as they matter.
type (
	podTemplate struct {
		Metadata metav1.ObjectMeta       `json:"metadata"`
		Template *corev1.PodTemplateSpec `json:"template"`
	}
	templated struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     struct {
			Template *corev1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	cronJob struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     struct {
			JobTemplate struct {
				Spec struct {
					Template *corev1.PodTemplateSpec `json:"template"`
				} `json:"spec"`
			} `json:"jobTemplate"`
		} `json:"spec"`
	}
	pod struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     corev1.PodSpec    `json:"spec"`
	}
)

// read reads an object that has its pod's spec at a path.
func read(body []byte, path string) (Object, error) {
	var (
		own      metav1.ObjectMeta
		template *corev1.PodTemplateSpec
		err      error
	)
	switch path {
	case pathPod:
		var o pod
		err = decode(body, &o)
		own, template = o.Metadata, &corev1.PodTemplateSpec{ObjectMeta: o.Metadata, Spec: o.Spec}
	case pathPodTemplate:
		var o podTemplate
		err = decode(body, &o)
		own, template = o.Metadata, o.Template
	case pathJobTemplate:
		var o cronJob
		err = decode(body, &o)
		own, template = o.Metadata, o.Spec.JobTemplate.Spec.Template
	default:
		var o templated
		err = decode(body, &o)
		own, template = o.Metadata, o.Spec.Template
	}
	if err != nil {
		return Object{}, err
	}
	name, err := nameOf(&own)
	switch {
	case err != nil:
		return Object{}, err
	case template == nil || len(template.Spec.Containers) == 0:
		// The server would refuse it, and the checks would find nothing against it.
		return Object{}, fmt.Errorf("%q: %s.containers is missing; of patches, hand in what kustomize build makes", name, path)
	}
	o := Object{Namespace: own.Namespace, Name: name, path: path, Metadata: &template.ObjectMeta, Spec: &template.Spec}
	if o.Owner, err = ownerOf(&own); err != nil {
		return Object{}, err
	}
	setDefaults(o.Spec)
	return o, nil
}

// Bounds of names, as the server has them.
const (
	maxName      = 253
	maxNamespace = 63
	maxKind      = 63
)

// nameOf bounds names, since they become parts of subjects and of what is shown. Which letters a name may
// hold is the server's matter.
func nameOf(m *metav1.ObjectMeta) (string, error) {
	name := m.Name
	if name == "" {
		name = m.GenerateName // which the server completes
	}
	if name == "" {
		return "", errors.New("metadata.name is missing")
	}
	if err := checkName("metadata.name", name, maxName); err != nil {
		return "", err
	}
	return name, checkName("metadata.namespace", m.Namespace, maxNamespace)
}

// nodeKind owns the pods that mirror a node's static ones: files there, of which there is no object.
const nodeKind = "Node"

func ownerOf(m *metav1.ObjectMeta) (*Owner, error) {
	c := metav1.GetControllerOfNoCopy(m)
	if c == nil || c.Kind == nodeKind || c.Kind == "" || c.Name == "" {
		return nil, nil
	}
	if err := checkName("metadata.ownerReferences: kind", c.Kind, maxKind); err != nil {
		return nil, err
	}
	return &Owner{Kind: c.Kind, Name: c.Name}, checkName("metadata.ownerReferences: name", c.Name, maxName)
}

func checkName(field, s string, most int) error {
	if len(s) > most {
		return fmt.Errorf("%s: longer than %d bytes", field, most)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '/' }) {
		return fmt.Errorf("%s: %q holds what no name may", field, s)
	}
	return nil
}
