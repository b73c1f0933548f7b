// Package secret holds values that must never be seen: passwords, keys, tokens. It imports nothing of ours, so
// that every package can take its secrets in this form.
package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A Secret is a value that shows as a placeholder wherever it is printed, logged or encoded. One that is in a
// file follows it: whoever uses the secret asks Value each time and keeps the answer no longer than for the
// purpose at hand. The zero Secret is none. Copies are the same secret. Its methods may be called from any
// goroutine.
type Secret struct {
	// A function, because package fmt prints what is in an unexported field of somebody's struct without asking
	// any method, through pointers too: of a function it prints an address. Nil: none.
	source func() *source
}

// MaxSize is the largest file that is taken for a secret, in bytes: what is larger was not meant.
const MaxSize = 64 << 10

// recheck is how long a value from a file is used before the file is read again.
const recheck = time.Second

const placeholder = "[secret]"

// The errors of a file that holds no secret. They are wrapped with its name.
var (
	ErrEmpty    = errors.New("the file is empty")
	ErrTooLarge = fmt.Errorf("the file is larger than %d bytes", MaxSize)
)

type source struct {
	path   string      // empty: value is all there is
	report func(error) // told of a file that cannot be read, and with nil when it can be again

	mu    sync.Mutex
	value string
	read  time.Time // when the file was last tried
	lost  bool      // the last try failed
}

func keep(s *source) Secret { return Secret{func() *source { return s }} }

// Of returns the secret that value is; none for an empty one.
func Of(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return keep(&source{value: value})
}

// FromFile returns the secret that the file at path holds, without newlines at its end. Errors are the file's,
// ErrEmpty and ErrTooLarge, with the path and without anything of what is in it.
//
// Value reads the file again when it last did a second ago. A file that has gone, is empty or cannot be read by
// then leaves the old value in force: who replaces a file may do so in several steps. That is told to report
// (which may be nil) once, and with nil when there is a value again.
func FromFile(path string, report func(error)) (Secret, error) {
	value, err := readFile(path)
	if err != nil {
		return Secret{}, err
	}
	return keep(&source{path: path, report: report, value: value, read: time.Now()}), nil
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	switch {
	case err != nil:
		return "", err
	case len(b) > MaxSize:
		return "", fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	value := strings.TrimRight(string(b), "\r\n")
	if value == "" {
		return "", fmt.Errorf("%s: %w", path, ErrEmpty)
	}
	return value, nil
}

// Value returns the secret as it is now. It reads a file at most once a second.
func (s Secret) Value() string {
	if s.source == nil {
		return ""
	}
	return s.source().current(time.Now())
}

func (s *source) current(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" || now.Sub(s.read) < recheck {
		return s.value
	}
	s.read = now
	value, err := readFile(s.path)
	if err == nil {
		s.value = value
	}
	if lost := err != nil; lost != s.lost {
		s.lost = lost
		if s.report != nil {
			s.report(err)
		}
	}
	return s.value
}

// IsSet says whether there is a secret at all. A file that had one once still counts.
func (s Secret) IsSet() bool { return s.source != nil }

// String returns the placeholder, or nothing when there is no secret.
func (s Secret) String() string {
	if !s.IsSet() {
		return ""
	}
	return placeholder
}

// Format keeps every verb of package fmt from printing the value.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'q' || verb == 'v' && f.Flag('#') {
		_, _ = fmt.Fprintf(f, "%q", s.String())
		return
	}
	_, _ = io.WriteString(f, s.String())
}

// MarshalText keeps encoders from writing the value.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
