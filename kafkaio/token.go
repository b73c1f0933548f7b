package kafkaio

import (
	"context"
	"errors"
	"sync"
	"time"
)

// token is a bearer token.
type token struct {
	value  string
	expiry time.Time
}

// tokenCache keeps a token until shortly before it expires, and gets the next one ahead of that: all connections
// to Kafka share it, and an issuer that is away for a while costs nobody a connection.
//
// One question at a time is under way, in a goroutine of its own, which close waits for.
type tokenCache struct {
	fetch func(context.Context) (token, error)

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	token   token
	since   time.Time // when token was got
	flight  *flightOfToken
	fails   int
	lastErr error
	retryAt time.Time
}

// flightOfToken is a question that is under way.
type flightOfToken struct {
	done  chan struct{} // closed at its end; then the rest is set
	token token
	err   error
}

const (
	// tokenTimeout bounds one question for a token.
	tokenTimeout = 10 * time.Second
	// tokenPatience is how long somebody waits for a new token who could go on with the old one.
	tokenPatience = 500 * time.Millisecond
	// tokenRetry is the pause after a question that failed; it doubles up to maxTokenRetry.
	tokenRetry    = time.Second
	maxTokenRetry = 10 * time.Second
	// minTokenLife is what is left of a token at least when it is worth to be used.
	minTokenLife = time.Second
)

var errTokenExpired = errors.New("the token that was issued has expired already")

func newTokenCache(fetch func(context.Context) (token, error)) *tokenCache {
	c := &tokenCache{fetch: fetch}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// get returns a token that has not expired. It waits for one until ctx ends.
func (c *tokenCache) get(ctx context.Context) (string, error) {
	now := time.Now()
	c.mu.Lock()
	life := c.token.expiry.Sub(c.since)
	usable := c.token.expiry.Sub(now) > minTokenLife
	if usable && now.Sub(c.since) < life*2/3 {
		defer c.mu.Unlock()
		return c.token.value, nil
	}
	old := c.token.value
	if c.flight == nil && now.Before(c.retryAt) {
		defer c.mu.Unlock()
		if usable {
			return old, nil
		}
		return "", c.lastErr
	}
	f := c.ask()
	c.mu.Unlock()

	patience := ctx
	if usable {
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeout(ctx, tokenPatience)
		defer cancel()
	}
	select {
	case <-f.done:
		if f.err != nil && usable {
			return old, nil
		}
		return f.token.value, f.err
	case <-patience.Done():
		if usable && ctx.Err() == nil {
			return old, nil
		}
		return "", ctx.Err()
	}
}

// ask returns the question that is under way, a new one if there is none. The mutex is held.
func (c *tokenCache) ask() *flightOfToken {
	if c.flight != nil {
		return c.flight
	}
	f := &flightOfToken{done: make(chan struct{})}
	c.flight = f
	if c.ctx.Err() != nil {
		f.err = ErrClosed
		close(f.done)
		return f
	}
	c.wg.Go(func() {
		defer close(f.done)
		ctx, cancel := context.WithTimeout(c.ctx, tokenTimeout)
		defer cancel()
		begun := time.Now()
		f.token, f.err = c.fetch(ctx)
		now := time.Now()
		if f.err == nil && f.token.expiry.Sub(now) <= minTokenLife {
			f.token, f.err = token{}, errTokenExpired
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.flight = nil
		if f.err != nil {
			c.lastErr = f.err
			c.retryAt = now.Add(min(tokenRetry<<min(c.fails, 10), maxTokenRetry))
			c.fails++
			return
		}
		c.token, c.since, c.fails, c.retryAt = f.token, begun, 0, time.Time{}
	})
	return f
}

// close ends the question that is under way.
func (c *tokenCache) close() {
	c.mu.Lock()
	c.cancel() // under the mutex: ask starts nothing afterwards
	c.mu.Unlock()
	c.wg.Wait()
}
