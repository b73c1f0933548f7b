package main

import "strings"

// licence is a licence as it is recognised: by sentences that stand in it, in this order of trying.
type licence struct {
	name    string
	phrases []string
	allowed bool
}

// known are the licences that are recognised. Allowed are those under which a program may be shipped without its
// source and under another licence; MPL-2.0 asks for the source of its own files alone, which are public and which
// we do not change. Others are recognised to be refused by name; what is not recognised is refused as well.
var known = []licence{
	{"AGPL", []string{"gnu affero general public license"}, false},
	{"LGPL", []string{"gnu lesser general public license"}, false},
	{"GPL", []string{"gnu general public license"}, false},
	{"SSPL", []string{"server side public license"}, false},
	{"BUSL", []string{"business source license"}, false},
	{"EPL", []string{"eclipse public license"}, false},
	{"CC-BY-SA", []string{"attribution-sharealike"}, false},
	{"MPL-2.0", []string{"mozilla public license", "version 2.0"}, true},
	{"Apache-2.0", []string{"apache license", "version 2.0"}, true},
	{"BSD-3-Clause", []string{"redistribution and use in source and binary forms", "endorse or promote products"}, true},
	{"BSD-2-Clause", []string{"redistribution and use in source and binary forms", "reproduce the above copyright notice"}, true},
	{"MIT", []string{"permission is hereby granted, free of charge", "the above copyright notice and this permission notice"}, true},
	{"ISC", []string{"permission to use, copy, modify, and/or distribute this software"}, true},
	{"ISC", []string{"permission to use, copy, modify, and distribute this software"}, true},
}

// classify returns the name of the licence with this text. MPL-2.0 names the GNU licences as those that it goes
// together with, so it is looked for by how it begins, after a line or two of copyright.
func classify(text string) (string, error) {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	at := strings.Index(text, "mozilla public license")
	mozilla := at >= 0 && at < 200
	for _, l := range known {
		if mozilla && !l.allowed {
			continue
		}
		if containsAll(text, l.phrases) {
			if !l.allowed {
				return l.name, errRefused
			}
			return l.name, nil
		}
	}
	return "?", errUnknown
}

func containsAll(text string, phrases []string) bool {
	for _, p := range phrases {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
