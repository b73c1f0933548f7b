package tidewire

import (
	"context"
	"fmt"
	"time"
)

// VectorStore keeps vectors between processes. Its methods are called by Subscribe, Next and Close, by one
// goroutine at a time for each key.
type VectorStore interface {
	// Load returns the vector that was saved last; nil if there is none.
	Load(ctx context.Context, key string) (Vector, error)
	// Save keeps a vector in the place of the one before it. It may keep it as JSON.
	Save(ctx context.Context, key string, v Vector) error
}

// saveEvery is how often Next stores a vector while records come one after the other; when there are none
// it stores at once.
const saveEvery = time.Second

// keeping is what a subscription knows of its store, guarded by Client.mu.
type keeping struct {
	due    bool // the vector has moved since it was stored
	failed bool // the last attempt; the next one is not made at once
	last   time.Time
}

func (s *Subscription) key() string {
	if s.opts.StoreKey != "" {
		return s.opts.StoreKey
	}
	return s.subject
}

func (s *Subscription) load(ctx context.Context) (Vector, error) {
	v, err := s.opts.Store.Load(ctx, s.key())
	if err == nil && v != nil {
		v, err = checkVector(v)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: load %q: %w", ErrStore, s.key(), err)
	}
	return v, nil
}

// storeNow stores what the application has got and, as it asks for more, dealt with.
func (s *Subscription) storeNow(ctx context.Context) error {
	if s.opts.Store == nil {
		return nil
	}
	s.c.mu.Lock()
	due := s.keep.due && (s.waiting() == 0 && !s.keep.failed || time.Since(s.keep.last) >= saveEvery)
	s.c.mu.Unlock()
	if !due {
		return nil
	}
	return s.save(ctx)
}

// storeAtEnd stores what is due, for no longer than a few seconds.
func (s *Subscription) storeAtEnd() error {
	s.c.mu.Lock()
	due := s.keep.due && s.opts.Store != nil
	s.c.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.save(ctx)
}

func (s *Subscription) save(ctx context.Context) error {
	v := s.Vector()
	s.c.mu.Lock()
	s.keep = keeping{last: time.Now()}
	s.c.mu.Unlock()
	if v == nil {
		return nil
	}
	if err := s.opts.Store.Save(ctx, s.key(), v); err != nil {
		s.c.mu.Lock()
		s.keep.due, s.keep.failed = true, true
		s.c.mu.Unlock()
		return fmt.Errorf("%w: save %q: %w", ErrStore, s.key(), err)
	}
	return nil
}
