package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string // to the standard output and error together
	}{
		"a list":           {[]string{"-list", "-attack", "pings|half-open"}, exitOK, "pings"},
		"help":             {[]string{"-h"}, exitOK, "-attack expression"},
		"no such flag":     {[]string{"-what"}, exitUsage, "-what"},
		"an argument":      {[]string{"pings"}, exitUsage, "no arguments are taken"},
		"no such attack":   {[]string{"-attack", "nothing", "-tidewire", "main.go"}, exitUsage, `no attack matches "nothing"`},
		"half a pattern":   {[]string{"-attack", "("}, exitUsage, "missing closing"},
		"no such program":  {[]string{"-tidewire", "nowhere/tidewire"}, exitUsage, "nowhere/tidewire"},
		"a short attack":   {[]string{"-for", "1s", "-tidewire", "main.go"}, exitUsage, "take 3s at least"},
		"too little to do": {[]string{"-clients", "10", "-tidewire", "main.go"}, exitUsage, "10 honest clients"},
		"an attacker":      {[]string{"attacker", "{"}, exitFailed, "target"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), c.args, &out, &errs)
		if said := out.String() + errs.String(); code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit code %d: %s", name, code, said)
		}
	}
}
