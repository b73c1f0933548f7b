package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A secret is not printed, whichever way somebody prints what holds it, exported field or not.
func TestSecretStaysSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	write(t, file, "hidden\n")
	inFile, err := FromFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Secret{Of("hidden"), inFile} {
		type holder struct {
			Seen   Secret
			unseen Secret
			m      map[string]Secret
		}
		h := holder{s, s, map[string]Secret{"k": s}}
		j, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		out := string(j)
		for _, v := range []any{s, &s, h, &h, h.unseen, h.m, []Secret{s}} {
			out += fmt.Sprintf("%v %+v %#v %s %q %x %X %d", v, v, v, v, v, v, v, v)
		}
		for _, seen := range []string{"hidden", "68696464656e", "68696464656E"} {
			if strings.Contains(out, seen) {
				t.Errorf("printed: %s", out)
			}
		}
		if !strings.Contains(out, placeholder) || s.Value() != "hidden" || !s.IsSet() {
			t.Errorf("%q, printed %s", s.Value(), out)
		}
	}
	if none := Of(""); none.IsSet() || none.String() != "" || none.Value() != "" {
		t.Error("no secret should show as nothing")
	}
}

// A file's secret follows it, and survives whatever happens to the file meanwhile.
func TestSecretFollowsItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s")
	write(t, file, "first\r\n\n")
	var told []error
	s, err := FromFile(file, func(err error) { told = append(told, err) })
	if err != nil {
		t.Fatal(err)
	}
	now := s.source().read
	at := func(after time.Duration, want string) {
		t.Helper()
		if got := s.source().current(now.Add(after)); got != want {
			t.Errorf("after %v: %q, want %q", after, got, want)
		}
	}
	at(0, "first")
	write(t, file, "second")
	at(recheck/2, "first") // not read again yet
	at(2*recheck, "second")
	if len(told) != 0 {
		t.Errorf("told %v", told)
	}
	write(t, file, "\n")
	at(4*recheck, "second")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	at(6*recheck, "second")
	write(t, file, strings.Repeat("x", MaxSize+1))
	at(8*recheck, "second")
	if len(told) != 1 || !errors.Is(told[0], ErrEmpty) {
		t.Errorf("told %v, want the empty file, once", told)
	}
	write(t, file, " third ")
	at(10*recheck, " third ")
	if len(told) != 2 || told[1] != nil {
		t.Errorf("told %v, want that it is there again", told)
	}
}

func TestFilesWithoutASecret(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string]struct {
		content string
		err     error
	}{
		"empty": {"\n", ErrEmpty},
		"large": {"hidden" + strings.Repeat("x", MaxSize), ErrTooLarge},
		"full":  {"hidden" + strings.Repeat("x", MaxSize-6), nil},
	} {
		file := filepath.Join(dir, name)
		write(t, file, want.content)
		if _, err := FromFile(file, nil); !errors.Is(err, want.err) {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && (!strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "hidden")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := FromFile(filepath.Join(dir, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := FromFile(dir, nil); err == nil {
		t.Error("a folder was read")
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
