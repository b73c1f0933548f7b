package node

import (
	"os"
	"reflect"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/internal/secret"
)

// A variable that is tagged secret:"true" may be given as itself or, with this at the end of its name, as a file
// that holds it: what is in the environment can be seen by whoever may look at the process, and cannot change
// while it runs.
const fileSuffix = "_FILE"

// mask stands for a secret wherever one would be printed.
const mask = "********"

// secrets are the values of the secret variables, by the name without _FILE.
type secrets struct {
	by  map[string]secret.Secret
	log *atomic.Pointer[zerolog.Logger] // nil inside until there is a logger
}

// readSecrets reads the secret variables and their files, so that a wrong path stops the start with the
// variable's name.
func (e *env) readSecrets(p *problems) {
	e.secrets = secrets{by: map[string]secret.Secret{}, log: new(atomic.Pointer[zerolog.Logger])}
	for _, f := range fields() {
		if !f.secret {
			continue
		}
		value, name := reflect.ValueOf(e).Elem().Field(f.index).String(), f.Name+fileSuffix
		path := os.Getenv(name)
		switch {
		case path == "":
			e.secrets.by[f.Name] = secret.Of(value)
			continue
		case value != "":
			p.add(name, path, "%s is given too: want one of them", f.Name)
		}
		s, err := secret.FromFile(path, e.secrets.report(name))
		if err != nil {
			p.add(name, path, "want a file that holds the secret: %v", err)
		}
		e.secrets.by[f.Name] = s
	}
}

// report returns what a secret tells of its file.
func (s *secrets) report(name string) func(error) {
	return func(err error) {
		log := s.log.Load()
		switch {
		case log == nil: // still starting: the file has just been read
		case err != nil:
			log.Warn().Err(err).Str("variable", name).Msg("the secret's file cannot be read again: the value that it had stays in force")
		default:
			log.Info().Str("variable", name).Msg("the secret's file can be read again")
		}
	}
}

// secret returns the value of a secret variable, by its name without _FILE.
func (e *env) secret(name string) secret.Secret { return e.secrets.by[name] }
