package replication

import (
	"runtime"

	"github.com/hashicorp/raft"
)

// stableStore keeps term and vote. The library panics when it cannot save the term; to be taken down by
// a full disk without a word of what to do is not our way. So the failure is reported, which ends the
// process in order, and the goroutine that needed the term saved ends here: it must not go on with a term
// that is not on disk.
type stableStore struct {
	raft.StableStore
	failed func(error)
}

// keyCurrentTerm is the key whose failure the library does not survive.
const keyCurrentTerm = "CurrentTerm"

func (s stableStore) SetUint64(key []byte, v uint64) error {
	err := s.StableStore.SetUint64(key, v)
	if err != nil {
		s.failed(err)
		if string(key) == keyCurrentTerm {
			runtime.Goexit()
		}
	}
	return err
}
