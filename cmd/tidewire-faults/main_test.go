package main

import (
	"bytes"
	"strings"
	"testing"
)

// -list has each scenario's name beside its family, in columns, however long the name.
func TestList(t *testing.T) {
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-list", "-scenario", "kill-five|more-partitions-kill|calm"}, &out, &errs); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), &out)
	}
	for i, want := range [][3]string{{"Nodes", "kill-five", "5"}, {"Kafka", "more-partitions-kill", "3"}, {"Speed", "calm", "3"}} {
		f := strings.Fields(lines[i])
		if [3]string(f[:3]) != want || strings.Index(lines[i], " nodes") != strings.Index(lines[0], " nodes") {
			t.Errorf("line %d is not %v, or not in columns:\n%s", i, want, &out)
		}
	}
}
