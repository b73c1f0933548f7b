// Command licences lists the modules that this repository's packages and tests are made of, each with its licence and
// whether it is part of the programs, and fails when one of them is unknown to it or is none that we may ship.
//
//	go run ./cmd/internal/licences
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// programs are what is built and given to others.
var programs = []string{"./cmd/tidewire", "./cmd/tidectl", "./cmd/tidewire-demo", "./cmd/tidewire-faults", "./cmd/tidewire-abuse"}

// module is a module that something is built from.
type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *module
}

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(w io.Writer) error {
	shipped, err := modules(programs...)
	if err != nil {
		return err
	}
	all, err := modules("-test", "./...")
	if err != nil {
		return err
	}
	for path, m := range shipped {
		all[path] = m
	}
	var paths []string
	for path := range all {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "MODULE\tVERSION\tLICENCE\tIN")
	var errs []error
	for _, path := range paths {
		m := all[path]
		name, err := ofFolder(m.Dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", m.Path, m.Version, err))
		}
		in := "tests"
		if _, ok := shipped[path]; ok {
			in = "programs"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", m.Path, m.Version, name, in)
	}
	return errors.Join(t.Flush(), errors.Join(errs...))
}

// modules returns the modules of the packages that go list finds with args, without our own, by path.
func modules(args ...string) (map[string]module, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=Module"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	found := map[string]module{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *module }
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("go list: %w", err)
		}
		if m := p.Module; m != nil && !m.Main { // nil: of the standard library
			if m.Replace != nil {
				m.Dir = m.Replace.Dir
			}
			found[m.Path] = *m
		}
	}
}

var (
	errNoFile  = errors.New("there is no file with its licence")
	errUnknown = errors.New("its licence is none that this program knows")
	errRefused = errors.New("its licence demands more of who ships it than ours allows")
)

// ofFolder returns the licences of the module in dir: of each licence file at its root, but that of its documentation. Modules that lie below
// another of their repository have theirs too, as the module proxy adds the repository's.
func ofFolder(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "?", err
	}
	var names []string
	var errs []error
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		if e.IsDir() || strings.HasSuffix(upper, ".DOCS") || !strings.HasPrefix(upper, "LICENSE") && !strings.HasPrefix(upper, "LICENCE") && !strings.HasPrefix(upper, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "?", err
		}
		name, err := classify(string(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name(), err))
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "?", errNoFile
	}
	return strings.Join(names, ", "), errors.Join(errs...)
}
