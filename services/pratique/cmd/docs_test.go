package cmd

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Commands in the documentation can be copied: the command line understands each of them.
func TestCommandsInDocs(t *testing.T) {
	page, err := os.ReadFile("../../../docs/subscribing.md")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`'[^']*'|\S+`)
	found := 0
	for line := range strings.Lines(string(page)) {
		command, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    pratique ")
		if !ok {
			continue
		}
		found++
		args := word.FindAllString(command, -1)
		for i, a := range args {
			args[i] = strings.Trim(a, "'")
		}
		var c cli
		parser, err := kong.New(&c, kong.Vars{"state": defaultState})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(args); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	if found < 5 {
		t.Errorf("only %d commands found", found)
	}
}
