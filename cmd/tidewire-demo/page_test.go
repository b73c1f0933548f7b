package main

import (
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

// Records are data of whoever may write to the topic: the page puts them in as text. And it works where
// there is no Internet.
func TestPageTakesNoMarkupAndNothingFromOutside(t *testing.T) {
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc`)
	outside := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}`)
	err := fs.WalkDir(page, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(page, path)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", "") // a name, not an address
		if m := markup.FindString(text); m != "" {
			t.Errorf("%s uses %s", path, m)
		}
		if m := outside.FindString(text); m != "" {
			t.Errorf("%s refers to %s", path, m)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
