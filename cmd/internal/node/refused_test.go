package node

import (
	"fmt"
	"strings"
	"testing"
)

// refused is an environment that stops the start, and what the line holds that says so.
type refused struct {
	set   map[string]string // names without what they begin with
	parts []string
}

// allRefused tries environments, of variables whose names begin with prefix, each in a test of its own. secret is in none
// of the lines; empty: there is none.
func allRefused(t *testing.T, prefix, secret string, all []refused) {
	t.Helper()
	for _, r := range all {
		t.Run(fmt.Sprint(r.set), func(t *testing.T) {
			set := map[string]string{"TIDEWIRE_NODE_ID": "n1"}
			for name, value := range r.set {
				set[prefix+name] = value
			}
			setEnv(t, set)
			_, err := FromEnv()
			if err == nil {
				t.Fatal("accepted")
			}
			for _, part := range r.parts {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "\n") || secret != "" && strings.Contains(err.Error(), secret) {
				t.Errorf("more than one line, or a secret: %q", err)
			}
		})
	}
}
