package kafkaio

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// issuer issues tokens that live for an hour, t1, t2, …, after a while, or fails. It is for use in a bubble.
type issuer struct {
	mu     sync.Mutex
	issued int
	takes  time.Duration
	err    error
}

func (i *issuer) fetch(ctx context.Context) (token, error) {
	i.mu.Lock()
	takes, err := i.takes, i.err
	i.issued++
	n := i.issued
	i.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return token{}, ctx.Err()
	}
	if err != nil {
		return token{}, err
	}
	return token{value: fmt.Sprintf("t%d", n), expiry: time.Now().Add(time.Hour)}, nil
}

func (i *issuer) set(takes time.Duration, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.takes, i.err = takes, err
}

func (i *issuer) asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.issued
}

func TestTokenIsKeptAndRenewedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{takes: 100 * time.Millisecond}
		c := newTokenCache(i.fetch)
		defer c.close()
		want := func(value string, asked int) {
			t.Helper()
			got, err := c.get(t.Context())
			if got != value || err != nil || i.asked() != asked {
				t.Errorf("%q, %v after %d questions, want %q after %d", got, err, i.asked(), value, asked)
			}
		}
		var wg sync.WaitGroup
		for range 20 { // all at once ask once
			wg.Go(func() { want("t1", 1) })
		}
		wg.Wait()
		time.Sleep(39 * time.Minute)
		want("t1", 1)
		time.Sleep(2 * time.Minute)
		want("t2", 2) // before t1 has expired
		// An issuer that hangs or is away costs half a second at most, and then nothing while the old token lasts.
		i.set(time.Hour, nil)
		time.Sleep(41 * time.Minute)
		begun := time.Now()
		want("t2", 3)
		if d := time.Since(begun); d != tokenPatience {
			t.Errorf("waited %v", d)
		}
		time.Sleep(tokenTimeout) // it has given up
		begun = time.Now()
		want("t2", 3) // and has not asked again yet
		if d := time.Since(begun); d != 0 {
			t.Errorf("waited %v", d)
		}
		away := errors.New("away")
		i.set(0, away)
		time.Sleep(maxTokenRetry)
		want("t2", 4)
		time.Sleep(20 * time.Minute)
		if got, err := c.get(t.Context()); got != "" || !errors.Is(err, away) {
			t.Errorf("with an old token that has expired: %q, %v", got, err)
		}
		asked := i.asked()
		if got, err := c.get(t.Context()); got != "" || !errors.Is(err, away) || i.asked() != asked {
			t.Errorf("right after a failure: %q, %v, asked %d times more", got, err, i.asked()-asked)
		}
		i.set(0, nil)
		time.Sleep(maxTokenRetry)
		want(fmt.Sprintf("t%d", asked+1), asked+1)
	})
}

// A token is waited for as long as the caller wants, and close ends the question.
func TestTokenIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{takes: time.Hour}
		c := newTokenCache(i.fetch)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		c.close()
		if _, err := c.get(t.Context()); err == nil {
			t.Error("a token after close")
		}
	})
}

// A token that is no good any more when it arrives is an error, not a loop.
func TestTokenThatHasExpired(t *testing.T) {
	c := newTokenCache(func(context.Context) (token, error) { return token{"t", time.Now()}, nil })
	defer c.close()
	if got, err := c.get(t.Context()); got != "" || !errors.Is(err, errTokenExpired) {
		t.Errorf("%q, %v", got, err)
	}
}
