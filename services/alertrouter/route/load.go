package route

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/dispatch"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/alertmanager/timeinterval"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 4 << 20

// Load reads a configuration file and the templates it names. The error joins everything that is wrong,
// each with its path in the file, as far as the parser gets; it never holds a URL that could be secret.
//
// What Pratique can not do yet is an error where somebody would wait in vain for a message (a receiver
// that a route uses), and a warning where he would get more than he wanted or where nothing uses it: a file
// that an Alertmanager shares stays usable.
func Load(path string) (*Table, error) {
	text, err := read(path)
	if err != nil {
		return nil, err
	}
	c, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", path, Redact(err.Error())) // its text may hold a secret
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t := &Table{
		Receivers: c.Receivers,
		Templates: absolute(dir, c.Templates),
		root:      dispatch.NewRoute(c.Route, nil),
		receivers: map[string]config.Receiver{},
		intervals: timeinterval.NewIntervener(intervals(c)),
	}
	for _, r := range c.Receivers {
		t.receivers[r.Name] = r
	}
	var problems []error
	fail := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(path+": "+format, args...))
	}
	t.warn(c)
	used := usedReceivers(t.root)
	for i, r := range c.Receivers {
		at := fmt.Sprintf("receivers[%d] (%s)", i, r.Name)
		for _, kind := range unsupported(r) {
			if slices.Contains(used, r.Name) {
				fail("%s.%s: Pratique sends to webhook_configs and slack_configs only; let a route use another receiver, or put a webhook in front", at, kind)
			} else {
				t.warnf("%s.%s: ignored, Pratique sends to webhook_configs and slack_configs only", at, kind)
			}
		}
		resolveFiles(dir, r)
		for where, file := range secretFiles(r) {
			if err := readable(file); err != nil {
				fail("%s.%s: %v", at, where, err)
			}
		}
	}
	if _, err := template.FromGlobs(t.Templates); err != nil {
		fail("templates: %v", err)
	}
	slices.SortFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return t, nil
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err // names the file
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("%s: more than %d bytes", path, maxFile)
	}
	return string(b), nil
}

// parse is Alertmanager's own. A file is an operator's, and yet not worth a process.
func parse(text string) (c *config.Config, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("can not be read: %v", p)
		}
	}()
	return config.Load(text)
}

func (t *Table) warnf(format string, args ...any) {
	t.Warnings = append(t.Warnings, fmt.Sprintf(format, args...))
}

// warn tells what is read and not done.
func (t *Table) warn(c *config.Config) {
	if len(c.InhibitRules) > 0 {
		t.warnf("inhibit_rules: ignored, Pratique does not inhibit yet: alerts that they would hold back are sent")
	}
	if !reflect.ValueOf(c.TracingConfig).IsZero() {
		t.warnf("tracing: ignored, see trace in Pratique's own configuration")
	}
	if !reflect.ValueOf(c.EventRecorder).IsZero() {
		t.warnf("event_recorder: ignored")
	}
	for i, r := range c.Receivers {
		for j, s := range r.SlackConfigs {
			if s.UpdateMessage {
				t.warnf("receivers[%d] (%s).slack_configs[%d].update_message: ignored, each notification is a message of its own", i, r.Name, j)
			}
		}
	}
}

func intervals(c *config.Config) map[string][]timeinterval.TimeInterval {
	m := map[string][]timeinterval.TimeInterval{}
	for _, i := range c.MuteTimeIntervals {
		m[i.Name] = i.TimeIntervals
	}
	for _, i := range c.TimeIntervals {
		m[i.Name] = i.TimeIntervals
	}
	return m
}

func usedReceivers(root *dispatch.Route) []string {
	var names []string
	root.Walk(func(r *dispatch.Route) { names = append(names, r.RouteOpts.Receiver) })
	return names
}

// unsupported lists, by their keys, the integrations of a receiver that nobody sends to here.
func unsupported(r config.Receiver) []string {
	var keys []string
	v := reflect.ValueOf(r)
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if f := v.Field(i); f.Kind() == reflect.Slice && f.Len() > 0 && key != "webhook_configs" && key != "slack_configs" {
			keys = append(keys, key)
		}
	}
	return keys
}

func absolute(dir string, files []string) []string {
	all := make([]string, len(files))
	for i, f := range files {
		all[i] = join(dir, f)
	}
	return all
}

func join(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// resolveFiles makes the files that a receiver names relative to the configuration, as Alertmanager does
// for most of them.
func resolveFiles(dir string, r config.Receiver) {
	for _, c := range r.WebhookConfigs {
		c.URLFile = join(dir, c.URLFile)
		c.HTTPConfig.SetDirectory(dir)
	}
	for _, c := range r.SlackConfigs {
		c.APIURLFile = join(dir, c.APIURLFile)
		c.HTTPConfig.SetDirectory(dir)
	}
}

func secretFiles(r config.Receiver) map[string]string {
	files := map[string]string{}
	add := func(at, file string) {
		if file != "" {
			files[at] = file
		}
	}
	for i, c := range r.WebhookConfigs {
		at := fmt.Sprintf("webhook_configs[%d]", i)
		add(at+".url_file", c.URLFile)
		if a := c.HTTPConfig.Authorization; a != nil {
			add(at+".http_config.authorization.credentials_file", a.CredentialsFile)
		}
		if a := c.HTTPConfig.BasicAuth; a != nil {
			add(at+".http_config.basic_auth.password_file", a.PasswordFile)
		}
	}
	for i, c := range r.SlackConfigs {
		at := fmt.Sprintf("slack_configs[%d]", i)
		add(at+".api_url_file", c.APIURLFile)
		if a := c.HTTPConfig.Authorization; a != nil {
			add(at+".http_config.authorization.credentials_file", a.CredentialsFile)
		}
		if a := c.HTTPConfig.BasicAuth; a != nil {
			add(at+".http_config.basic_auth.password_file", a.PasswordFile)
		}
	}
	return files
}

func readable(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	return f.Close()
}

var (
	urls = regexp.MustCompile(`(?i)(https?:/?/?)[^\s"'` + "`" + `<>]+`)
	// noURLs are what net/url could not read, as its errors quote it.
	noURLs = regexp.MustCompile(`(parse )"(?:[^"\\]|\\.)*"`)
)

// Redact takes URLs out of a text, and what should have been one: they are where webhooks keep their secrets.
func Redact(s string) string {
	return urls.ReplaceAllString(noURLs.ReplaceAllString(s, "$1<redacted>"), "${1}<redacted>")
}
