package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	const bsd = "Redistribution and use in source and binary forms, with or without modification, are permitted. Redistributions in " +
		"binary form must reproduce the above copyright notice."
	for _, tc := range []struct {
		text, name string
		err        error
	}{
		{"The MIT License\n\nPermission is hereby granted, free of charge, to any\nperson. The above copyright notice and this permission notice shall", "MIT", nil},
		{bsd, "BSD-2-Clause", nil},
		{bsd + " Neither the name may be used to endorse\n or promote products", "BSD-3-Clause", nil},
		{"Apache License\n      Version 2.0, January 2004", "Apache-2.0", nil},
		{"Copyright 2014 Some Body, Inc.\n\nMozilla Public License, version 2.0\n1. Definitions … the GNU General Public License, the GNU Affero General Public License", "MPL-2.0", nil},
		{"GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3", "AGPL", errRefused},
		{"GNU GENERAL PUBLIC LICENSE\nVersion 2" + strings.Repeat(" x", 200) + " Mozilla Public License", "GPL", errRefused},
		{"GNU Lesser General Public License", "LGPL", errRefused},
		{"Business Source License 1.1", "BUSL", errRefused},
		{"Do what you want.", "?", errUnknown},
		{"", "?", errUnknown},
	} {
		if name, err := classify(tc.text); name != tc.name || !errors.Is(err, tc.err) {
			t.Errorf("%.40q is %s, %v, want %s, %v", tc.text, name, err, tc.name, tc.err)
		}
	}
}

// A module without a licence, or with one more that is refused, fails.
func TestFolders(t *testing.T) {
	dir := t.TempDir()
	if _, err := ofFolder(dir); !errors.Is(err, errNoFile) {
		t.Errorf("error %v", err)
	}
	for _, f := range []struct {
		file, text, want string
		err              error
	}{
		{"LICENSE", "Apache License, Version 2.0", "Apache-2.0", nil},
		{"LICENSE.docs", "Attribution-ShareAlike", "Apache-2.0", nil},
		{"COPYING", "GNU General Public License", "GPL, Apache-2.0", errRefused},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.file), []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ofFolder(dir); got != f.want || !errors.Is(err, f.err) {
			t.Errorf("with %s: %s, %v", f.file, got, err)
		}
	}
}
