// Package webhook asks an HTTP service who may do what.
package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/tidewire/tidewire/wsedge/auth"
)

// Config says whom to ask. URL is required; the zero value of any other field means its default.
type Config struct {
	URL     *url.URL
	Token   func() string // sent as bearer token, so that the service knows who asks; nil: none
	Timeout time.Duration // of one question, default 2 s
	Cache   int           // how many answers are kept, default 100000
	Log     zerolog.Logger
}

// Client is an auth.Decider. Any goroutine may use it.
//
//  1. Nothing that is not a whole, well-formed answer with status 200 is a yes.
//  2. An answer is used for no longer than it says, and for nothing but the very same question.
//  3. No more than maxAsking questions are on their way; further ones wait, within their time.
type Client struct {
	cfg  Config
	http *http.Client
	free chan struct{} // a slot for each question on its way

	mu      sync.Mutex
	answers map[[32]byte]answer
	order   [][32]byte // of the answers as they came; next is where the oldest is once it is full
	next    int
	failing bool
}

type answer struct {
	allow bool
	until time.Time
}

const (
	maxAsking  = 64
	maxAnswer  = 4 << 10 // bytes
	usualTTL   = time.Minute
	longestTTL = 24 * time.Hour
	// shortestTTL is how long an answer holds at least: one that held for nothing would have a subscription ask
	// without end.
	shortestTTL = time.Second
)

// New makes a client. Close has to be called in the end.
func New(cfg Config) *Client {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Cache <= 0 {
		cfg.Cache = 100_000
	}
	return &Client{
		cfg: cfg, free: make(chan struct{}, maxAsking), answers: make(map[[32]byte]answer),
		http: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: maxAsking, MaxConnsPerHost: maxAsking, IdleConnTimeout: time.Minute,
				ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10, TLSHandshakeTimeout: cfg.Timeout,
			},
			// What is asked, and the token, are for this service alone.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close gives up the connections. No question may be on its way.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Decide is what auth.Decider asks for.
func (c *Client) Decide(ctx context.Context, q auth.Question) (auth.Decision, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return auth.Decision{}, fmt.Errorf("the question cannot be written: %w", err)
	}
	key := sha256.Sum256(body)
	if !q.Anew {
		if d, ok := c.known(key); ok {
			return d, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	select {
	case c.free <- struct{}{}:
		defer func() { <-c.free }()
	case <-ctx.Done():
		return auth.Decision{}, ctx.Err()
	}
	d, err := c.ask(ctx, body)
	c.report(err)
	if err != nil {
		return auth.Decision{}, err
	}
	c.keep(key, d)
	return d, nil
}

func (c *Client) ask(ctx context.Context, body []byte) (auth.Decision, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.URL.String(), bytes.NewReader(body))
	if err != nil {
		return auth.Decision{}, errors.New("the address cannot be asked")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if c.cfg.Token != nil {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var whole *url.Error // its text has the address, which may hold a secret
		if errors.As(err, &whole) {
			err = whole.Err
		}
		return auth.Decision{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return auth.Decision{}, err
	case resp.StatusCode != http.StatusOK:
		return auth.Decision{}, fmt.Errorf("it answered with status %d", resp.StatusCode)
	case len(text) > maxAnswer:
		return auth.Decision{}, fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	var a struct {
		Allow *bool    `json:"allow"`
		TTL   *float64 `json:"ttl_s"`
	}
	if err := json.Unmarshal(text, &a); err != nil || a.Allow == nil {
		return auth.Decision{}, errors.New(`its answer is not {"allow":true,"ttl_s":60}`)
	}
	d := auth.Decision{Allow: *a.Allow, For: usualTTL}
	if a.TTL != nil {
		d.For = time.Duration(min(max(*a.TTL, shortestTTL.Seconds()), longestTTL.Seconds()) * float64(time.Second))
	}
	return d, nil
}

// known returns an answer that still holds.
func (c *Client) known(key [32]byte) (auth.Decision, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers[key]
	left := time.Until(a.until)
	if !ok || left <= 0 {
		return auth.Decision{}, false
	}
	return auth.Decision{Allow: a.allow, For: left}, true
}

// keep remembers an answer in the place of the oldest.
func (c *Client) keep(key [32]byte, d auth.Decision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.answers[key]; !ok {
		if len(c.order) < c.cfg.Cache {
			c.order = append(c.order, key)
		} else {
			delete(c.answers, c.order[c.next])
			c.order[c.next] = key
			c.next = (c.next + 1) % len(c.order)
		}
	}
	c.answers[key] = answer{d.Allow, time.Now().Add(d.For)}
}

// report logs when the service can no longer be asked, and when it can again.
func (c *Client) report(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch failing := err != nil; {
	case failing == c.failing:
	case failing:
		c.failing = true
		c.cfg.Log.Warn().Err(err).Str("webhook", c.cfg.URL.Host).Msg("the service that decides about rights cannot be asked: the answer is no")
	default:
		c.failing = false
		c.cfg.Log.Info().Str("webhook", c.cfg.URL.Host).Msg("the service that decides about rights can be asked again")
	}
}
