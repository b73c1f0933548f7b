package jwtauth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// A keySet is a JSON Web Key Set (RFC 7517) that lives elsewhere. The keys themselves, and which of them a token
// means, are keyfunc's and jwkset's business; fetching is ours: the libraries' own fetcher has no bound for the
// answer, waits an hour after a failure, and leaves its goroutine behind.
//
//  1. Keys stay in force until a later set has come whole: an outage of the provider refuses nobody.
//  2. A key that a later set does not have any more is not taken from then on.
//  3. A token with a key id that is not known has the set fetched at once, for a provider may have changed its
//     keys; but no sooner than minFetchPause after the last time, however many such tokens come.
//  4. While nobody can tell whether a key exists, a token is not refused for good but put off.
type keySet struct {
	url    *url.URL
	client *http.Client
	log    zerolog.Logger
	store  jwkset.Storage
	lookUp keyfunc.Keyfunc
	wanted chan struct{} // one slot: a fetch is to begin now

	mu      sync.Mutex
	current *fetch              // under way or waited for; nil: none
	begun   time.Time           // when the last one began
	loaded  bool                // a set has come
	ended   bool                // nobody fetches any more
	missing map[string]struct{} // key ids that the last set did not have, some of them
}

// fetch is one attempt. err may be read once done is closed.
type fetch struct {
	done chan struct{}
	err  error
}

const (
	fetchTimeout  = 5 * time.Second
	fetchEvery    = 5 * time.Minute
	minFetchPause = 10 * time.Second
	firstRetry    = time.Second
	maxRetry      = time.Minute
	maxSet        = 256 << 10 // bytes
	maxRedirects  = 3
	maxMissing    = 256
)

// CheckAddress says what is wrong with the address of a service whose answers decide who may do what.
func CheckAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, errors.New("want an address such as https://idp.example.com/path")
	}
	if u.User != nil {
		return nil, errors.New("want an address without user and password")
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, errors.New("want https: whoever can change the answer decides who may do what; http is for the loopback interface only")
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newKeySet(u *url.URL, log zerolog.Logger) *keySet {
	s := &keySet{url: u, log: log.With().Str("jwks", u.Host+u.Path).Logger(), store: jwkset.NewMemoryStorage(), wanted: make(chan struct{}, 1)}
	s.lookUp, _ = keyfunc.New(keyfunc.Options{Storage: s.store}) // fails only without a storage
	s.client = &http.Client{
		Timeout: fetchTimeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: fetchTimeout, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Host != u.Host || req.URL.Scheme != u.Scheme {
				return errors.New("it redirects to another host")
			}
			if len(via) > maxRedirects {
				return errors.New("it redirects too often")
			}
			return nil
		},
	}
	return s
}

// run fetches the set, at intervals and when it is wanted, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry, failing := firstRetry, false
	for {
		select {
		case <-ctx.Done():
			s.giveUp(ctx.Err())
			return
		case <-s.wanted:
			if !s.isWanted() { // the timer was first
				continue
			}
		case <-timer.C:
		}
		s.mu.Lock()
		f := s.start()
		s.mu.Unlock()
		keys, err := s.get(ctx)
		next := fetchEvery
		if err != nil {
			next = retry
			retry = min(2*retry, maxRetry)
			if !failing && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("the key set cannot be fetched: the keys that are known stay in force")
			}
		} else {
			if failing {
				s.log.Info().Msg("the key set can be fetched again")
			}
			retry = firstRetry
		}
		failing = err != nil
		s.finish(f, keys, err)
		timer.Reset(next - time.Duration(rand.Int64N(int64(next)/5))) // nodes need not all come at once
	}
}

// start begins a fetch, or returns the one that somebody waits for already. mu is held.
func (s *keySet) start() *fetch {
	if s.current == nil {
		s.current = &fetch{done: make(chan struct{})}
		s.begun = time.Now()
	}
	return s.current
}

func (s *keySet) finish(f *fetch, keys []jwkset.JWK, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		_ = s.store.KeyReplaceAll(context.Background(), keys) // in memory: cannot fail
		s.loaded, s.missing = true, nil
	}
	f.err, s.current = err, nil
	close(f.done)
}

func (s *keySet) giveUp(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.current != nil {
		s.current.err = err
		close(s.current.done)
		s.current = nil
	}
}

func (s *keySet) isWanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil
}

// want returns a fetch to wait for, or nil if it is too soon for one, and then for how long.
func (s *keySet) want() (*fetch, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		return s.current, 0
	}
	if pause := minFetchPause - time.Since(s.begun); pause > 0 || s.ended {
		return nil, max(pause, firstRetry)
	}
	f := s.start()
	select {
	case s.wanted <- struct{}{}:
	default:
	}
	return f, 0
}

var errUnknownKey = &auth.RefusedError{Message: "the token's key id (kid) is none of the key set's"}

// keysFor returns the keys that a token may have been signed with, waiting for a fetch where that may help.
func (s *keySet) keysFor(ctx context.Context, t *jwt.Token) ([]crypto.PublicKey, error) {
	kid, _ := t.Header[jwkset.HeaderKID].(string)
	if keys, ok := s.find(t); ok {
		return keys, nil
	}
	f, pause := s.want()
	if f == nil {
		if s.isMissing(kid) {
			return nil, errUnknownKey
		}
		return nil, &auth.UnavailableError{Message: "the token's key is not known, and it is too soon to ask for the keys again; try again", RetryAfter: pause}
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, &auth.UnavailableError{Message: "the keys cannot be fetched now; try again", RetryAfter: firstRetry}
	}
	if keys, ok := s.find(t); ok {
		return keys, nil
	}
	if f.err != nil {
		return nil, &auth.UnavailableError{Message: "the keys cannot be fetched now; try again", RetryAfter: 2 * time.Second}
	}
	s.noteMissing(kid)
	return nil, errUnknownKey
}

// find looks among the keys that are known. A token without a key id may be signed with any of them.
func (s *keySet) find(t *jwt.Token) ([]crypto.PublicKey, bool) {
	s.mu.Lock()
	loaded := s.loaded
	s.mu.Unlock()
	if !loaded {
		return nil, false
	}
	key, err := s.lookUp.KeyfuncCtx(context.Background())(t)
	if err != nil {
		return nil, false
	}
	set, ok := key.(jwt.VerificationKeySet)
	if !ok {
		return []crypto.PublicKey{key}, true
	}
	keys := make([]crypto.PublicKey, 0, len(set.Keys))
	for _, k := range set.Keys {
		keys = append(keys, k)
	}
	return keys, true
}

func (s *keySet) isMissing(kid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.missing[kid]
	return ok
}

func (s *keySet) noteMissing(kid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.missing) >= maxMissing {
		return
	}
	if s.missing == nil {
		s.missing = make(map[string]struct{})
	}
	s.missing[kid] = struct{}{}
}

// get fetches the set. Its error holds no more of the address than the log does.
func (s *keySet) get(ctx context.Context) ([]jwkset.JWK, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url.String(), nil)
	if err != nil {
		return nil, errors.New("the address cannot be asked")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		var whole *url.Error
		if errors.As(err, &whole) {
			err = whole.Err
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered with status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxSet {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxSet)
	}
	return parseSet(body)
}

// parseSet reads the keys of a set that tokens may be signed with. Others, such as those for encryption, secrets,
// and what a later standard may bring, are passed over.
func parseSet(body []byte) ([]jwkset.JWK, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("the answer is no JSON Web Key Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, errTooManyKeys
	}
	var keys []jwkset.JWK
	for _, raw := range set.Keys {
		var m jwkset.JWKMarshal
		if json.Unmarshal(raw, &m) != nil || m.USE != "" && m.USE != jwkset.UseSig || m.KTY == jwkset.KtyOct {
			continue
		}
		m.X5U, m.X5C, m.X5T, m.X5TS256 = "", nil, "", "" // only the key counts, and no other address is asked
		k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		for _, alg := range Algorithms {
			if fits(alg, k.Key()) {
				keys = append(keys, k)
				break
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in the set that tokens can be signed with")
	}
	return keys, nil
}
